//! A double of S3 that is strict wherever the storage protocol depends on it.

#![expect(clippy::disallowed_methods, reason = "the tasks of a kit end with its test")]

mod bucket;
mod faults;
mod request;
mod uploads;
mod xml;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::object_store::aws::AmazonS3Builder;
#[cfg(feature = "gcs")]
use ::object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey};
use ::object_store::signer::SignedUrlOptions;
use ::object_store::{BackoffConfig, RetryConfig};
#[cfg(feature = "gcs")]
use ::object_store::{ClientOptions, StaticCredentialProvider};
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use registry_core::Timestamp;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use self::bucket::{Bucket, WriteCondition};
pub use self::faults::{S3Fault, S3Faults};
use crate::object_store::ObjectStoreBackend;
use crate::object_store::begun::UploadListing;
use crate::object_store::client::Connector;
use crate::object_store::conditional_delete::ConditionalDeletes;

/// The only bucket.
const BUCKET: &str = "bucket";

/// A server with one bucket in memory, which supports as much of S3 as [`ObjectStoreBackend`] uses.
///
/// Conditions on writes and deletes are atomic. Entity tags are derived from the content alone, as those of S3 are, so that a
/// missing nonce is detected. An upload is completed only with the right tags, in ascending order, and if every part
/// but the last has at least 5 MiB; afterwards it is gone. Those that were begun are listed, 1000 at a time. An object may be copied as a whole. Listings are in byte order and at most 1000 keys long. An
/// unsigned request is refused, and an unknown one gets 501. (The signature is not checked.) A URL that is signed for twenty
/// minutes reads an object. It also speaks as much of Google Cloud Storage's XML, which is the same but for generations.
///
/// Dropping it stops the server.
#[derive(Debug)]
pub struct S3Double {
    url: String,
    state: Arc<S3State>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct S3State {
    /// Never held over an await.
    bucket: Mutex<Bucket>,
    faults: S3Faults,
}

impl S3State {
    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl S3Double {
    /// Starts a server on a free port of this machine.
    ///
    /// # Errors
    /// If no port is available.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(S3State::default());
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(Self {
            url,
            state,
            accepting,
        })
    }

    /// Returns the address, without the bucket.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns a backend on this server, below `prefix`. Its client retries 3 times, after a few milliseconds.
    ///
    /// # Errors
    /// If the prefix is invalid.
    pub fn backend(&self, prefix: &str) -> Result<ObjectStoreBackend, ::object_store::path::Error> {
        backend_at(&self.url, BUCKET, "double", "double", prefix)
    }

    /// As [`backend`](Self::backend), by the client of Google Cloud Storage, whose conditions are on generations.
    ///
    /// # Errors
    /// If the prefix is invalid.
    #[cfg(feature = "gcs")]
    pub fn gcs_backend(&self, prefix: &str) -> ::object_store::Result<ObjectStoreBackend> {
        let connector = Connector::default();
        let bearer = "double".to_owned();
        let store = GoogleCloudStorageBuilder::new()
            .with_config(GoogleConfigKey::BaseUrl, &self.url)
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .with_bucket_name(BUCKET)
            .with_credentials(Arc::new(StaticCredentialProvider::new(GcpCredential { bearer })))
            .with_http_connector(connector.clone())
            .with_retry(retries())
            .build()?;
        let credentials = Arc::clone(store.credentials());
        let deletes = ConditionalDeletes::google(credentials, &self.url, BUCKET, &connector);
        let backend = ObjectStoreBackend::new(store, prefix)?;
        Ok(match deletes {
            Some(deletes) => backend.deleting_by(deletes),
            None => backend,
        })
    }

    /// Returns the switches of faults.
    #[must_use]
    pub fn faults(&self) -> &S3Faults {
        &self.state.faults
    }

    /// Returns all objects by their keys.
    #[must_use]
    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        self.state.bucket().contents()
    }

    /// Puts an object, without a request.
    pub fn put(&self, key: &str, content: Bytes) {
        let put = self.state.bucket().put(key, content, &WriteCondition::Nothing);
        debug_assert!(put.is_ok(), "a write without a condition is never refused");
    }

    /// Lets time pass for the bucket, by whose clock objects get the time of their writing. The clock stands still otherwise.
    pub fn pass(&self, time: Duration) {
        let mut bucket = self.state.bucket();
        bucket.now.0 += u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    }

    /// Deletes the objects whose keys begin with `prefix`, without a request.
    pub fn lose(&self, prefix: &str) {
        let mut bucket = self.state.bucket();
        for key in bucket
            .contents()
            .into_keys()
            .filter(|key| key.starts_with(prefix))
        {
            bucket.delete(&key);
        }
    }

    /// Begins an upload in parts, without a request.
    pub fn begin_upload(&self, key: &str) {
        self.state.bucket().begin(key);
    }

    /// Returns the time of the bucket's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.state.bucket().now
    }

    /// Returns how many uploads were begun and neither completed nor aborted.
    #[must_use]
    pub fn open_uploads(&self) -> usize {
        self.state.bucket().open_uploads()
    }

    /// Returns how many parts the uploads have that were neither completed nor aborted.
    #[must_use]
    pub fn parts_of_open_uploads(&self) -> usize {
        self.state.bucket().parts_of_open_uploads()
    }
}

impl Drop for S3Double {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Returns a backend on any server that speaks S3 without encryption, for tests with other servers.
///
/// # Errors
/// If the prefix is invalid.
///
/// # Panics
/// If the address is invalid.
#[expect(clippy::expect_used, reason = "a test gave an address that is none")]
pub fn backend_at(
    url: &str,
    bucket: &str,
    access_key: &str,
    secret_key: &str,
    prefix: &str,
) -> Result<ObjectStoreBackend, ::object_store::path::Error> {
    let connector = Connector::default();
    let store = AmazonS3Builder::new()
        .with_endpoint(url)
        .with_bucket_name(bucket)
        .with_access_key_id(access_key)
        .with_secret_access_key(secret_key)
        .with_region("us-east-1")
        .with_allow_http(true)
        .with_virtual_hosted_style_request(false)
        .with_disable_bulk_delete(true)
        .with_http_connector(connector.clone())
        .with_retry(retries())
        .build()
        .expect("the address of a server");
    let uploads = UploadListing::signed(Arc::new(store.clone()), &connector);
    let mut backend = ObjectStoreBackend::new(store.clone(), prefix)?.listing_uploads(uploads);
    if let Some(deletes) = ConditionalDeletes::signed(Arc::new(store.clone()), &connector) {
        backend = backend.deleting_by(deletes).with_hashes_as_versions();
    }
    Ok(backend.with_signer(Arc::new(store), SignedUrlOptions::new()))
}

/// As often as a server does, and sooner.
fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(1),
            max_backoff: Duration::from_millis(10),
            base: 2.,
        },
        max_retries: 3,
        retry_timeout: Duration::from_secs(10),
    }
}

/// Serves connections until it is dropped, which also ends them.
async fn accept(listener: TcpListener, state: Arc<S3State>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let state = Arc::clone(&state);
        let service = service_fn(move |request| request::serve(Arc::clone(&state), request));
        connections.spawn(async move {
            // A connection that was cut on purpose, or by a client that disconnected.
            let _ended = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}
