//! Who may read what a store makes.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use registry_storage::Maintenance as _;
use registry_storage::Store;
use registry_storage::filesystem::FilesystemBackend;
use registry_storage::filesystem::backup::restore;
use registry_storage::outbox::{Outbox, OutboxLimits};

use crate::support::images::push_blob;

/// Returns the modes of all that is below a folder, and of itself.
fn modes(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut found = vec![(folder.to_owned(), mode(folder))];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(modes(&path));
        } else {
            found.push((path.clone(), mode(&path)));
        }
    }
    found
}

/// Pushes a blob that is a file of its own.
async fn push(store: &Store<FilesystemBackend>) {
    push_blob(store, "a", &Bytes::from(vec![7; 100_000])).await;
}

async fn open(root: &Path) -> Store<FilesystemBackend> {
    Store::new(FilesystemBackend::open(root).await.unwrap())
}

fn assert_private(folder: &Path) {
    let modes = modes(folder);
    assert!(modes.len() > 4, "{modes:?}");
    for (path, mode) in modes {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{}: {mode:o}", path.display());
    }
}

#[tokio::test]
async fn what_is_made_is_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("above/root");
    let store = open(&root).await;
    push(&store).await;
    let outbox = Outbox::open(&root.join("outbox"), OutboxLimits::default(), &["a"]).unwrap();
    outbox.append(vec![vec![1]]).await.unwrap();
    assert!(root.join("records.sqlite-wal").exists() && root.join("outbox-wal").exists());
    assert_private(&root);
    outbox.close();

    let backup = folder.path().join("backup");
    store.backup(&backup, Arc::new(())).await.unwrap();
    assert_private(&backup);
    store.close().await.unwrap();
    let restored = folder.path().join("restored");
    restore(&backup, &restored, Arc::new(())).await.unwrap();
    open(&restored).await.close().await.unwrap();
    assert_private(&restored);
}

#[tokio::test]
async fn a_root_that_its_operator_made_stays_as_it_is_and_what_is_made_in_it_is_private() {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
    let store = open(root.path()).await;
    push(&store).await;
    for (path, mode) in modes(root.path()) {
        let expected = match path.is_dir() {
            true if path == root.path() => 0o755,
            true => 0o700,
            false => 0o600,
        };
        assert_eq!(mode, expected, "{}: {mode:o}", path.display());
    }
}

#[tokio::test]
async fn a_root_whose_group_may_read_it_lets_the_group_read_what_is_in_it_and_take_no_lock() {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), Permissions::from_mode(0o750)).unwrap();
    let store = open(root.path()).await;
    push(&store).await;
    for (path, mode) in modes(root.path()) {
        let expected = if path.is_dir() {
            0o750
        } else if path.ends_with("registry.lock") || path.ends_with("reserve") {
            0o600
        } else {
            0o640
        };
        assert_eq!(mode, expected, "{}: {mode:o}", path.display());
    }
}

#[tokio::test]
async fn what_an_earlier_version_left_open_is_closed() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    push(&store).await;
    store.close().await.unwrap();
    for (path, _) in modes(root.path()) {
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    let _store = open(root.path()).await;
    let mode = |name: &str| {
        let metadata = fs::metadata(root.path().join(name)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!((mode("bytes"), mode("")), (0o700, 0o755));
    for name in ["registry.lock", "records.sqlite", "records.sqlite-wal"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
}
