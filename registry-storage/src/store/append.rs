//! Appending to an upload: from the socket, through the hash, to the bytes, one part at a time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use registry_core::hash::Hasher;
use registry_core::storage::Body;
use registry_core::{Error, ErrorCode, Timestamp};

use super::Store;
use super::gather::{Filled, Gatherer, Gathering};
use super::hash::hash;
use super::in_flight::{Counted, InFlight};
use super::parked::Parked;
use super::session::{Session, Snapshot};
use super::session_lock::{HeldSession, is_superseded};
use crate::backend::{Backend, MemoryPermit, Part};
use crate::record::ParkedTail;

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
    in_flight: InFlight,
    /// Bytes in parts that the session's record does not count yet.
    unsaved: u64,
    /// The bytes after the last part that the session's record has, and where they are parked, until they are in a part. Those that are
    /// parked are usually not here.
    stored_tail: (Bytes, Option<ParkedTail>),
    /// The parked tail that the session's record names.
    pub(super) recorded_tail: Option<Parked>,
    /// The memory for the bytes after the last part, which are in memory until they are recorded.
    tail_memory: Option<MemoryPermit>,
}

/// A part that is written and not hashed yet.
type Unhashed = (Bytes, Option<Arc<MemoryPermit>>);

impl<'a, B: Backend> Append<'a, B> {
    pub(super) fn new(store: &'a Store<B>, session: Session, held: Arc<HeldSession>) -> Self {
        Self {
            store,
            recorded_tail: session.parked_tail(),
            session,
            held,
            in_flight: InFlight::default(),
            unsaved: 0,
            stored_tail: Default::default(),
            tail_memory: None,
        }
    }

    /// Reads the body to its end, and returns how it ended.
    pub(super) async fn run(&mut self, body: Body<'_>) -> Result<Result<(), Error>, Error> {
        let mut ended = self.read(body).await;
        if let Err(error) = &ended
            && error.code() == ErrorCode::BlobUploadUnknown
            && self.stored_tail.1.is_some()
        {
            self.put_back_tail();
            ended = Err(self.store.tail_is_gone(&self.session).await);
        }
        if ended.is_err() && self.store.backend.must_record_parts() {
            // Nothing of this request arrives any more when the next one begins, and what was written need not be sent again.
            self.in_flight.settle().await;
            self.count_parts()?;
            if let Err(error) = self.touch().await {
                tracing::debug!(%error, "parts of an upload that failed are not counted");
            }
        }
        ended
    }

    async fn read(&mut self, body: Body<'_>) -> Result<Result<(), Error>, Error> {
        let store = self.store;
        let backend = &*store.backend;
        let mut gatherer = Gatherer::new(store, body, Arc::clone(&self.held));
        self.stored_tail = (self.session.tail.clone(), self.session.record.parked_tail);
        let mut parked = self.session.parked_tail();
        if self.session.tail_size() >= backend.part_size(self.session.record.parts_size) {
            // Parts were made smaller since: the tail is some of them, and memory is reserved for each.
            drop(store.bring_back_tail(&mut self.session).await?);
            self.stored_tail.0 = self.session.tail.clone();
            parked = None;
        }
        let mut begun = Gathering::with_tail(parked, std::mem::take(&mut self.session.tail));
        self.session.record.parked_tail = None;
        if backend.must_record_parts() {
            // From here on, another process that holds the session fails to write it.
            self.touch().await?;
        }
        let mut number = self.session.record.parts.len();
        let mut offset = self.session.record.parts_size;
        let mut hasher = self.session.upload.hasher().clone();
        let mut full: Option<Unhashed> = None;
        let ending = loop {
            let size = backend.part_size(offset);
            let due = self.due();
            let is_due = || store.clock.now() >= due;
            // While one part is hashed and others are written, the next one arrives.
            let fill = gatherer.fill(begun, size, is_due);
            let work = async { tokio::try_join!(hash_part(hasher, full.take()), fill) };
            let (hashed, filled) = self.in_flight.beside(work).await??;
            hasher = self.note_hash(hashed);
            let (part, permit, ending) = match filled {
                Filled::Part(part, rest, permit) => {
                    begun = Gathering::after(rest);
                    (part, Some(permit), None)
                }
                Filled::Due(gathered) => {
                    begun = gathered;
                    self.count_parts()?;
                    self.touch().await?;
                    continue;
                }
                Filled::Tail(ending) => {
                    self.put_back_tail();
                    break ending;
                }
                Filled::Rest(rest, ending, permit) => {
                    self.require_room(offset, rest.len())?;
                    if rest.len() <= backend.tail_limit(offset) {
                        self.session.tail = rest;
                        self.tail_memory = permit;
                        break ending;
                    }
                    begun = Gathering::after(Bytes::new());
                    (rest, permit, Some(ending))
                }
            };
            self.require_room(offset, part.len())?;
            self.in_flight.fewer_than(backend.parts_at_once(size)).await?;
            self.count_parts()?;
            if self.unsaved >= CHECKPOINT_BYTES || store.clock.now() >= self.due() {
                self.touch().await?;
            }
            let memory = permit.map(Arc::new);
            self.write_part(number, offset, part.clone(), memory.clone())
                .await?;
            number += 1;
            offset += part.len() as u64;
            full = Some((part, memory));
            if let Some(ending) = ending {
                break ending;
            }
        };
        let hashed = self.in_flight.beside(hash_part(hasher, full)).await??;
        self.note_hash(hashed);
        self.in_flight.fewer_than(1).await?;
        self.count_parts()?;
        self.in_flight.close().await?;
        self.count()?;
        Ok(ending)
    }

