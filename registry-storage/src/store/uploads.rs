//! The facet of uploads, and appending to one: from the socket, through the hash, to the bytes, one part at a time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use registry_core::hash::Hasher;
use registry_core::storage::{Body, UploadKey, UploadStorage};
use registry_core::{Algorithm, Digest, Error, ErrorCode, RepositoryName, Timestamp, UploadId};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Store;
use super::session::{Session, Snapshot};
use super::session_lock::HeldSession;
use crate::backend::{Backend, BytesWriter, Expect, MemoryPermit, Part};

/// A session's record is written at least each time this many bytes were added, so that a server that is killed loses
/// little of an upload.
const CHECKPOINT: u64 = 64 * 1024 * 1024;

/// While bytes arrive, however slowly, a session's record is written at least this often, or at every eighth of an idle
/// limit if that is less: the sweepers of other processes take the session's age from its record.
const TOUCH_INTERVAL: Duration = Duration::from_mins(5);

/// How long a closing request waits for the request that took its session. A proxy waits as long for an answer.
const OTHERS: Duration = Duration::from_secs(50);

/// Smaller pieces are hashed in place: handing them to another thread costs more.
const HASH_IN_PLACE: usize = 32 * 1024;

#[async_trait]
impl<B: Backend> UploadStorage for Store<B> {
    async fn create_upload(
        &self,
        repository: &RepositoryName,
        principal: &str,
        algorithm: Algorithm,
    ) -> Result<UploadId, Error> {
        self.note_room(self.create_session(repository, principal, algorithm).await)
    }

    async fn append_upload(
        &self,
        upload: &UploadKey,
        offset: Option<u64>,
        body: Body<'_>,
    ) -> Result<u64, Error> {
        let append = async {
            let (append, ending) = self.append(upload, offset, body, false).await?;
            ending?;
            append.session.upload.length()
        };
        self.note_room(append.await)
    }

    async fn upload_status(&self, upload: &UploadKey) -> Result<u64, Error> {
        self.load_session(upload).await?.upload.length()
    }

    async fn commit_upload(&self, upload: &UploadKey, digest: &Digest) -> Result<(), Error> {
        let commit = async {
            let (session, held) = self.take_session(upload, None).await?;
            self.commit_session(session, held, upload, digest).await
        };
        self.note_room(commit.await)
    }

    async fn finish_upload(
        &self,
        upload: &UploadKey,
        digest: &Digest,
        offset: Option<u64>,
        body: Body<'_>,
    ) -> Result<u64, Error> {
        let finish = async {
            let (append, ending) = self.append(upload, offset, body, true).await?;
            ending?;
            let Append { session, held, .. } = append;
            let size = session.upload.length()?;
            self.commit_session(session, held, upload, digest).await?;
            Ok(size)
        };
        match self.note_room(finish.await) {
            Err(error) if is_superseded(&error) => Err(self.what_became_of(upload, error).await),
            finished => finished,
        }
    }

    async fn cancel_upload(&self, upload: &UploadKey) -> Result<(), Error> {
        self.note_room(self.cancel_session(upload).await)
    }
}

impl<B: Backend> Store<B> {
    /// Appends a body, and returns the state of the append and how the body ended. If it `is_last`, its bytes are not
    /// recorded as the session's.
    async fn append(
        &self,
        upload: &UploadKey,
        offset: Option<u64>,
        body: Body<'_>,
        is_last: bool,
    ) -> Result<(Append<'_, B>, Result<(), Error>), Error> {
        let (mut session, held) = self.take_session(upload, offset).await?;
        let began_at = session.upload.append_at(offset)?;
        if session.record.completed {
            return Err(send_again());
        }
        self.catch_up_hash(&mut session).await?;
        let began = session.snapshot();
        if is_last {
            session.standing = Some(Box::new(began.clone()));
        }
        if self.backend.must_reserve_parts() {
            // From here on, another process that holds the session fails to write it.
            self.save_session(&mut session).await?;
        }
        let mut append = Append {
            store: self,
            session,
            held,
            writer: None,
            unsaved: 0,
            stored_tail: Bytes::new(),
        };
        let mut ending = append.run(body).await;
        if let Ok(ended) = &ending
            && !is_last
        {
            let is_sent_again = append.held.newest_offset() == Some(began_at);
            let saved = match ended {
                Err(error) if is_superseded(error) && is_sent_again => append.go_back(began.clone()).await,
                _ => append.save().await,
            };
            ending = saved.and(ending);
        }
        if let Err(error) = &ending
            && error.code() == ErrorCode::StorageFull
            && let Err(error) = append.give_back(began).await
        {
            tracing::debug!(%error, "an upload keeps what the full disk had room for");
        }
        Ok((append, ending?))
    }

