//! An upload session that a request uses.

use std::sync::Arc;

use crate::chain::State;
use bytes::Bytes;
use registry_core::hash::Hasher;
use registry_core::storage::UploadKey;
use registry_core::upload::Upload;
use registry_core::{Algorithm, Error, ErrorCode, RepositoryName, Timestamp, UploadId};

use super::edge::{Found, contended, read_latest};
use super::parked::Parked;
use super::session_lock::{HeldSession, Wanted, superseded};
use super::{Store, TRANSACTION_ATTEMPTS};
use crate::backend::{
    Again, Backend, Condition, Durability, RecordTransaction, StagedBytes, Transaction, Version,
};
use crate::bytes_name::BytesName;
use crate::key::Key;
use crate::record::{SessionRecord, Stamp, encode};
use crate::unique::unique;

/// A session as it was read.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) key: Key,
    pub(super) record: SessionRecord,
    pub(super) upload: Upload,
    /// The bytes after the last part, unless they are parked and were not brought back.
    pub(super) tail: Bytes,
    pub(super) version: Version,
    /// Keeps other requests out of the session, if this request writes.
    pub(super) held: Option<Arc<HeldSession>>,
    /// The snapshot that the session returns to unless the bytes added since become a blob. Only this is recorded.
    pub(super) standing: Option<Box<Snapshot>>,
    /// Whether it is recorded to make room. If so, it may use what a full disk reserves for that.
    pub(super) is_freeing: bool,
}

/// The contents of a session at one moment.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    record: SessionRecord,
    tail: Bytes,
    pub(super) version: Version,
}

impl Session {
    /// Returns the current contents of the session.
    pub(super) fn snapshot(&mut self) -> Snapshot {
        self.record.upload = self.upload.snapshot();
        Snapshot {
            record: self.record.clone(),
            tail: self.tail.clone(),
            version: self.version.clone(),
        }
    }

    /// Goes back to what the session had.
    pub(super) fn restore(&mut self, had: Snapshot) -> Result<(), Error> {
        self.upload = Upload::resume(had.record.upload.clone())?;
        // What was begun for the bytes has to be ended some day.
        let bytes = self.record.bytes.clone();
        self.record = SessionRecord { bytes, ..had.record };
        self.tail = had.tail;
        self.standing = None;
        Ok(())
    }

    /// Records the progress of another algorithm, in the standing snapshot too if that has all the bytes that were
    /// hashed.
    pub(super) fn note_other_hash(&mut self, hasher: &Hasher) {
        let snapshot = hasher.snapshot();
        if let Some(standing) = &mut self.standing
            && hasher.length() <= standing.record.parts_size
        {
            standing.record.other_hash = Some(snapshot.clone());
        }
        self.record.other_hash = Some(snapshot);
    }

    /// Returns where the tail is, if it is parked.
    pub(super) fn parked_tail(&self) -> Option<Parked> {
        let tail = self.record.parked_tail?;
        Some(Parked::tail(self.key.upload_id()?, tail))
    }

    /// Returns how many bytes come after the last part.
    pub(super) fn tail_size(&self) -> usize {
        let parked = self.record.parked_tail;
        parked.map_or(self.tail.len(), |parked| parked.size)
    }

    /// Encodes the session's record.
    pub(super) fn encode(&mut self, now: Timestamp) -> Result<Bytes, Error> {
        if let Some(standing) = &mut self.standing {
            self.record.stamp = Stamp::new(now);
            standing.record.stamp = Stamp::new(now);
            // A write that was begun for the bytes has to be ended some day.
            standing.record.bytes = self.record.bytes.clone();
            return encode_session(&standing.record, &standing.tail);
        }
        self.record.state = if self.upload.length().is_ok() {
            State::Live
        } else {
            State::Dead
        };
        self.record.upload = self.upload.snapshot();
        self.record.stamp = Stamp::new(now);
        encode_session(&self.record, &self.tail)
    }

    /// Builds a session from its record; `None` if there is no record.
    pub(super) fn from_found(key: &Key, found: Found<SessionRecord>) -> Result<Option<Self>, Error> {
        let version = found.version().cloned();
        let (Some((record, tail)), Some(version)) = (found.record, version) else {
            return Ok(None);
        };
        let upload = Upload::resume(record.upload.clone())?;
        Ok(Some(Self {
            key: key.clone(),
            record,
            upload,
            tail,
            version,
            held: None,
            standing: None,
            is_freeing: false,
        }))
    }
}

