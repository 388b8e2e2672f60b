//! The conformance kits on every backend and storage, and the backend that fails on request.

#![expect(clippy::unwrap_used, reason = "test code")]

#[path = "../support/any_s3.rs"]
mod any_s3;
#[cfg(feature = "azure")]
#[path = "../support/azurite.rs"]
mod azurite;
mod backends;
mod faulty;
#[path = "../support/versitygw.rs"]
mod gateway;
#[path = "../../examples/backend/maps.rs"]
mod maps;
mod storages;
