//! Faults of the record store that only its inside can be made to have.

use registry_core::{Error, ErrorCode};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::FilesystemBackend;
use super::transaction::Transaction;
use super::writer::Job;
use crate::backend::{Backend as _, Condition, Durability, Records, Sequence, Version};
use crate::key::Key;

/// Speaks to SQLite in the middle of a transaction.
struct Inside(&'static str, oneshot::Sender<Result<(), Error>>);

impl Job for Inside {
    fn run(&mut self, records: &mut Transaction<'_>) -> bool {
        records.connection().execute_batch(self.0).is_ok()
    }

    fn answer(self: Box<Self>, outcome: Result<(), Error>) {
        drop(self.1.send(outcome));
    }
}

struct Put(&'static str, usize);

impl Sequence for Put {
    type Output = Option<Version>;

    async fn run(self, records: &mut dyn Records) -> Result<Self::Output, Error> {
        records
            .put(&Key::from_stored(self.0), vec![7; self.1].into(), Condition::Any)
            .await
    }
}

/// Writes more than fits and takes no notice of the error.
struct IgnoreErrors;

impl Sequence for IgnoreErrors {
    type Output = ();

    async fn run(self, records: &mut dyn Records) -> Result<(), Error> {
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
        "an error that the sequence hides is seen"
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
async fn a_commit_that_fails_ends_writing_until_the_root_is_opened_again() {
    let (root, backend) = open().await;
    put(&backend, "a", 10).await.unwrap();
    inside(
        &backend,
        "CREATE TABLE parent (id INTEGER PRIMARY KEY);
         CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
    )
    .await
    .unwrap();
    // The transaction stands until COMMIT, which then refuses.
    let failing = inside(&backend, "INSERT INTO child VALUES (1)");
    let (sharing, failed) = tokio::join!(put(&backend, "a", 20), failing);
    assert_eq!(failed.unwrap_err().code(), ErrorCode::Internal);
    let expected = if sharing.is_ok() { 20 } else { 10 };
    assert_eq!(size(&backend, "a").await, Some(expected));
    assert_eq!(put(&backend, "a", 30).await, Err(ErrorCode::Unavailable));
    assert_eq!(size(&backend, "a").await, Some(expected), "reads go on");
    assert_eq!(backend.close().await.unwrap_err().code(), ErrorCode::Unavailable);

    let backend = FilesystemBackend::open(root.path()).await.unwrap();
    assert_eq!(size(&backend, "a").await, Some(expected));
    put(&backend, "a", 30).await.unwrap();
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let (root, backend) = open().await;
    put(&backend, "a", 10).await.unwrap();
    inside(&backend, "PRAGMA user_version = 7").await.unwrap();
    backend.close().await.unwrap();
    let error = FilesystemBackend::open(root.path())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("format 7") && error.contains("records.sqlite"),
        "{error}"
    );
}
