//! An outbox: a bounded queue on disk that several consumers read, each at its own pace.
//!
//! An entry about something that is done elsewhere can be noted before as an *intent*, with [`Outbox::intend`]. When the
//! thing was done or not, [`Outbox::settle`] takes the intent away and appends the entries of what was done, at once.
//! [`Outbox::intents`] are those of a process that ended in between; whoever opens the outbox finds out what became of
//! them.
//!
//! What was appended survives the end of the process, whatever ended it, from the moment that [`Outbox::append`] is
//! ready; the loss of power takes at most what was appended in the second before. One thread owns the file, and appends that come at once
//! share one transaction.

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

/// How many commands wait for the thread at most, and how many bytes of entries with them.
const COMMANDS: usize = 4096;
const WAITING: u64 = 8 * 1024 * 1024;

/// The name of an intent, such as the bytes of a UUID.
pub type IntentName = [u8; 16];

/// How much an outbox may hold. Beyond it the oldest entries are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    /// The most entries.
    pub entries: u64,
    /// The most bytes that the file takes, or the memory; at least [`LEAST_BYTES`](Self::LEAST_BYTES). Some mebibytes of the
    /// log of the database come on top, for what is written at once. Intents have at most a quarter of it.
    pub bytes: u64,
}

impl OutboxLimits {
    /// The least bytes that there may be, a mebibyte; less is taken for it.
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

/// Why an outbox did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The disk is so slow that thousands of appends wait for it already.
    #[error("the outbox does not keep up")]
    Busy,
    /// It was closed.
    #[error("the outbox is closed")]
    Closed,
    /// Another process has the file open.
    #[error("another process uses this file; each server needs an outbox of its own")]
    InUse,
    /// A database cannot be in the place: the path is too long, or something that is no file is in its place or beside it.
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
pub struct OutboxEntry {
    /// Its place: entries are numbered in the order in which they were appended.
    pub sequence: u64,
    /// What was appended.
    pub value: Vec<u8>,
}

/// A bounded, durable queue with several consumers. Clones are the same queue.
#[derive(Clone, Debug)]
pub struct Outbox {
    commands: SyncSender<Command>,
    state: Arc<State>,
    end: watch::Receiver<u64>,
    outlives_process: bool,
}

/// What is told of a queue without asking its thread.
#[derive(Debug, Default)]
struct State {
    /// The place of the oldest entry that is kept.
    first: AtomicU64,
    dropped: AtomicU64,
    /// Bytes that wait for the thread.
    waiting: AtomicU64,
    thread: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Outbox {
    /// Opens the queue in the file at `path`, or makes it. Consumers that are not named are forgotten; a new one begins
    /// at the end.
    ///
    /// It blocks, so an async program calls it where it may.
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

    /// Returns the files of an outbox at `path`: it, and those that are made beside it.
    #[must_use]
    pub fn files(path: &Path) -> [PathBuf; 4] {
        sqlite_head::with_logs(path)
    }

    /// Looks at the head of the file at `path` without opening the queue. It blocks, for a moment.
    ///
    /// # Errors
    /// [`Place`](OutboxError::Place); the file is there and is that of no queue.
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

    /// Makes a queue that ends with the process.
    ///
    /// # Errors
    /// There are no threads left.
    pub fn in_memory(limits: OutboxLimits, consumers: &[&str]) -> Result<Self, OutboxError> {
        Self::start(Queue::in_memory(limits, consumers).map_err(Arc::new)?, false)
    }

    /// Tells whether what it holds outlives the process; otherwise there is no use in intents.
    #[must_use]
    pub const fn outlives_process(&self) -> bool {
        self.outlives_process
    }

    fn start(queue: Queue, outlives_process: bool) -> Result<Self, OutboxError> {
        let (commands, received) = std::sync::mpsc::sync_channel(COMMANDS);
        let state = Arc::new(State::default());
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

    /// Appends entries, in their order. They are safe when this is ready.
    ///
    /// # Errors
    /// The file cannot be written, or does not keep up; then nothing was appended.
    pub async fn append(&self, values: Vec<Vec<u8>>) -> Result<(), OutboxError> {
        self.ask(|reply| Command::Append(values, Some(reply))).await
    }

    /// Appends entries without waiting until they are safe.
    ///
    /// # Errors
    /// The queue does not keep up or is closed.
    pub fn append_later(&self, values: Vec<Vec<u8>>) -> Result<(), OutboxError> {
        self.send(Command::Append(values, None))
    }

    /// Notes what is about to happen, in place of what was noted by this name before. The intent is safe when this is
    /// ready, as an entry would be.
    ///
    /// # Errors
    /// The file cannot be written, or does not keep up; then nothing was noted.
    pub async fn intend(&self, name: IntentName, value: Vec<u8>) -> Result<(), OutboxError> {
        self.ask(|reply| Command::Intend(name, value, reply)).await
    }

    /// Takes an intent away, if it is there, and appends the entries of what was done; none where nothing was. They are
    /// safe when this is ready.
    ///
    /// # Errors
    /// The file cannot be written, or does not keep up; then the intent stays and nothing was appended.
    pub async fn settle(&self, name: IntentName, values: Vec<Vec<u8>>) -> Result<(), OutboxError> {
        self.ask(|reply| Command::Settle(name, values, reply)).await
    }

    /// Reads at most 100 intents that were not settled, the oldest first, and only that of a name where one is given.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn intents(&self, name: Option<IntentName>) -> Result<Vec<(IntentName, Vec<u8>)>, OutboxError> {
        self.ask(|reply| Command::Intents(name, reply)).await
    }

    /// Reads at most `limit` of the entries after `after`, and after what the consumer is known to have.
    ///
    /// # Errors
    /// The file cannot be read.
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

    /// Notes that a consumer has all entries up to `sequence`. What all consumers have is forgotten.
    ///
    /// # Errors
    /// The queue does not keep up or is closed; the consumer then may get the entries once more.
    pub fn acknowledge(&self, consumer: &str, sequence: u64) -> Result<(), OutboxError> {
        self.send(Command::Acknowledge {
            consumer: consumer.to_owned(),
            sequence,
        })
    }

    /// Returns what tells the place of the newest entry, and when that changes.
    #[must_use]
    pub fn end(&self) -> watch::Receiver<u64> {
        self.end.clone()
    }

    /// Returns how many entries wait for a consumer that has all up to `sequence`.
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

    /// Writes what was asked for so far, makes it durable and ends the thread. It blocks.
    pub fn close(&self) {
        let thread = self.state.thread().take();
        let Some(thread) = thread else { return };
        // An error is a thread that has ended.
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
        let sent = if waiting.saturating_add(size) > WAITING {
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

impl State {
    fn thread(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
