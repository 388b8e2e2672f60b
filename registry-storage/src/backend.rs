//! What the storage protocol requires of a place that keeps records and bytes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use futures_util::stream;
use registry_core::quota::Amount;
use registry_core::storage::BlobContent;
use registry_core::{Digest, Error, RepositoryName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::bytes_name::BytesName;
use crate::key::Key;
pub use crate::memory_permit::MemoryPermit;

/// A version of a record. Equal versions of one key mean that nothing was written in between; no version is used twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(pub Arc<str>);

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionedRecord {
    /// The value.
    pub value: Bytes,
    /// The version to compare with.
    pub version: Version,
    pub(crate) checked: Checked,
}

impl VersionedRecord {
    /// Creates a record as it was read.
    #[must_use]
    pub fn new(value: Bytes, version: Version) -> Self {
        Self {
            value,
            version,
            checked: Checked::default(),
        }
    }
}

/// Remembers that a record's content was compared with its digest. The clones of a record share it, so that a record
/// kept in a cache is compared once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checked(Arc<AtomicBool>);

impl Checked {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether a record was checked does not affect its equality.
impl PartialEq for Checked {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Checked {}

/// What is known of a record without reading its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The version to compare with.
    pub version: Version,
    /// The size of the value in bytes.
    pub size: u64,
}

/// A record in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordEntry {
    /// The key.
    pub key: Key,
    /// The size of the value in bytes.
    pub size: u64,
}

/// The most records that one listing returns.
pub const LIST_LIMIT: usize = 1000;

/// What must hold for a record to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// No record exists.
    Absent,
    /// The record has this version.
    Matches(Version),
    /// Always holds: the last writer wins.
    Any,
}

/// When a transaction is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// When other transactions see it. It becomes durable with the next transaction that is [`Synced`](Self::Synced).
    Deferred,
    /// When it survives a loss of power.
    Synced,
}

/// Records as a [`Transaction`] sees them: every read returns the newest state, never a cached one.
#[async_trait]
pub trait RecordTransaction: Send {
    /// Reads a record.
    ///
    /// # Errors
    /// Those of the medium.
    async fn get(&mut self, key: &Key) -> Result<Option<VersionedRecord>, Error>;

    /// Reads the version and the size of a record, and so its state, without the value.
    ///
    /// # Errors
    /// Those of the medium.
    async fn stat(&mut self, key: &Key) -> Result<Option<Stat>, Error>;

    /// Writes a record if `condition` holds, and returns its new version. Returns `None` if it does not hold, or if the
    /// backend cannot know because the answer was lost and the record was replaced since.
    ///
    /// `value` must hold a fresh random nonce: a backend whose answer was lost recognizes its own write by it.
    ///
    /// # Errors
    /// Those of the medium; the record may have been written anyway.
    async fn put(&mut self, key: &Key, value: Bytes, condition: Condition) -> Result<Option<Version>, Error>;

    /// Removes a record that counts as absent already (a tombstone, a back reference), if it still has `version`. Returns whether
    /// it is gone.
    ///
    /// A backend without a conditional delete leaves the record.
    ///
    /// # Errors
    /// Those of the medium.
    async fn purge_if(&mut self, key: &Key, version: &Version) -> Result<bool, Error>;

    /// Returns whether a record that this transaction found absent may have been written and purged by others since. Not so
    /// if a transaction is one step, or if nothing is ever purged.
    fn others_purge(&self) -> bool {
        true
    }

    /// Returns whether [`purge_if`](Self::purge_if) removes records.
    fn purges(&self) -> bool {
        true
    }

    /// Removes a record, whatever its version. Its key is never written again.
    ///
    /// # Errors
    /// Those of the medium.
    async fn remove(&mut self, key: &Key) -> Result<(), Error>;

    /// Lists the first `limit` (1 to [`LIST_LIMIT`]) records whose key begins with `prefix` and is after `after`, in the
    /// byte order of their keys. Fewer than `limit` are all that follow.
    ///
    /// # Errors
    /// Those of the medium.
    async fn list(
        &mut self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<RecordEntry>, Error>;

    /// Makes unfinished bytes readable as a whole: `parts` in their order, then `tail`. May be repeated.
    ///
    /// On a disk they are readable as a whole from [`Backend::seal_bytes`] on.
    ///
    /// # Errors
    /// [`BlobUploadInvalid`](registry_core::ErrorCode::BlobUploadInvalid) if a part is not what was written, and the
    /// client must send it again; those of the medium.
    async fn complete_bytes(&mut self, bytes: &StagedBytes, parts: &[Part], tail: Bytes)
    -> Result<(), Error>;

    /// Sets aside what the next writes of this transaction add to a repository, so that a quota refuses all of them or
    /// none; what is set aside and not used is given back at its end. Returns whether there is such a quota. A backend
    /// has none: a [`Store`](crate::Store) wraps it.
    ///
    /// # Errors
    /// [`Denied`](registry_core::ErrorCode::Denied) if a quota has no room for it; those of the medium.
    async fn set_aside(&mut self, _repository: &RepositoryName, _more: Amount) -> Result<bool, Error> {
        Ok(false)
    }
}

/// Steps that read and write records: one durable, atomic step if the backend has transactions, otherwise one after the
/// other.
///
/// A crash may end a transaction after any of its steps, so each step must leave the records in a state from which
/// another transaction can continue. Its future may only wait for `records`. On a disk, other transactions wait for it
/// meanwhile, so a transaction whose length a client chooses is split into several.
pub trait Transaction: Send + 'static {
    /// What it returns.
    type Output: Send + 'static;