impl<B: Backend> Store<B> {
    pub(super) async fn create_session(
        &self,
        repository: &RepositoryName,
        principal: &str,
        algorithm: Algorithm,
    ) -> Result<UploadId, Error> {
        let now = self.clock.now();
        let id = UploadId::from_random(unique().as_u128());
        let is_in_use = |id| self.sessions.is_in_use(id);
        let evicted = self.open_sessions.begin(principal, id, now, is_in_use)?;
        let record = self.new_session(repository, principal, &Upload::new(algorithm), now);
        let put = PutRecord {
            key: Key::upload(id),
            value: encode(&record, &[])?,
            condition: Condition::Absent,
            is_freeing: false,
        };
        let create = async {
            if let Some(evicted) = evicted {
                self.make_room(evicted).await?;
            }
            let written = self.backend.transact(Durability::Deferred, put).await?;
            written.ok_or_else(contended)
        };
        match create.await {
            Ok(_) => Ok(id),
            Err(error) => {
                self.open_sessions.end(principal, id);
                Err(error)
            }
        }
    }

    /// Ends a session that another one replaces, unless a request continued it.
    async fn make_room(&self, id: UploadId) -> Result<(), Error> {
        let key = Key::upload(id);
        let session = self
            .backend
            .transact(Durability::Deferred, ReadSession(key))
            .await?;
        if let Some(session) = session.filter(|session| session.upload.length().is_ok()) {
            self.abort_session(session).await?;
        }
        Ok(())
    }

    /// Creates the record of a session, naming bytes that do not exist yet.
    pub(super) fn new_session(
        &self,
        repository: &RepositoryName,
        principal: &str,
        upload: &Upload,
        now: Timestamp,
    ) -> SessionRecord {
        SessionRecord {
            state: State::Live,
            repository: repository.clone(),
            principal: principal.to_owned(),
            upload: upload.snapshot(),
            bytes: StagedBytes {
                name: BytesName::random(now),
                token: None,
            },
            parts: Vec::new(),
            parts_size: 0,
            parked_tail: None,
            proposed: false,
            proposed_to: None,
            has_left_bytes: false,
            sealed: false,
            completed: false,
            other_hash: None,
            epoch: self.backend.epoch().map(str::to_owned),
            stamp: Stamp::new(now),
        }
    }

    /// Takes a session of the caller's from the request that holds it, and reads it.
    pub(super) async fn take_session(
        &self,
        upload: &UploadKey,
        wanted: Wanted,
    ) -> Result<(Session, Arc<HeldSession>), Error> {
        let held = self.sessions.take(upload.id, wanted).await;
        let mut session = self.load_session(upload).await?;
        session.held = Some(Arc::clone(&held));
        self.note_session(upload.id, &session);
        Ok((session, held))
    }

    /// Counts a session in its current state.
    pub(super) fn note_session(&self, id: UploadId, session: &Session) {
        let record = &session.record;
        match session.upload.length() {
            Ok(length) => {
                let used = record.stamp.written;
                self.open_sessions.note(&record.principal, id, used, length > 0);
            }
            Err(_) => self.open_sessions.end(&record.principal, id),
        }
    }

    /// Reads a session of the caller's. A session of another repository or principal is reported as unknown.
    pub(super) async fn load_session(&self, upload: &UploadKey) -> Result<Session, Error> {
        let key = Key::upload(upload.id);
        // Queued behind the waiting writes: the request that wrote the session may have been dropped.
        let session = self
            .backend
            .transact(Durability::Deferred, ReadSession(key))
            .await?;
        session
            .filter(|session| {
                session.record.repository == upload.repository && session.record.principal == upload.principal
            })
            .ok_or_else(|| ErrorCode::BlobUploadUnknown.into())
    }

    /// Reads a session once more; `None` if it is not remembered any more.
    pub(super) async fn latest_session(&self, session: &Session) -> Result<Option<Session>, Error> {
        let read = ReadSession(session.key.clone());
        let latest = self.backend.transact(Durability::Deferred, read).await?;
        Ok(latest.map(|latest| Session {
            held: session.held.clone(),
            ..latest
        }))
    }

    /// Writes a session's record.
    pub(super) async fn save_session(&self, session: &mut Session) -> Result<(), Error> {
        if self.try_save_session(session).await? {
            return Ok(());
        }
        Err(superseded())
    }

    /// Writes a session's record; returns `false` if it was written by another request since it was read.
    async fn try_save_session(&self, session: &mut Session) -> Result<bool, Error> {
        let put = PutRecord {
            key: session.key.clone(),
            value: session.encode(self.clock.now())?,
            condition: Condition::Matches(session.version.clone()),
            is_freeing: session.is_freeing,
        };
        let version = self
            .transact_held(Durability::Deferred, put, session.held.clone())
            .await?;
        if let (Some(version), Some(id)) = (&version, session.key.upload_id()) {
            session.version = version.clone();
            self.note_session(id, session);
        }
        Ok(version.is_some())
    }

