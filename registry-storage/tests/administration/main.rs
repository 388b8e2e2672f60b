//! What operators look at, limit and move: usage, quotas, pulls, copies, backups, layouts, secrets.

#![expect(clippy::unwrap_used, reason = "test code")]

#[macro_use]
#[path = "../support/backends.rs"]
mod backends;

mod backup;
mod copy;
mod layout;
mod pulls;
mod quota_counter;
mod quotas;
mod secrets;
#[expect(dead_code, reason = "each test program uses its own part")]
#[path = "../support/mod.rs"]
mod support;
mod usage;
