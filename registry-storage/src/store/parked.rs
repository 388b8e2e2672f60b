//! Bytes of an upload that are in records of their own until their part is whole.
//!
//! A session names those that it ended with, its tail. So its record is small, which every step of an upload reads or writes, and
//! nobody has a tail in memory who waits for a client. What is gathered while memory is scarce, no session names: it counts only once
//! it is in a part or a tail. What a process that dies leaves is removed with the session.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use registry_core::{Error, ErrorCode, UploadId};

use super::Store;
use super::edge::{read_latest, write};
use super::session::{RemoveAll, Session};
use super::session_lock::superseded;
use super::uploads::send_again;
use crate::backend::{Backend, Condition, Durability, MemoryPermit, RecordTransaction, Transaction};
use crate::key::Key;
use crate::record::{ParkedRecord, ParkedTail, Stamp};
use crate::unique::unique;

/// Longer tails are parked. Shorter ones are in the session's record, which spares three requests.
const TAIL_BYTES: usize = 64 * 1024;

/// The most bytes in one record of what is gathered.
const RECORD_BYTES: usize = 512 * 1024;

/// How many bytes of one upload are written or read at once, and in how many records at most: so much memory it takes besides.
const BYTES_AT_ONCE: usize = 1024 * 1024;
const RECORDS_AT_ONCE: usize = 16;

/// Some bytes of an upload that are parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parked {
    pub(super) key: Key,
    pub(super) size: usize,
    /// A session names it, so it stays when it is brought back.
    pub(super) is_tail: bool,
}

impl Parked {
    pub(super) fn tail(upload: UploadId, ParkedTail { id, size }: ParkedTail) -> Self {
        Self {
            key: Key::parked(upload, id),
            size,
            is_tail: true,
        }
    }
}

