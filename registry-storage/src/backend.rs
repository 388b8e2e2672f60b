//! What the storage protocol asks of a place that keeps records and bytes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use registry_core::Error;
use registry_core::storage::BlobContent;
use serde::{Deserialize, Serialize};

use crate::bytes_name::BytesName;
use crate::key::Key;

/// A version of a record. Equal versions of one key mean that nothing was written between; no value comes twice.
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
    /// Makes a record as it was read.
    #[must_use]
    pub fn new(value: Bytes, version: Version) -> Self {
        Self {
            value,
            version,
            checked: Checked::default(),
        }
    }
}

/// Remembers of a record that its content was compared with its digest. The clones of what was read share it, so that
/// a record which a cache keeps is compared once.
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

/// What is known of a record does not make it another one.
impl PartialEq for Checked {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Checked {}

/// What is known of a record without its value.
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

/// What must hold for a record to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// There is no record.
    Absent,
    /// The record is of this version.
    Matches(Version),
    /// Nothing: the last writer wins.
    Any,
}

/// When a transaction is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// When other transactions see it. It becomes durable with the next one that is [`Synced`](Self::Synced).
    Deferred,
    /// When it survives the loss of power.
    Synced,
}

/// Records as a [`Transaction`] sees them: every read is of the newest state, never from a cache.
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

    /// Writes a record if `condition` holds, and returns its new version; nothing where it does not hold, or where
    /// the backend cannot tell because the answer was lost and the record was replaced since.
    ///
    /// `value` must hold a fresh random nonce: a backend whose answer was lost tells by it whether its write won.
    ///
    /// # Errors
    /// Those of the medium; the record may have been written nevertheless.
    async fn put(&mut self, key: &Key, value: Bytes, condition: Condition) -> Result<Option<Version>, Error>;

    /// Removes a record that counts as absent already (a tombstone, a back reference), if it still is of `version`.
    ///
    /// A backend without a conditional delete leaves the record.
    ///
    /// # Errors
    /// Those of the medium.
    async fn purge_if(&mut self, key: &Key, version: &Version) -> Result<(), Error>;

    /// Removes a record whose key is never written again, whatever its version.
    ///
    /// # Errors
    /// Those of the medium.
    async fn remove(&mut self, key: &Key) -> Result<(), Error>;

    /// Lists at most `limit` (1 to 1000) records whose key begins with `prefix` and is after `after`, in the order
    /// of the bytes of their keys.
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
    /// On a disk they are that since [`Backend::seal_bytes`].
    ///
    /// # Errors
    /// [`BlobUploadInvalid`](registry_core::ErrorCode::BlobUploadInvalid) where a part is not what was written, and
    /// the client must send again; those of the medium.
    async fn complete_bytes(&mut self, bytes: &StagedBytes, parts: &[Part], tail: Bytes)
    -> Result<(), Error>;
}

/// Steps that read and write records: one durable, atomic step where the backend has transactions, else one after the other.
///
/// A transaction must leave the records in a state that another one can go on from after any of its steps, because a
/// crash may end it there. Its future may only wait for `records`. On a disk others wait for it meanwhile: one whose
/// length a client chooses is cut into several.
pub trait Transaction: Send + 'static {
    /// What it returns.
    type Output: Send + 'static;

    /// Returns a copy of a transaction that is to run once more where the commit that it was part of failed. A disk commits
    /// several at once, and one that frees space, or only reads, does not need the room that the others lacked.
    fn again(&self) -> Option<Again<Self>>
    where
        Self: Sized,
    {
        None
    }

    /// Runs the steps. An error undoes them where the backend has transactions; it must not hide one of `records`.
    fn run(
        self,
        records: &mut dyn RecordTransaction,
    ) -> impl Future<Output = Result<Self::Output, Error>> + Send;
}

