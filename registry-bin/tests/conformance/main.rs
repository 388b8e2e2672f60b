//! The project's own conformance tests: what distribution-spec asks of a registry that a client can see, and the corner
//! cases in which registries are known to fail. One test per behaviour, over real sockets, on every storage.
//!
//! Each storage has one server for all tests; each test has repositories of its own.

#[expect(dead_code, reason = "each test program uses its own part")]
#[path = "../support/mod.rs"]
mod support;

mod backend;
mod blobs;
mod chunks;
mod deletes;
mod discovery;
mod images;
mod manifest_checks;
mod manifests;
mod mounts;
mod names;
mod ranges;
mod referrers;
mod sessions;
mod tags;
mod uploads;
mod wire;
