//! A server that is killed again and again: nothing that was answered is lost, and nothing is left over.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

#[expect(dead_code, reason = "each test program uses its own part")]
#[path = "../support/mod.rs"]
mod support;

mod collector;
mod pushes;
