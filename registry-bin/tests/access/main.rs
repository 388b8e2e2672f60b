//! Who may do what, as those see it who run the server and those who use it.

#[expect(dead_code, reason = "each test program uses its own part")]
#[path = "../support/mod.rs"]
mod support;

mod careless_edits;
mod commands;
mod key_sets;
mod live;
mod tags;
mod token_server;
