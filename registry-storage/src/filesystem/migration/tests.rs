//! Stores of format 1, brought to the current format by processes that are killed.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::backend::Backend as _;
use crate::filesystem::backup::restore;
use crate::filesystem::{FilesystemBackend, RECORDS_FILE};

type Records = BTreeMap<String, (i64, Vec<u8>)>;

/// Records of all sizes that a store has, including those around the largest that fit a row, and two of 4 MiB.
fn records() -> Records {
    let mut records = Records::new();
    let manifests = "repositories/team/app/!/manifests/sha256/";
    for (number, size) in (0_u8..).zip([4 << 20, 1 << 20, 4 << 20, 16 << 10, 4000]) {
        records.insert(
            format!("{manifests}{number}"),
            (number.into(), vec![number; size]),
        );
    }
    for size in 700..1100 {
        let number = i64::try_from(size).unwrap();
        records.insert(
            format!("blobs/sha256/aa/{size}/record"),
            (-number, vec![b'b'; size]),
        );
    }
    for number in 0..3000 {
        let text = format!("tag {number}").into_bytes();
        records.insert(format!("repositories/team/app/!/tags/{number}"), (number, text));
    }
    records.insert("uploads/empty".to_owned(), (i64::MAX, Vec::new()));
    records
}

/// Creates a store of format 1, as versions created it that knew no other.
fn make_format_1(path: &Path, records: &Records) -> Connection {
    let mut connection = queries::open_writer(path, queries::Medium::Files).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE records (
                 key     TEXT    NOT NULL PRIMARY KEY,
                 version INTEGER NOT NULL,
                 value   BLOB    NOT NULL
             ) WITHOUT ROWID, STRICT;
             PRAGMA user_version = 1",
        )
        .unwrap();
    let transaction = connection.transaction().unwrap();
    for (key, (version, value)) in records {
        transaction
            .execute(
                "INSERT INTO records VALUES (?1, ?2, ?3)",
                params![key, version, value],
            )
            .unwrap();
    }
    transaction.commit().unwrap();
    connection
}

/// What a kill at this moment would leave of a store.
fn left_by_a_kill(path: &Path) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for end in ["", "-wal"] {
        let (mut from, to) = (path.as_os_str().to_owned(), format!("{RECORDS_FILE}{end}"));
        from.push(end);
        let from = PathBuf::from(from);
        if from.exists() {
            fs::copy(from, root.path().join(to)).unwrap();
        }
    }
    root
}

/// Checks that a store has these records, by listing and by key, in their earlier versions.
async fn assert_has(backend: &FilesystemBackend, expected: &Records) {
    let mut listed = BTreeMap::new();
    let mut after = None;
    loop {
        let page = backend
            .list(&Key::from_stored(""), after.as_ref(), 1000)
            .await
            .unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        listed.extend(
            page.into_iter()
                .map(|entry| (entry.key.as_str().to_owned(), entry.size)),
        );
    }
    let sizes = expected
        .iter()
        .map(|(key, (_, value))| (key.clone(), value.len() as u64));
    assert!(listed == sizes.collect(), "{} records are listed", listed.len());
    for (key, (version, value)) in expected {
        let stored = backend.get(&Key::from_stored(key)).await.unwrap().unwrap();
        assert!(stored.value == *value, "{key} has another value");
        assert_eq!(stored.version, queries::version_of(*version), "{key}");
    }
}

async fn assert_opens(root: &TempDir, expected: &Records) {
    let backend = FilesystemBackend::open(root.path()).await.unwrap();
    assert_has(&backend, expected).await;
    backend.close().await.unwrap();
    let connection = Connection::open(root.path().join(RECORDS_FILE)).unwrap();
    assert_eq!(queries::format(&connection).unwrap(), queries::FORMAT);
    assert!(!is_unfinished(&connection).unwrap());
}

#[tokio::test]
async fn a_store_of_format_1_keeps_everything_whenever_its_migration_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(RECORDS_FILE);
    let expected = records();
    let mut connection = make_format_1(&path, &expected);
    let mut killed = vec![left_by_a_kill(&path)];
    begin(&mut connection).unwrap();
    killed.push(left_by_a_kill(&path));
    loop {
        let transaction = connection.transaction().unwrap();
        let moved = move_records(&transaction).unwrap();
        killed.push(left_by_a_kill(&path));
        transaction.commit().unwrap();
        if moved == 0 {
            break;
        }
        killed.push(left_by_a_kill(&path));
    }
    assert!(killed.len() > 8, "{} moments", killed.len());
    for root in killed {
        assert_opens(&root, &expected).await;
    }
}

