//! A disk: its records and bytes, what a loss of power, an error or silence of any call does, and who may read it.

#![expect(clippy::unwrap_used, reason = "test code")]

mod filesystem_bytes;
#[cfg(all(feature = "filesystem", unix))]
mod filesystem_faults;
#[cfg(all(feature = "filesystem", unix))]
mod filesystem_records;
#[cfg(all(feature = "filesystem", unix))]
mod hanging_disk;
mod intercepted;
#[cfg(feature = "filesystem")]
mod power_loss;
#[cfg(all(feature = "filesystem", unix))]
mod rights;
mod scrub_disk;
#[expect(dead_code, reason = "each test program uses its own part")]
#[path = "../support/mod.rs"]
mod support;
