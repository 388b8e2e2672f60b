//! What goes and what stays: collectors, sweepers, policies and deletes, what is kept of those, and what finds and repairs damage.

#![expect(clippy::unwrap_used, reason = "test code")]

#[macro_use]
#[path = "../support/backends.rs"]
mod backends;

mod check;
mod check_live;
mod collect;
mod delete_repository;
mod empty_repositories;
mod healing;
mod immutable;
mod kept;
mod retention;
mod scrub;
#[path = "../support/mod.rs"]
mod support;
mod sweep;
mod undelete;
mod years;
