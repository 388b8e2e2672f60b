//! A backend over object stores: records are small objects, bytes are large ones.

mod answer;
#[cfg(feature = "azure")]
mod azure;
#[cfg(all(test, feature = "azure", feature = "filesystem", feature = "testing", unix))]
mod azure_rules;
#[cfg(feature = "s3")]
pub(crate) mod begun;
mod body_tags;
mod bytes;
mod cache;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
pub(crate) mod client;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
pub(crate) mod conditional_delete;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
mod connection;
mod content;
#[cfg(all(feature = "filesystem", unix))]
mod copy;
mod error;
#[cfg(feature = "gcs")]
mod gcs;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
mod location;
mod memory;
mod part_memory;
mod part_size;
mod probe;
mod records;
#[cfg(feature = "s3")]
mod s3;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
mod signed_url;
mod single_writer;
pub(crate) mod tree;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ::bytes::Bytes;
use async_trait::async_trait;
#[cfg(feature = "s3")]
use futures_core::Stream;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::ObjectStore;
use object_store::list::PaginatedListStore;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
#[cfg(unix)]
use registry_core::Digest;
use registry_core::Error;
use registry_core::storage::BlobContent;

#[cfg(feature = "azure")]
pub use self::azure::{AzureCredentials, AzureOptions};
use self::body_tags::BodyTags;
#[cfg(unix)]
use self::cache::content::CachedContent;
use self::cache::recent_records::RecentRecords;
use self::cache::shared_reads::SharedReads;
#[cfg(unix)]
pub use self::cache::{BlobCache, BlobCacheError, BlobCacheStatistics};
#[cfg(feature = "gcs")]
pub use self::gcs::GcsCredentials;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
pub use self::location::LocationError;
use self::memory::MemoryStore;
use self::part_memory::PartMemory;
pub use self::part_size::{PartSize, PartSizeError};
pub use self::probe::{ProbeError, Promise};
use self::records::DeleteIf;
#[cfg(feature = "s3")]
pub use self::s3::{S3Encryption, S3Options};
use self::single_writer::SingleWriter;
pub use self::single_writer::WriterError;
#[cfg(feature = "s3")]
use crate::backend::BegunBytes;
use crate::backend::{
    Backend, BytesWriter, Condition, Durability, Expect, MemoryPermit, Part, RecordEntry, RecordTransaction,
    StagedBytes, Stat, Transaction, Version, VersionedRecord, WriteGuard, WriteState,
};
use crate::bytes_name::BytesName;
use crate::key::Key;
use crate::seen_bytes::SeenBytes;

/// What an object store must do: conditional writes, uploads in parts that can be resumed, and listings by page.
trait Objects: ObjectStore + MultipartStore + PaginatedListStore {}

impl<T: ObjectStore + MultipartStore + PaginatedListStore> Objects for T {}

