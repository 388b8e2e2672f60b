//! Folders that are not opened, so that they keep what they have.

use super::*;

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

/// The store began anew, and its first sweep deleted the bytes of all blobs.
#[tokio::test]
async fn a_root_whose_records_are_gone_is_refused_and_keeps_its_bytes() {
    let (root, backend) = open().await;
    backend.close().await.unwrap();
    let open_again = async || FilesystemBackend::open(root.path()).await;
    // A start that was killed early left only folders.
    let records = root.path().join("records.sqlite");
    let day = root.path().join("bytes/20261128");
    std::fs::create_dir(&day).unwrap();
    std::fs::remove_file(&records).unwrap();
    open_again().await.unwrap().close().await.unwrap();

    std::fs::write(day.join("0c9f3d8a-1c1d-4a4e-8f51-0b6a1d0c2e3f"), "a layer").unwrap();
    open_again().await.unwrap().close().await.unwrap();
    // As if the log had been removed after a kill.
    let nothing_written = || {
        let connection = Connection::open(&records)?;
        connection.execute_batch("PRAGMA journal_mode = WAL; VACUUM")
    };
    for there in ["database", "empty", "nothing"] {
        std::fs::remove_file(&records).unwrap();
        match there {
            "database" => nothing_written().unwrap(),
            "empty" => std::fs::write(&records, "").unwrap(),
            _ => {}
        }
        let length = || records.metadata().map(|found| found.len()).ok();
        let before = length();
        let refused = open_again().await.unwrap_err();
        assert!(
            matches!(refused, OpenError::RecordsLost { .. }),
            "{there}: {refused}"
        );
        assert!(check_records(root.path()).is_err());
        assert_eq!(length(), before, "nothing was made");
    }
}

/// SQLite takes a damaged log for an empty one, and records that were never copied back begin anew.
#[tokio::test]
async fn a_root_whose_first_log_is_damaged_is_refused_and_keeps_its_bytes() {
    for length in [32, 6000, 0] {
        let (root, backend) = open().await;
        let copy = tempfile::tempdir().unwrap();
        let day = copy.path().join("bytes/20261128");
        std::fs::create_dir_all(&day).unwrap();
        std::fs::write(day.join("0c9f3d8a-1c1d-4a4e-8f51-0b6a1d0c2e3f"), "a layer").unwrap();
        // What a kill leaves.
        let log = copy.path().join("records.sqlite-wal");
        for name in ["records.sqlite", "records.sqlite-wal"] {
            std::fs::copy(root.path().join(name), copy.path().join(name)).unwrap();
        }
        let mut content = std::fs::read(&log).unwrap();
        content.resize(length, 7);
        std::fs::write(&log, &content).unwrap();
        let refused = FilesystemBackend::open(copy.path()).await.unwrap_err();
        assert!(
            matches!(refused, OpenError::RecordsLost { .. }),
            "{length}: {refused}"
        );
        assert!(
            std::fs::read(&log).unwrap() == content,
            "{length}: nothing was changed"
        );
        backend.close().await.unwrap();
    }
}

/// `config check` called them good.
#[tokio::test]
async fn places_in_which_no_records_can_be_are_refused_with_their_reason() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("a".repeat(240)).join("b".repeat(240));
    let root = |name: &str| {
        let root = folder.path().join(name);
        std::fs::create_dir(&root).unwrap();
        root
    };
    let (beside, cut) = (root("beside"), root("cut"));
    std::fs::create_dir(beside.join("records.sqlite-journal")).unwrap();
    let backend = FilesystemBackend::open(&cut).await.unwrap();
    backend.close().await.unwrap();
    let file = std::fs::File::options()
        .write(true)
        .open(cut.join("records.sqlite"));
    file.unwrap().set_len(100).unwrap();
    for (root, reason) in [
        (deep, "that of a database has at most 504"),
        (beside, "records.sqlite-journal is no regular file"),
        (cut, "malformed"),
    ] {
        for refused in [
            check_records(&root).unwrap_err(),
            FilesystemBackend::open(&root).await.unwrap_err(),
        ] {
            let mut message = refused.to_string();
            let mut source = std::error::Error::source(&refused);
            while let Some(cause) = source {
                message = format!("{message}: {cause}");
                source = cause.source();
            }
            assert!(message.contains(reason), "{message}");
        }
    }
}