    /// Runs a transaction that writes to a session. The session is held until the transaction has ended, even if the
    /// future that asked for it was dropped: otherwise the next request would read the session as it was before.
    pub(super) async fn transact_held<S: Transaction>(
        &self,
        durability: Durability,
        transaction: S,
        held: Option<Arc<HeldSession>>,
    ) -> Result<S::Output, Error> {
        let (output, _held) = self
            .backend
            .transact(durability, Held { transaction, held })
            .await?;
        Ok(output)
    }

    pub(super) async fn cancel_session(&self, upload: &UploadKey) -> Result<(), Error> {
        for _ in 0..TRANSACTION_ATTEMPTS {
            let (session, _held) = self.take_session(upload, Wanted::Cancel).await?;
            if self.abort_session(session).await?.is_some() {
                return Ok(());
            }
        }
        Err(contended())
    }

    /// Ends a session whose bytes are lost after the full disk refused a sync: what it kept is not known.
    pub(super) async fn end_if_lost(&self, session: Session) -> Result<(), Error> {
        let standing = session.standing.as_ref();
        let size = standing.map_or(session.record.parts_size, |had| had.record.parts_size);
        let found = self.backend.bytes_size(&session.record.bytes.name).await?;
        if size > found.unwrap_or_default() {
            self.abort_session(session).await?;
        }
        Ok(())
    }

    /// Ends a session, and returns it; returns `None` if it was written by another request since it was read. Bytes that
    /// were never offered to a blob go at once, because no commit can offer them any more. Others are the sweeper's: a commit
    /// in another process may be using them, and reads the session once more after it offered them.
    pub(super) async fn abort_session(&self, mut session: Session) -> Result<Option<Session>, Error> {
        session.upload = session.upload.aborted()?;
        session.tail = Bytes::new();
        let parked = session.parked_tail();
        session.record.parked_tail = None;
        session.standing = None;
        session.is_freeing = true;
        session.record.has_left_bytes = true;
        if !self.try_save_session(&mut session).await? {
            return Ok(None);
        }
        self.backend.abort_bytes(&session.record.bytes).await?;
        if !session.record.proposed {
            match self.backend.delete_bytes(&session.record.bytes.name).await {
                Ok(()) => {
                    session.record.has_left_bytes = false;
                    let parked = parked.map(|parked| parked.key);
                    let forget = RemoveAll(parked.into_iter().chain([session.key.clone()]).collect());
                    self.transact_held(Durability::Deferred, forget, session.held.clone())
                        .await?;
                }
                // The sweeper tries again, and reports it.
                Err(error) => tracing::debug!(%error, "the bytes of a cancelled upload were not deleted"),
            }
        }
        self.note_freed();
        Ok(Some(session))
    }
}

/// Encodes a session with its tail, which is not the content if it is parked.
pub(super) fn encode_session(record: &SessionRecord, tail: &Bytes) -> Result<Bytes, Error> {
    let is_parked = record.parked_tail.is_some();
    encode(record, if is_parked { &[] } else { tail })
}

/// Writes one record.
#[derive(Clone)]
struct PutRecord {
    key: Key,
    value: Bytes,
    condition: Condition,
    is_freeing: bool,
}

impl Transaction for PutRecord {
    type Output = Option<Version>;

    fn again(&self) -> Option<Again<Self>> {
        self.is_freeing.then(|| Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Self::Output, Error> {
        records.put(&self.key, self.value, self.condition).await
    }
}

/// Removes records that are never written again.
#[derive(Clone)]
pub(super) struct RemoveAll(pub(super) Vec<Key>);

impl Transaction for RemoveAll {
    type Output = ();

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        for key in &self.0 {
            records.remove(key).await?;
        }
        Ok(())
    }
}

/// Reads a session.
#[derive(Clone)]
struct ReadSession(Key);

impl Transaction for ReadSession {
    type Output = Option<Session>;

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Reading(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Self::Output, Error> {
        let found = read_latest::<SessionRecord>(records, &self.0).await?;
        Session::from_found(&self.0, found)
    }
}

/// A transaction whose session is held. The hold is returned with the output, and the backend keeps it until the
/// transaction has ended.
struct Held<S> {
    transaction: S,
    held: Option<Arc<HeldSession>>,
}

impl<S: Transaction> Transaction for Held<S> {
    type Output = (S::Output, Option<Arc<HeldSession>>);

    fn again(&self) -> Option<Again<Self>> {
        let again = self.transaction.again()?;
        Some(again.map(|transaction| Self {
            transaction,
            held: self.held.clone(),
        }))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Self::Output, Error> {
        Ok((self.transaction.run(records).await?, self.held))
    }
}
