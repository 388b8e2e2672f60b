//! Trees of the distribution registry: adopted whole, in part where something is broken, after a crash, again after
//! changes; and written.
#![cfg(feature = "filesystem")]
#![expect(clippy::unwrap_used, reason = "test code")]

mod adoption;
#[cfg(all(feature = "azure", feature = "s3"))]
mod azurite_tree;
#[cfg(feature = "s3")]
mod bucket;
#[cfg(feature = "s3")]
mod bucket_exports;
#[cfg(feature = "s3")]
mod bucket_updates;
#[cfg(feature = "s3")]
mod bucket_updates_at_once;
mod crashes;
mod defects;
mod exports;
mod fixture;
#[cfg(feature = "s3")]
mod in_bucket;
#[cfg(all(feature = "azure", feature = "s3"))]
mod in_container;
mod round_trip;
#[cfg(feature = "s3")]
mod served;
#[cfg(all(feature = "azure", feature = "s3"))]
#[expect(dead_code, unused_macros, reason = "each test program uses its own part")]
#[path = "../support/stores.rs"]
mod stores;
#[expect(dead_code, reason = "each test program uses its own part")]
#[path = "../support/mod.rs"]
mod support;
mod updates;