impl<B: Backend> Store<B> {
    /// Parks bytes of an upload. If that fails, the sweeper removes what was parked.
    pub(super) async fn park(&self, upload: UploadId, mut bytes: Bytes) -> Result<Vec<Parked>, Error> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            pieces.push(bytes.split_to(bytes.len().min(RECORD_BYTES)));
        }
        let writes = stream::iter(pieces).map(|content| async move {
            let (key, size) = (Key::parked(upload, unique()), content.len());
            self.park_as(key.clone(), content).await?;
            let is_tail = false;
            Ok(Parked { key, size, is_tail })
        });
        writes.buffered(BYTES_AT_ONCE / RECORD_BYTES).try_collect().await
    }

    /// Parks the tail of a session that is about to be recorded, if it is long. It stays in memory too.
    pub(super) async fn park_tail(&self, session: &mut Session) -> Result<(), Error> {
        let size = session.tail.len();
        if let Some(upload) = session.key.upload_id()
            && session.record.parked_tail.is_none()
            && size > TAIL_BYTES
            && self.backend.must_record_parts()
        {
            let id = unique();
            self.park_as(Key::parked(upload, id), session.tail.clone())
                .await?;
            session.record.parked_tail = Some(ParkedTail { id, size });
        }
        Ok(())
    }

    async fn park_as(&self, key: Key, content: Bytes) -> Result<(), Error> {
        let stamp = Stamp::new(self.clock.now());
        let record = ParkedRecord { stamp };
        let park = Park { key, record, content };
        self.backend.transact(Durability::Deferred, park).await
    }

    /// Brings back the tail of a session that is to become a blob, and returns the memory for it. Only for a request that has no
    /// other memory: two that have some would wait for each other.
    ///
    /// If another request has finished the session meanwhile, it is that session.
    ///
    /// # Errors
    /// Those of [`tail_is_gone`](Self::tail_is_gone).
    pub(super) async fn bring_back_tail(&self, session: &mut Session) -> Result<Option<MemoryPermit>, Error> {
        let Some(parked) = session.parked_tail() else {
            return Ok(None);
        };
        let memory = self.backend.reserve_memory(parked.size).await;
        let tail = self.backend.transact(Durability::Deferred, BringBack(parked));
        match tail.await {
            Ok(tail) => session.tail = tail,
            Err(error) if error.code() == ErrorCode::BlobUploadUnknown => {
                let latest = self.latest_session(session).await?;
                match latest.filter(|latest| latest.upload.finished_digest().is_some()) {
                    Some(finished) => *session = finished,
                    None => return Err(self.tail_is_gone(session).await),
                }
            }
            Err(error) => return Err(error),
        }
        Ok(Some(memory))
    }

    /// Returns why the tail of a session is gone: another request has the session or has ended it, or the medium lost the tail.
    pub(super) async fn tail_is_gone(&self, session: &Session) -> Error {
        match self.latest_session(session).await {
            Ok(Some(latest)) if latest.version == session.version => send_again(),
            Ok(Some(latest)) if latest.upload.length().is_ok() => superseded(),
            Ok(_) => ErrorCode::BlobUploadUnknown.into(),
            Err(error) => error,
        }
    }

    /// Removes the tail that was parked for a record of a session which was refused, unless the `recorded` one is meant. It may have been
    /// written and replaced since, and others may go on from there: only the session says whether it names the tail. After any other failure
    /// the record may still be written, so the tail goes with its session.
    pub(super) async fn leave_tail(&self, session: &Session, recorded: Option<Parked>) {
        let parked = session.parked_tail();
        if parked != recorded
            && let Ok(latest) = self.latest_session(session).await
        {
            let named = latest.and_then(|latest| latest.parked_tail());
            self.remove_tail_unless(parked, named).await;
        }
    }

    /// Removes a tail, unless it is the one that its session names.
    pub(super) async fn remove_tail_unless(&self, parked: Option<Parked>, named: Option<Parked>) {
        if let Some(parked) = parked.filter(|parked| Some(parked) != named.as_ref()) {
            self.remove_tail(parked).await;
        }
    }

    /// Removes a tail that no session names any more. If that fails, it goes with its session.
    pub(super) async fn remove_tail(&self, parked: Parked) {
        let remove = RemoveAll(vec![parked.key]);
        if let Err(error) = self.backend.transact(Durability::Deferred, remove).await {
            tracing::debug!(%error, "the former end of an upload was not removed");
        }
    }

    /// Fills `bytes` with what was parked.
    ///
    /// # Errors
    /// [`BlobUploadUnknown`](ErrorCode::BlobUploadUnknown) if it is gone, as it is once its session has ended.
    pub(super) async fn bring_back(&self, parked: Vec<Parked>, mut bytes: &mut [u8]) -> Result<(), Error> {
        let largest = parked.iter().map(|parked| parked.size).max().unwrap_or(1);
        let at_once = (BYTES_AT_ONCE / largest).clamp(1, RECORDS_AT_ONCE);
        let reads =
            stream::iter(parked).map(|parked| self.backend.transact(Durability::Deferred, BringBack(parked)));
        let mut reads = reads.buffered(at_once);
        while let Some(content) = reads.next().await {
            let content = content?;
            let (front, rest) = bytes
                .split_at_mut_checked(content.len())
                .ok_or_else(|| Error::from(ErrorCode::BlobUploadUnknown))?;
            front.copy_from_slice(&content);
            bytes = rest;
        }
        match bytes.is_empty() {
            true => Ok(()),
            false => Err(ErrorCode::BlobUploadUnknown.into()),
        }
    }
}

struct Park {
    key: Key,
    record: ParkedRecord,
    content: Bytes,
}

impl Transaction for Park {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        // No other record has its key.
        write(records, &self.key, &self.record, &self.content, Condition::Any).await?;
        Ok(())
    }
}

/// Reads what is parked, and removes it unless a session names it.
struct BringBack(Parked);

impl Transaction for BringBack {
    type Output = Bytes;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Bytes, Error> {
        let Parked { key, is_tail, .. } = self.0;
        let found = read_latest::<ParkedRecord>(records, &key).await?;
        let (_, content) = found.record.ok_or(ErrorCode::BlobUploadUnknown)?;
        if !is_tail {
            records.remove(&key).await?;
        }
        Ok(content)
    }
}