/// Keeps records and bytes as objects in memory or in a bucket.
///
/// A *record* is an object that is written with `If-None-Match` or `If-Match`. Its entity tag may be derived from its
/// content, so each value must hold a fresh nonce, as [`RecordTransaction::put`] requires. The nonce also distinguishes
/// a write whose answer was lost from another writer's.
///
/// *Bytes* up to a part's size are one object, larger ones an upload in parts. An upload of which no record tells, because the
/// process died in between or the record was lost, is found by a sweep of everything in a bucket of S3. Give another bucket a
/// lifecycle rule that aborts incomplete uploads some days after sessions expire.
///
/// A *transaction* runs its steps one after the other; each step is durable once it has returned.
#[derive(Clone)]
pub struct ObjectStoreBackend {
    store: Arc<dyn Objects>,
    /// The store is the memory of this process.
    is_memory: bool,
    /// What can ask the store for the uploads that were begun.
    #[cfg(feature = "s3")]
    begun: Option<Arc<begun::UploadListing>>,
    /// What can ask the store for deletes on condition.
    deleter: Option<Arc<dyn DeleteIf>>,
    /// The version of an object is a hash of its content, so it comes back with the same content.
    versions_are_hashes: bool,
    /// Whether the store was found to keep the condition of a delete.
    deletes_on_condition: Arc<AtomicBool>,
    body_tags: Arc<BodyTags>,
    /// The prefix of all keys: empty, or folders that end with a slash.
    root: Arc<str>,
    /// Where the store is, and the settings that may change what it does: a probe is repeated if this changes.
    address: Arc<str>,
    /// How long a request may take besides the time for its content; `None` if the store never waits.
    patience: Option<Duration>,
    part_memory: PartMemory,
    /// The size of all parts, if they must be equal.
    part_size: Option<PartSize>,
    /// The log says that the store takes few parts.
    told_of_few_parts: Arc<AtomicBool>,
    seen: Arc<SeenBytes>,
    /// If only this process is to write.
    single_writer: Option<Arc<SingleWriter>>,
    record_reads: SharedReads<Key, Result<Option<VersionedRecord>, Error>>,
    size_reads: SharedReads<BytesName, Result<Option<u64>, Error>>,
    #[cfg(unix)]
    blob_cache: Option<BlobCache>,
    /// `None` if each answer is the newest one.
    recent_records: Option<Arc<RecentRecords>>,
    /// The store is Azure: its client's listings leave out the object whose key is the prefix, and it copies objects of any size.
    is_azure: bool,
    /// What signs URLs for clients, if the store has such.
    #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
    signer: Option<Arc<signed_url::UrlSigner>>,
}

/// How long one request for a record, or one silence of the store, may last, the store's own retries included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How many records are read at once for one caller; a bucket takes some milliseconds for each.
const PARALLEL_READS: usize = 16;

/// The default limit of the memory for parts, in bytes.
const PART_MEMORY_BYTES: usize = 64 * 1024 * 1024;

/// How many parts of an upload are sent at once: with four of 5 MiB, an answer that takes 20 ms costs an upload at most a
/// fiftieth of a second for each 20 MiB.
const MOST_PARTS_AT_ONCE: usize = 4;

/// The parts that an upload sends at once take at most 1/`UPLOAD_SHARE_DIVISOR` of the memory for parts, unless it is one.
const UPLOAD_SHARE_DIVISOR: usize = 3;

/// How long a client may take for half of a part while others wait for memory.
const MEMORY_PATIENCE: Duration = Duration::from_secs(2);

impl ObjectStoreBackend {
    /// Keeps everything in the memory of this process.
    #[must_use]
    pub fn memory() -> Self {
        let memory = Arc::new(MemoryStore::default());
        let store: Arc<dyn Objects> = Arc::<MemoryStore>::clone(&memory);
        Self {
            deletes_on_condition: Arc::new(AtomicBool::new(true)),
            ..Self::over(store, true, "".into()).deleting_by(memory)
        }
    }

    /// Keeps everything in `store`, below `prefix`: folders with slashes between them, or an empty string.
    ///
    /// The store must be strongly consistent and honour `If-None-Match` and `If-Match` on writes, which
    /// [`probe_promises`](Self::probe_promises) tries. Its own limit on the
    /// duration of a request should be off, because it would also limit how long a client may take for a blob.
    ///
    /// # Errors
    /// If the prefix has an empty folder, `.`, `..` or characters that object stores do not preserve.
    pub fn new<S>(store: S, prefix: &str) -> Result<Self, object_store::path::Error>
    where
        S: ObjectStore + MultipartStore + PaginatedListStore,
    {
        let prefix = Path::parse(prefix)?;
        let root = if prefix.as_ref().is_empty() {
            String::new()
        } else {
            format!("{prefix}/")
        };
        Ok(Self::over(Arc::new(store), false, root.into()))
    }

