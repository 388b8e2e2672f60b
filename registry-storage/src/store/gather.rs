//! Gathering the bytes of a part from a client that may be slow.
//!
//! The memory for a whole part is for clients that fill it soon. A client that does not gathers its part in pieces while memory is
//! scarce, and has each parked in the store ([`parked`](super::parked)); only the store's speed decides how long the part is in
//! memory, once all of it was sent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use registry_core::storage::Body;
use registry_core::{Error, UploadId};
use tokio::time::Instant;

use super::Store;
use super::parked::Parked;
use super::session_lock::HeldSession;
use crate::backend::{Backend, MemoryPermit};

/// So many bytes of a part may arrive before memory is reserved for it.
const UNRESERVED_BYTES: usize = 16 * 1024;

/// A client is fast if a part arrives within this time. Only a whole part shows it: many send in bursts, and what waited in the buffers
/// of the connection, or of a proxy, says nothing about the client.
const FAST_PART_TIME: Duration = Duration::from_secs(4);

/// A part whose bytes arrive.
pub(super) struct Gathering {
    /// Its first bytes, if they are parked.
    parked: Vec<Parked>,
    gathered: Vec<u8>,
    permit: Option<MemoryPermit>,
    /// What arrived and is not in it yet.
    rest: Bytes,
}

/// What was read from the body.
pub(super) enum Filled {
    /// A whole part, and what came after it in the same chunk.
    Part(Bytes, Bytes, MemoryPermit),
    /// The rest, and why the body ended.
    Rest(Bytes, Result<(), Error>, Option<MemoryPermit>),
    /// The tail that the session had and nothing after it, and why the body ended.
    Tail(Result<(), Error>),
    /// An unfinished part, when the session's record is due to be written.
    Due(Gathering),
}

impl Gathering {
    /// Begins a part with what came after the previous one in the same chunk.
    pub(super) const fn after(rest: Bytes) -> Self {
        Self::of(Vec::new(), rest)
    }

    /// Begins a part with the tail of a session, which is parked, or else in memory.
    pub(super) fn with_tail(parked: Option<Parked>, tail: Bytes) -> Self {
        match parked {
            Some(parked) => Self::of(vec![parked], Bytes::new()),
            None => Self::after(tail),
        }
    }

    const fn of(parked: Vec<Parked>, rest: Bytes) -> Self {
        Self {
            parked,
            gathered: Vec::new(),
            permit: None,
            rest,
        }
    }

    /// Returns how many bytes it has, here and in the store.
    fn len(&self) -> usize {
        self.parked_len() + self.gathered.len()
    }

    fn parked_len(&self) -> usize {
        self.parked.iter().map(|parked| parked.size).sum()
    }

    /// Adds bytes. It grows only as they arrive, up to `missing` more: a client may stop in the middle of a part.
    fn extend(&mut self, chunk: &[u8], missing: usize) {
        let gathered = &mut self.gathered;
        if chunk.len() > gathered.capacity() - gathered.len() {
            let wanted = chunk.len().max(gathered.len());
            gathered.reserve_exact(wanted.min(missing));
        }
        gathered.extend_from_slice(chunk);
    }

    /// Parks what was gathered, and gives back its memory.
    async fn park<B: Backend>(&mut self, store: &Store<B>, upload: UploadId) -> Result<(), Error> {
        let gathered = std::mem::take(&mut self.gathered).into();
        self.parked.extend(store.park(upload, gathered).await?);
        self.permit = None;
        Ok(())
    }

    /// Returns what was gathered when the body ended.
    async fn end<B: Backend>(self, store: &Store<B>, ending: Result<(), Error>) -> Result<Filled, Error> {
        if self.parked.is_empty() {
            return Ok(Filled::Rest(self.gathered.into(), ending, self.permit));
        }
        if self.gathered.is_empty() && self.parked.iter().all(|parked| parked.is_tail) {
            return Ok(Filled::Tail(ending));
        }
        let (bytes, memory) = self.put_together(store).await?;
        Ok(Filled::Rest(bytes, ending, Some(memory)))
    }

    /// Brings back what was parked.
    async fn put_together<B: Backend>(mut self, store: &Store<B>) -> Result<(Bytes, MemoryPermit), Error> {
        let (size, parked_size) = (self.len(), self.parked_len());
        let memory = match self.permit.take() {
            Some(memory) if memory.size() >= size => memory,
            // Nobody who has memory for a whole part waits for that of the piece, which it keeps meanwhile.
            piece => {
                let memory = store.backend.reserve_memory(size).await;
                drop(piece);
                memory
            }
        };
        let mut bytes = self.gathered;
        if !self.parked.is_empty() {
            let gathered = bytes.len();
            bytes.reserve_exact(parked_size);
            bytes.resize(size, 0);
            bytes.copy_within(..gathered, parked_size);
            let (front, _) = bytes.split_at_mut(parked_size);
            store.bring_back(self.parked, front).await?;
        }
        Ok((bytes.into(), memory))
    }
}

/// Gathers the chunks of a body.
pub(super) struct Gatherer<'a, B> {
    store: &'a Store<B>,
    incoming: Incoming<'a>,
    pace: Pace,
}