    /// Waits for the request that took a session from a closing request, and returns the closing request's error: that
    /// the session is unknown if the other request finished it, as when a client sends one request several times at
    /// once; otherwise that it was stopped, so that its client sends it again.
    async fn what_became_of(&self, upload: &UploadKey, stopped: Error) -> Error {
        let free = self.sessions.free(upload.id);
        if timeout(OTHERS, free).await.is_err() {
            return stopped;
        }
        match self.load_session(upload).await {
            Ok(session) if session.upload.finished_digest().is_none() => stopped,
            _ => ErrorCode::BlobUploadUnknown.into(),
        }
    }

    /// Hashes the parts again if the state of the hash cannot be trusted or read.
    pub(super) async fn catch_up_hash(&self, session: &mut Session) -> Result<(), Error> {
        let epoch = self.backend.epoch();
        let trusted = epoch.is_some() && session.record.epoch.as_deref() == epoch;
        let size = session.record.parts_size;
        if size == 0 || trusted && session.upload.hasher().length() == size {
            return Ok(());
        }
        let hasher = Hasher::new(session.upload.hasher().algorithm());
        let hasher = self.hash_parts(session, hasher, size).await?;
        session.record.other_hash = None;
        session.upload = session
            .upload
            .clone()
            .with_progress(session.upload.length()?, hasher)?;
        session.record.epoch = epoch.map(str::to_owned);
        Ok(())
    }

    /// Hashes the parts of a session with another algorithm than the one that ran during the upload. The progress is
    /// recorded, so that no part is read a second time when a commit is tried again.
    pub(super) async fn hash_otherwise(
        &self,
        session: &mut Session,
        algorithm: Algorithm,
    ) -> Result<Hasher, Error> {
        let size = session.record.parts_size;
        let begun = session.record.other_hash.as_ref();
        let begun = begun.and_then(|begun| Hasher::resume(begun).ok());
        let mut hasher = begun
            .filter(|begun| begun.algorithm() == algorithm && begun.length() <= size)
            .unwrap_or_else(|| Hasher::new(algorithm));
        while hasher.length() < size {
            let end = size.min(hasher.length().saturating_add(CHECKPOINT));
            hasher = self.hash_parts(session, hasher, end).await?;
            session.note_other_hash(&hasher);
            self.save_session(session).await?;
        }
        Ok(hasher)
    }

    /// Continues hashing the parts of a session, up to `size` bytes of them.
    async fn hash_parts(&self, session: &Session, mut hasher: Hasher, size: u64) -> Result<Hasher, Error> {
        if size > hasher.length() {
            let unknown = || Error::from(ErrorCode::BlobUploadUnknown);
            let content = self
                .backend
                .open_bytes(&session.record.bytes.name, Expect::Nothing)
                .await?
                .ok_or_else(unknown)?;
            let mut stream = content.read(hasher.length()..size);
            while let Some(chunk) = stream.next().await {
                hasher = hash(hasher, chunk?).await?;
            }
            if hasher.length() != size {
                return Err(unknown());
            }
        }
        Ok(hasher)
    }
}

/// Another request took this request's session.
#[derive(Debug, thiserror::Error)]
#[error("another request went on with this upload")]
struct Superseded;

/// Returns the error of a request whose session another request took.
pub(super) fn superseded() -> Error {
    let message =
        "another request went on with this upload; send this one again, or ask for the status of the upload";
    let error = Error::new(ErrorCode::Unavailable, message).with_field("Retry-After", "1");
    error.with_cause(Superseded)
}

fn is_superseded(error: &Error) -> bool {
    let cause = std::error::Error::source(error);
    cause.is_some_and(|cause| cause.is::<Superseded>())
}

/// Returns the error for a session whose bytes are no longer usable.
pub(super) fn send_again() -> Error {
    Error::new(
        ErrorCode::BlobUploadInvalid,
        "the bytes of this upload cannot be used; start a new upload",
    )
}

/// Adds a chunk to a hash, on another thread if it is long.
pub(crate) async fn hash(mut hasher: Hasher, chunk: Bytes) -> Result<Hasher, Error> {
    if chunk.len() <= HASH_IN_PLACE {
        hasher.update(&chunk);
        return Ok(hasher);
    }
    let hashing = spawn_blocking(move || {
        hasher.update(&chunk);
        hasher
    });
    hashing.await.map_err(Error::internal)
}

