//! An outbox: a bounded queue on disk that several consumers read, each at its own pace.
//!
//! An entry about an operation elsewhere can be noted before the operation as an *intent*, with [`Outbox::intend`].
//! Once the operation was done or not, [`Outbox::settle`] removes the intent and appends the entries of what was done,
//! as one step. [`Outbox::intents`] returns the intents of a process that ended in between; the process that opens the
//! outbox finds out how their operations ended.
//!
//! What was appended survives the end of the process, however it ends, from the moment that [`Outbox::append`] is
//! ready. A loss of power loses at most what was appended in the second before. One thread owns the file, and appends
//! that arrive together share one transaction.

mod queue;
#[cfg(test)]
mod tests;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::thread::JoinHandle;

use tokio::sync::{oneshot, watch};

use self::queue::Queue;
use self::worker::{Command, Worker};
use crate::sqlite_head::{self, HeadError};

/// The maximum number of commands that wait for the thread, and of bytes of entries in them.
const WAITING_COMMANDS: usize = 4096;
const WAITING_BYTES: u64 = 8 * 1024 * 1024;

/// The name of an intent, such as the bytes of a UUID.
pub type IntentName = [u8; 16];

/// How much an outbox may hold. Beyond that, the oldest entries are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    /// The maximum number of entries.
    pub entries: u64,
    /// The maximum size in bytes of the file or the memory; at least [`LEAST_BYTES`](Self::LEAST_BYTES). Some mebibytes
    /// of the database's log come on top, for what is written at once. Intents may take a quarter of it; beyond that,
    /// the oldest ones are dropped.
    pub bytes: u64,
}

impl OutboxLimits {
    /// The smallest limit in bytes, one mebibyte; a smaller one is raised to it.
    pub const LEAST_BYTES: u64 = 1024 * 1024;
}

impl Default for OutboxLimits {
    /// 100 000 entries, 64 MiB.
    fn default() -> Self {
        Self {
            entries: 100_000,
            bytes: 64 * 1024 * 1024,
        }
    }
}

