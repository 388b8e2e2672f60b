//! Advisories about other registries, each refuted by a test that has its identifier in its name.
//!
//! Those about the checks of tokens and groups are beside that code: `registry-http/tests/http/tokens.rs` and
//! `registry-core/src/policy/tests.rs`. The tests of silence of clients are in `registry-http/tests/http/silence.rs`.

#[expect(dead_code, reason = "each test program uses its own part")]
#[path = "../support/mod.rs"]
mod support;

mod content;
mod rights;
mod secrets;