/// An append in progress.
struct Append<'a, B> {
    store: &'a Store<B>,
    session: Session,
    held: Arc<HeldSession>,
    writer: Option<Box<dyn BytesWriter>>,
    /// Bytes in parts that the session's record does not count yet.
    unsaved: u64,
    /// The bytes after the last part that the session's record has, until they are in a part.
    stored_tail: Bytes,
}

/// A part whose bytes arrive.
enum Begun {
    /// Only what came after the previous part, in the same chunk.
    Start(Bytes),
    Gathered(Vec<u8>, MemoryPermit),
}

/// What was read from the body.
enum Filled {
    /// A whole part, and what came after it in the same chunk.
    Part(Bytes, Bytes, MemoryPermit),
    /// The rest, and why the body ended.
    Rest(Bytes, Result<(), Error>, Option<MemoryPermit>),
    /// An unfinished part, when the session's record is due to be written.
    Due(Vec<u8>, MemoryPermit),
}

impl<B: Backend> Append<'_, B> {
    /// Reads the body to its end, and returns how it ended.
    async fn run(&mut self, body: Body<'_>) -> Result<Result<(), Error>, Error> {
        let mut incoming = Incoming {
            body,
            held: Arc::clone(&self.held),
        };
        let store = self.store;
        let backend = &*store.backend;
        self.stored_tail = std::mem::take(&mut self.session.tail);
        let mut begun = Begun::Start(self.stored_tail.clone());
        let mut offset = self.session.record.parts_size;
        let mut full: Option<(Bytes, MemoryPermit)> = None;
        let ending = loop {
            let size = backend.part_size(offset);
            // The previous part is written while the next one arrives.
            let due = self.due();
            let is_due = || store.clock.now() >= due;
            let fill = async { Ok(fill(backend, begun, size, &mut incoming, is_due).await) };
            let write = async {
                match full.take() {
                    Some((part, _permit)) => self.write_part(part).await,
                    None => Ok(()),
                }
            };
            let ((), filled) = tokio::try_join!(write, fill)?;
            match filled {
                Filled::Part(part, rest, permit) => {
                    offset += part.len() as u64;
                    full = Some((part, permit));
                    begun = Begun::Start(rest);
                }
                Filled::Due(gathered, permit) => {
                    self.touch().await?;
                    begun = Begun::Gathered(gathered, permit);
                }
                Filled::Rest(rest, ending, _permit) => {
                    if rest.len() > backend.tail_limit(offset) {
                        self.write_part(rest).await?;
                    } else {
                        self.session.tail = rest;
                    }
                    break ending;
                }
            }
        };
        if let Some(writer) = self.writer.take() {
            writer.close().await?;
        }
        self.count()?;
        Ok(ending)
    }

    /// Stores and hashes a part.
    async fn write_part(&mut self, part: Bytes) -> Result<(), Error> {
        let backend = &*self.store.backend;
        let record = &mut self.session.record;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                if record.parts_size == 0 && record.bytes.token.is_none() {
                    record.bytes.token = backend.begin_bytes(&record.bytes.name).await?;
                }
                let guard = Arc::clone(&self.held) as Arc<dyn Send + Sync>;
                let writer = backend.write_bytes(&record.bytes, guard).await?;
                self.writer.insert(writer)
            }
        };
        let size = part.len() as u64;
        let hasher = self.session.upload.hasher().clone();
        let write = writer.write(record.parts.len(), record.parts_size, part.clone());
        let (tag, hasher) = tokio::try_join!(write, hash(hasher, part))?;
        record.parts.extend(tag.map(|tag| Part { size, tag }));
        record.parts_size += size;
        // The tail was the beginning of the first part.
        self.stored_tail = Bytes::new();
        self.unsaved += size;
        let upload = self.session.upload.clone();
        self.session.upload = upload.with_progress(self.session.record.parts_size, hasher)?;
        if backend.must_reserve_parts() || self.unsaved >= CHECKPOINT || self.store.clock.now() >= self.due()
        {
            self.save().await?;
        }
        Ok(())
    }

    /// Returns when the session's record has to be written again, so that other processes see that bytes arrive.
    fn due(&self) -> Timestamp {
        let options = &self.store.options;
        let limit = options.upload_idle_limit.min(options.empty_upload_idle_limit);
        let interval = (limit / 8).min(TOUCH_INTERVAL);
        let interval = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.session.record.stamp.written.0.saturating_add(interval))
    }

    /// Writes the session's record while bytes arrive that are in no part yet. The record keeps its tail.
    async fn touch(&mut self) -> Result<(), Error> {
        self.session.tail = self.stored_tail.clone();
        self.save().await?;
        self.session.tail = Bytes::new();
        Ok(())
    }

    /// Sets the session's length to that of its parts and tail.
    fn count(&mut self) -> Result<(), Error> {
        let length = self.session.record.parts_size + self.session.tail.len() as u64;
        let hasher = self.session.upload.hasher().clone();
        self.session.upload = self.session.upload.clone().with_progress(length, hasher)?;
        Ok(())
    }

    /// Gives back the space that this request used: on a full disk other requests need it, and a refused client begins
    /// a new upload. A bucket has room, and keeps its parts under their numbers.
    async fn give_back(&mut self, began: Snapshot) -> Result<(), Error> {
        let backend = &*self.store.backend;
        if !backend.is_atomic() {
            return Ok(());
        }
        // An open file keeps its space.
        self.writer = None;
        self.session.is_freeing = true;
        // Before the bytes go: a record never counts what is not there.
        self.go_back(began).await?;
        let record = &self.session.record;
        let guard = Arc::clone(&self.held) as Arc<dyn Send + Sync>;
        backend
            .shorten_bytes(&record.bytes, record.parts_size, guard)
            .await?;
        self.store.end_if_lost(self.session.clone()).await
    }

    /// Makes the session what it was when this request began.
    async fn go_back(&mut self, began: Snapshot) -> Result<(), Error> {
        let is_written = self.session.version != began.version;
        self.session.restore(began)?;
        if is_written {
            self.store.save_session(&mut self.session).await?;
        }
        Ok(())
    }

    async fn save(&mut self) -> Result<(), Error> {
        self.count()?;
        self.store.save_session(&mut self.session).await?;
        self.unsaved = 0;
        Ok(())
    }
}