    /// Returns a copy of a transaction that is to run once more if the commit that it was part of failed. A disk
    /// commits several at once, and a transaction that frees space, or only reads, does not need the room that the
    /// others lacked.
    fn again(&self) -> Option<Again<Self>>
    where
        Self: Sized,
    {
        None
    }

    /// Runs the steps. An error undoes them if the backend has transactions. The steps must not hide an error of
    /// `records`.
    fn run(
        self,
        records: &mut dyn RecordTransaction,
    ) -> impl Future<Output = Result<Self::Output, Error>> + Send;
}

/// A copy of a transaction that needs no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again<T> {
    /// It makes room: a delete. A disk that is full runs it with the space that it keeps for that, and accepts nothing
    /// else until there is room again.
    Freeing(T),
    /// It only reads.
    Reading(T),
}

impl<T> Again<T> {
    /// Turns it into another transaction, which needs no room either.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Again<U> {
        match self {
            Self::Freeing(transaction) => Again::Freeing(change(transaction)),
            Self::Reading(transaction) => Again::Reading(change(transaction)),
        }
    }
}

/// Bytes that are being written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedBytes {
    /// The name.
    pub name: BytesName,
    /// The backend's name for the write, if it has one (a multipart upload).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// Bytes that a medium keeps the parts of, because somebody began to write them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BegunBytes {
    /// The bytes, with the backend's name for the write.
    pub bytes: StagedBytes,
    /// When that was begun, by the clock of the medium.
    pub begun: Timestamp,
}

/// A part of unfinished bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The size in bytes.
    pub size: u64,
    /// The backend's name for the part (an entity tag).
    pub tag: String,
}

/// What must hold for bytes to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No condition: the caller checks what it reads. On a disk this opens unfinished bytes too.
    Nothing,
    /// They have this size in bytes. A backend that has to send a request for it may rely on what it saw within the
    /// last minute.
    Size(u64),
    /// They have this size in bytes now.
    SizeNow(u64),
}

/// Whether a backend can be written, and how much space it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteState {
    /// Nothing is ever written: as [`Backend::is_read_only`].
    pub is_read_only: bool,
    /// Why nothing is written at the moment, and what helps; `None` while it writes.
    pub stopped: Option<String>,
    /// What is wrong with the space, and what helps; `None` while there is enough. While it is `Some`, pulls are served,
    /// deletes are accepted as far as there is room for them, and pushes get
    /// [`StorageFull`](registry_core::ErrorCode::StorageFull).
    pub lacks_space: Option<String>,
    /// The space at the last [probe](Backend::probe); `None` before the first one, and if it is unlimited.
    pub space: Option<Space>,
}

/// The space of the medium of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Space {
    /// How many bytes this process may still write, besides what is reserved for deletes.
    pub free: u64,
    /// The total number of bytes.
    pub size: u64,
}

/// Only a store in a folder has what was asked for.
#[cfg(all(feature = "filesystem", unix))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("only a registry in a folder has that, not one in a bucket or in memory")]
#[non_exhaustive]
pub struct NotOnDisk;

/// Keeps other writers out of a session while a write is in progress, even if the future that asked for it was dropped.
pub type WriteGuard = Arc<dyn Send + Sync>;

/// Writes the parts of unfinished bytes.
#[async_trait]
pub trait BytesWriter: Send {
    /// Writes part `number` (from 0), whose first byte is at `offset`, and returns the backend's name for it, if it has
    /// one.
    ///
    /// Cancel safety: after the future is dropped, the write may continue; it holds the writer's guard until it ends.
    ///
    /// # Errors
    /// Those of the medium.
    async fn write(&mut self, number: usize, offset: u64, content: Bytes) -> Result<Option<String>, Error>;