    fn over(store: Arc<dyn Objects>, is_memory: bool, root: Arc<str>) -> Self {
        let address = store.to_string().into();
        // A store that never waits needs no limit, nor a runtime with a timer.
        let waits = !is_memory;
        let memory_patience = waits.then_some(MEMORY_PATIENCE);
        Self {
            store,
            patience: waits.then_some(REQUEST_TIMEOUT),
            is_memory,
            #[cfg(feature = "s3")]
            begun: None,
            deleter: None,
            versions_are_hashes: false,
            deletes_on_condition: Arc::default(),
            body_tags: Arc::default(),
            root,
            address,
            part_memory: PartMemory::new(PART_MEMORY_BYTES, memory_patience),
            part_size: None,
            told_of_few_parts: Arc::default(),
            seen: Arc::default(),
            single_writer: None,
            record_reads: SharedReads::default(),
            size_reads: SharedReads::default(),
            #[cfg(unix)]
            blob_cache: None,
            recent_records: None,
            is_azure: false,
            #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
            signer: None,
        }
    }

    /// Sets the memory in bytes that the parts of all uploads may take at a time. The default is 64 MiB.
    ///
    /// A part that is larger than all of it (parts grow to 1 GiB beyond an offset of 128 GiB) waits for all of it, so
    /// the memory in use is at most the larger of the two.
    #[must_use]
    pub fn with_part_memory(mut self, size: usize) -> Self {
        let patience = (!self.is_memory).then_some(MEMORY_PATIENCE);
        self.part_memory = PartMemory::new(size, patience);
        self
    }

    /// Returns whether a failure of a bucket waits for somebody who corrects an access key, a right or an address. Others
    /// may pass by themselves if their code is [`Unavailable`](registry_core::ErrorCode::Unavailable).
    #[must_use]
    pub fn is_misconfiguration(error: &Error) -> bool {
        error::is_misconfiguration(error)
    }

    /// Gives all parts of an upload, but the last, one size. By default they grow with the upload, so that a blob may have 5
    /// TiB.
    ///
    /// A part is in memory while it arrives and is sent.
    #[must_use]
    pub const fn with_part_size(mut self, size: PartSize) -> Self {
        self.part_size = Some(size);
        self
    }

    /// Keeps blobs that clients read in a folder, and reads them from there.
    #[cfg(unix)]
    #[must_use]
    pub fn with_blob_cache(mut self, cache: BlobCache) -> Self {
        self.blob_cache = Some(cache);
        self
    }

    /// Answers clients that pull from memory with what was read within `age`, instead of asking the bucket each time. What other
    /// processes delete or move may be seen for that long; what this one writes is seen at once. By default, and with 0, each
    /// answer is the newest one.
    #[must_use]
    pub fn with_record_age(mut self, age: Duration) -> Self {
        self.recent_records = (!age.is_zero()).then(|| Arc::new(RecentRecords::new(age)));
        self
    }

    /// Sets what can ask the store for deletes on condition. A probe finds out whether the store keeps it.
    pub(crate) fn deleting_by(mut self, deleter: impl DeleteIf + 'static) -> Self {
        self.deleter = Some(Arc::new(deleter));
        self
    }

    /// Declares that the version of an object is a hash of its content.
    #[cfg(feature = "s3")]
    pub(crate) const fn with_hashes_as_versions(mut self) -> Self {
        self.versions_are_hashes = true;
        self
    }

    /// Sets where the store is, without secrets.
    #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
    fn at(mut self, address: String) -> Self {
        self.address = address.into();
        self
    }

    fn path(&self, key: &str) -> Result<Path, Error> {
        Path::parse(format!("{}{key}", self.root)).map_err(Error::internal)
    }

    /// Runs a request that carries `size` bytes of content.
    async fn run<T>(
        &self,
        size: usize,
        request: impl Future<Output = object_store::Result<T>> + Send,
    ) -> object_store::Result<T> {
        let Some(patience) = self.patience else {
            return request.await;
        };
        // A second for each MiB: a slower store is not fit for a registry.
        let limit = patience + Duration::from_secs((size >> 20) as u64);
        tokio::time::timeout(limit, request)
            .await
            .unwrap_or_else(|elapsed| Err(timed_out(elapsed)))
    }
}

impl fmt::Debug for ObjectStoreBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStoreBackend")
            .field("store", &format_args!("{}", self.store))
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

/// Returns whether the time limit of a request ended it.
fn is_timeout(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::Generic { source, .. } if source.is::<tokio::time::error::Elapsed>())
}

