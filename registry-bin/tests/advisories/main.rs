//! Advisories about other registries, each refuted by a test that has its identifier in its name.
//!
//! Some are beside the code that they are about: the checks of tokens and groups (CVE-2025-24976, CVE-2025-23208,
//! GHSA-qg67-7m6v-qg25) in `registry-http/tests/http/tokens.rs` and `registry-core/src/policy/tests.rs`, where keys come from
//! (CVE-2026-2376) in `tests/access/key_sets.rs`, and the secrets of logs, metrics and traces (CVE-2025-48374) also in
//! `tests/operations`. Clients that fall silent are in `registry-http/tests/http/silence.rs`, and content that is packed and never
//! unpacked here in `registry-http/tests/http/protocol.rs`.
//!
//! Those about registries that fetch from others (CVE-2026-33540, CVE-2025-4374, GHSA-qvqc-4c52-x6qp) say nothing of one that does
//! not fetch.

#[expect(dead_code, reason = "each test program uses its own part")]
#[path = "../support/mod.rs"]
mod support;

mod content;
mod rights;
mod secrets;