    /// Makes the parts durable and closes the writer.
    ///
    /// # Errors
    /// Those of the medium; the parts must then be considered lost.
    async fn close(self: Box<Self>) -> Result<(), Error>;
}

/// A place that keeps records and bytes.
///
/// A whole backend that passes `registry_storage::backend_conformance_tests!`, on two maps:
///
/// ```
#[doc = include_str!("../examples/backend/maps.rs")]
/// # drop(registry_storage::Store::new(MapBackend::default()));
/// ```
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Reads a record, or returns `None` if it does not exist. It is as new as the last transaction that ended before
    /// the call.
    fn get(&self, key: &Key) -> impl Future<Output = Result<Option<VersionedRecord>, Error>> + Send;

    /// Returns a record from memory that may be older than the last transaction, if the backend is configured to serve such
    /// ones; it makes no request. It is for answers to clients that pull, and decides nothing that is written. The default is
    /// `None`.
    fn recall(&self, _key: &Key) -> Option<VersionedRecord> {
        None
    }

    /// Reads several records, each as [`get`](Self::get) does. The values are in memory at once: the caller knows their
    /// sizes from a listing, and asks for as many as it has memory for.
    fn get_all(
        &self,
        keys: &[Key],
    ) -> impl Future<Output = Result<Vec<Option<VersionedRecord>>, Error>> + Send;

    /// Returns the sizes of several records' values, as a listing has them, without reading the values; `None` for a
    /// record that does not exist.
    fn sizes(&self, keys: &[Key]) -> impl Future<Output = Result<Vec<Option<u64>>, Error>> + Send;

    /// Lists records as [`RecordTransaction::list`] does.
    fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<RecordEntry>, Error>> + Send;

    /// Runs a transaction. Cancel safety: after the future is dropped, it may run to its end, or stop between two
    /// steps.
    fn transact<S: Transaction>(
        &self,
        durability: Durability,
        transaction: S,
    ) -> impl Future<Output = Result<S::Output, Error>> + Send;

    /// Names the period for which data that was written but not synced is kept: for a disk, the identifier of the
    /// running system; `None` if it is not known. A session of another epoch is hashed again from its bytes.
    fn epoch(&self) -> Option<&str>;

    /// Returns whether no transaction may ever write. The default is `false`.
    fn is_read_only(&self) -> bool {
        false
    }

    /// Returns whether a transaction is one step: no other transaction reads or writes records between two of its
    /// calls, and an error undoes all of them. The default is `false`.
    fn is_atomic(&self) -> bool {
        false
    }

    /// Returns whether pushes are refused for lack of space, as far as was last seen; it makes no request. The default
    /// is `false`.
    fn is_short_of_space(&self) -> bool {
        false
    }

    /// Returns whether it can be written, and how much space it has, as far as was last seen; it makes no request. The
    /// default is that of a backend that always can and whose space is unlimited.
    fn write_state(&self) -> WriteState {
        WriteState::default()
    }

    /// Returns the size of the part that begins at `offset` of an upload. Only the last part may be smaller.
    fn part_size(&self, offset: u64) -> usize;

    /// Returns how many bytes after the last part, which ends at `offset`, may stay in the session's record.
    fn tail_limit(&self, offset: u64) -> usize;

    /// Returns whether the session's record must name the parts that were written, because the backend cannot find out
    /// afterwards which parts exist. Then only the last part may be smaller than [`part_size`](Self::part_size), so
    /// [`tail_limit`](Self::tail_limit) is one byte less than it.
    fn must_record_parts(&self) -> bool;

    /// Returns whether the parts of unfinished bytes can be read before the bytes are complete.
    fn can_read_staged_bytes(&self) -> bool;

    /// Returns how many bytes an upload may have, if the backend's parts limit that. The default is `None`.
    fn most_upload_bytes(&self) -> Option<u64> {
        None
    }

    /// Returns how many parts of `size` bytes one upload writes at once, at least one, each with a writer of its own. One more
    /// is in memory while it arrives. The default is one.
    fn parts_at_once(&self, _size: usize) -> usize {
        1
    }

    /// Reserves memory, without waiting, for a part of `size` bytes whose client has not shown that it sends fast: for all of the
    /// part, or, if memory is scarce, for fewer bytes, which are parked in the store once they are there. The default is `None`:
    /// then [`reserve_memory`](Self::reserve_memory) has it.
    fn memory_at_once(&self, _size: usize) -> Option<MemoryPermit> {
        None
    }

    /// Reserves memory for a part of `size` bytes. If it is not free, waits for it, or, if parts may be of any size,
    /// returns a small permit at once, so that clients that send slowly do not keep others from sending.
    fn reserve_memory(&self, size: usize) -> impl Future<Output = MemoryPermit> + Send;

    /// Prepares for the parts of bytes that have a name, and returns the token of the write, if the backend has one.
    fn begin_bytes(&self, name: &BytesName) -> impl Future<Output = Result<Option<String>, Error>> + Send;

    /// Opens unfinished bytes for writing parts.
    fn write_bytes(
        &self,
        bytes: &StagedBytes,
        guard: WriteGuard,
    ) -> impl Future<Output = Result<Box<dyn BytesWriter>, Error>> + Send;

    /// Cuts unfinished bytes at `size` and makes them durable, with their name. May be repeated.
    ///
    /// The future returns [`BlobUploadUnknown`](registry_core::ErrorCode::BlobUploadUnknown) if fewer than `size` bytes
    /// exist.
    fn seal_bytes(&self, bytes: &StagedBytes, size: u64) -> impl Future<Output = Result<(), Error>> + Send;

    /// Gives back the space of unfinished bytes beyond the first `size`, which do not count. A backend with unlimited
    /// space does nothing. Cancel safety: after the future is dropped, this may continue; it holds the guard until it
    /// ends.
    fn shorten_bytes(
        &self,
        bytes: &StagedBytes,
        size: u64,
        guard: WriteGuard,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Opens bytes for reading. Returns `None` if no bytes have that name, or if they are not as expected.
    ///
    /// With [`Expect::Nothing`], a backend that would have to send a request to find out whether they exist returns
    /// content whose streams begin with [`BlobUnknown`](registry_core::ErrorCode::BlobUnknown) if they do not.
    fn open_bytes(
        &self,
        name: &BytesName,
        expect: Expect,
    ) -> impl Future<Output = Result<Option<Arc<dyn BlobContent>>, Error>> + Send;

    /// Opens the bytes of a blob for a client, as [`open_bytes`](Self::open_bytes) does with [`Expect::Size`], which is the
    /// default. A backend may have the content elsewhere, by its digest.
    fn open_blob(
        &self,
        _digest: &Digest,
        name: &BytesName,
        size: u64,
    ) -> impl Future<Output = Result<Option<Arc<dyn BlobContent>>, Error>> + Send {
        self.open_bytes(name, Expect::Size(size))
    }

    /// Returns how many bytes exist under a name; `None` if there are none, or if they are not finished and the backend
    /// does not show unfinished ones.
    fn bytes_size(&self, name: &BytesName) -> impl Future<Output = Result<Option<u64>, Error>> + Send;

    /// Returns whether [`are_whole`](Self::are_whole) is cheap enough to be asked at each push of a manifest: it is if it costs no
    /// request. The default is `false`.
    fn has_near_bytes(&self) -> bool {
        false
    }

    /// Returns which of these finished bytes have the size that is given with their name. What was whole within the last minute
    /// may count as whole.
    fn are_whole(&self, bytes: &[(BytesName, u64)]) -> impl Future<Output = Result<Vec<bool>, Error>> + Send {
        async move {
            let mut whole = Vec::with_capacity(bytes.len());
            for (name, size) in bytes {
                whole.push(self.bytes_size(name).await? == Some(*size));
            }
            Ok(whole)
        }
    }

    /// Makes the next read of a range of bytes come from the medium, and not from memory that has what the medium had
    /// once: for callers that verify what it has. A backend whose reads always ask the medium does nothing.
    fn forget_cached(
        &self,
        name: &BytesName,
        range: Range<u64>,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Lists, page by page, the unfinished bytes that [`abort_bytes`](Self::abort_bytes) drops and
    /// [`list_bytes`](Self::list_bytes) does not show, whoever began them. A medium that cannot say that lists none, which is the
    /// default.
    fn begun_bytes(&self) -> impl Stream<Item = Result<Vec<BegunBytes>, Error>> + Send {
        stream::empty()
    }

    /// Drops what was written of unfinished bytes that nothing names any more, unless they are listed as bytes.
    fn abort_bytes(&self, bytes: &StagedBytes) -> impl Future<Output = Result<(), Error>> + Send;

    /// Deletes bytes. It is no error if none have that name.
    fn delete_bytes(&self, name: &BytesName) -> impl Future<Output = Result<(), Error>> + Send;

    /// Lists at most `limit` names of bytes after `after`, in order; also unfinished ones, if the backend shows them.
    fn list_bytes(
        &self,
        after: Option<&BytesName>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<BytesName>, Error>> + Send;

    /// Succeeds if records and bytes can be read, and, on a disk, written, as far as that can be found out without
    /// writing. It asks the medium, not a cache; the error says what is wrong.
    fn probe(&self) -> impl Future<Output = Result<(), Error>> + Send;

    /// Ends background work and makes everything durable. Later calls may fail.
    fn close(&self) -> impl Future<Output = Result<(), Error>> + Send;
}