fn timed_out(elapsed: tokio::time::error::Elapsed) -> object_store::Error {
    object_store::Error::Generic {
        store: "object store",
        source: Box::new(elapsed),
    }
}

/// The steps of a transaction on a store that has no transactions.
struct Steps<'a>(&'a ObjectStoreBackend);

#[async_trait]
impl RecordTransaction for Steps<'_> {
    async fn get(&mut self, key: &Key) -> Result<Option<VersionedRecord>, Error> {
        self.0.get_record(key).await
    }

    async fn stat(&mut self, key: &Key) -> Result<Option<Stat>, Error> {
        self.0.stat_record(key).await
    }

    async fn put(&mut self, key: &Key, value: Bytes, condition: Condition) -> Result<Option<Version>, Error> {
        let _write = self.0.begin_write(key);
        self.0.put_record(key, value, condition).await
    }

    fn others_purge(&self) -> bool {
        self.0.may_purge()
    }

    fn purges(&self) -> bool {
        self.0.purges()
    }

    async fn purge_if(&mut self, key: &Key, version: &Version) -> Result<bool, Error> {
        let _write = self.0.begin_write(key);
        self.0.purge_record(key, version).await
    }

    async fn remove(&mut self, key: &Key) -> Result<(), Error> {
        let _write = self.0.begin_write(key);
        self.0.remove_record(key).await
    }

    async fn list(
        &mut self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<RecordEntry>, Error> {
        self.0.list_records(prefix, after, limit).await
    }

    async fn complete_bytes(
        &mut self,
        bytes: &StagedBytes,
        parts: &[Part],
        tail: Bytes,
    ) -> Result<(), Error> {
        self.0.require_writer()?;
        self.0.complete(bytes, parts, tail).await
    }
}

impl Backend for ObjectStoreBackend {
    async fn get(&self, key: &Key) -> Result<Option<VersionedRecord>, Error> {
        self.shared_record(key).await
    }

    fn recall(&self, key: &Key) -> Option<VersionedRecord> {
        self.recent_records.as_ref()?.get(key)
    }

    async fn get_all(&self, keys: &[Key]) -> Result<Vec<Option<VersionedRecord>>, Error> {
        let reads = stream::iter(keys.to_vec()).map(|key| async move { self.shared_record(&key).await });
        reads.buffered(PARALLEL_READS).try_collect().await
    }

    async fn sizes(&self, keys: &[Key]) -> Result<Vec<Option<u64>>, Error> {
        let reads = stream::iter(keys.to_vec())
            .map(|key| async move { Ok(self.stat_record(&key).await?.map(|stat| stat.size)) });
        reads.buffered(PARALLEL_READS).try_collect().await
    }

    async fn list(&self, prefix: &Key, after: Option<&Key>, limit: usize) -> Result<Vec<RecordEntry>, Error> {
        self.list_records(prefix, after, limit).await
    }

    async fn transact<S: Transaction>(
        &self,
        _durability: Durability,
        transaction: S,
    ) -> Result<S::Output, Error> {
        transaction.run(&mut Steps(self)).await
    }

    fn epoch(&self) -> Option<&str> {
        // A part that was acknowledged is durable, so there is one epoch.
        Some("object-store")
    }

    fn is_read_only(&self) -> bool {
        self.single_writer
            .as_ref()
            .is_some_and(|writer| writer.only_reads())
    }

    fn write_state(&self) -> WriteState {
        WriteState {
            is_read_only: self.is_read_only(),
            stopped: self.single_writer.as_ref().and_then(|writer| writer.stopped()),
            ..WriteState::default()
        }
    }

    fn part_size(&self, offset: u64) -> usize {
        let size = match self.part_size {
            Some(size) => size.get(),
            None => part_size::part_size(offset),
        };
        usize::try_from(size).unwrap_or(usize::MAX)
    }

    fn most_upload_bytes(&self) -> Option<u64> {
        self.part_size.map(PartSize::most_bytes)
    }

    fn tail_limit(&self, offset: u64) -> usize {
        self.part_size(offset) - 1
    }

