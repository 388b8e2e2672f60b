//! The thread that writes records. It merges waiting transactions into one commit.

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
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use super::cache::RecordCache;
use super::command::{Command, Job};
use super::disk::Disk;
use super::health::{Cure, WriteHealth, closed};
use super::last_change::LastChange;
use super::lock::{Lost, RootLock};
use super::queries::{self, busy};
use super::readers::Readers;
use super::reserve::Reserve;
use super::transaction::SqliteTransaction;
use crate::backend::{Again, Durability, RecordTransaction, Transaction, VersionedRecord};
use crate::key::Key;

/// The maximum number of waiting transactions before callers are held back, and of transactions in one commit.
pub(super) const QUEUED_TRANSACTIONS: usize = 256;
/// How long a commit waits at most for as many transactions as the last one had.
const REGATHER_TIMEOUT: Duration = Duration::from_micros(100);
/// How long the thread sleeps between two checks of its queue while writing has ended.
const STOPPED_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long a commit runs transactions at most. Those still waiting are left to the next one, so that the first callers
/// are answered soon.
const COMMIT_RUN_TIME: Duration = Duration::from_millis(20);
/// How many bytes of records, roughly, one commit writes at most: they are in memory until it ends.
const COMMIT_BYTES: usize = 8 << 20;

/// The last change of each key.
type Changes = Vec<(Key, Option<VersionedRecord>)>;

/// A transaction that waits for its commit.
type Waiting = (Durability, Box<dyn Job>);

/// A transaction and the caller that waits for it.
pub(super) struct Request<S: Transaction> {
    transaction: Option<S>,
    /// What runs if the commit failed.
    again: Option<Again<S>>,
    is_freeing: bool,
    result: Result<S::Output, Error>,
    requester: oneshot::Sender<Result<S::Output, Error>>,
}

impl<S: Transaction> Request<S> {
    pub(super) fn new(transaction: S, requester: oneshot::Sender<Result<S::Output, Error>>) -> Self {
        let again = transaction.again();
        Self {
            transaction: Some(transaction),
            is_freeing: matches!(again, Some(Again::Freeing(_))),
            again,
            result: Err(closed()),
            requester,
        }
    }
}

impl<S: Transaction> Job for Request<S> {
    fn run(&mut self, records: &mut SqliteTransaction<'_>) -> bool {
        if let Some(transaction) = self.transaction.take() {
            // What the panic left half done is rolled back, and the transaction is gone.
            let run = AssertUnwindSafe(|| poll_once(transaction, records));
            self.result = catch_unwind(run).unwrap_or_else(|_| {
                let cause = BrokenTransaction("panicked");
                tracing::error!("{cause}");
                Err(Error::internal(cause))
            });
        }
        self.result.is_ok()
    }

    fn is_freeing(&self) -> bool {
        self.is_freeing
    }

    fn run_again(&mut self, is_room: bool) -> bool {
        self.transaction = match self.again.take() {
            Some(Again::Freeing(transaction)) if is_room => Some(transaction),
            Some(Again::Reading(transaction)) => Some(transaction),
            Some(Again::Freeing(_)) | None => None,
        };
        self.transaction.is_some()
    }

    fn answer(self: Box<Self>, outcome: Result<(), Error>) {
        // The caller may be gone; the transaction ran anyway.
        drop(self.requester.send(outcome.and(self.result)));
    }
}

