//! Loss of power at every sync, and an error of every call.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use registry_core::storage::{BlobStorage as _, UploadStorage as _};
use registry_core::{Algorithm, Digest, Error, ErrorCode};
use registry_storage::backend::{
    Backend as _, Condition, Durability, Expect, RecordTransaction, StagedBytes, Transaction,
};
use registry_storage::filesystem::volatile::VolatileDisk;
use registry_storage::filesystem::{FilesystemBackend, FilesystemOptions};
use registry_storage::{BytesName, Key, Store};

use crate::support::images::create_upload;

const FULL: i32 = 28;
const QUOTA: i32 = 122;
const TOO_LARGE: i32 = 27;
const BROKEN: i32 = 5;
const FORBIDDEN: i32 = 13;
const NO_DESCRIPTOR: i32 = 24;

/// Writes a record, or removes it.
struct Set(&'static str, Option<String>);

impl Transaction for Set {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        let key = Key::from_stored(self.0);
        match self.1 {
            Some(value) => records.put(&key, value.into(), Condition::Any).await.map(drop),
            None => records.remove(&key).await,
        }
    }
}

/// Only reads.
struct Look;

impl Transaction for Look {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        records.get(&Key::from_stored("deferred")).await.map(drop)
    }
}

fn name(day: u32, number: u32) -> BytesName {
    BytesName::parse(&format!("{day}/00000000-0000-4000-8000-{number:012}")).unwrap()
}

fn unfinished(name: &BytesName) -> StagedBytes {
    StagedBytes {
        name: name.clone(),
        token: None,
    }
}

fn pattern(size: usize) -> Bytes {
    (0..size).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
}

async fn open(root: &Path) -> (VolatileDisk, FilesystemBackend) {
    let disk = VolatileDisk::new(root).unwrap();
    let backend = FilesystemOptions::new()
        .disk(Arc::new(disk.clone()))
        .open(root)
        .await
        .unwrap();
    (disk, backend)
}

async fn write(backend: &FilesystemBackend, name: &BytesName, content: &Bytes) -> Result<(), Error> {
    let mut writer = backend.write_bytes(&unfinished(name), Arc::new(())).await?;
    let (first, second) = content.split_at(content.len() / 2);
    writer.write(0, 0, content.slice_ref(first)).await?;
    writer
        .write(1, first.len() as u64, content.slice_ref(second))
        .await?;
    writer.close().await
}

async fn read(backend: &FilesystemBackend, name: &BytesName) -> Option<Vec<u8>> {
    let size = 100_000;
    let mut stream = backend
        .open_bytes(name, Expect::Nothing)
        .await
        .unwrap()?
        .read(0..size);
    let mut content = Vec::new();
    while let Some(chunk) = stream.next().await {
        content.extend_from_slice(&chunk.ok()?);
    }
    Some(content)
}