    fn must_record_parts(&self) -> bool {
        true
    }

    fn can_read_staged_bytes(&self) -> bool {
        false
    }

    fn parts_at_once(&self, size: usize) -> usize {
        let share = self.part_memory.size() / UPLOAD_SHARE_DIVISOR;
        (share / size).clamp(1, MOST_PARTS_AT_ONCE)
    }

    fn memory_at_once(&self, size: usize) -> Option<MemoryPermit> {
        Some(self.part_memory.at_once(size))
    }

    async fn reserve_memory(&self, size: usize) -> MemoryPermit {
        self.part_memory.reserve(size).await
    }

    async fn begin_bytes(&self, name: &BytesName) -> Result<Option<String>, Error> {
        self.require_writer()?;
        self.begin(name).await.map(Some)
    }

    async fn write_bytes(
        &self,
        bytes: &StagedBytes,
        guard: WriteGuard,
    ) -> Result<Box<dyn BytesWriter>, Error> {
        self.writer(bytes, guard)
    }

    async fn seal_bytes(&self, _bytes: &StagedBytes, _size: u64) -> Result<(), Error> {
        // Each part was durable once its write returned, and the list of parts determines which of them count.
        Ok(())
    }

    async fn open_bytes(
        &self,
        name: &BytesName,
        expect: Expect,
    ) -> Result<Option<Arc<dyn BlobContent>>, Error> {
        match expect {
            Expect::Size(size) if !self.is_memory && self.seen.contains(name) => {
                self.content(name, Some(size)).map(Some)
            }
            Expect::Size(size) | Expect::SizeNow(size) => self.open_of_size(name, size).await,
            Expect::Nothing => self.content(name, None).map(Some),
        }
    }

    #[cfg(unix)]
    async fn open_blob(
        &self,
        digest: &Digest,
        name: &BytesName,
        size: u64,
    ) -> Result<Option<Arc<dyn BlobContent>>, Error> {
        let Some(cache) = &self.blob_cache else {
            return self.open_bytes(name, Expect::Size(size)).await;
        };
        // What is in the cache can be read, whether the bucket still has it or not.
        let stored = if cache.has(digest, size) {
            Some(self.content(name, Some(size))?)
        } else {
            self.open_bytes(name, Expect::Size(size)).await?
        };
        Ok(stored.map(|stored| {
            Arc::new(CachedContent {
                backend: self.clone(),
                cache: cache.clone(),
                digest: digest.clone(),
                name: name.clone(),
                size,
                stored,
            }) as _
        }))
    }

    async fn bytes_size(&self, name: &BytesName) -> Result<Option<u64>, Error> {
        self.size(name).await
    }

    async fn shorten_bytes(&self, _: &StagedBytes, _: u64, _: WriteGuard) -> Result<(), Error> {
        Ok(())
    }

    /// Does nothing: each read is a request.
    async fn forget_cached(&self, _name: &BytesName, _range: Range<u64>) -> Result<(), Error> {
        Ok(())
    }

    #[cfg(feature = "s3")]
    fn begun_bytes(&self) -> impl Stream<Item = Result<Vec<BegunBytes>, Error>> + Send {
        self.begun()
    }

    async fn abort_bytes(&self, bytes: &StagedBytes) -> Result<(), Error> {
        self.require_writer()?;
        self.abort(bytes).await
    }

    async fn delete_bytes(&self, name: &BytesName) -> Result<(), Error> {
        self.require_writer()?;
        self.delete(name).await
    }

    async fn list_bytes(&self, after: Option<&BytesName>, limit: usize) -> Result<Vec<BytesName>, Error> {
        self.list_names(after, limit).await
    }

    async fn probe(&self) -> Result<(), Error> {
        // One of the cheapest requests, whether there is such a record or not: each replica sends it every ten seconds.
        self.get_record(&Key::probed()).await?;
        match self.is_read_only() {
            true => Ok(()),
            false => self.require_writer(),
        }
    }

    async fn close(&self) -> Result<(), Error> {
        self.end_writing().await
    }
}
