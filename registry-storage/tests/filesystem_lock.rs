//! One process owns a root.
//!
//! A program of its own, because it starts another one, which holds the locks of all roots of this process until it runs.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]
#![cfg(all(feature = "filesystem", unix))]

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use registry_core::{Error, ErrorCode};
use registry_storage::backend::{
    Backend as _, Condition, Durability, RecordTransaction, StagedBytes, Transaction,
};
use registry_storage::filesystem::{FilesystemBackend, FilesystemOptions, OpenError, check_records};
use registry_storage::{BytesName, Key};

const ROOT: &str = "REGISTRY_TEST_ROOT";

/// Not a test of its own: the second process of the tests below. It holds the root until its input ends.
#[tokio::test]
async fn hold_the_root() {
    let Some(root) = std::env::var_os(ROOT) else {
        return;
    };
    let _backend = FilesystemBackend::open(&root).await.unwrap();
    std::fs::write(std::path::Path::new(&root).join("ready"), "").unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[tokio::test]
async fn a_second_process_is_refused_and_takes_over_when_the_first_is_killed() {
    let root = tempfile::tempdir().unwrap();
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hold_the_root"])
        .env(ROOT, root.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !root.path().join("ready").exists() {
        assert!(Instant::now() < deadline, "the second process did not start");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let error = FilesystemBackend::open(root.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::Held { .. }), "{error:?}");
    assert!(
        error.to_string().contains(&format!("process {}", holder.id())),
        "{error}"
    );

    let waiting = tokio::spawn(
        FilesystemOptions::new()
            .wait(Duration::MAX)
            .open(root.path().to_owned()),
    );
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    holder.kill().unwrap();
    holder.wait().unwrap();
    let killed = Instant::now();
    let backend = waiting.await.unwrap().unwrap();
    println!("taken over after {:?}", killed.elapsed());
    assert!(killed.elapsed() < Duration::from_secs(2));
    backend.close().await.unwrap();
}

/// Fills the log, so that SQLite copies it back.
struct PutLarge(u32);

impl Transaction for PutLarge {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        let key = Key::from_stored(&format!("b{}", self.0));
        records
            .put(&key, vec![7; 20_000].into(), Condition::Any)
            .await
            .map(drop)
    }
}

struct Put;

impl Transaction for Put {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        let key = Key::from_stored("a");
        records.put(&key, "1".into(), Condition::Any).await.map(drop)
    }
}

#[tokio::test]
async fn a_lock_file_that_was_removed_lets_nobody_in_and_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let lock = root.path().join("registry.lock");
    let first = FilesystemBackend::open(root.path()).await.unwrap();
    std::fs::remove_file(&lock).unwrap();
    let error = FilesystemBackend::open(root.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::Held { .. }), "{error:?}");
    assert!(!lock.exists(), "the second one left no lock of its own");
    first.transact(Durability::Synced, Put).await.unwrap();
    let error = FilesystemBackend::open(root.path()).await.unwrap_err();
    let holder = format!("process {}", std::process::id());
    assert!(error.to_string().contains(&holder), "{error}");
    first.close().await.unwrap();
    FilesystemBackend::open(root.path()).await.unwrap();
}

#[tokio::test]
async fn what_was_replaced_while_it_was_open_is_not_written_to() {
    for name in ["bytes", "records.sqlite", "registry.lock", ""] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        let backend = FilesystemBackend::open(&root).await.unwrap();
        backend.transact(Durability::Synced, Put).await.unwrap();
        let path = root.join(name);
        std::fs::rename(&path, folder.path().join("aside")).unwrap();
        match name {
            "bytes" => std::fs::create_dir(&path).unwrap(),
            "" => drop(FilesystemBackend::open(&root).await.unwrap()),
            _ => std::fs::write(&path, "").unwrap(),
        }
        let error = backend.transact(Durability::Synced, Put).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Unavailable);
        assert!(error.message().contains("replaced"), "{name}: {error}");
        assert!(backend.probe().await.is_err());
        assert!(backend.close().await.is_err());
    }
}

/// Commits went on into a log that nobody would read again, and were lost with the process.
#[tokio::test]
async fn a_log_that_was_removed_or_replaced_loses_nothing_and_is_not_written_to() {
    for is_replaced in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let log = root.path().join("records.sqlite-wal");
        let backend = FilesystemBackend::open(root.path()).await.unwrap();
        backend.transact(Durability::Synced, Put).await.unwrap();
        let before = backend
            .get(&Key::from_stored("a"))
            .await
            .unwrap()
            .unwrap()
            .version;
        std::fs::remove_file(&log).unwrap();
        if is_replaced {
            std::fs::write(&log, "").unwrap();
        }
        let error = backend.transact(Durability::Synced, Put).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Unavailable);
        assert!(error.message().contains("records.sqlite-wal"), "{error}");
        assert!(backend.probe().await.is_err());
        // As a kill would, without a word to SQLite.
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(
            root.path().join("records.sqlite"),
            copy.path().join("records.sqlite"),
        )
        .unwrap();
        let again = FilesystemBackend::open(copy.path()).await.unwrap();
        let found = again.get(&Key::from_stored("a")).await.unwrap().unwrap().version;
        assert_eq!(found, before);
    }
}

#[tokio::test]
async fn a_log_that_was_cut_is_not_written_to() {
    let root = tempfile::tempdir().unwrap();
    let backend = FilesystemBackend::open(root.path()).await.unwrap();
    backend.transact(Durability::Synced, Put).await.unwrap();
    // It is looked at before each commit.
    backend.transact(Durability::Synced, Put).await.unwrap();
    std::fs::write(root.path().join("records.sqlite-wal"), "").unwrap();
    let error = backend.transact(Durability::Synced, Put).await.unwrap_err();
    assert!(error.message().contains("was cut"), "{error}");
    assert!(backend.close().await.is_err());
}

