//! Blobs: push, read, mount, delete.

use std::sync::Arc;

use bytes::BytesMut;
use futures_util::StreamExt as _;
use registry_core::{ErrorCode, Storage};

use super::fixtures::{
    PART, SMALL, assert_blob, assert_code, assert_no_blob, content, digest, page, push_blob, read_blob,
    repository,
};

/// The sizes around which storages change how they store a blob, and the empty one.
const SIZES: [usize; 14] = [
    0,
    1,
    SMALL - 1,
    SMALL,
    SMALL + 1,
    256 * 1024 - 1,
    256 * 1024,
    256 * 1024 + 1,
    1024 * 1024 - 1,
    1024 * 1024,
    1024 * 1024 + 1,
    PART - 1,
    PART,
    PART + 1,
];

/// A blob of any size reads back as it was pushed.
pub async fn any_size_reads_back(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    for size in SIZES {
        let content = content(size as u64, size);
        push_blob(&*storage, &repository, &content).await;
        assert_blob(&*storage, &repository, &content).await;
    }
}

/// A blob that was never pushed is unknown.
pub async fn unknown_blob(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    let digest = digest(b"never pushed");
    assert_no_blob(&*storage, &repository, &digest).await;
    assert_code(
        storage.delete_blob(&repository, &digest, None).await,
        ErrorCode::BlobUnknown,
    );
}

/// Any range of a blob can be read, several from one handle, and a stream may be dropped before its end.
pub async fn ranges(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    for size in [10, SMALL + 1, PART + 1] {
        let content = content(7, size);
        let digest = push_blob(&*storage, &repository, &content).await;
        let blob = storage.pull_blob(&repository, &digest).await.unwrap();
        for (start, end) in [
            (0, 1),
            (3, 3),
            (0, size),
            (size - 1, size),
            (size, size),
            (size / 2, size / 2 + 5),
            (1, size - 1),
        ] {
            let mut read = BytesMut::new();
            let mut stream = blob.content.read(start as u64..end as u64);
            while let Some(chunk) = stream.next().await {
                read.extend_from_slice(&chunk.unwrap());
            }
            assert!(
                read == content.slice(start..end),
                "bytes {start} to {end} of {size} are wrong"
            );
        }
        let first = blob.content.read(0..size as u64).next().await.unwrap().unwrap();
        assert!(content.starts_with(&first));
    }
}

/// A blob is visible in the repository that it was pushed to, and in no other.
pub async fn repositories_are_isolated(storage: Arc<dyn Storage>) {
    for size in [3, SMALL + 1] {
        let content = content(1, size);
        let digest = push_blob(&*storage, &repository("a"), &content).await;
        for other in ["b", "a/b", "a-b", "aa"] {
            assert_no_blob(&*storage, &repository(other), &digest).await;
        }
    }
}

/// A blob that is pushed again is still that blob.
pub async fn push_again(storage: Arc<dyn Storage>) {
    let (a, b) = (repository("a"), repository("b"));
    for size in [3, SMALL + 1] {
        let content = content(2, size);
        for repository in [&a, &a, &b] {
            push_blob(&*storage, repository, &content).await;
            assert_blob(&*storage, repository, &content).await;
        }
    }
}

/// A delete removes a blob from one repository, and it can be pushed again.
pub async fn delete(storage: Arc<dyn Storage>) {
    let (a, b) = (repository("a"), repository("b"));
    for size in [3, SMALL + 1] {
        let content = content(3, size);
        let digest = push_blob(&*storage, &a, &content).await;
        push_blob(&*storage, &b, &content).await;
        storage.delete_blob(&a, &digest, None).await.unwrap();
        assert_no_blob(&*storage, &a, &digest).await;
        assert_code(
            storage.delete_blob(&a, &digest, None).await,
            ErrorCode::BlobUnknown,
        );
        assert_blob(&*storage, &b, &content).await;
        push_blob(&*storage, &a, &content).await;
        storage.delete_blob(&b, &digest, None).await.unwrap();
        assert_no_blob(&*storage, &b, &digest).await;
        assert_blob(&*storage, &a, &content).await;
        storage.delete_blob(&a, &digest, None).await.unwrap();
        push_blob(&*storage, &a, &content).await;
        assert_blob(&*storage, &a, &content).await;
    }
}