/// Why an outbox operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxError {
    /// The disk is so slow that 4096 commands, or 8 MiB of entries, wait for it already.
    #[error("the outbox does not keep up")]
    Busy,
    /// The outbox was closed.
    #[error("the outbox is closed")]
    Closed,
    /// Another process has the file open.
    #[error("another process uses this file; each server needs an outbox of its own")]
    InUse,
    /// A database cannot be at this path: it is too long, or something that is not a file is in its place or next to
    /// it.
    #[error("the outbox cannot be there")]
    Place(#[source] std::io::Error),
    /// The file cannot be read or written.
    #[error("the outbox cannot be read or written")]
    File(#[from] Arc<rusqlite::Error>),
    /// The thread that owns the file cannot be started.
    #[error("the thread of the outbox cannot be started")]
    Thread(#[source] std::io::Error),
}

/// An entry of an [`Outbox`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxEntry {
    /// Its sequence number: entries are numbered in the order in which they were appended.
    pub sequence: u64,
    /// What was appended.
    pub value: Vec<u8>,
}

/// A bounded, durable queue with several consumers. Clones are the same queue.
#[derive(Clone, Debug)]
pub struct Outbox {
    commands: SyncSender<Command>,
    state: Arc<OutboxState>,
    end: watch::Receiver<u64>,
    outlives_process: bool,
}

/// What is known about a queue without asking its thread.
#[derive(Debug, Default)]
struct OutboxState {
    /// The sequence number of the oldest entry that is kept.
    first: AtomicU64,
    dropped: AtomicU64,
    /// Bytes that wait for the thread.
    waiting: AtomicU64,
    thread: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Outbox {
    /// Opens the queue in the file at `path`, or creates it. Consumers that are not named are forgotten; a new one
    /// begins at the end.
    ///
    /// It blocks, so an async program calls it on a thread that may block.
    ///
    /// # Errors
    /// [`InUse`](OutboxError::InUse), after five seconds; the file or the thread cannot be used.
    pub fn open(path: &Path, limits: OutboxLimits, consumers: &[&str]) -> Result<Self, OutboxError> {
        let refused = |cause: rusqlite::Error| match cause.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy) => OutboxError::InUse,
            _ => OutboxError::File(Arc::new(cause)),
        };
        Self::start(Queue::open(path, limits, consumers).map_err(refused)?, true)
    }

    /// Returns the files of an outbox at `path`: the file itself, and those created next to it.
    #[must_use]
    pub fn files(path: &Path) -> [PathBuf; 4] {
        sqlite_head::with_logs(path)
    }

    /// Examines the head of the file at `path` without opening the queue. It blocks briefly.
    ///
    /// # Errors
    /// [`Place`](OutboxError::Place); the file exists and is not that of a queue.
    pub fn check(path: &Path) -> Result<(), OutboxError> {
        sqlite_head::require_place(path).map_err(OutboxError::Place)?;
        match sqlite_head::user_version(path) {
            Err(HeadError::Foreign(cause)) => return Err(Arc::new(cause).into()),
            // Opening the queue reports what cannot be read.
            Err(HeadError::Disk(_)) => return Ok(()),
            Ok(_) if !path.exists() => return Ok(()),
            Ok(_) => {}
        }
        let own = sqlite_head::open_unlocked(path).and_then(|connection| queue::require_own(&connection));
        own.map_err(|cause| Arc::new(cause).into())
    }

    /// Creates a queue that ends with the process.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn in_memory(limits: OutboxLimits, consumers: &[&str]) -> Result<Self, OutboxError> {
        Self::start(Queue::in_memory(limits, consumers).map_err(Arc::new)?, false)
    }

    /// Returns whether its content outlives the process; if not, intents are useless.
    #[must_use]
    pub const fn outlives_process(&self) -> bool {
        self.outlives_process
    }

    fn start(queue: Queue, outlives_process: bool) -> Result<Self, OutboxError> {
        let (commands, received) = std::sync::mpsc::sync_channel(WAITING_COMMANDS);
        let state = Arc::new(OutboxState::default());
        let (end, seen) = watch::channel(queue.end());
        let worker = Worker::new(queue, Arc::clone(&state), end);
        let thread = std::thread::Builder::new()
            .name("outbox".into())
            .spawn(move || worker.run(&received))
            .map_err(OutboxError::Thread)?;
        *state.thread() = Some(thread);
        Ok(Self {
            commands,
            state,
            end: seen,
            outlives_process,
        })
    }

    /// Appends entries, in their order. They are safe once this returns. Cancel safety: once the future was polled, the
    /// entries are appended even if it is dropped.
    ///
    /// # Errors
    /// The file cannot be written, or the outbox does not keep up or is closed; then nothing was appended.
    pub async fn append(&self, values: Vec<Vec<u8>>) -> Result<(), OutboxError> {
        self.ask(|reply| Command::Append(values, Some(reply))).await
    }

    /// Appends entries without waiting until they are safe.
    ///
    /// # Errors
    /// The outbox does not keep up or is closed.
    pub fn append_later(&self, values: Vec<Vec<u8>>) -> Result<(), OutboxError> {
        self.send(Command::Append(values, None))
    }

    /// Notes an operation that is about to happen, in place of an earlier intent of the same name. The intent is safe
    /// once this returns, as an entry would be.
    ///
    /// # Errors
    /// The file cannot be written, or the outbox does not keep up or is closed; then nothing was noted.
    pub async fn intend(&self, name: IntentName, value: Vec<u8>) -> Result<(), OutboxError> {
        self.ask(|reply| Command::Intend(name, value, reply)).await
    }

    /// Removes an intent, if it exists, and appends the entries of what was done, or none if nothing was. They are safe
    /// once this returns.
    ///
    /// # Errors
    /// The file cannot be written, or the outbox does not keep up or is closed; then the intent stays and nothing was
    /// appended.
    pub async fn settle(&self, name: IntentName, values: Vec<Vec<u8>>) -> Result<(), OutboxError> {
        self.ask(|reply| Command::Settle(name, values, reply)).await
    }

    /// Reads at most 100 intents that were not settled, the oldest first; if `name` is given, only the intent of that
    /// name.
    ///
    /// # Errors
    /// The file cannot be read, or the outbox does not keep up or is closed.
    pub async fn intents(&self, name: Option<IntentName>) -> Result<Vec<(IntentName, Vec<u8>)>, OutboxError> {
        self.ask(|reply| Command::Intents(name, reply)).await
    }

    /// Reads at most `limit` entries after `after`, and after what the consumer has acknowledged.
    ///
    /// # Errors
    /// The file cannot be read, or the outbox does not keep up or is closed.
    pub async fn read(
        &self,
        consumer: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<OutboxEntry>, OutboxError> {
        let consumer = consumer.to_owned();
        self.ask(|reply| Command::Read {
            consumer,
            after,
            limit,
            reply,
        })
        .await
    }

    /// Notes that a consumer has all entries up to `sequence`. Entries that all consumers have are forgotten.
    ///
    /// # Errors
    /// The outbox does not keep up or is closed; the consumer may then get the entries once more.
    pub fn acknowledge(&self, consumer: &str, sequence: u64) -> Result<(), OutboxError> {
        self.send(Command::Acknowledge {
            consumer: consumer.to_owned(),
            sequence,
        })
    }

    /// Returns a receiver of the sequence number of the newest entry, which is notified when it changes.
    #[must_use]
    pub fn end(&self) -> watch::Receiver<u64> {
        self.end.clone()
    }

    /// Returns how many entries wait for a consumer that has all entries up to `sequence`.
    #[must_use]
    pub fn pending(&self, sequence: u64) -> u64 {
        let before_first = self.state.first.load(Ordering::Relaxed).saturating_sub(1);
        self.end.borrow().saturating_sub(sequence.max(before_first))
    }

    /// Returns how many entries were dropped unread since the queue was opened, because there were too many.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.state.dropped.load(Ordering::Relaxed)
    }

    /// Writes everything requested so far, makes it durable and ends the thread. It blocks.
    pub fn close(&self) {
        let thread = self.state.thread().take();
        let Some(thread) = thread else { return };
        // An error means that the thread has ended.
        drop(self.commands.send(Command::Close));
        if thread.join().is_err() {
            tracing::error!("the outbox's thread ended unexpectedly");
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, Arc<rusqlite::Error>>>) -> Command,
    ) -> Result<T, OutboxError> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply))?;
        Ok(answer.await.map_err(|_| OutboxError::Closed)??)
    }

    fn send(&self, command: Command) -> Result<(), OutboxError> {
        let size = command.size();
        let waiting = self.state.waiting.fetch_add(size, Ordering::Relaxed);
        let sent = if waiting.saturating_add(size) > WAITING_BYTES {
            Err(OutboxError::Busy)
        } else {
            self.commands.try_send(command).map_err(|error| match error {
                TrySendError::Full(_) => OutboxError::Busy,
                TrySendError::Disconnected(_) => OutboxError::Closed,
            })
        };
        if sent.is_err() {
            self.state.waiting.fetch_sub(size, Ordering::Relaxed);
        }
        sent
    }
}

impl OutboxState {
    fn thread(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
