//! Storage for an OCI container registry: one protocol on memory, a disk and a bucket.
//!
//! [`Store`] implements [`Storage`](registry_core::Storage) over any [`Backend`]. A backend keeps *records*, small
//! values with a compare-and-swap, and *bytes*, immutable once finished, under names that are never reused.
#![forbid(unsafe_code)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod backend;
mod bytes_name;
pub mod chain;
mod clock;
#[cfg(all(feature = "filesystem", unix))]
pub mod distribution;
#[cfg(all(feature = "filesystem", unix))]
pub mod filesystem;
mod key;
mod key_kind;
#[cfg(all(feature = "layout", unix))]
pub mod layout;
mod maintenance;
pub mod object_store;
mod observer;
#[cfg(feature = "outbox")]
pub mod outbox;
mod record;
#[cfg(any(feature = "outbox", all(feature = "filesystem", unix)))]
mod sqlite_head;
mod store;
mod sweeper;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(all(feature = "filesystem", unix))]
pub use crate::backend::NotOnDisk;
pub use crate::backend::{Backend, Space, WriteState};
pub use crate::bytes_name::BytesName;
pub use crate::clock::{Clock, SystemClock};
pub use crate::key::Key;
pub use crate::maintenance::Maintenance;
#[cfg(feature = "gcs")]
pub use crate::object_store::GcsCredentials;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
pub use crate::object_store::LocationError;
pub use crate::object_store::ObjectStoreBackend;
#[cfg(feature = "azure")]
pub use crate::object_store::{AzureCredentials, AzureOptions};
#[cfg(feature = "s3")]
pub use crate::object_store::{S3Encryption, S3Options};
pub use crate::observer::{Finding, Observer, Step};
pub use crate::store::{Contents, Store, StoreOptions, SweepReport, check};
pub use crate::sweeper::Sweeper;