/// A defect of the program.
#[derive(Debug, thiserror::Error)]
#[error("a transaction of record steps {0}")]
struct BrokenTransaction(&'static str);

/// Runs a transaction to its end: it only waits for records, and these are never pending.
fn poll_once<S: Transaction>(
    transaction: S,
    records: &mut dyn RecordTransaction,
) -> Result<S::Output, Error> {
    match pin!(transaction.run(records)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => {
            let cause = BrokenTransaction("waits for something else than records");
            tracing::error!("{cause}");
            Err(Error::internal(cause))
        }
    }
}

/// Takes the waiting transactions.
///
/// Callers that were answered by the last commit often ask again at once. A sync costs more than the moment that they
/// need for that, so a commit to be synced gives them [`REGATHER_TIMEOUT`]; otherwise every other commit would have only
/// one transaction.
fn take_waiting(
    first: Command,
    commands: &mut mpsc::Receiver<Command>,
    batch: &mut Vec<Waiting>,
    expected: usize,
) {
    let mut deadline = None;
    let mut next = Some(first);
    while batch.len() < QUEUED_TRANSACTIONS {
        match next.or_else(|| commands.try_recv().ok()) {
            Some(Command::Run(durability, job)) => batch.push((durability, job)),
            Some(Command::Wake) => {}
            Some(Command::Stop) => commands.close(),
            None if batch.len() >= expected || !is_synced(batch) => return,
            None if Instant::now() >= *deadline.get_or_insert_with(|| Instant::now() + REGATHER_TIMEOUT) => {
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
    /// `None` only while it is reopened.
    pub(super) connection: Option<Connection>,
    pub(super) path: PathBuf,
    pub(super) readers: Arc<Readers>,
    pub(super) cache: Arc<RecordCache>,
    pub(super) health: Arc<WriteHealth>,
    pub(super) disk: Arc<dyn Disk>,
    /// Held until the last write is done.
    pub(super) lock: Arc<RootLock>,
    pub(super) reserve: Arc<Reserve>,
    /// The version of the next write: random at first, then counted, so that none is used twice.
    pub(super) next_version: i64,
    /// Whether the connection syncs its commits.
    pub(super) is_syncing: bool,
    /// Whether there are commits that were not synced.
    pub(super) has_unsynced: bool,
    /// How many transactions the last commit had.
    pub(super) last_batch: usize,
    /// How many commits there were.
    pub(super) commits: Arc<AtomicU64>,
    /// What the last commit wrote.
    pub(super) last_change: Option<LastChange>,
    /// When the last attempt to write again was made.
    pub(super) tried: Option<Instant>,
}

impl Writer {
    /// Runs until it is stopped or no caller is left, then copies the log back and closes the store.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<(), Error> {
        let mut batch = Vec::new();
        while let Some(command) = self.next(&mut commands) {
            let expected = std::mem::take(&mut self.last_batch);
            take_waiting(command, &mut commands, &mut batch, expected);
            self.last_batch = batch.len();
            if !batch.is_empty() {
                self.run_batch(&mut batch);
            }
        }
        self.close()
    }

    /// Waits for a command, and tries to write again while writing has ended.
    #[expect(
        clippy::disallowed_methods,
        reason = "the writer's own thread, while the disk takes no write"
    )]
    fn next(&mut self, commands: &mut mpsc::Receiver<Command>) -> Option<Command> {
        while self.health.is_stopped() {
            self.try_to_go_on();
            match commands.try_recv() {
                Ok(command) => return Some(command),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => thread::sleep(STOPPED_POLL_INTERVAL),
            }
        }
        commands.blocking_recv()
    }

    /// Ends writing if the root is not the one that was opened.
    pub(super) fn look_after_root(&self) {
        if let Err(lost) = self.lock.check() {
            end_writing(lost, self.connection.as_ref(), &self.lock, &self.health);
        }
    }

    fn run_batch(&mut self, batch: &mut Vec<Waiting>) {
        self.look_after_root();
        let is_freeing = batch.iter().any(|(_, job)| job.is_freeing());
        if is_freeing {
            self.reserve.release_if_low();
        }
        while !batch.is_empty() {
            match self.run_some(batch) {
                Ok(count) => batch.drain(..count).for_each(|(_, job)| job.answer(Ok(()))),
                Err(error) => {
                    // Jobs that free space get the space that was reserved for them. An error other than a full disk
                    // may pass: a quota may have been used up, and may have room by now.
                    let is_full = error.code() == ErrorCode::StorageFull;
                    let is_room = is_freeing && (!is_full || self.reserve.release());
                    for (durability, mut job) in std::mem::take(batch) {
                        if job.run_again(is_room) {
                            batch.push((durability, job));
                        } else {
                            job.answer(Err(error.clone()));
                        }
                    }
                }
            }
        }
    }

    /// Runs the first transactions of a batch as one transaction of SQLite. Returns how many.
    fn run_some(&mut self, batch: &mut [Waiting]) -> Result<usize, Error> {
        self.health.check()?;
        self.commit(batch)
            .map_err(|cause| self.health.records_failed(&self.path, cause))
    }

    /// Runs a batch, or as much of it as one transaction of SQLite should have, and rolls it back if it fails. Returns
    /// how many transactions it ran.
    fn commit(&mut self, batch: &mut [Waiting]) -> rusqlite::Result<usize> {
        let mut connection = self.connection.take().ok_or_else(busy)?;
        let result = self.commit_on(&mut connection, batch);
        // A full disk or an I/O error may have ended the transaction already.
        if !connection.is_autocommit()
            && let Err(cause) = queries::execute(&connection, "ROLLBACK")
        {
            tracing::error!(path = %self.path.display(), %cause, "a transaction cannot be rolled back");
            self.health
                .end_writing("a transaction of its records cannot be ended", Cure::Reopen);
        }
        self.connection = Some(connection);
        result
    }

    fn commit_on(&mut self, connection: &mut Connection, batch: &mut [Waiting]) -> rusqlite::Result<usize> {
        let is_synced = is_synced(batch);
        self.sync_commits(connection, is_synced)?;
        queries::execute(connection, "BEGIN IMMEDIATE")?;
        let (count, changes) = self.run_steps(connection, batch)?;
        let is_empty = changes.is_empty();
        if is_empty && is_synced && self.has_unsynced {
            queries::touch(connection)?;
        }
        self.commit_changes(connection, changes)?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        if is_synced {
            self.has_unsynced = false;
            self.disk.records_synced(&self.path);
        } else if !is_empty {
            self.has_unsynced = true;
        }
        Ok(count)
    }

    /// Runs each transaction in its own savepoint. Returns how many it ran, at least one, and what they changed.
    fn run_steps(
        &mut self,
        connection: &mut Connection,
        batch: &mut [Waiting],
    ) -> rusqlite::Result<(usize, Changes)> {
        let begun = Instant::now();
        let room = self.reserve.check();
        let mut records = SqliteTransaction::new(connection, &mut self.next_version);
        let mut count = 0;
        for (_, job) in batch {
            if count > 0 && (begun.elapsed() >= COMMIT_RUN_TIME || records.written() >= COMMIT_BYTES) {
                break;
            }
            count += 1;
            records.set_room(if job.is_freeing() { Ok(()) } else { room.clone() });
            queries::execute(records.connection(), "SAVEPOINT part")?;
            let changes = records.changes();
            let is_kept = job.run(&mut records);
            records.check()?;
            if !is_kept {
                queries::execute(records.connection(), "ROLLBACK TO part")?;
                records.forget_changes(changes);
            }
            queries::execute(records.connection(), "RELEASE part")?;
        }
        Ok((count, records.into_changes()))
    }

    /// Commits, and passes the changes to the cache.
    fn commit_changes(&mut self, connection: &Connection, changes: Changes) -> rusqlite::Result<()> {
        let mark = self.cache.begin_write(&changes);
        let result = queries::execute(connection, "COMMIT");
        let committed = if result.is_ok() {
            if let Some(change) = changes.last() {
                self.last_change = Some(LastChange::committed(change));
            }
            changes
        } else {
            if let Some(last) = &mut self.last_change {
                last.failed(&changes);
            }
            Vec::new()
        };
        self.cache.end_write(mark, committed);
        result
    }

    /// Chooses whether commits are synced. SQLite accepts that only outside of a transaction.
    fn sync_commits(&mut self, connection: &Connection, is_syncing: bool) -> rusqlite::Result<()> {
        if self.is_syncing != is_syncing {
            // The log is still synced before it is copied back, so an unsynced commit can be lost, never torn.
            let level = if is_syncing { "FULL" } else { "NORMAL" };
            connection.pragma_update(None, "synchronous", level)?;
            self.is_syncing = is_syncing;
        }
        Ok(())
    }

    fn close(self) -> Result<(), Error> {
        let Self {
            connection,
            path,
            readers,
            health,
            disk,
            lock,
            ..
        } = self;
        if let Err(lost) = lock.check() {
            end_writing(lost, connection.as_ref(), &lock, &health);
        }
        let result = health.check().and_then(|()| match &connection {
            Some(connection) if !readers.medium().is_read_only() => queries::checkpoint(connection)
                .map(drop)
                .map_err(|cause| health.records_failed(&path, cause)),
            _ => Ok(()),
        });
        if result.is_ok() {
            disk.records_synced(&path);
        }
        if let Some(connection) = &connection {
            // What could not be copied back stays in the log. If the log is empty, its file stays for a start that
            // cannot create one.
            drop(queries::keep_log(connection));
        }
        drop(connection);
        drop(lock);
        match result {
            // The log has everything, and the next start reads it.
            Err(error) if error.code() == ErrorCode::StorageFull => Ok(()),
            result => result,
        }
    }
}

/// Ends writing in a root that another process changed. A log that was removed has commits that were acknowledged: they are copied
/// back from the one that SQLite has open.
fn end_writing(lost: Lost, connection: Option<&Connection>, lock: &RootLock, health: &WriteHealth) {
    if let (Lost::Log, Some(connection)) = (lost, connection) {
        match queries::checkpoint(connection) {
            Ok(true) => {
                tracing::warn!(
                    "the log of the records was removed; what it had is in the records now, and nothing is lost"
                );
                lock.forget_log();
            }
            outcome => {
                tracing::error!(
                    ?outcome,
                    "the log of the records was removed, and cannot be copied back yet"
                );
            }
        }
    }
    health.end_writing(lost.reason(), Cure::Restart);
}
