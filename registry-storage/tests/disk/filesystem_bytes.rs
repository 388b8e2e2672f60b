//! Bytes on a disk: written in parts, sealed, read, listed, deleted.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use registry_core::ErrorCode;
use registry_core::storage::BlobContent;
use registry_storage::BytesName;
use registry_storage::backend::{Backend as _, Expect, StagedBytes};
use registry_storage::filesystem::FilesystemBackend;

async fn open() -> (tempfile::TempDir, FilesystemBackend) {
    let root = tempfile::tempdir().unwrap();
    let backend = FilesystemBackend::open(root.path()).await.unwrap();
    (root, backend)
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

async fn write(backend: &FilesystemBackend, name: &BytesName, mut offset: usize, content: &Bytes) {
    let mut writer = backend
        .write_bytes(&unfinished(name), Arc::new(()))
        .await
        .unwrap();
    for (number, part) in content.chunks(backend.part_size(0)).enumerate() {
        let part = content.slice_ref(part);
        let size = part.len();
        writer.write(number, offset as u64, part).await.unwrap();
        offset += size;
    }
    writer.close().await.unwrap();
}

async fn read(content: &Arc<dyn BlobContent>, range: Range<u64>) -> Vec<u8> {
    let mut read = Vec::new();
    let mut stream = content.read(range);
    while let Some(chunk) = stream.next().await {
        read.extend_from_slice(&chunk.unwrap());
    }
    read
}

fn length(root: &Path, name: &BytesName) -> u64 {
    root.join("bytes").join(name.as_str()).metadata().unwrap().len()
}

#[tokio::test]
async fn what_was_written_is_read() {
    let (_root, backend) = open().await;
    let name = name(20_300_101, 1);
    let content = pattern(3_000_017);
    write(&backend, &name, 0, &content.slice(..1_500_000)).await;
    write(&backend, &name, 1_500_000, &content.slice(1_500_000..)).await;
    let unsealed = backend.open_bytes(&name, Expect::Nothing).await.unwrap().unwrap();
    assert_eq!(read(&unsealed, 0..1_500_000).await, content[..1_500_000]);
    backend.seal_bytes(&unfinished(&name), 3_000_017).await.unwrap();
    backend.seal_bytes(&unfinished(&name), 3_000_017).await.unwrap();
    let opened = backend.open_bytes(&name, Expect::Nothing).await.unwrap().unwrap();
    for range in [
        0..0,
        0..1,
        5..70_000,
        262_143..262_145,
        1_000_000..3_000_017,
        0..3_000_017,
        3_000_017..3_000_017,
    ] {
        let expected =
            content.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap());
        assert_eq!(read(&opened, range).await, expected);
    }
    let mut beyond = opened.read(3_000_000..3_000_018);
    assert_eq!(
        beyond.next().await.unwrap().unwrap_err().code(),
        ErrorCode::Internal
    );
    assert!(beyond.next().await.is_none());
    // An opened blob outlives its name.
    backend.delete_bytes(&name).await.unwrap();
    backend.delete_bytes(&name).await.unwrap();
    assert!(
        backend
            .open_bytes(&name, Expect::Nothing)
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(read(&opened, 0..3_000_017).await, content);
}

#[tokio::test]
async fn a_chunk_that_the_receiver_keeps_is_not_written_over() {
    let (_root, backend) = open().await;
    let name = name(20_300_101, 1);
    let content = pattern(4_000_000);
    write(&backend, &name, 0, &content).await;
    let mut stream = backend
        .open_bytes(&name, Expect::Nothing)
        .await
        .unwrap()
        .unwrap()
        .read(0..4_000_000);
    let mut kept = Vec::new();
    while let Some(chunk) = stream.next().await {
        kept.push(chunk.unwrap());
    }
    assert!(kept.len() > 4);
    assert_eq!(kept.concat(), content);
}

#[tokio::test]
async fn memory_of_chunks_is_used_again() {
    let (_root, backend) = open().await;
    let name = name(20_300_101, 1);
    write(&backend, &name, 0, &pattern(4_000_000)).await;
    let mut stream = backend
        .open_bytes(&name, Expect::Nothing)
        .await
        .unwrap()
        .unwrap()
        .read(0..4_000_000);
    let mut buffers = BTreeSet::new();
    while let Some(chunk) = stream.next().await {
        buffers.insert(chunk.unwrap().as_ptr().addr());
    }
    assert!(buffers.len() <= 3, "{} buffers", buffers.len());
}

#[tokio::test]
async fn sealing_cuts_and_refuses_what_is_too_short() {
    let (root, backend) = open().await;
    let name = name(20_300_101, 1);
    let content = pattern(1000);
    let missing = backend.seal_bytes(&unfinished(&name), 1).await.unwrap_err();
    assert_eq!(missing.code(), ErrorCode::BlobUploadUnknown);
    write(&backend, &name, 0, &content).await;
    let short = backend.seal_bytes(&unfinished(&name), 1001).await.unwrap_err();
    assert_eq!(short.code(), ErrorCode::BlobUploadUnknown);
    assert_eq!(length(root.path(), &name), 1000);
    backend.seal_bytes(&unfinished(&name), 600).await.unwrap();
    assert_eq!(length(root.path(), &name), 600);
    let opened = backend.open_bytes(&name, Expect::Nothing).await.unwrap().unwrap();
    assert_eq!(read(&opened, 0..600).await, content[..600]);
}

#[tokio::test]
async fn a_file_that_has_its_size_is_sealed_without_being_opened_for_writing() {
    let (root, backend) = open().await;
    let name = name(20_300_101, 1);
    write(&backend, &name, 0, &pattern(1000)).await;
    let path = root.path().join("bytes").join(name.as_str());
    let before = std::fs::metadata(&path).unwrap().modified().unwrap();
    let mut permissions = std::fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&path, permissions).unwrap();
    backend.seal_bytes(&unfinished(&name), 1000).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), before);
}