/// A copy of a transaction that needs no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again<T> {
    /// It makes room: a delete. A disk that is full runs it with the space that it keeps for that, and takes nothing else
    /// until there is room again.
    Freeing(T),
    /// It only reads.
    Reading(T),
}

impl<T> Again<T> {
    /// Makes another transaction of it, which needs no room either.
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
    /// What the backend calls the write, where it has a name for it (a multipart upload).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// A part of unfinished bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The size in bytes.
    pub size: u64,
    /// What the backend calls the part (an entity tag).
    pub tag: String,
}

/// What must hold for bytes to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing: the caller looks at what it reads. On a disk this opens unfinished bytes too.
    Nothing,
    /// They have this size in bytes. A backend that has to ask for it may answer by what it saw within the last minute.
    Size(u64),
    /// They have this size in bytes now.
    SizeNow(u64),
}

/// Keeps other writers from a session for as long as a write goes on, even where the future that asked for it is gone.
pub type WriteGuard = Arc<dyn Send + Sync>;

/// Writes the parts of unfinished bytes.
#[async_trait]
pub trait BytesWriter: Send {
    /// Writes part `number` (from 0), whose first byte is at `offset`, and returns what the backend calls it.
    ///
    /// Cancel safety: a dropped future may leave the write going on; it holds the writer's guard until it ends.
    ///
    /// # Errors
    /// Those of the medium.
    async fn write(&mut self, number: usize, offset: u64, content: Bytes) -> Result<Option<String>, Error>;

    /// Makes the parts durable and closes the writer.
    ///
    /// # Errors
    /// Those of the medium; the parts must then be taken for lost.
    async fn close(self: Box<Self>) -> Result<(), Error>;
}