    /// Refuses what makes an upload larger than its parts may be together, before it is all sent in vain.
    fn require_room(&self, offset: u64, size: usize) -> Result<(), Error> {
        match self.store.backend.most_upload_bytes() {
            Some(most) if offset.saturating_add(size as u64) > most => {
                let message = format!(
                    "a blob may have {most} bytes here, 10000 parts of `chunksize`; who runs this registry can raise that"
                );
                Err(Error::new(ErrorCode::BlobUploadInvalid, message))
            }
            _ => Ok(()),
        }
    }

    /// Begins to write a part.
    async fn write_part(
        &mut self,
        number: usize,
        offset: u64,
        part: Bytes,
        memory: Option<Arc<MemoryPermit>>,
    ) -> Result<(), Error> {
        let backend = &*self.store.backend;
        if offset == 0 && self.session.record.bytes.token.is_none() {
            let name = &self.session.record.bytes.name;
            self.session.record.bytes.token = backend.begin_bytes(name).await?;
            if backend.must_record_parts() {
                // Before the first part is sent: what a process that dies has begun, the sweeper ends.
                self.touch().await?;
            }
        }
        let writer = match self.in_flight.idle_writer() {
            Some(writer) => writer,
            None => {
                let guard = Arc::clone(&self.held) as Arc<dyn Send + Sync>;
                backend.write_bytes(&self.session.record.bytes, guard).await?
            }
        };
        self.in_flight.write(writer, number, offset, part, memory);
        Ok(())
    }

    fn note_hash(&mut self, (hasher, size): (Hasher, Option<u64>)) -> Hasher {
        if let Some(size) = size {
            self.in_flight.note_hash(size, hasher.clone());
        }
        hasher
    }

    /// Counts the parts that are written and that no earlier part is missing before. What is in flight is in no record: a
    /// request that goes on sends it again, under the same numbers, because the place of the bytes gives a part its number.
    fn count_parts(&mut self) -> Result<(), Error> {
        while let Some(Counted { size, tag, hasher }) = self.in_flight.next() {
            let record = &mut self.session.record;
            record.parts.extend(tag.map(|tag| Part { size, tag }));
            record.parts_size += size;
            // The tail was the beginning of the first part, or of some.
            let rest = self
                .stored_tail
                .0
                .len()
                .min(usize::try_from(size).unwrap_or(usize::MAX));
            self.stored_tail = (self.stored_tail.0.slice(rest..), None);
            self.unsaved += size;
            let upload = self.session.upload.clone();
            self.session.upload = upload.with_progress(self.session.record.parts_size, hasher)?;
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

    /// Writes the session's record while bytes arrive that it does not count yet, and parts are being written. Until its tail
    /// is in a part that it counts, it keeps the tail.
    async fn touch(&mut self) -> Result<(), Error> {
        self.put_back_tail();
        self.count()?;
        let save = self.store.save_session(&mut self.session);
        self.in_flight.beside(save).await??;
        self.note_recorded_tail();
        self.session.tail = Bytes::new();
        self.session.record.parked_tail = None;
        self.unsaved = 0;
        Ok(())
    }

    fn put_back_tail(&mut self) {
        (self.session.tail, self.session.record.parked_tail) = self.stored_tail.clone();
    }

    /// Sets the session's length to that of its parts and tail.
    fn count(&mut self) -> Result<(), Error> {
        let length = self.session.record.parts_size + self.session.tail_size() as u64;
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
        self.in_flight = InFlight::default();
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
            // Before: if the answer is lost, the record may name it.
            self.recorded_tail = self.session.parked_tail();
            self.store.save_session(&mut self.session).await?;
        }
        Ok(())
    }

    pub(super) async fn save(&mut self) -> Result<(), Error> {
        self.store.park_tail(&mut self.session).await?;
        self.count()?;
        if let Err(error) = self.store.save_session(&mut self.session).await {
            if is_superseded(&error) {
                let recorded = self.recorded_tail.clone();
                self.store.leave_tail(&self.session, recorded).await;
            }
            return Err(error);
        }
        self.note_recorded_tail();
        self.unsaved = 0;
        Ok(())
    }

    /// A session that stands records nothing of this request.
    fn note_recorded_tail(&mut self) {
        if self.session.standing.is_none() {
            self.recorded_tail = self.session.parked_tail();
        }
    }
}

/// Adds a part to the hash, and returns the hash and the part's size.
async fn hash_part(hasher: Hasher, full: Option<Unhashed>) -> Result<(Hasher, Option<u64>), Error> {
    let Some((part, _memory)) = full else {
        return Ok((hasher, None));
    };
    let size = part.len() as u64;
    Ok((hash(hasher, part).await?, Some(size)))
}
