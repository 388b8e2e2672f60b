//! Storage for an OCI container registry: one protocol on memory, a disk and a bucket.
//!
//! [`Store`] implements [`Storage`](registry_core::Storage) over any [`Backend`]. A backend keeps *records*, small
//! values with a compare-and-swap, and *bytes*, immutable once finished, under names that are never reused.
//!
//! # A push and a pull
//! A client and a registry in memory, with plain calls instead of HTTP between them. What crosses `send` is what would be on
//! the wire, so the client's part is the same with any transport and any registry.
//!
//! ```
//! use bytes::Bytes;
//! use futures_util::TryStreamExt as _;
//! use registry_core::registry::Options;
//! use registry_core::request::{AcceptedManifests, Request, RequestParts};
//! use registry_core::response::{ReceivedResponse, ResponseBody};
//! use registry_core::{Algorithm, Digest, MediaType, Principal, Reference, Registry, RepositoryName};
//! use registry_storage::{ObjectStoreBackend, Store};
//!
//! type Wire = (u16, Vec<(&'static str, String)>, Vec<u8>);
//!
//! async fn send(
//!     registry: &Registry<Store<ObjectStoreBackend>>,
//!     sent: RequestParts,
//!     body: &'static [u8],
//! ) -> Result<Wire, registry_core::Error> {
//!     let request = Request::parse(sent.method, &sent.target, sent.fields.as_slice())?;
//!     let mut body = ResponseBody::Bytes(Bytes::from_static(body)).into_stream();
//!     let response = registry.handle(&Principal::anonymous(), request, body.as_mut()).await;
//!     let body: Vec<Bytes> = response.body.into_stream().try_collect().await?;
//!     Ok((response.status, response.fields, body.concat()))
//! }
//!
//! fn received(wire: &Wire) -> ReceivedResponse<'_, &[(&'static str, String)]> {
//!     ReceivedResponse::new(wire.0, wire.1.as_slice(), &wire.2)
//! }
//!
//! # async fn push_and_pull() -> Result<(), Box<dyn std::error::Error>> {
//! let storage = Store::new(ObjectStoreBackend::memory());
//! let registry = Registry::new(storage.into(), Options::default());
//! let repository: RepositoryName = "library/app".parse()?;
//! let (blob, manifest) = (b"{}", br#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.empty.v1+json",
//!     "digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#);
//! let blob_digest = Digest::of(Algorithm::Sha256, blob);
//! let manifest_digest = Digest::of(Algorithm::Sha256, manifest);
//!
//! let start = Request::StartUpload { repository: repository.clone(), algorithm: None };
//! let session = received(&send(&registry, start.build(), b"").await?).upload_started()?;
//! let finish = session.finish(&blob_digest, Some(blob.len() as u64));
//! received(&send(&registry, finish, blob).await?).blob_created(&blob_digest)?;
//!
//! let put = Request::PutManifest {
//!     repository: repository.clone(),
//!     reference: Reference::Tag("1".parse()?),
//!     tags: vec![],
//!     media_type: Some(MediaType::OCI_MANIFEST.parse()?),
//!     length: Some(manifest.len() as u64),
//!     if_match: None,
//!     if_none_match: None,
//! };
//! let created = received(&send(&registry, put.build(), manifest).await?).manifest_created(&manifest_digest)?;
//! assert_eq!(created.digest, manifest_digest);
//!
//! let reference = Reference::Tag("1".parse()?);
//! let get = Request::GetManifest {
//!     repository,
//!     reference: reference.clone(),
//!     accepted: AcceptedManifests::Any,
//!     if_none_match: None,
//!     namespace: None,
//! };
//! let wire = send(&registry, get.build(), b"").await?;
//! let pulled = received(&wire).manifest(&reference)?;
//! assert_eq!(pulled.verify(&wire.2)?, manifest_digest);
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(push_and_pull()).unwrap();
//! ```
#![forbid(unsafe_code)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod backend;
mod background;
mod bytes_name;
pub mod chain;
mod clock;
mod collector;
pub mod copy;
#[cfg(all(feature = "filesystem", unix))]
pub mod distribution;
#[cfg(all(feature = "filesystem", unix))]
pub mod filesystem;
mod key;
mod key_kind;
#[cfg(all(feature = "layout", unix))]
pub mod layout;
mod maintenance;
mod memory_permit;
pub mod object_store;
mod observer;
#[cfg(feature = "outbox")]
pub mod outbox;
mod pages;
mod pull_recorder;
mod quotas;
mod recall;
mod record;
mod scrubber;
mod secret;
mod seen_bytes;
#[cfg(any(feature = "outbox", all(feature = "filesystem", unix)))]
mod sqlite_head;
mod store;
mod sweeper;
#[cfg(feature = "testing")]
pub mod testing;
mod unique;

#[cfg(all(feature = "filesystem", unix))]
pub use crate::backend::NotOnDisk;
pub use crate::backend::{Backend, Space, WriteState};
pub use crate::bytes_name::BytesName;
pub use crate::clock::{Clock, SystemClock};
pub use crate::collector::Collector;
pub use crate::key::Key;
pub use crate::maintenance::Maintenance;
#[cfg(feature = "gcs")]
pub use crate::object_store::GcsCredentials;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
pub use crate::object_store::LocationError;
#[cfg(feature = "azure")]
pub use crate::object_store::{AzureCredentials, AzureOptions};
pub use crate::object_store::{
    ObjectStoreBackend, PartSize, PartSizeError, ProbeError, Promise, WriterError,
};
#[cfg(feature = "s3")]
pub use crate::object_store::{S3Encryption, S3Options};
pub use crate::observer::{Finding, MaintenanceObserver, Step};
pub use crate::pull_recorder::PullRecorder;
pub use crate::quotas::{QuotaAdmission, QuotaCounter};
pub use crate::scrubber::Scrubber;
pub use crate::secret::{Secret, SecretName};
pub use crate::store::{
    BlobCount, CollectOptions, CollectReport, Contents, CountedPage, CountedRepository,
    DeleteRepositoryOptions, DeletedCount, LargestRepositories, NotedPulls, QuotaUsage, RepositoryUsage,
    RetainOptions, RetainReport, ScrubCounts, ScrubOptions, ScrubReport, Store, StoreOptions, SweepOptions,
    SweepReport, check,
};
pub use crate::sweeper::Sweeper;