/// A place that keeps records and bytes.
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Reads a record. It is as new as the last transaction that ended before the call, unless the backend was told
    /// to serve older ones.
    fn get(&self, key: &Key) -> impl Future<Output = Result<Option<VersionedRecord>, Error>> + Send;

    /// Reads several records, each as [`get`](Self::get) does. The values are in memory at once: the caller knows their
    /// sizes from a listing, and asks for as many as it may have.
    fn get_all(
        &self,
        keys: &[Key],
    ) -> impl Future<Output = Result<Vec<Option<VersionedRecord>>, Error>> + Send;

    /// Returns the sizes of several records' values, as a listing has them, without reading the values; nothing for a
    /// record that is not there.
    fn sizes(&self, keys: &[Key]) -> impl Future<Output = Result<Vec<Option<u64>>, Error>> + Send;

    /// Lists records as [`RecordTransaction::list`] does.
    fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<RecordEntry>, Error>> + Send;

    /// Runs a transaction. Cancel safety: it may run to its end after the future was dropped, or stop between two steps.
    fn transact<S: Transaction>(
        &self,
        durability: Durability,
        transaction: S,
    ) -> impl Future<Output = Result<S::Output, Error>> + Send;

    /// Names the time for which what was written but not synced is there: the identifier of the running system for a
    /// disk; nothing where it is not known. A session of another epoch is hashed again from its bytes.
    fn epoch(&self) -> Option<&str>;

    /// Tells whether no transaction may write, ever.
    fn is_read_only(&self) -> bool {
        false
    }

    /// Tells whether a transaction is one step: nobody reads or writes records between two of its calls, and an error undoes
    /// all of them.
    fn is_atomic(&self) -> bool {
        false
    }

    /// Tells whether pushes are refused because there is no space, as far as was seen last. It asks nobody.
    fn is_short_of_space(&self) -> bool {
        false
    }

    /// Returns the size of the part that begins at `offset` of an upload. Only the last part may be smaller.
    fn part_size(&self, offset: u64) -> usize;

    /// Returns how many bytes after the last part, which ends at `offset`, may stay in the session's record.
    fn tail_limit(&self, offset: u64) -> usize;

    /// Tells whether a part must be named in the session's record before it is written, because the backend cannot
    /// tell afterwards which parts there are.
    fn must_reserve_parts(&self) -> bool;

    /// Reserves memory for a part of `size` bytes. Where it is not free, waits for it, or, where parts may be of any
    /// size, answers with a small permit at once, so that clients that send slowly do not keep others from sending.
    fn reserve_memory(&self, size: usize) -> impl Future<Output = MemoryPermit> + Send;

    /// Prepares for the parts of bytes that have a name and returns the token of the write.
    fn begin_bytes(&self, name: &BytesName) -> impl Future<Output = Result<Option<String>, Error>> + Send;

    /// Opens unfinished bytes for writing parts.
    fn write_bytes(
        &self,
        bytes: &StagedBytes,
        guard: WriteGuard,
    ) -> impl Future<Output = Result<Box<dyn BytesWriter>, Error>> + Send;

    /// Cuts unfinished bytes at `size` and makes them durable, with their name. May be repeated.
    ///
    /// The future returns [`BlobUploadUnknown`](registry_core::ErrorCode::BlobUploadUnknown) where fewer than `size`
    /// bytes are there.
    fn seal_bytes(&self, bytes: &StagedBytes, size: u64) -> impl Future<Output = Result<(), Error>> + Send;

    /// Gives back the space of unfinished bytes beyond the first `size`, which nothing counts. A backend whose space has
    /// no end does nothing. Cancel safety: a dropped future may leave that going on; it holds the guard until it ends.
    fn shorten_bytes(
        &self,
        bytes: &StagedBytes,
        size: u64,
        guard: WriteGuard,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Opens bytes for reading; nothing where there are none of that name, or not as expected.
    ///
    /// Where [`Expect::Nothing`] is expected, a backend that would have to ask whether they are there returns content
    /// whose streams begin with [`BlobUnknown`](registry_core::ErrorCode::BlobUnknown) where they are not.
    fn open_bytes(
        &self,
        name: &BytesName,
        expect: Expect,
    ) -> impl Future<Output = Result<Option<Arc<dyn BlobContent>>, Error>> + Send;

    /// Returns how many bytes are there under a name; nothing where there are none, or they are not finished and the
    /// backend does not show such.
    fn bytes_size(&self, name: &BytesName) -> impl Future<Output = Result<Option<u64>, Error>> + Send;

    /// Drops what was written of unfinished bytes that nothing names any more, if it is not listed as bytes.
    fn abort_bytes(&self, bytes: &StagedBytes) -> impl Future<Output = Result<(), Error>> + Send;

    /// Deletes bytes. It is no error if there are none of that name.
    fn delete_bytes(&self, name: &BytesName) -> impl Future<Output = Result<(), Error>> + Send;

    /// Lists at most `limit` names of bytes after `after`, in order; unfinished ones too where the backend shows them.
    fn list_bytes(
        &self,
        after: Option<&BytesName>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<BytesName>, Error>> + Send;

    /// Passes where records and bytes can be read, and, on a disk, written, as far as that can be told without writing.
    /// It asks the medium, not a cache; the error says what is wrong.
    fn probe(&self) -> impl Future<Output = Result<(), Error>> + Send;

    /// Ends background work and makes everything durable. What is asked for afterwards may fail.
    fn close(&self) -> impl Future<Output = Result<(), Error>> + Send;
}

/// Memory that was reserved; see [`Backend::reserve_memory`]. It is given back when this is dropped.
#[derive(Debug)]
pub struct MemoryPermit {
    size: usize,
    #[expect(
        dead_code,
        reason = "it is held, and gives the memory back when it is dropped"
    )]
    held: Option<tokio::sync::OwnedSemaphorePermit>,
}

impl MemoryPermit {
    /// Makes a permit for `size` bytes, which `held` stands for.
    #[must_use]
    pub const fn new(size: usize, held: Option<tokio::sync::OwnedSemaphorePermit>) -> Self {
        Self { size, held }
    }

    /// Returns how many bytes it is for.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }
}
