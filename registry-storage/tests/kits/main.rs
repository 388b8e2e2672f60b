//! The conformance kits on every backend and storage, and the backend that fails on request.

#![expect(clippy::unwrap_used, reason = "test code")]

#[expect(dead_code, reason = "the probe refuses some")]
#[macro_use]
#[path = "../support/stores.rs"]
mod stores;

#[path = "../support/any_s3.rs"]
mod any_s3;
mod backends;
mod faulty;
#[path = "../../examples/backend/maps.rs"]
mod maps;
mod storages;