impl<'a, B: Backend> Gatherer<'a, B> {
    pub(super) fn new(store: &'a Store<B>, body: Body<'a>, held: Arc<HeldSession>) -> Self {
        Self {
            store,
            incoming: Incoming { body, held },
            pace: Pace::default(),
        }
    }

    /// Gathers chunks until they make a part of `size` bytes, or, if parts may have any size, of as many as there is memory for;
    /// or until the body ends or another request takes the session.
    pub(super) async fn fill(
        &mut self,
        mut part: Gathering,
        size: usize,
        is_due: impl Fn() -> bool,
    ) -> Result<Filled, Error> {
        let mut chunk = std::mem::take(&mut part.rest);
        let mut has_arrived = false;
        loop {
            if chunk.is_empty() {
                if has_arrived && is_due() {
                    return Ok(Filled::Due(part));
                }
                let next = tokio::select! {
                    biased;
                    next = self.incoming.next() => Some(next),
                    () = recalled(&mut part) => None,
                };
                chunk = match next {
                    Some(Ok(Some((chunk, waited)))) => {
                        self.pace.note(chunk.len(), waited, size);
                        chunk
                    }
                    Some(ended) => return part.end(self.store, ended.map(drop)).await,
                    None => {
                        self.pace = Pace::default();
                        if part.gathered.len() > UNRESERVED_BYTES {
                            part.park(self.store, self.incoming.held.id()).await?;
                        }
                        part.permit = None;
                        continue;
                    }
                };
                has_arrived = true;
            }
            let memory = match part.permit.take() {
                Some(memory) => memory,
                // Small uploads, and clients that stop after a few bytes, leave the memory to others.
                None if part.gathered.len() + chunk.len() <= UNRESERVED_BYTES
                    && part.len() + chunk.len() < size =>
                {
                    part.gathered.extend_from_slice(&std::mem::take(&mut chunk));
                    continue;
                }
                None => reserve(&*self.store.backend, size, self.pace.is_fast).await,
            };
            let whole = match self.store.backend.must_record_parts() {
                true => size,
                false => memory.size(),
            };
            let missing = whole.saturating_sub(part.len());
            let room = memory.size().saturating_sub(part.gathered.len()).min(missing);
            let rest = chunk.split_off(chunk.len().min(room));
            if part.len() == 0 && chunk.len() == whole {
                return Ok(Filled::Part(chunk, rest, memory));
            }
            part.extend(&chunk, room);
            chunk = rest;
            let is_full = part.gathered.len() >= memory.size();
            part.permit = Some(memory);
            if part.len() >= whole {
                let (bytes, memory) = part.put_together(self.store).await?;
                return Ok(Filled::Part(bytes, chunk, memory));
            }
            // A piece: with memory for the whole part, it would be whole.
            if is_full && self.pace.is_fast {
                part.permit = Some(self.store.backend.reserve_memory(size).await);
            } else if is_full {
                part.park(self.store, self.incoming.held.id()).await?;
            }
        }
    }
}

/// Reserves memory for what arrives of a part of `size` bytes.
async fn reserve(backend: &impl Backend, size: usize, is_fast: bool) -> MemoryPermit {
    let at_once = match is_fast {
        true => None,
        false => backend.memory_at_once(size),
    };
    match at_once {
        Some(memory) => memory,
        None => backend.reserve_memory(size).await,
    }
}

/// Waits until the memory that a part has is needed more by others.
async fn recalled(part: &mut Gathering) {
    match &mut part.permit {
        Some(memory) => memory.recalled(part.gathered.len()).await,
        None => std::future::pending().await,
    }
}

/// How fast a client sends. Nobody knows of a client that has just begun, or gave its memory back.
#[derive(Default)]
struct Pace {
    is_fast: bool,
    /// What arrived since that was decided, and how long it was waited for.
    bytes: usize,
    waited: Duration,
}

impl Pace {
    /// Notes that bytes of a part of `size` arrived.
    fn note(&mut self, bytes: usize, waited: Duration, size: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.waited = self.waited.saturating_add(waited);
        if self.bytes >= size {
            let time = self.waited.as_micros() * size as u128;
            let is_fast = time <= FAST_PART_TIME.as_micros() * self.bytes as u128;
            *self = Self {
                is_fast,
                ..Self::default()
            };
        }
    }
}

/// The body of an append, until another request takes the session.
struct Incoming<'a> {
    body: Body<'a>,
    held: Arc<HeldSession>,
}

impl Incoming<'_> {
    /// Returns the next chunk, and how long it was waited for.
    async fn next(&mut self) -> Result<Option<(Bytes, Duration)>, Error> {
        let begun = Instant::now();
        let stopped = async { Err(self.held.stopped().await) };
        let next = async { self.body.as_mut().next().await.transpose() };
        // Bytes that have already arrived are taken, even if another request waits: a client whose bytes keep coming is
        // alive, and none arrive from a client that is gone.
        let next = tokio::select! {
            biased;
            next = next => next,
            error = stopped => error,
        };
        Ok(next?.map(|chunk| (chunk, begun.elapsed())))
    }
}
