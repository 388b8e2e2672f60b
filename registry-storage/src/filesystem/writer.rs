//! The thread that writes records. It merges the sequences that wait into one commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use registry_core::{Error, ErrorCode};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::cache::RecordCache;
use super::disk::Disk;
use super::health::{Health, closed};
use super::lock::RootLock;
use super::queries;
use super::transaction::Transaction;
use crate::backend::{Durability, Records, Sequence, Stored};
use crate::key::Key;

/// How many sequences wait at most before those who ask are held back, and how many one commit takes.
pub(super) const QUEUE_LIMIT: usize = 256;
/// How long a commit waits at most for as many sequences as the last one took.
const REGATHER_LIMIT: Duration = Duration::from_micros(100);

/// What the thread is told.
pub(super) enum Command {
    /// Run a sequence.
    Run(Durability, Box<dyn Job>),
    /// Run what waits, then end.
    Stop,
}

/// A sequence that waits for its commit.
type Waiting = (Durability, Box<dyn Job>);

/// A sequence without its type.
pub(super) trait Job: Send {
    /// Runs the steps and tells whether they are to be kept.
    fn run(&mut self, records: &mut Transaction<'_>) -> bool;

    /// Answers, after the end of the transaction.
    fn answer(self: Box<Self>, outcome: Result<(), Error>);
}

/// A sequence and who waits for it.
pub(super) struct Request<S: Sequence> {
    sequence: Option<S>,
    result: Result<S::Output, Error>,
    requester: oneshot::Sender<Result<S::Output, Error>>,
}

impl<S: Sequence> Request<S> {
    pub(super) fn new(sequence: S, requester: oneshot::Sender<Result<S::Output, Error>>) -> Self {
        Self {
            sequence: Some(sequence),
            result: Err(closed()),
            requester,
        }
    }
}

impl<S: Sequence> Job for Request<S> {
    fn run(&mut self, records: &mut Transaction<'_>) -> bool {
        if let Some(sequence) = self.sequence.take() {
            // What the panic left half done is rolled back, and the sequence is gone.
            let run = AssertUnwindSafe(|| poll_once(sequence, records));
            self.result = catch_unwind(run).unwrap_or_else(|_| {
                tracing::error!("a sequence of record steps panicked");
                Err(ErrorCode::Internal.into())
            });
        }
        self.result.is_ok()
    }

    fn answer(self: Box<Self>, outcome: Result<(), Error>) {
        // Who asked may be gone; the sequence ran all the same.
        drop(self.requester.send(outcome.and(self.result)));
    }
}

/// Runs a sequence to its end: it only waits for records, and these are never pending.
fn poll_once<S: Sequence>(sequence: S, records: &mut dyn Records) -> Result<S::Output, Error> {
    match pin!(sequence.run(records)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => {
            tracing::error!("a sequence of record steps waits for something else than records");
            Err(ErrorCode::Internal.into())
        }
    }
}

/// Takes the sequences that wait.
///
/// Those who were answered by the last commit often ask again at once. A sync costs more than the moment that they
/// need for that, so a commit to be synced gives them [`REGATHER_LIMIT`], else every other commit would be of one.
fn take_waiting(
    first: Command,
    commands: &mut mpsc::Receiver<Command>,
    batch: &mut Vec<Waiting>,
    expected: usize,
) {
    let mut deadline = None;
    let mut next = Some(first);
    while batch.len() < QUEUE_LIMIT {
        match next.or_else(|| commands.try_recv().ok()) {
            Some(Command::Run(durability, job)) => batch.push((durability, job)),
            Some(Command::Stop) => commands.close(),
            None if batch.len() >= expected || !is_synced(batch) => return,
            None if Instant::now() >= *deadline.get_or_insert_with(|| Instant::now() + REGATHER_LIMIT) => {
                return;
            }
            None => thread::yield_now(),
        }
        next = None;
    }
}

fn is_synced(batch: &[Waiting]) -> bool {
    batch
        .iter()
        .any(|(durability, _)| *durability == Durability::Synced)
}

/// The state of the thread.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) cache: Arc<RecordCache>,
    pub(super) health: Arc<Health>,
    pub(super) disk: Arc<dyn Disk>,
    /// Held until the last write is done.
    pub(super) lock: Arc<RootLock>,
    /// The version of the next write: random at first, then counted, so that none comes twice.
    pub(super) next_version: i64,
    /// Whether the connection syncs its commits.
    pub(super) is_syncing: bool,
    /// Whether there are commits that were not synced.
    pub(super) has_unsynced: bool,
    /// How many sequences the last commit took.
    pub(super) last_batch: usize,
    /// How many commits there were.
    pub(super) commits: Arc<AtomicU64>,
}