#[tokio::test]
async fn nothing_is_made_before_the_first_part() {
    let (root, backend) = open().await;
    let bytes = unfinished(&name(20_300_101, 1));
    backend
        .write_bytes(&bytes, Arc::new(()))
        .await
        .unwrap()
        .close()
        .await
        .unwrap();
    assert_eq!(std::fs::read_dir(root.path().join("bytes")).unwrap().count(), 0);
}

#[tokio::test]
async fn names_come_in_order_and_in_pages() {
    let (root, backend) = open().await;
    let mut expected = Vec::new();
    for day in [20_300_103, 20_300_101, 20_300_102] {
        for number in [5, 3, 9, 1] {
            write(&backend, &name(day, number), 0, &pattern(1)).await;
            expected.push(name(day, number));
        }
    }
    expected.sort();
    for stranger in ["bytes/stranger", "bytes/20300102/stranger"] {
        std::fs::write(root.path().join(stranger), "not ours").unwrap();
    }
    std::fs::create_dir(root.path().join("bytes/20300100")).unwrap();
    for limit in [1, 3, 4, 5, 100] {
        let mut listed: Vec<BytesName> = Vec::new();
        loop {
            let page = backend.list_bytes(listed.last(), limit).await.unwrap();
            assert!(page.len() <= limit);
            if page.is_empty() {
                break;
            }
            listed.extend(page);
        }
        assert_eq!(listed, expected);
    }
}

/// The write goes on when its future is dropped, and the guard is held for as long as it does.
#[test]
fn a_dropped_write_keeps_its_guard() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build();
    runtime.unwrap().block_on(async {
        let (root, backend) = open().await;
        let name = name(20_300_101, 1);
        let guard = Arc::new(());
        // The one thread that may block waits, and so does the write.
        let (release, released) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || released.recv());
        {
            let mut writer = backend
                .write_bytes(&unfinished(&name), Arc::clone(&guard) as _)
                .await
                .unwrap();
            let write = writer.write(0, 0, pattern(512 * 1024));
            assert!(futures_util::FutureExt::now_or_never(write).is_none());
        }
        assert_eq!(Arc::strong_count(&guard), 2);
        release.send(()).unwrap();
        busy.await.unwrap().unwrap();
        // The thread takes this after the write.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        assert_eq!(Arc::strong_count(&guard), 1);
        assert_eq!(length(root.path(), &name), 512 * 1024);
    });
}

#[tokio::test]
async fn memory_for_uploads_is_bounded() {
    let root = tempfile::tempdir().unwrap();
    let options = registry_storage::filesystem::FilesystemOptions::new().upload_memory(1024 * 1024);
    let backend = options.open(root.path()).await.unwrap();
    let part = 512 * 1024;
    let first = backend.reserve_memory(part).await;
    assert_eq!(first.size(), 128 * 1024);
    // The less there is, the less each gets, and others go on in small parts, however slowly the first ones send.
    let mut held = vec![first];
    for _ in 0..30 {
        let next = backend.reserve_memory(part).await;
        let last = held.last().unwrap().size();
        assert!((24 * 1024..=last).contains(&next.size()), "{}", next.size());
        held.push(next);
    }
    assert_eq!(held.last().unwrap().size(), 24 * 1024);
    held.clear();
    assert_eq!(backend.reserve_memory(part).await.size(), 128 * 1024);
}

fn days(root: &Path) -> usize {
    std::fs::read_dir(root.join("bytes")).unwrap().count()
}

#[tokio::test]
async fn the_folder_of_a_day_goes_with_its_last_file() {
    let (root, backend) = open().await;
    let (first, second) = (name(20_300_101, 1), name(20_300_101, 2));
    for _ in 0..2 {
        for name in [&first, &second] {
            write(&backend, name, 0, &pattern(10)).await;
            backend.seal_bytes(&unfinished(name), 10).await.unwrap();
        }
        backend.delete_bytes(&first).await.unwrap();
        backend.delete_bytes(&first).await.unwrap();
        assert_eq!(days(root.path()), 1);
        assert_eq!(backend.bytes_size(&second).await.unwrap(), Some(10));
        backend.delete_bytes(&second).await.unwrap();
        assert_eq!(days(root.path()), 0);
    }
}

/// The folder comes and goes while others write to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_deletes_the_last_file_of_a_day_harms_nobody_who_writes_there() {
    let (root, backend) = open().await;
    let backend = Arc::new(backend);
    let tasks = (0..4).map(|task| {
        let backend = Arc::clone(&backend);
        tokio::spawn(async move {
            for round in 0..200 {
                let name = name(20_300_101, task * 1000 + round);
                write(&backend, &name, 0, &pattern(10)).await;
                backend.seal_bytes(&unfinished(&name), 10).await.unwrap();
                assert_eq!(backend.bytes_size(&name).await.unwrap(), Some(10));
                backend.delete_bytes(&name).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(days(root.path()), 0);
}
