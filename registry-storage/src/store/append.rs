//! Appending to an upload: from the socket, through the hash, to the bytes, one part at a time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use registry_core::storage::Body;
use registry_core::{Error, Timestamp};

use super::Store;
use super::hash::hash;
use super::session::{Session, Snapshot};
use super::session_lock::HeldSession;
use crate::backend::{Backend, BytesWriter, MemoryPermit, Part};

/// A session's record is written at least each time this many bytes were added, so that a server that is killed loses
/// little of an upload.
pub(super) const CHECKPOINT_BYTES: u64 = 64 * 1024 * 1024;

/// While bytes arrive, however slowly, a session's record is written at least this often, or at every eighth of an idle
/// limit if that is less: the sweepers of other processes take the session's age from its record.
const TOUCH_INTERVAL: Duration = Duration::from_mins(5);

/// An append in progress.
pub(super) struct Append<'a, B> {
    store: &'a Store<B>,
    pub(super) session: Session,
    pub(super) held: Arc<HeldSession>,
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

impl<'a, B: Backend> Append<'a, B> {
    pub(super) const fn new(store: &'a Store<B>, session: Session, held: Arc<HeldSession>) -> Self {
        Self {
            store,
            session,
            held,
            writer: None,
            unsaved: 0,
            stored_tail: Bytes::new(),
        }
    }

    /// Reads the body to its end, and returns how it ended.
    pub(super) async fn run(&mut self, body: Body<'_>) -> Result<Result<(), Error>, Error> {
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
        if backend.must_record_parts()
            || self.unsaved >= CHECKPOINT_BYTES
            || self.store.clock.now() >= self.due()
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
    pub(super) async fn give_back(&mut self, began: Snapshot) -> Result<(), Error> {
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
    pub(super) async fn go_back(&mut self, began: Snapshot) -> Result<(), Error> {
        let is_written = self.session.version != began.version;
        self.session.restore(began)?;
        if is_written {
            self.store.save_session(&mut self.session).await?;
        }
        Ok(())
    }

    pub(super) async fn save(&mut self) -> Result<(), Error> {
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
        let stopped = async { Err(self.held.stopped().await) };
        let next = async { self.body.as_mut().next().await.transpose() };
        // Bytes that have already arrived are taken, even if another request waits: a client whose bytes keep coming is
        // alive, and none arrive from a client that is gone.
        tokio::select! {
            biased;
            next = next => next,
            error = stopped => error,
        }
    }
}