impl Writer {
    /// Runs until it is told to stop or nobody can ask any more, then copies the log back and closes the store.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<(), Error> {
        let mut batch = Vec::new();
        while let Some(command) = commands.blocking_recv() {
            let expected = std::mem::take(&mut self.last_batch);
            take_waiting(command, &mut commands, &mut batch, expected);
            self.last_batch = batch.len();
            if !batch.is_empty() {
                self.run_batch(&mut batch);
            }
        }
        self.close()
    }

    fn run_batch(&mut self, batch: &mut Vec<Waiting>) {
        let outcome = self.health.check().and_then(|()| {
            self.commit(batch).map_err(|cause| {
                self.roll_back();
                self.health.records_failed(&self.path, cause)
            })
        });
        for (_, job) in batch.drain(..) {
            job.answer(outcome.clone());
        }
    }

    /// Runs a batch as one transaction.
    fn commit(&mut self, batch: &mut [Waiting]) -> rusqlite::Result<()> {
        let is_synced = batch
            .iter()
            .any(|(durability, _)| *durability == Durability::Synced);
        self.sync_commits(is_synced)?;
        queries::execute(&self.connection, "BEGIN IMMEDIATE")?;
        let changes = self.run_steps(batch)?;
        let is_empty = changes.is_empty();
        if is_empty && is_synced && self.has_unsynced {
            queries::touch(&self.connection)?;
        }
        self.commit_changes(changes)?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        if is_synced {
            self.has_unsynced = false;
            self.disk.records_synced(&self.path);
        } else if !is_empty {
            self.has_unsynced = true;
        }
        Ok(())
    }

    /// Runs each sequence in a savepoint of its own.
    fn run_steps(&mut self, batch: &mut [Waiting]) -> rusqlite::Result<Vec<(Key, Option<Stored>)>> {
        let mut records = Transaction::new(&mut self.connection, &mut self.next_version);
        for (_, job) in batch {
            queries::execute(records.connection(), "SAVEPOINT sequence")?;
            let changes = records.changes();
            let is_kept = job.run(&mut records);
            records.check()?;
            if !is_kept {
                queries::execute(records.connection(), "ROLLBACK TO sequence")?;
                records.forget_changes(changes);
            }
            queries::execute(records.connection(), "RELEASE sequence")?;
        }
        Ok(records.into_changes())
    }

    /// Commits, and shows the changes to the cache.
    fn commit_changes(&self, changes: Vec<(Key, Option<Stored>)>) -> rusqlite::Result<()> {
        let mark = self.cache.begin_write(&changes);
        let result = queries::execute(&self.connection, "COMMIT");
        let committed = if result.is_ok() { changes } else { Vec::new() };
        self.cache.end_write(mark, committed);
        result
    }

    /// Chooses whether commits are synced. SQLite takes that only outside of a transaction.
    fn sync_commits(&mut self, is_syncing: bool) -> rusqlite::Result<()> {
        if self.is_syncing != is_syncing {
            // The log is still synced before it is copied back, so an unsynced commit can be lost, never torn.
            let level = if is_syncing { "FULL" } else { "NORMAL" };
            self.connection.pragma_update(None, "synchronous", level)?;
            self.is_syncing = is_syncing;
        }
        Ok(())
    }

    fn roll_back(&self) {
        // A full disk or an I/O error may have ended the transaction already.
        if !self.connection.is_autocommit()
            && let Err(cause) = queries::execute(&self.connection, "ROLLBACK")
        {
            drop(self.health.records_failed(&self.path, cause));
        }
    }

    fn close(self) -> Result<(), Error> {
        let Self {
            connection,
            path,
            health,
            disk,
            lock,
            ..
        } = self;
        let result = health.check().and_then(|()| {
            queries::checkpoint(&connection).map_err(|cause| health.records_failed(&path, cause))
        });
        if result.is_ok() {
            disk.records_synced(&path);
        } else {
            // What could not be written is not copied back either.
            drop(queries::keep_log(&connection));
        }
        drop(connection);
        drop(lock);
        result
    }
}