#[tokio::test]
async fn a_full_disk_ends_a_migration_with_nothing_lost_and_the_next_one_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join(RECORDS_FILE);
    let expected = records();
    let mut connection = make_format_1(&path, &expected);
    let pages: i64 = connection
        .query_row("PRAGMA page_count", [], |row| row.get(0))
        .unwrap();
    connection
        .query_row(
            &format!("PRAGMA max_page_count = {}", pages + 200),
            [],
            |_| Ok(()),
        )
        .unwrap();
    let error = migrate(&mut connection, &path).unwrap_err();
    assert!(error.to_string().contains("nothing is lost"), "{error}");
    assert!(matches!(error, OpenError::Migration { .. }));
    drop(connection);
    assert_opens(&root, &expected).await;
}

#[tokio::test]
async fn a_backup_of_format_1_is_restored_as_the_format_of_today() {
    let (root, backup, restored) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let backend = FilesystemBackend::open(root.path()).await.unwrap();
    backend.back_up(backup.path(), Arc::new(())).await.unwrap();
    backend.close().await.unwrap();
    let path = backup.path().join(RECORDS_FILE);
    fs::remove_file(&path).unwrap();
    let mut expected = records();
    expected.retain(|key, _| !key.starts_with("blobs/"));
    let connection = make_format_1(&path, &expected);
    connection
        .query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))
        .unwrap();
    drop(connection);
    let manifest = backup.path().join("backup.json");
    let text = fs::read_to_string(&manifest).unwrap();
    let older = text.replace("\"format\": 2", "\"format\": 1");
    assert_ne!(text, older);
    fs::write(&manifest, older).unwrap();
    let before = fs::read(&path).unwrap();

    restore(backup.path(), restored.path(), Arc::new(()))
        .await
        .unwrap();
    assert!(fs::read(&path).unwrap() == before, "the backup is as it was");
    assert_opens(&restored, &expected).await;
}

/// SQLite assembles a row from several pages each time that it compares the row's key, so a push of some bytes read and
/// copied some of the largest manifests of its repository.
#[test]
fn large_values_are_not_in_the_tree_of_keys() {
    let connection = Connection::open_in_memory().unwrap();
    queries::create(&connection).unwrap();
    let longest = "k".repeat(860);
    for (number, size) in [0, 30, 50, 100, 850, 900, 1000, 100_000].into_iter().enumerate() {
        for key in [format!("short/{number}"), format!("{longest}/{number}")] {
            let (key, value) = (Key::from_stored(&key), vec![7; size]);
            queries::write(&connection, &key, &value, i64::MAX, None).unwrap();
            assert_eq!(queries::get(&connection, &key).unwrap().unwrap().value, value);
        }
    }
    let overflowing: i64 = connection
        .query_row(
            "SELECT count(*) FROM dbstat WHERE name = 'records' AND pagetype = 'overflow'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(overflowing, 0);
}

/// A value that grows or shrinks across the limit of a row leaves nothing behind.
#[test]
fn a_record_has_one_value_whatever_sizes_it_had() {
    let connection = Connection::open_in_memory().unwrap();
    queries::create(&connection).unwrap();
    let key = Key::from_stored("repositories/a/!/manifests/sha256/1");
    let mut found = None;
    for (version, size) in (1..).zip([10, 5000, 10_000, 20, 5000]) {
        let value = vec![7; size];
        found = Some(queries::write(&connection, &key, &value, version, found).unwrap());
        assert_eq!(queries::get(&connection, &key).unwrap().unwrap().value, value);
        let large: i64 = connection
            .query_row("SELECT count(*) FROM large_values", [], |row| row.get(0))
            .unwrap();
        assert_eq!(large, i64::from(size > 900));
    }
    queries::delete(&connection, &key, found.unwrap()).unwrap();
    let large: i64 = connection
        .query_row("SELECT count(*) FROM large_values", [], |row| row.get(0))
        .unwrap();
    assert_eq!(large, 0);
}