/// An open blob stays readable when it is deleted.
pub async fn delete_while_open(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    for size in [3, PART + 1] {
        let content = content(4, size);
        let digest = push_blob(&*storage, &repository, &content).await;
        let blob = storage.pull_blob(&repository, &digest).await.unwrap();
        storage.delete_blob(&repository, &digest, None).await.unwrap();
        let mut read = BytesMut::new();
        let mut stream = blob.content.read(0..blob.size);
        while let Some(chunk) = stream.next().await {
            read.extend_from_slice(&chunk.unwrap());
        }
        assert!(read == content);
    }
}

/// A mounted blob is the other repository's own: it outlives a delete in the first repository.
pub async fn mount(storage: Arc<dyn Storage>) {
    let (a, b) = (repository("a"), repository("b"));
    for size in [0, 3, SMALL + 1] {
        let content = content(5, size);
        let digest = push_blob(&*storage, &a, &content).await;
        assert!(storage.mount_blob(&a, &b, &digest).await.unwrap());
        assert!(
            storage.mount_blob(&a, &b, &digest).await.unwrap(),
            "a mount may be repeated"
        );
        assert!(storage.mount_blob(&a, &a, &digest).await.unwrap());
        assert_blob(&*storage, &b, &content).await;
        storage.delete_blob(&a, &digest, None).await.unwrap();
        assert_blob(&*storage, &b, &content).await;
        assert_no_blob(&*storage, &a, &digest).await;
        assert!(storage.mount_blob(&b, &a, &digest).await.unwrap());
        assert_blob(&*storage, &a, &content).await;
    }
}

/// A blob that the source does not have is not mounted, even if another repository has it.
pub async fn mount_of_what_is_not_there(storage: Arc<dyn Storage>) {
    let (a, b, c) = (repository("a"), repository("b"), repository("c"));
    let content = content(6, 100);
    let digest = digest(&content);
    assert!(!storage.mount_blob(&a, &b, &digest).await.unwrap());
    push_blob(&*storage, &c, &content).await;
    assert!(!storage.mount_blob(&a, &b, &digest).await.unwrap());
    assert_no_blob(&*storage, &b, &digest).await;
    push_blob(&*storage, &a, &content).await;
    storage.delete_blob(&a, &digest, None).await.unwrap();
    assert!(!storage.mount_blob(&a, &b, &digest).await.unwrap());
    assert_no_blob(&*storage, &b, &digest).await;
}

/// The repositories that have a blob are listed in the order of their names, in pages.
pub async fn repositories_of_a_blob(storage: Arc<dyn Storage>) {
    let content = content(8, 100);
    let digest = digest(&content);
    let empty = storage
        .list_blob_repositories(&digest, page(None, 10))
        .await
        .unwrap();
    assert!(empty.items.is_empty() && empty.next.is_none());
    let mut names = ["b", "a/b", "a", "a-b", "a.b", "a_b", "aa", "gone"];
    for name in names {
        push_blob(&*storage, &repository(name), &content).await;
    }
    storage
        .delete_blob(&repository("gone"), &digest, None)
        .await
        .unwrap();
    names.sort_unstable();
    let expected: Vec<&str> = names.into_iter().filter(|name| *name != "gone").collect();
    for limit in [1, 2, 3, 7, 100] {
        let mut listed = Vec::new();
        let mut last: Option<String> = None;
        loop {
            let request = page(last.as_deref(), limit);
            let page = storage.list_blob_repositories(&digest, request).await.unwrap();
            assert!(page.items.len() <= limit);
            listed.extend(page.items.iter().map(ToString::to_string));
            last = page.next;
            if last.is_none() {
                break;
            }
        }
        assert_eq!(listed, expected);
    }
}

/// Many readers of one blob read the same.
pub async fn many_readers(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    let content = content(9, PART + 1);
    let digest = push_blob(&*storage, &repository, &content).await;
    let reads = (0..4).map(|_| read_blob(&*storage, &repository, &digest));
    for read in futures_util::future::join_all(reads).await {
        assert!(read.unwrap() == content);
    }
}