/// Gathers the body's chunks until they make a part, the body ends or another request takes the session.
async fn fill(
    backend: &impl Backend,
    begun: Begun,
    size: usize,
    incoming: &mut Incoming<'_>,
    is_due: impl Fn() -> bool,
) -> Filled {
    let (mut gathered, permit) = match begun {
        Begun::Gathered(gathered, permit) => (gathered, permit),
        Begun::Start(mut chunk) => {
            if chunk.is_empty() {
                // A client that sends nothing uses no memory.
                match incoming.next().await {
                    Ok(Some(next)) => chunk = next,
                    Ok(None) => return Filled::Rest(chunk, Ok(()), None),
                    Err(error) => return Filled::Rest(chunk, Err(error), None),
                }
            }
            let permit = backend.reserve_memory(size).await;
            if chunk.len() >= permit.size() {
                return Filled::Part(chunk.split_to(permit.size()), chunk, permit);
            }
            // Small uploads take little memory, and large ones are copied once.
            (chunk.to_vec(), permit)
        }
    };
    let size = permit.size();
    loop {
        if is_due() {
            return Filled::Due(gathered, permit);
        }
        let mut chunk = match incoming.next().await {
            Ok(Some(next)) => next,
            Ok(None) => return Filled::Rest(gathered.into(), Ok(()), Some(permit)),
            Err(error) => return Filled::Rest(gathered.into(), Err(error), Some(permit)),
        };
        // Grow only as bytes arrive: a client may stop in the middle of a part.
        if chunk.len() > gathered.capacity() - gathered.len() {
            let wanted = chunk.len().max(gathered.len());
            gathered.reserve_exact(wanted.min(size - gathered.len()));
        }
        let rest = chunk.split_off(chunk.len().min(size - gathered.len()));
        gathered.extend_from_slice(&chunk);
        if gathered.len() == size {
            return Filled::Part(gathered.into(), rest, permit);
        }
    }
}

/// The body of an append, until another request takes the session.
struct Incoming<'a> {
    body: Body<'a>,
    held: Arc<HeldSession>,
}

impl Incoming<'_> {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let taken_over = async {
            self.held.taken_over().await;
            Err(superseded())
        };
        let next = async { self.body.as_mut().next().await.transpose() };
        // Bytes that have already arrived are taken, even if another request waits: a client whose bytes keep coming is
        // alive, and none arrive from a client that is gone.
        tokio::select! {
            biased;
            next = next => next,
            error = taken_over => error,
        }
    }
}