/// What was answered while there was power, and must be there after its loss.
#[derive(Default)]
struct Promises(BTreeMap<&'static str, Option<String>>);

impl Promises {
    fn record(&mut self, disk: &VolatileDisk, what: &[Set]) {
        if !disk.is_powerless() {
            self.0
                .extend(what.iter().map(|Set(key, value)| (*key, value.clone())));
        }
    }
}

/// Pushes a blob, publishes it by a record, as the store does, and so on; returns what was promised.
async fn push_and_delete(disk: &VolatileDisk, backend: &FilesystemBackend) -> Promises {
    let mut promises = Promises::default();
    let set = |key, value: &str| Set(key, Some(value.to_owned()));
    backend
        .transact(Durability::Deferred, set("session", "1"))
        .await
        .unwrap();
    for (key, day) in [
        ("blob 1", 20_300_101),
        ("blob 2", 20_300_101),
        ("blob 3", 20_300_102),
    ] {
        let name = name(day, u32::from(key.as_bytes()[5]));
        write(backend, &name, &pattern(100_000)).await.unwrap();
        backend.seal_bytes(&unfinished(&name), 100_000).await.unwrap();
        backend
            .transact(Durability::Synced, set(key, name.as_str()))
            .await
            .unwrap();
        promises.record(disk, &[set(key, name.as_str()), set("session", "1")]);
    }
    backend
        .transact(Durability::Deferred, set("deferred", "2"))
        .await
        .unwrap();
    // A synced transaction makes what was deferred durable, even if it writes nothing.
    backend.transact(Durability::Synced, Look).await.unwrap();
    promises.record(disk, &[set("deferred", "2")]);
    backend
        .transact(Durability::Synced, Set("blob 1", None))
        .await
        .unwrap();
    promises.record(disk, &[Set("blob 1", None)]);
    backend
        .delete_bytes(&name(20_300_101, u32::from(b'1')))
        .await
        .unwrap();
    promises
}

#[tokio::test]
async fn what_was_promised_survives_the_loss_of_power_at_each_sync() {
    let total = {
        let root = tempfile::tempdir().unwrap();
        let (disk, backend) = open(root.path()).await;
        let before = disk.syncs();
        push_and_delete(&disk, &backend).await;
        disk.syncs() - before
    };
    assert!(total >= 14, "{total} syncs");
    let mut kept = 0;
    for syncs in 0..=total {
        let root = tempfile::tempdir().unwrap();
        let (disk, backend) = open(root.path()).await;
        disk.lose_power_after(syncs);
        let promises = push_and_delete(&disk, &backend).await;
        let rest = disk.after_power_loss().unwrap();
        drop(backend);

        let (after, backend) = open(rest.path()).await;
        assert_ne!(registry_storage::filesystem::disk::Disk::epoch(&after), None);
        assert_ne!(
            backend.epoch(),
            registry_storage::filesystem::disk::Disk::epoch(&disk).as_deref()
        );
        for (key, value) in &promises.0 {
            let found = backend.get(&Key::from_stored(key)).await.unwrap();
            let found = found.map(|stored| String::from_utf8(stored.value.to_vec()).unwrap());
            assert!(
                found == *value || value.is_some() && *key == "blob 1" && found.is_none(),
                "{key} after {syncs}"
            );
            kept += 1;
        }
        // Promised or not, a record never names bytes that are not whole.
        for entry in backend.list(&Key::from_stored("blob"), None, 100).await.unwrap() {
            let stored = backend.get(&entry.key).await.unwrap().unwrap();
            let name = BytesName::parse(std::str::from_utf8(&stored.value).unwrap()).unwrap();
            assert_eq!(
                read(&backend, &name).await.as_deref(),
                Some(&*pattern(100_000)),
                "{name} after {syncs}"
            );
        }
        backend.close().await.unwrap();
    }
    assert!(kept > 20, "{kept} promises");
}

#[tokio::test]
async fn closing_makes_deferred_records_durable() {
    let root = tempfile::tempdir().unwrap();
    let (disk, backend) = open(root.path()).await;
    backend
        .transact(Durability::Deferred, Set("deferred", Some("1".into())))
        .await
        .unwrap();
    let lost = disk.after_power_loss().unwrap();
    backend.close().await.unwrap();
    let kept = disk.after_power_loss().unwrap();
    for (root, is_there) in [(lost, false), (kept, true)] {
        let (_, backend) = open(root.path()).await;
        assert_eq!(
            backend
                .get(&Key::from_stored("deferred"))
                .await
                .unwrap()
                .is_some(),
            is_there
        );
    }
}

/// Writes and seals bytes and publishes them.
async fn push(backend: &FilesystemBackend, name: &BytesName) -> Result<(), Error> {
    let content = pattern(100_000);
    write(backend, name, &content).await?;
    backend.seal_bytes(&unfinished(name), 100_000).await?;
    backend
        .transact(Durability::Synced, Set("blob", Some(name.to_string())))
        .await
}

#[tokio::test]
async fn an_error_of_any_call_is_answered_and_leaves_no_debris() {
    for code in [FULL, QUOTA, TOO_LARGE, BROKEN, FORBIDDEN, NO_DESCRIPTOR] {
        let mut failed = 0;
        let mut ended_writing = 0;
        for call in 0.. {
            let root = tempfile::tempdir().unwrap();
            let (disk, backend) = open(root.path()).await;
            let (first, second) = (name(20_300_101, 1), name(20_300_101, 2));
            disk.fail_after(call, code);
            let Err(error) = push(&backend, &first).await else {
                break;
            };
            failed += 1;
            let expected = match code {
                FULL | QUOTA | TOO_LARGE => ErrorCode::StorageFull,
                NO_DESCRIPTOR => ErrorCode::Unavailable,
                _ => ErrorCode::Internal,
            };
            assert_eq!(error.code(), expected, "call {call}");
            assert!(std::error::Error::source(&error).is_some());
            // The first part may stay, since it was written; nothing else.
            if let Some(file) = backend.list_bytes(None, 10).await.unwrap().first() {
                let length = root
                    .path()
                    .join("bytes")
                    .join(file.as_str())
                    .metadata()
                    .unwrap()
                    .len();
                assert!(
                    length == 50_000 || length == 100_000 || code == BROKEN,
                    "{length} bytes after call {call}"
                );
            }
            if push_until_it_is_known(&backend, &second).await {
                assert_eq!(read(&backend, &second).await.unwrap(), pattern(100_000));
            } else {
                ended_writing += 1;
                assert_eq!(backend.get(&Key::from_stored("blob")).await.unwrap(), None);
                let refused = backend.delete_bytes(&first).await.unwrap_err();
                assert_eq!(refused.code(), ErrorCode::Unavailable);
                assert_eq!(backend.probe().await.unwrap_err().code(), ErrorCode::Unavailable);
                drop(backend.close().await);
                let (_, backend) = open(root.path()).await;
                push(&backend, &second).await.unwrap();
            }
        }
        // open, create, mkdir, create, 2 writes, sync; open, length, 2 folders are opened, sync, 2 folders
        assert_eq!(failed, 14, "error {code}");
        // Of names that may be lost nobody knows which, and that ends writing. All else does not, or not for good.
        assert_eq!(ended_writing, 2, "error {code}");
    }
}

/// Pushes until that is done; `false` where it never will be.
async fn push_until_it_is_known(backend: &FilesystemBackend, name: &BytesName) -> bool {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match push(backend, name).await {
            Ok(()) => return true,
            Err(error) => assert_eq!(error.code(), ErrorCode::Unavailable),
        }
        let reason = backend.write_state().stopped.unwrap_or_default();
        if reason.contains("start the registry again") {
            return false;
        }
        assert!(Instant::now() < deadline, "{reason}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_upload_whose_sync_failed_is_not_gone_on_with() {
    let root = tempfile::tempdir().unwrap();
    let (disk, backend) = open(root.path()).await;
    let name = name(20_300_101, 1);
    write(&backend, &name, &pattern(1000)).await.unwrap();
    let mut writer = backend
        .write_bytes(&unfinished(&name), Arc::new(()))
        .await
        .unwrap();
    writer.write(1, 1000, pattern(1000)).await.unwrap();
    disk.fail_after(0, BROKEN);
    assert_eq!(writer.close().await.unwrap_err().code(), ErrorCode::Internal);
    // Its first thousand bytes went too, and no hole takes their place.
    push_until_it_is_known(&backend, &self::name(20_300_101, 2)).await;
    let mut writer = backend
        .write_bytes(&unfinished(&name), Arc::new(()))
        .await
        .unwrap();
    for offset in [2000, 1000] {
        let error = writer.write(1, offset, pattern(1000)).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::BlobUploadUnknown);
    }
    writer.write(0, 0, pattern(1000)).await.unwrap();
}

/// A disk that promises more than it has may say so at the sync alone. What the sync kept nobody knows, so the upload ends, and
/// its status does not say that the bytes are there.
#[tokio::test]
async fn an_upload_whose_sync_met_a_full_disk_is_ended() {
    let is_unknown =
        |result: Result<u64, Error>| result.is_err_and(|error| error.code() == ErrorCode::BlobUploadUnknown);
    let mut ended = 0;
    for calls in 0.. {
        let root = tempfile::tempdir().unwrap();
        let (disk, backend) = open(root.path()).await;
        let store = Store::new(backend);
        let upload = create_upload(&store, "a").await.unwrap();
        let size = 3_000_000;
        let chunk = || stream::iter([Ok(pattern(size))]);
        store
            .append_upload(&upload, None, std::pin::pin!(chunk()))
            .await
            .unwrap();
        let whole = Digest::of(Algorithm::Sha256, &[pattern(size), pattern(size)].concat());
        disk.fail_after(calls, FULL);
        let finished = store
            .finish_upload(&upload, &whole, None, std::pin::pin!(chunk()))
            .await;
        disk.fail_after(u64::MAX, FULL);
        let status = store.upload_status(&upload).await;
        if finished.is_ok() {
            // The call that would have failed is not one of the upload's any more.
            store.open_blob(&upload.repository, &whole).await.unwrap();
            break;
        }
        if store.backend().write_state().stopped.is_some() {
            // It was the sync of a folder: after that only a start helps.
            continue;
        }
        if is_unknown(status.clone()) {
            ended += 1;
            continue;
        }
        assert_eq!(status.unwrap(), size as u64);
        // What the status counts is there.
        store
            .finish_upload(&upload, &whole, Some(size as u64), std::pin::pin!(chunk()))
            .await
            .unwrap();
        store.open_blob(&upload.repository, &whole).await.unwrap();
    }
    assert!(ended > 0, "no sync failed");
}

#[tokio::test]
async fn readers_of_the_same_bytes_share_a_descriptor_and_leave_some_to_those_who_write() {
    let root = tempfile::tempdir().unwrap();
    let disk = VolatileDisk::new(root.path()).unwrap();
    let options = FilesystemOptions::new()
        .disk(Arc::new(disk.clone()))
        .open_files(4);
    let backend = options.open(root.path()).await.unwrap();
    let names: Vec<BytesName> = (1..=4).map(|number| name(20_300_101, number)).collect();
    for name in &names {
        push(&backend, name).await.unwrap();
    }
    let before = disk.calls();
    let mut same = Vec::new();
    for _ in 0..2000 {
        same.push(
            backend
                .open_bytes(&names[0], Expect::Nothing)
                .await
                .unwrap()
                .unwrap(),
        );
    }
    assert_eq!(disk.calls() - before, 1);
    let second = backend
        .open_bytes(&names[1], Expect::Nothing)
        .await
        .unwrap()
        .unwrap();
    let third = backend
        .open_bytes(&names[2], Expect::Nothing)
        .await
        .unwrap()
        .unwrap();

    // Nobody gets one more, and pushes go on.
    tokio::time::pause();
    let refused = backend.open_bytes(&names[3], Expect::Nothing).await.unwrap_err();
    tokio::time::resume();
    assert_eq!(refused.code(), ErrorCode::Unavailable);
    push(&backend, &name(20_300_101, 5)).await.unwrap();
    drop(second);
    drop(
        backend
            .open_bytes(&names[3], Expect::Nothing)
            .await
            .unwrap()
            .unwrap(),
    );
    drop((same, third));

    // One that is read no more is closed, and the next reader opens it.
    let before = disk.calls();
    assert_eq!(read(&backend, &names[0]).await.unwrap(), pattern(100_000));
    assert!(disk.calls() > before + 1);
}

#[tokio::test]
async fn a_failed_write_takes_back_what_it_left() {
    let root = tempfile::tempdir().unwrap();
    let (disk, backend) = open(root.path()).await;
    let name = name(20_300_101, 1);
    let path = root.path().join("bytes").join(name.as_str());
    let mut writer = backend
        .write_bytes(&unfinished(&name), Arc::new(()))
        .await
        .unwrap();
    // open, create, mkdir, create, write
    disk.fail_after(4, FULL);
    assert_eq!(
        writer.write(0, 0, pattern(1000)).await.unwrap_err().code(),
        ErrorCode::StorageFull
    );
    assert!(!path.exists());
    writer.write(0, 0, pattern(1000)).await.unwrap();
    disk.fail_after(0, FULL);
    assert_eq!(
        writer.write(1, 1000, pattern(1000)).await.unwrap_err().code(),
        ErrorCode::StorageFull
    );
    assert_eq!(path.metadata().unwrap().len(), 1000);
    drop(writer);
    let mut writer = backend
        .write_bytes(&unfinished(&name), Arc::new(()))
        .await
        .unwrap();
    disk.fail_after(1, FULL);
    assert_eq!(
        writer.write(1, 1000, pattern(1000)).await.unwrap_err().code(),
        ErrorCode::StorageFull
    );
    assert_eq!(
        path.metadata().unwrap().len(),
        1000,
        "it held what was acknowledged"
    );
}
