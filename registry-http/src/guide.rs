//! How to build a registry, or a part of one, from these crates.
//!
//! 1. [Which crate, which features](#which-crate-which-features)
//! 2. [A durable registry](#a-durable-registry)
//! 3. [What runs beside the requests, and how it ends](#what-runs-beside-the-requests-and-how-it-ends)
//! 4. [Who a client is, and what it may do](#who-a-client-is-and-what-it-may-do)
//! 5. [Quotas, maximum sizes, and modes](#quotas-maximum-sizes-and-modes)
//! 6. [Acting for other registries](#acting-for-other-registries)
//! 7. [Who pushed what: observers and events](#who-pushed-what-observers-and-events)
//! 8. [Below a path, behind a proxy, in an application](#below-a-path-behind-a-proxy-in-an-application)
//! 9. [Limits and memory](#limits-and-memory)
//! 10. [Errors, and what is safe to drop](#errors-and-what-is-safe-to-drop)
//! 11. [A storage of your own](#a-storage-of-your-own)
//! 12. [Tests](#tests)
//! 13. [A client](#a-client)
//!
//! The folder `examples/` of this crate has whole programs: `hyper` (a durable registry), `axum` (a registry in an
//! application, with its users) and `test_faults` (tests of a client).
//!
//! # Which crate, which features
//!
//! | you want | crate | features |
//! |---|---|---|
//! | a registry for the tests of your program | `registry-http` | `testing` |
//! | a registry in your program | `registry-http`, `registry-storage`, `registry-core` | those below |
//! | the protocol over a transport of your own, or a client | `registry-core` | |
//! | to work on the data of a registry: check, back up, import, export | `registry-storage` | |
//!
//! `registry-storage` has the features `filesystem`, `s3`, `layout` and `outbox` by default, and also `gcs`, `azure` and
//! `testing`. `registry-http` has no default features:
//!
//! | feature | adds |
//! |---|---|
//! | `tls` | [`tls::Tls`](crate::tls::Tls) for a [`Listener`](crate::Listener) |
//! | `htpasswd`, `token`, `token-server` | authenticators, in [`auth`](crate::auth) |
//! | `metrics` | [`Metrics`](crate::Metrics), [`ServerHealth`](crate::ServerHealth), [`DebugService`](crate::DebugService), [`Probed`](crate::Probed) |
//! | `opentelemetry` | [`RequestSpans`](crate::RequestSpans) |
//! | `notifications` | [`notify::Notifier`](crate::notify::Notifier) |
//! | `testing` | [`testing::TestRegistry`](crate::testing::TestRegistry) |
//!
//! # A durable registry
//!
//! A [`Store`](registry_storage::Store) over a [`Backend`](registry_storage::Backend) keeps the content. A
//! [`Registry`](registry_core::Registry) over the store has the rules of the protocol. A
//! [`RegistryService`](crate::RegistryService) over the registry speaks HTTP. A [`Server`](crate::Server) accepts
//! connections; any other hyper or tower server does too.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use registry_core::{Registry, registry::Options};
//! use registry_http::{Limits, RegistryService, Server};
//! use registry_storage::filesystem::FilesystemBackend;
//! use registry_storage::{CollectOptions, Collector, Maintenance, Store, Sweeper};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let (folder, address) = (folder.path(), "127.0.0.1:0");
//! let store: Arc<dyn Maintenance> = Arc::new(Store::new(FilesystemBackend::open(folder).await?));
//! let hour = Duration::from_hours(1);
//! let collector = Collector::start(Arc::clone(&store), CollectOptions::new(), hour);
//! let sweeper = Sweeper::start(Arc::clone(&store), hour);
//! let registry = Registry::new(Arc::clone(&store), Options::default());
//! let service = RegistryService::new(registry, Limits::default());
//! let server = Server::bind(address, service, Limits::default()).await?;
//! println!("http://{}", server.addresses()[0]);
//!
//! // Until the process should end: tokio::signal::ctrl_c().await?;
//!
//! server.shutdown(Duration::from_secs(30)).await;
//! collector.shutdown().await;
//! sweeper.shutdown().await;
//! store.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A push that was answered survives a kill and a loss of power. One process at a time has the folder; a second one gets
//! an error when it opens it. For several processes, use a bucket:
//! [`ObjectStoreBackend::s3`](registry_storage::ObjectStoreBackend::s3), and its siblings for other clouds, take the place
//! of the folder. [`ObjectStoreBackend::memory`](registry_storage::ObjectStoreBackend::memory) is for tests.
//!
//! # What runs beside the requests, and how it ends
//!
//! Requests need nothing else to be correct, but space is only freed by two tasks:
//!
//! - The [`Collector`](registry_storage::Collector) takes the blobs that no manifest names any more out of their
//!   repositories. Leave it out if deletes by clients are all that should go.
//! - The [`Sweeper`](registry_storage::Sweeper) ends abandoned uploads, and deletes the bytes that nothing names.
//!
//! Each process may run both, also several processes on one bucket. Pushes and pulls go on meanwhile.
//! [`Maintenance`](registry_storage::Maintenance) has what you may run at any time beside requests: a check, a backup, an
//! export.
//!
//! End in the reverse order of the start: [`Server::shutdown`](crate::Server::shutdown) finishes requests,
//! [`Collector::shutdown`](registry_storage::Collector::shutdown) and
//! [`Sweeper::shutdown`](registry_storage::Sweeper::shutdown) end the tasks, and
//! [`Maintenance::close`](registry_storage::Maintenance::close) ends the threads of the store and makes everything
//! durable. With a server that is not of this crate, wait for
//! [`RegistryService::finish_interrupted`](crate::RegistryService::finish_interrupted) after it has stopped. If you skip all
//! of this, no content is lost that a client was told is stored: only the progress of open uploads is.
//!
//! The libraries have no process-wide state and start nothing that outlives its handle.
//!
//! # Who a client is, and what it may do
//!
//! Three questions, in this order:
//!
//! | question | trait | set with |
//! |---|---|---|
//! | Who sent this? | [`Authenticator`](crate::Authenticator) returns a [`Principal`](registry_core::Principal) | [`RegistryService::with_authenticator`](crate::RegistryService::with_authenticator) |
//! | May it ever do this? | [`Authorizer`](registry_core::Authorizer), from memory | [`Registry::with_authorizer`](registry_core::Registry::with_authorizer) |
//! | Is it accepted now? | [`Admission`](registry_core::Admission), which may wait | [`Registry::with_admission`](registry_core::Registry::with_admission) |
//!
//! By default, each client is the anonymous principal, and everything is allowed. [`auth`](crate::auth) has authenticators
//! for passwords and tokens; [`policy::Rules`](registry_core::policy::Rules) is an authorizer with patterns, and
//! [`policy::ImmutableTags`](registry_core::policy::ImmutableTags) one that keeps tags from moving.
//! [`ReplaceableAccess`](crate::ReplaceableAccess) changes authenticator and authorizer under running requests.
//!
//! **To hide a repository**, an authorizer answers [`NameUnknown`](registry_core::ErrorCode::NameUnknown), as for one that
//! does not exist. The list of repositories leaves out those whose [`Action::List`](registry_core::operation::Action::List)
//! is refused, and no blob can be mounted from a repository whose `Pull` is refused. Answer
//! [`Unauthorized`](registry_core::ErrorCode::Unauthorized) to the anonymous principal, or its client will not log in:
//!
//! ```
//! use registry_core::operation::Operation;
//! use registry_core::{Authorizer, Error, ErrorCode, Principal};
//!
//! /// Shows each user the repositories below its own name, and no others.
//! #[derive(Debug)]
//! struct Hidden;
//!
//! impl Authorizer for Hidden {
//!     fn authorize(&self, principal: &Principal, operation: &Operation<'_>) -> Result<(), Error> {
//!         let owner = operation.repository.and_then(|name| name.as_str().split('/').next());
//!         match owner {
//!             // Not about one repository: `/v2/`, and the list, which is filtered.
//!             None => Ok(()),
//!             _ if principal.is_anonymous() => Err(ErrorCode::Unauthorized.into()),
//!             Some(owner) if owner == principal.name() => Ok(()),
//!             Some(_) => Err(ErrorCode::NameUnknown.into()),
//!         }
//!     }
//! }
//! ```
//!
//! # Quotas, maximum sizes, and modes
//!
//! [`Options`](registry_core::registry::Options) bounds manifests: their bytes, and how many contents they name.
//! [`ReadOnly`](registry_core::admission::ReadOnly) and [`DeletesDisabled`](registry_core::admission::DeletesDisabled) are
//! admissions, and so is a quota of yours: [`Admission`](registry_core::Admission) has an example. An admission sees the
//! length that a client announces. A client may announce none, so a maximum size of blobs is a rule on the bytes that
//! arrive, which a [wrapper of the storage](#a-storage-of-your-own) sees.
//!
//! [`RateLimits`](crate::RateLimits) bounds requests per address and per identity.
//!
//! # Acting for other registries
//!
//! A client that uses a mirror says for which registry with the parameter `ns`. It is ignored unless
//! [`Registry::with_namespaces`](registry_core::Registry::with_namespaces) maps it to a repository's name. Authorizers,
//! admissions, events and the storage see only that name. A pull-through cache is a wrapper of the storage that fetches
//! what is missing.
//!
//! # Who pushed what: observers and events
//!
//! - A [`RequestObserver`](crate::RequestObserver) sees each request once, at its end, with the principal, the repository, the tag, the
//!   digest and the status: for logs and accounts. The default is [`AccessLog`](crate::AccessLog);
//!   [`LineLog`](crate::LineLog) writes lines of text or JSON.
//! - An [`EventSink`](crate::EventSink) receives what changed, before the client is answered: for indexes and
//!   notifications. [`Notifier`](crate::notify::Notifier) sends events to other programs through a queue on disk, which
//!   loses none.
//!
//! Log lines of the libraries themselves go to `tracing`.
//!
//! # Below a path, behind a proxy, in an application
//!
//! [`Proxied`](crate::Proxied) wraps a service. Its [`ProxyOptions`](crate::ProxyOptions) name the path that the registry is
//! below, the URL that clients use, and the proxies whose word about the client is believed. Without it, `Forwarded` and
//! `X-Forwarded-For` are ignored.
//!
//! ```
//! use registry_core::{Registry, registry::Options};
//! use registry_http::{Limits, Proxied, ProxyOptions, RegistryService};
//! use registry_storage::{ObjectStoreBackend, Store};
//!
//! # fn below() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Store::new(ObjectStoreBackend::memory());
//! let service = RegistryService::new(Registry::new(store.into(), Options::default()), Limits::default());
//! let mut options = ProxyOptions::default();
//! options.prefix = "/registry".parse()?;
//! let service = Proxied::new(service, options); // answers below /registry/v2/
//! # drop(service);
//! # Ok(())
//! # }
//! # below().unwrap();
//! ```
//!
//! Docker, podman and containerd look for `/v2/` at the root of a host, so for them a proxy has to map the path, or the
//! registry has a host of its own. In an application, the routes `/registry/v2/` and `/registry/v2/{*rest}` lead to the
//! wrapped service with their path unchanged: see the example `axum`.
//!
//! A server that is not [`Server`](crate::Server) should put a [`Connection`](crate::Connection) into each request's
//! extensions. Without it, no client has an address: they share one rate limit and one account of memory.
//!
//! # Limits and memory
//!
//! [`Limits`](crate::Limits) has all bounds of the server and the service: give both the same one. No request has a
//! limit on its total time. Connections, headers, manifests and answers are charged to one
//! [`MemoryBudget`](crate::MemoryBudget); when it runs out, the clients that hold most are refused first. What a storage
//! buffers of blobs is bounded by the options of its backend.
//!
//! # Errors, and what is safe to drop
//!
//! Every layer below HTTP returns [`registry_core::Error`]: an [`ErrorCode`](registry_core::ErrorCode), which decides
//! status and wire code; a message for the client; fields for the header; and a cause for the log that no client sees.
//! Traits that you implement return it too. Operations outside of a request, such as a backup, have error types of
//! their own.
//!
//! | dropped | effect |
//! |---|---|
//! | the future of a request that changes something | a task of the service finishes it |
//! | the future of any other request | it ends |
//! | a future of [`Storage`](registry_core::Storage) | its effect happened whole or not at all; an upload is at the offset that its status reports |
//! | a future of [`Maintenance`](registry_storage::Maintenance) | what was done stays done; it can be repeated |
//! | [`Server`](crate::Server) | all connections are cut |
//! | the future of [`Server::shutdown`](crate::Server::shutdown) | as if the server were dropped |
//! | [`Collector`](registry_storage::Collector), [`Sweeper`](registry_storage::Sweeper) | it ends soon; the next one does the rest |
//! | the store, without [`close`](registry_storage::Maintenance::close) | what a kill does: what was answered stays |
//!
//! # A storage of your own
//!
//! There are two joints:
//!
//! - **A place for records and bytes**: implement [`Backend`](registry_storage::Backend), and
//!   [`Store`](registry_storage::Store) adds the protocol: concurrent pushes, deletes, crashes, sweeps. This is what a
//!   database or another kind of bucket needs. The feature `testing` of `registry-storage` has
//!   [`backend_conformance_tests!`](registry_storage::backend_conformance_tests), one test for each promise.
//! - **The facets themselves**: [`Storage`](registry_core::Storage). A wrapper of a storage implements the facet that it
//!   changes and forwards the others with [`forward_storage!`](registry_core::forward_storage). A storage from scratch is
//!   checked by [`storage_conformance_tests!`](registry_storage::storage_conformance_tests).
//!
//! A wrapper that bounds the size of blobs:
//!
//! ```
//! use std::pin::pin;
//! use std::sync::Arc;
//!
//! use bytes::Bytes;
//! use futures_core::Stream;
//! use futures_util::StreamExt as _;
//! use registry_core::storage::{Body, Storage, UploadKey, UploadStorage};
//! use registry_core::{Algorithm, Digest, Error, ErrorCode, RepositoryName, UploadId, forward_storage};
//!
//! /// A storage for blobs of at most `limit` bytes.
//! struct SmallBlobs<S: ?Sized> {
//!     limit: u64,
//!     inner: Arc<S>,
//! }
//!
//! macro_rules! call {
//!     ($self:ident.$method:ident($($argument:expr),*)) => { $self.inner.$method($($argument),*).await };
//! }
//!
//! forward_storage!(BlobStorage, ManifestStorage, ListStorage for [S: ?Sized + Storage] SmallBlobs<S> => call);
//!
//! impl<S: ?Sized + Storage> SmallBlobs<S> {
//!     /// Makes a body fail at the byte that is one too many for the session.
//!     async fn bounded<'a>(
//!         &self,
//!         upload: &UploadKey,
//!         body: Body<'a>,
//!     ) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + 'a, Error> {
//!         let mut left = self.limit.saturating_sub(self.inner.upload_status(upload).await?);
//!         Ok(body.map(move |chunk| {
//!             let chunk = chunk?;
//!             let rest = left.checked_sub(chunk.len() as u64);
//!             left = rest.ok_or_else(|| Error::new(ErrorCode::Denied, "the blob is too large for this registry"))?;
//!             Ok(chunk)
//!         }))
//!     }
//! }
//!
//! #[async_trait::async_trait]
//! impl<S: ?Sized + Storage> UploadStorage for SmallBlobs<S> {
//!     async fn append_upload(&self, upload: &UploadKey, offset: Option<u64>, body: Body<'_>) -> Result<u64, Error> {
//!         let body = pin!(self.bounded(upload, body).await?);
//!         self.inner.append_upload(upload, offset, body).await
//!     }
//!
//!     async fn finish_upload(
//!         &self,
//!         upload: &UploadKey,
//!         digest: &Digest,
//!         offset: Option<u64>,
//!         body: Body<'_>,
//!     ) -> Result<u64, Error> {
//!         let body = pin!(self.bounded(upload, body).await?);
//!         self.inner.finish_upload(upload, digest, offset, body).await
//!     }
//!
//!     async fn create_upload(
//!         &self,
//!         repository: &RepositoryName,
//!         principal: &str,
//!         algorithm: Algorithm,
//!     ) -> Result<UploadId, Error> {
//!         self.inner.create_upload(repository, principal, algorithm).await
//!     }
//!
//!     async fn upload_status(&self, upload: &UploadKey) -> Result<u64, Error> {
//!         self.inner.upload_status(upload).await
//!     }
//!
//!     async fn commit_upload(&self, upload: &UploadKey, digest: &Digest) -> Result<(), Error> {
//!         self.inner.commit_upload(upload, digest).await
//!     }
//!
//!     async fn cancel_upload(&self, upload: &UploadKey) -> Result<(), Error> {
//!         self.inner.cancel_upload(upload).await
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use registry_storage::{ObjectStoreBackend, Store};
//! let storage = SmallBlobs { limit: 10, inner: Arc::new(Store::new(ObjectStoreBackend::memory())) };
//! let key = UploadKey {
//!     repository: "library/app".parse()?,
//!     id: storage.create_upload(&"library/app".parse()?, "", Algorithm::Sha256).await?,
//!     principal: String::new(),
//! };
//! let chunks = [Ok(Bytes::from_static(b"ten bytes.")), Ok(Bytes::from_static(b"more"))];
//! let body = pin!(futures_util::stream::iter(chunks));
//! let error = storage.append_upload(&key, None, body).await.unwrap_err();
//! assert_eq!(error.code(), ErrorCode::Denied);
//! assert_eq!(storage.upload_status(&key).await?, 10);
//! # Ok(())
//! # }
//! ```
//!
//! # Tests
//!
//! [`TestRegistry`](crate::testing::TestRegistry) is a registry on a free port with storage in memory: real HTTP, a
//! journal of the requests, and [faults on demand](crate::testing::TestRegistry::fail).
//! [`BlockingTestRegistry`](crate::testing::BlockingTestRegistry) is the same for tests without a runtime.
//!
//! ```
//! use registry_http::testing::{RegistryEndpoint, TestRegistry};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let registry = TestRegistry::start().await;
//! registry.fail(RegistryEndpoint::GetBlob, 1).status(503); // the next download is refused,
//! registry.fail(RegistryEndpoint::GetBlob, 2).truncate(1000); // the one after breaks off,
//! registry.fail(RegistryEndpoint::PutManifest, 1).reset(); // and the next push gets no answer
//!
//! // Run what you test against registry.url(), then look at what it sent.
//! assert!(registry.requests().is_empty());
//! # }
//! ```
//!
//! Failures below a storage are those of `registry_storage::testing`: `Faulty` fails the calls of a backend, and there are
//! a disk that loses what was not synced and a double of S3.
//!
//! # A client
//!
//! [`Request::build`](registry_core::Request::build) makes the method, target and fields of a request, and
//! [`ReceivedResponse`](registry_core::response::ReceivedResponse) reads what any registry answers. The transport is yours.
