//! Faults of the record store that can only be caused from inside.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

mod refused_roots;

use std::time::{Duration, Instant};

use registry_core::{Error, ErrorCode};
use rusqlite::{Connection, StatementStatus, ffi};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::command::Job;
use super::queries::{self, Medium};
use super::transaction::SqliteTransaction;
use super::{FilesystemBackend, OpenError, check_records};
use crate::backend::{Again, Backend as _, Condition, Durability, RecordTransaction, Transaction, Version};
use crate::key::Key;

/// Runs a statement of SQLite in the middle of a transaction.
struct Inside(&'static str, oneshot::Sender<Result<(), Error>>);

impl Job for Inside {
    fn run(&mut self, records: &mut SqliteTransaction<'_>) -> bool {
        records.connection().execute_batch(self.0).is_ok()
    }

    fn answer(self: Box<Self>, outcome: Result<(), Error>) {
        drop(self.1.send(outcome));
    }
}

struct Put(&'static str, usize);

impl Transaction for Put {
    type Output = Option<Version>;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Self::Output, Error> {
        records
            .put(&Key::from_stored(self.0), vec![7; self.1].into(), Condition::Any)
            .await
    }
}

/// Writes more than fits and ignores the error.
struct IgnoreErrors;

impl Transaction for IgnoreErrors {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        let value = vec![7; 1 << 20].into();
        let result = records
            .put(&Key::from_stored("large"), value, Condition::Any)
            .await;
        assert!(result.is_err());
        Ok(())
    }
}

async fn open() -> (TempDir, FilesystemBackend) {
    let root = tempfile::tempdir().unwrap();
    let backend = FilesystemBackend::open(root.path()).await.unwrap();
    (root, backend)
}

async fn inside(backend: &FilesystemBackend, statements: &'static str) -> Result<(), Error> {
    let (sender, answer) = oneshot::channel();
    backend
        .records
        .submit(Durability::Synced, Box::new(Inside(statements, sender)))
        .await
        .unwrap();
    answer.await.unwrap()
}

async fn put(backend: &FilesystemBackend, key: &'static str, size: usize) -> Result<(), ErrorCode> {
    let result = backend.transact(Durability::Synced, Put(key, size)).await;
    result.map(drop).map_err(|error| error.code())
}

async fn size(backend: &FilesystemBackend, key: &str) -> Option<usize> {
    Some(backend.get(&Key::from_stored(key)).await.unwrap()?.value.len())
}

#[tokio::test]
async fn a_full_disk_is_told_and_ends_nothing() {
    let (_root, backend) = open().await;
    put(&backend, "a", 10).await.unwrap();
    inside(&backend, "PRAGMA max_page_count = 20").await.unwrap();
    assert_eq!(put(&backend, "large", 1 << 20).await, Err(ErrorCode::StorageFull));
    let error = backend
        .transact(Durability::Synced, IgnoreErrors)
        .await
        .unwrap_err();
    assert_eq!(
        error.code(),
        ErrorCode::StorageFull,
        "an error that the transaction hides is seen"
    );
    assert_eq!(size(&backend, "large").await, None);
    put(&backend, "a", 20).await.unwrap();
    inside(&backend, "PRAGMA max_page_count = 100000").await.unwrap();
    put(&backend, "large", 1 << 20).await.unwrap();
    assert_eq!(
        (size(&backend, "a").await, size(&backend, "large").await),
        (Some(20), Some(1 << 20))
    );
}

#[tokio::test]
async fn a_commit_that_is_refused_concerns_nobody_else() {
    let (_root, backend) = open().await;
    put(&backend, "a", 10).await.unwrap();
    inside(
        &backend,
        "CREATE TABLE parent (id INTEGER PRIMARY KEY);
         CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
    )
    .await
    .unwrap();
    // The transaction succeeds until COMMIT, which then refuses.
    let failing = inside(&backend, "INSERT INTO child VALUES (1)");
    let (sharing, failed) = tokio::join!(put(&backend, "a", 20), failing);
    assert_eq!(failed.unwrap_err().code(), ErrorCode::Internal);
    let expected = if sharing.is_ok() { 20 } else { 10 };
    assert_eq!(size(&backend, "a").await, Some(expected));
    put(&backend, "a", 30).await.unwrap();
    backend.close().await.unwrap();
}

/// Fails as SQLite does, with this code.
struct Fail(i32, oneshot::Sender<Result<(), Error>>);

impl Job for Fail {
    fn run(&mut self, records: &mut SqliteTransaction<'_>) -> bool {
        records.fail(rusqlite::Error::SqliteFailure(ffi::Error::new(self.0), None));
        true
    }

    fn answer(self: Box<Self>, outcome: Result<(), Error>) {
        drop(self.1.send(outcome));
    }
}

async fn fail(backend: &FilesystemBackend, code: i32) -> Error {
    let (sender, answer) = oneshot::channel();
    let job = Box::new(Fail(code, sender));
    backend.records.submit(Durability::Synced, job).await.unwrap();
    answer.await.unwrap().unwrap_err()
}

#[tokio::test]
async fn trouble_that_passes_is_answered_and_does_not_end_writing() {
    let (_root, backend) = open().await;
    for (code, answer) in [
        (ffi::SQLITE_BUSY, ErrorCode::Unavailable),
        (ffi::SQLITE_CANTOPEN, ErrorCode::Unavailable),
        (ffi::SQLITE_NOMEM, ErrorCode::Unavailable),
        (ffi::SQLITE_IOERR_WRITE, ErrorCode::Unavailable),
        (ffi::SQLITE_IOERR_READ, ErrorCode::Unavailable),
        (ffi::SQLITE_FULL, ErrorCode::StorageFull),
    ] {
        let error = fail(&backend, code).await;
        assert_eq!(error.code(), answer, "{code}");
        put(&backend, "a", 10).await.unwrap();
        backend.probe().await.unwrap();
    }
    backend.close().await.unwrap();
}

/// Holds up the writer thread until the other end is dropped, so that what is queued meanwhile becomes one commit.
struct Wait(std::sync::mpsc::Receiver<()>);

impl Job for Wait {
    fn run(&mut self, _: &mut SqliteTransaction<'_>) -> bool {
        self.0.recv().is_err()
    }

    fn answer(self: Box<Self>, _: Result<(), Error>) {}
}

/// A transaction on the record "a": if it frees space, it removes the record.
#[derive(Clone, Copy)]
enum NeedsNoRoom {
    Reads,
    Frees,
}

impl Transaction for NeedsNoRoom {
    type Output = bool;

    fn again(&self) -> Option<Again<Self>> {
        Some(match self {
            Self::Reads => Again::Reading(*self),
            Self::Frees => Again::Freeing(*self),
        })
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<bool, Error> {
        let key = Key::from_stored("a");
        let is_there = records.get(&key).await?.is_some();
        if matches!(self, Self::Frees) {
            records.remove(&key).await?;
        }
        Ok(is_there)
    }
}

/// On btrfs a commit reached the end of a quota. By the time that was examined, deletes had made room, so the commit
/// was answered 503, and uploads kept what they should have given back. A status was answered 507.
#[tokio::test]
async fn what_frees_space_and_what_reads_does_not_fail_with_what_it_shares_a_commit_with() {
    for (code, answer) in [
        (ffi::SQLITE_FULL, ErrorCode::StorageFull),
        (ffi::SQLITE_IOERR_WRITE, ErrorCode::Unavailable),
        (ffi::SQLITE_NOMEM, ErrorCode::Unavailable),
        (ffi::SQLITE_CONSTRAINT, ErrorCode::Internal),
    ] {
        let mut share_a_commit = false;
        // On a busy machine the last one may be left to the next commit.
        for _ in 0..20 {
            let (_root, backend) = open().await;
            put(&backend, "a", 10).await.unwrap();
            let (held, holding) = std::sync::mpsc::channel();
            let wait = Box::new(Wait(holding));
            backend.records.submit(Durability::Synced, wait).await.unwrap();
            let (failing, reading, freeing, writing, ()) = tokio::join!(
                fail(&backend, code),
                backend.transact(Durability::Deferred, NeedsNoRoom::Reads),
                backend.transact(Durability::Synced, NeedsNoRoom::Frees),
                put(&backend, "b", 10),
                async { drop(held) }
            );
            assert_eq!(failing.code(), answer, "{code}");
            assert_eq!((reading.unwrap(), freeing.unwrap()), (true, true), "{code}");
            assert_eq!(size(&backend, "a").await, None, "{code}");
            backend.close().await.unwrap();
            share_a_commit = writing == Err(answer);
            if share_a_commit {
                break;
            }
        }
        assert!(share_a_commit, "{code}");
    }
}

#[tokio::test]
async fn records_that_somebody_has_locked_are_waited_for() {
    let (root, backend) = open().await;
    let shell = Connection::open(root.path().join("records.sqlite")).unwrap();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut waiting = std::pin::pin!(put(&backend, "a", 10));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut waiting).await;
    assert!(early.is_err(), "it waits");
    shell.execute_batch("ROLLBACK").unwrap();
    waiting.await.unwrap();
}

/// A read in another process, which keeps the log from being copied back.
fn read_elsewhere(root: &TempDir) -> Connection {
    let shell = Connection::open(root.path().join("records.sqlite")).unwrap();
    shell.execute_batch("BEGIN").unwrap();
    let count: i64 = shell
        .query_row("SELECT count(*) FROM records", [], |row| row.get(0))
        .unwrap();
    assert!(count > 0);
    shell
}

/// Puts until the result is known, or until only a restart would help.
async fn put_until_it_is_known(backend: &FilesystemBackend, key: &'static str) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match put(backend, key, 40).await {
            Ok(()) => return Ok(()),
            Err(code) => assert_eq!(code, ErrorCode::Unavailable),
        }
        let reason = backend.write_state().stopped.unwrap_or_default();
        if reason.contains("start the registry again") {
            return Err(reason);
        }
        assert!(Instant::now() < deadline, "{reason}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn after_a_lost_sync_nothing_is_written_until_the_records_were_opened_again_and_are_whole() {
    let (root, backend) = open().await;
    put(&backend, "a", 10).await.unwrap();
    let shell = read_elsewhere(&root);
    put(&backend, "a", 20).await.unwrap();
    let error = fail(&backend, ffi::SQLITE_IOERR_FSYNC).await;
    for error in [error, backend.probe().await.unwrap_err()] {
        assert_eq!(error.code(), ErrorCode::Unavailable);
        assert!(error.message().starts_with("Nothing is written since"), "{error}");
        assert!(
            error.message().contains("a sync of its records failed"),
            "{error}"
        );
        assert_eq!(error.fields(), [("Retry-After", "5".to_owned())]);
    }
    assert_eq!(put(&backend, "a", 30).await, Err(ErrorCode::Unavailable));
    assert_eq!(size(&backend, "a").await, Some(20), "reads go on");
    assert!(backend.write_state().stopped.is_some());

    shell.execute_batch("COMMIT").unwrap();
    put_until_it_is_known(&backend, "a").await.unwrap();
    assert_eq!(backend.write_state().stopped, None);
    backend.probe().await.unwrap();
    assert_eq!(size(&backend, "a").await, Some(40));
    backend.close().await.unwrap();
    let backend = FilesystemBackend::open(root.path()).await.unwrap();
    assert_eq!(size(&backend, "a").await, Some(40));
}

#[tokio::test]
async fn records_that_lost_what_was_acknowledged_are_not_written_to_again() {
    let (root, backend) = open().await;
    put(&backend, "a", 10).await.unwrap();
    put(&backend, "b", 10).await.unwrap();
    let shell = read_elsewhere(&root);
    put(&backend, "a", 20).await.unwrap();
    fail(&backend, ffi::SQLITE_IOERR_FSYNC).await;
    let other = Connection::open(root.path().join("records.sqlite")).unwrap();
    other.execute("DELETE FROM records WHERE key = 'a'", []).unwrap();
    drop(other);
    shell.execute_batch("COMMIT").unwrap();
    let reason = put_until_it_is_known(&backend, "b").await.unwrap_err();
    assert!(
        reason.contains("what was acknowledged is not in its records"),
        "{reason}"
    );
    assert_eq!(backend.close().await.unwrap_err().code(), ErrorCode::Unavailable);
}

#[tokio::test]
async fn damaged_records_are_not_written_to_until_somebody_looked_after_them() {
    let (root, backend) = open().await;
    put(&backend, "a", 10).await.unwrap();
    assert_eq!(
        fail(&backend, ffi::SQLITE_CORRUPT).await.code(),
        ErrorCode::Unavailable
    );
    assert_eq!(put(&backend, "a", 20).await, Err(ErrorCode::Unavailable));
    let reason = backend.write_state().stopped.unwrap();
    assert!(
        reason.contains("damaged") && reason.contains("start the registry again"),
        "{reason}"
    );
    drop(backend.close().await);
    let backend = FilesystemBackend::open(root.path()).await.unwrap();
    put(&backend, "a", 20).await.unwrap();
}

/// A reader of the cache must not see intermediate writes of a transaction.
#[tokio::test]
async fn a_transaction_shows_the_last_change_of_each_key() {
    let mut connection = Connection::open_in_memory().unwrap();
    queries::create(&connection).unwrap();
    let mut version = 0;
    let mut records = SqliteTransaction::new(&mut connection, &mut version);
    let (first, second) = (Key::from_stored("first"), Key::from_stored("second"));
    for (key, value) in [(&first, "pending"), (&second, "pending"), (&first, "live")] {
        records
            .put(key, value.into(), Condition::Any)
            .await
            .unwrap()
            .unwrap();
    }
    records.remove(&second).await.unwrap();
    let changes: Vec<_> = records
        .into_changes()
        .into_iter()
        .map(|(key, stored)| (key, stored.map(|stored| stored.value)))
        .collect();
    assert_eq!(changes, [(first, Some("live".into())), (second, None)]);
}

/// A read may come first while the records are reopened after a failed sync. A read-only connection would take a lock
/// that others share.
#[cfg(target_os = "linux")]
#[test]
fn a_read_keeps_other_processes_out_too() {
    use std::os::unix::fs::MetadataExt as _;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records");
    let writer = queries::open_writer(&path, Medium::Files).unwrap();
    queries::create(&writer).unwrap();
    drop(writer);
    let reader = queries::open_reader(&path, Medium::Files).unwrap();
    queries::get(&reader, &Key::from_stored("a")).unwrap();
    let inode = path.metadata().unwrap().ino();
    let held = || {
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        let is_held = |line: &str| line.contains(" WRITE ") && line.contains(&format!(":{inode} "));
        locks.lines().any(is_held)
    };
    assert!(held());
    let writer = queries::open_writer(&path, Medium::Files).unwrap();
    queries::touch(&writer).unwrap();
    drop(reader);
    assert!(held());
    assert!(!folder.path().join("records-shm").exists());
    let reader = queries::open_reader(&path, Medium::Files).unwrap();
    let refused = reader.execute("DELETE FROM records", []).unwrap_err();
    assert_eq!(refused.sqlite_error_code(), Some(rusqlite::ErrorCode::ReadOnly));
}

/// There are more statements than are kept by default, and for some SQLite looks at the bound values.
#[test]
fn a_statement_is_compiled_once() {
    let folder = tempfile::tempdir().unwrap();
    let connection = queries::open_writer(&folder.path().join("records"), Medium::Files).unwrap();
    queries::create(&connection).unwrap();
    for key in ["a", "b", "c"] {
        queries::get(&connection, &Key::from_stored(key)).unwrap();
        for number in 0..20 {
            queries::execute(&connection, &format!("SAVEPOINT s{number}")).unwrap();
        }
        queries::execute(&connection, "RELEASE s0").unwrap();
    }
    let statement = connection.prepare_cached(queries::GET).unwrap();
    assert_eq!(statement.get_status(StatementStatus::Run), 3);
    assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
}

/// Reports whether commits are synced (2) or not (1).
struct SyncLevel(oneshot::Sender<i64>, i64);

impl Job for SyncLevel {
    fn run(&mut self, records: &mut SqliteTransaction<'_>) -> bool {
        self.1 = records
            .connection()
            .query_row("PRAGMA synchronous", [], |row| row.get(0))
            .unwrap();
        true
    }

    fn answer(self: Box<Self>, _: Result<(), Error>) {
        self.0.send(self.1).unwrap();
    }
}

/// Only reads.
struct Look;

impl Transaction for Look {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        records.get(&Key::from_stored("a")).await.map(drop)
    }
}