/// `cp` of an older file over that of a running server keeps its inode. The next sweep deleted what the older one did not name.
#[tokio::test]
async fn older_records_that_are_written_over_those_of_an_open_store_end_writing() {
    let root = tempfile::tempdir().unwrap();
    let records = root.path().join("records.sqlite");
    FilesystemBackend::open(root.path())
        .await
        .unwrap()
        .close()
        .await
        .unwrap();
    let older = std::fs::read(&records).unwrap();
    let backend = FilesystemBackend::open(root.path()).await.unwrap();
    for number in 0..1000 {
        backend
            .transact(Durability::Synced, PutLarge(number))
            .await
            .unwrap();
    }
    assert!(
        records.metadata().unwrap().len() > older.len() as u64,
        "the log was copied back"
    );
    backend.transact(Durability::Synced, Put).await.unwrap();
    std::fs::write(&records, &older).unwrap();
    let error = backend.transact(Durability::Synced, Put).await.unwrap_err();
    assert!(error.message().contains("written over"), "{error}");
    let name = BytesName::parse("20260101/00000000-0000-4000-8000-000000000001").unwrap();
    assert!(backend.delete_bytes(&name).await.is_err());
}

/// The first sweep deleted all bytes, as the records named none of them.
#[tokio::test]
async fn records_of_another_store_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = |name: &str| folder.path().join(name);
    for name in ["one", "other"] {
        let backend = FilesystemBackend::open(&root(name)).await.unwrap();
        backend.transact(Durability::Synced, Put).await.unwrap();
        backend.close().await.unwrap();
        std::fs::create_dir(root(name).join("bytes/20261128")).unwrap();
        std::fs::write(root(name).join("bytes/20261128/bytes"), "a layer").unwrap();
    }
    let records = |name: &str| root(name).join("records.sqlite");
    std::fs::copy(records("one"), root("kept")).unwrap();
    std::fs::copy(records("other"), records("one")).unwrap();
    let refused = FilesystemBackend::open(&root("one")).await.unwrap_err();
    assert!(matches!(refused, OpenError::RecordsOfAnother { .. }), "{refused}");
    let refused = check_records(&root("one")).unwrap_err();
    assert!(matches!(refused, OpenError::RecordsOfAnother { .. }), "{refused}");
    std::fs::copy(root("kept"), records("one")).unwrap();
    check_records(&root("one")).unwrap();
    FilesystemBackend::open(&root("one"))
        .await
        .unwrap()
        .close()
        .await
        .unwrap();
    std::fs::write(root("one").join("registry.id"), "half an id").unwrap();
    let refused = FilesystemBackend::open(&root("one")).await.unwrap_err();
    let cause = std::error::Error::source(&refused).unwrap().to_string();
    assert!(cause.contains("remove this file"), "{cause}");
    // Without the file, they are taken as they are.
    std::fs::copy(records("other"), records("one")).unwrap();
    std::fs::remove_file(root("one").join("registry.id")).unwrap();
    FilesystemBackend::open(&root("one"))
        .await
        .unwrap()
        .close()
        .await
        .unwrap();
    FilesystemBackend::open(&root("one"))
        .await
        .unwrap()
        .close()
        .await
        .unwrap();
}

/// The sweeper of a store whose folder was moved away lists the files of the store that took its place.
#[tokio::test]
async fn a_store_whose_folder_was_moved_away_deletes_no_bytes_of_the_one_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let first = FilesystemBackend::open(&root).await.unwrap();
    std::fs::rename(&root, folder.path().join("aside")).unwrap();
    let second = FilesystemBackend::open(&root).await.unwrap();
    let name = BytesName::parse("20260101/00000000-0000-4000-8000-000000000001").unwrap();
    let bytes = StagedBytes {
        name: name.clone(),
        token: None,
    };
    let mut writer = second.write_bytes(&bytes, Arc::new(())).await.unwrap();
    writer.write(0, 0, "content".into()).await.unwrap();
    writer.close().await.unwrap();
    second.seal_bytes(&bytes, 7).await.unwrap();

    let listed = first.list_bytes(None, 10).await.unwrap();
    assert_eq!(listed, std::slice::from_ref(&name));
    let error = first.delete_bytes(&name).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert!(error.message().contains("removed or replaced"), "{error}");
    assert_eq!(second.bytes_size(&name).await.unwrap(), Some(7));
    second.delete_bytes(&name).await.unwrap();
}

#[tokio::test]
async fn a_root_is_opened_once_in_one_process_too() {
    let root = tempfile::tempdir().unwrap();
    let first = FilesystemBackend::open(root.path()).await.unwrap();
    let error = FilesystemBackend::open(root.path()).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("process {}", std::process::id())),
        "{error}"
    );
    let started = Instant::now();
    let waited = FilesystemOptions::new()
        .wait(Duration::from_millis(60))
        .open(root.path())
        .await;
    assert!(matches!(waited, Err(OpenError::Held { .. })));
    assert!(started.elapsed() >= Duration::from_millis(60));
    first.close().await.unwrap();
    // Closed, though the value is still there.
    let second = FilesystemBackend::open(root.path()).await.unwrap();
    drop(second);
    let third = FilesystemOptions::new()
        .wait(Duration::from_secs(20))
        .open(root.path())
        .await;
    drop(third.unwrap());
    drop(first);
}

#[tokio::test]
async fn a_root_that_cannot_be_made_is_named() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = FilesystemBackend::open(file.join("root"))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("file/root"), "{error}");
}
