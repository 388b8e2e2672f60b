//! What each operation costs: the requests to the bucket, which cost money and time.

use std::pin::pin;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use registry_core::storage::{BlobStorage as _, UploadStorage as _};
use registry_core::{ErrorCode, Reference, Storage};
use registry_storage::testing::S3Double;
use registry_storage::{ObjectStoreBackend, Store};

use crate::support::images::{IMAGE, create_upload, digest, image, name, push_image, put, tag};

/// Yields content in chunks, as they come from a socket.
fn chunks(content: &Bytes) -> Vec<Result<Bytes, registry_core::Error>> {
    content
        .chunks(60_000)
        .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
        .collect()
}

/// Pushes a blob as Docker does: HEAD, POST, one PATCH, and a PUT without a body. Returns how many requests the PUT took.
async fn push_blob(double: &S3Double, store: &Store<ObjectStoreBackend>, content: &Bytes) -> u64 {
    let (app, digest) = (name("app"), digest(content));
    let absent = store.stat_blob(&app, &digest).await.unwrap_err();
    assert_eq!(absent.code(), ErrorCode::BlobUnknown);
    let upload = create_upload(store, "app").await.unwrap();
    let body = pin!(stream::iter(chunks(content)));
    store.append_upload(&upload, Some(0), body).await.unwrap();
    let before = double.faults().requests();
    store.commit_upload(&upload, &digest).await.unwrap();
    double.faults().requests() - before
}

fn content(size: usize) -> Bytes {
    let seed = size.to_le_bytes();
    seed.iter().copied().cycle().take(size).collect()
}

#[tokio::test]
async fn a_push_and_a_pull_cost_so_many_requests() {
    let double = S3Double::start().await.unwrap();
    let store = Store::new(double.backend("").unwrap());
    // The first push of a repository enters it in lists.
    push_image(&store, "app", Some("0"), 0, 10).await;
    let requests = || double.faults().requests();
    // In a record, with its tail in a record of its own, and in four parts.
    for (size, expected) in [
        (1000, 16),
        (60_000, 20),
        (300_000, 23),
        (5_000_000, 23),
        (20_000_000, 29),
    ] {
        let before = requests();
        push_blob(&double, &store, &content(size)).await;
        assert_eq!(requests() - before, expected, "{size} bytes");
    }
    let image = image(1, 1000, None);
    push_blob(&double, &store, &image.config).await;
    push_blob(&double, &store, &image.layer).await;
    let before = requests();
    put(&store, "app", Some("1"), IMAGE, &image.bytes).await.unwrap();
    assert_eq!(requests() - before, 10);
    let (before, storage): (_, &dyn Storage) = (requests(), &store);
    let pulled = storage
        .pull_manifest(&name("app"), &Reference::Tag(tag("1")))
        .await;
    assert_eq!(pulled.unwrap().bytes, image.bytes);
    let blob = storage.pull_blob(&name("app"), &digest(&content(300_000))).await;
    let mut read = blob.unwrap().content.read(0..300_000);
    while let Some(chunk) = read.next().await {
        chunk.unwrap();
    }
    assert_eq!(requests() - before, 5);
}

/// The bytes are completed where they are, whatever their size.
#[tokio::test]
async fn a_commit_takes_as_many_requests_for_a_large_blob_as_for_a_small_one() {
    let double = S3Double::start().await.unwrap();
    let store = Store::new(double.backend("").unwrap());
    push_blob(&double, &store, &content(10)).await;
    let small = push_blob(&double, &store, &content(10_000_000)).await;
    let large = push_blob(&double, &store, &content(200_000_000)).await;
    assert_eq!(small, large);
}