#[tokio::test]
async fn a_commit_is_synced_if_one_of_its_sequences_is() {
    let (_root, backend) = open().await;
    for durabilities in [
        [Durability::Synced; 2],
        [Durability::Deferred; 2],
        [Durability::Deferred, Durability::Synced],
    ] {
        let mut levels = Vec::new();
        for durability in durabilities {
            let (sender, level) = oneshot::channel();
            backend
                .records
                .submit(durability, Box::new(SyncLevel(sender, 0)))
                .await
                .unwrap();
            levels.push(level);
        }
        for (durability, level) in durabilities.into_iter().zip(levels) {
            let level = level.await.unwrap();
            assert!(
                level == 2 || durability == Durability::Deferred && level == 1,
                "{durability:?} at {level}"
            );
        }
    }
    let (sender, level) = oneshot::channel();
    backend
        .records
        .submit(Durability::Deferred, Box::new(SyncLevel(sender, 0)))
        .await
        .unwrap();
    assert_eq!(level.await.unwrap(), 1, "what is deferred alone is not synced");
}

/// SQLite syncs its log only with a page that it adds, so an empty commit has to add one, but only if something was
/// deferred before.
#[tokio::test]
async fn a_synced_sequence_that_writes_nothing_syncs_what_was_deferred() {
    let (root, backend) = open().await;
    let log = || {
        std::fs::metadata(root.path().join("records.sqlite-wal"))
            .unwrap()
            .len()
    };
    put(&backend, "a", 10).await.unwrap();
    let before = log();
    backend.transact(Durability::Synced, Look).await.unwrap();
    assert_eq!(log(), before);
    backend
        .transact(Durability::Deferred, Put("a", 20))
        .await
        .unwrap();
    let before = log();
    backend.transact(Durability::Deferred, Look).await.unwrap();
    assert_eq!(log(), before);
    backend.transact(Durability::Synced, Look).await.unwrap();
    let after = log();
    assert!(after > before);
    backend.transact(Durability::Synced, Look).await.unwrap();
    assert_eq!(log(), after);
}
