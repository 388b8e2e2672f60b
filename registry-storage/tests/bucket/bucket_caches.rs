//! What spares requests to a bucket: how many there are, and that no answer is older than it may be.

use std::sync::Arc;
use std::time::Duration;

use crate::support::images::{Image, digest, image, name, push_image, tag, try_push};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use registry_core::storage::{BlobStorage as _, ManifestStorage as _, TagFilter};
use registry_core::{Digest, Error, ErrorCode, Reference};
use registry_storage::copy::{CopyOptions, copy};
use registry_storage::testing::S3Double;
use registry_storage::testing::s3::S3Fault;
use registry_storage::{ObjectStoreBackend, Store};

/// More than what is kept in a record.
const LARGE: usize = 3_000_000;

async fn read(store: &Store<ObjectStoreBackend>, repository: &str, content: &[u8]) -> Vec<u8> {
    let blob = store
        .pull_blob(&name(repository), &digest(content))
        .await
        .unwrap();
    let mut stream = blob.content.read(0..blob.size);
    let mut gathered = Vec::new();
    while let Some(chunk) = stream.next().await {
        gathered.extend_from_slice(&chunk.unwrap());
    }
    gathered
}

async fn pull(store: &Store<ObjectStoreBackend>, repository: &str, at: &str, image: &Image) {
    let reference = Reference::Tag(tag(at));
    let manifest = store.pull_manifest(&name(repository), &reference).await.unwrap();
    assert_eq!(manifest.digest, image.digest);
    assert!(read(store, repository, &image.layer).await == image.layer);
}

/// Returns how many requests had a method and a key that begins with `prefix`.
fn count(seen: &[String], method: &str, prefix: &str) -> usize {
    let begin = format!("{method} /bucket/{prefix}");
    seen.iter().filter(|request| request.starts_with(&begin)).count()
}

#[tokio::test]
async fn clients_that_come_at_once_share_the_reads_of_records_and_sizes() {
    let double = S3Double::start().await.unwrap();
    let pushed = Store::new(double.backend("").unwrap());
    let image = push_image(&pushed, "app", Some("1"), 1, LARGE).await;
    let store = Store::new(double.backend("").unwrap());
    drop(double.faults().take_seen());
    join_all((0..64).map(|_| pull(&store, "app", "1", &image))).await;
    let seen = double.faults().take_seen();
    println!("{} requests for 64 pulls", seen.len());
    assert_eq!(count(&seen, "GET", "bytes/"), 64, "{seen:?}");
    let others = seen.len() - 64;
    // A tag, a manifest, a grant and a size: for the first client, and for all others.
    assert!((4..=12).contains(&others), "{seen:?}");
}

/// Each reader begins after a write was answered, while the requests of others are on their way.
#[tokio::test(flavor = "multi_thread")]
async fn a_shared_read_sees_what_was_written_before_it_began() {
    let double = S3Double::start().await.unwrap();
    let (writer, reader) = (double.backend("").unwrap(), double.backend("").unwrap());
    let (writer, reader) = (Store::new(writer), Arc::new(Store::new(reader)));
    double.faults().at_random(5, 5);
    let mut readers = tokio::task::JoinSet::new();
    for seed in 0..40 {
        let image = image(seed, 10, None);
        // A store that fails four times in a row.
        while try_push(&writer, "app", Some("1"), &image).await.is_err() {}
        for _ in 0..8 {
            let (reader, expected) = (Arc::clone(&reader), image.digest.clone());
            readers.spawn(async move {
                let reference = Reference::Tag(tag("1"));
                let found = reader.pull_manifest(&name("app"), &reference).await;
                (seed, expected, found)
            });
        }
    }
    let mut order = Vec::new();
    for seed in 0..40 {
        order.push(image(seed, 10, None).digest);
    }
    for (seed, expected, found) in readers.join_all().await {
        let Ok(found) = found else {
            // A store that fails four times in a row.
            continue;
        };
        let at = order.iter().position(|digest| *digest == found.digest).unwrap();
        assert!(at as u64 >= seed, "{expected} was there before the read of {at}");
    }
}

#[tokio::test]
async fn a_request_that_fails_fails_those_who_share_it_and_no_later_one() {
    let double = S3Double::start().await.unwrap();
    let store = Store::new(double.backend("").unwrap());
    let image = push_image(&store, "app", Some("1"), 1, 10).await;
    double.faults().fault_from_now_on(Some(S3Fault::Status(403)));
    let reference = Reference::Tag(tag("1"));
    let repository = name("app");
    let reads = (0..64).map(|_| store.pull_manifest(&repository, &reference));
    drop(double.faults().take_seen());
    let failed = join_all(reads).await;
    assert!(failed.iter().all(Result::is_err));
    assert_eq!(double.faults().take_seen().len(), 2);
    double.faults().fault_from_now_on(None);
    pull(&store, "app", "1", &image).await;
}

/// Two registries on one bucket, the second of which may answer with what it read within an hour.
async fn pair(double: &S3Double) -> (Store<ObjectStoreBackend>, Store<ObjectStoreBackend>) {
    let backend = || double.backend("").unwrap();
    let aged = backend().with_record_age(Duration::from_hours(1));
    (Store::new(backend()), Store::new(aged))
}

async fn tagged(store: &Store<ObjectStoreBackend>, at: &str) -> Result<Digest, Error> {
    let found = store.pull_manifest(&name("app"), &Reference::Tag(tag(at))).await;
    found.map(|manifest| manifest.digest)
}

#[tokio::test]
async fn within_its_age_an_answer_comes_from_memory() {
    let double = S3Double::start().await.unwrap();
    let (fresh, aged) = pair(&double).await;
    let first = push_image(&fresh, "app", Some("1"), 1, LARGE).await;
    pull(&aged, "app", "1", &first).await;
    assert!(read(&aged, "app", &first.config).await == first.config);
    drop(double.faults().take_seen());
    pull(&aged, "app", "1", &first).await;
    assert!(read(&aged, "app", &first.config).await == first.config);
    let seen = double.faults().take_seen();
    assert_eq!(
        (seen.len(), count(&seen, "GET", "bytes/")),
        (1, 1),
        "only the layer: {seen:?}"
    );

    // What another registry does is seen later, but what did not exist is looked for.
    let second = push_image(&fresh, "app", Some("1"), 2, 10).await;
    assert_eq!(tagged(&aged, "1").await.unwrap(), first.digest);
    assert!(tagged(&aged, "2").await.is_err());
    push_image(&fresh, "app", Some("2"), 3, 10).await;
    tagged(&aged, "2").await.unwrap();
    fresh
        .delete_blob(&name("app"), &digest(&first.layer), None)
        .await
        .unwrap();
    assert!(read(&aged, "app", &first.layer).await == first.layer);
    // Who asks whether something is there does so to decide whether to push it.
    let stat = aged.stat_blob(&name("app"), &digest(&first.layer)).await;
    assert_eq!(stat.unwrap_err().code(), ErrorCode::BlobUnknown);
    let stat = aged.stat_manifest(&name("app"), &Reference::Tag(tag("1"))).await;
    assert_eq!(stat.unwrap().digest, second.digest);
}

#[tokio::test]
async fn what_a_registry_writes_itself_it_sees_at_once() {
    let double = S3Double::start().await.unwrap();
    let (_, aged) = pair(&double).await;
    for seed in 0..5 {
        let image = push_image(&aged, "app", Some("1"), seed, LARGE).await;
        pull(&aged, "app", "1", &image).await;
        pull(&aged, "app", "1", &image).await;
    }
    let image = push_image(&aged, "app", Some("1"), 9, LARGE).await;
    pull(&aged, "app", "1", &image).await;
    let (repository, layer) = (name("app"), digest(&image.layer));
    aged.delete_blob(&repository, &layer, None).await.unwrap();
    let refused = aged.pull_blob(&repository, &layer).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::BlobUnknown);
    aged.delete_manifest(&repository, &image.digest, None, None)
        .await
        .unwrap();
    for reference in [Reference::Tag(tag("1")), Reference::Digest(image.digest)] {
        let refused = aged.pull_manifest(&repository, &reference).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::ManifestUnknown);
    }
}

/// What decides about a write, a copy or an event is never older than what another registry wrote.
#[tokio::test]
async fn only_pulls_are_answered_from_memory() {
    let double = S3Double::start().await.unwrap();
    let (fresh, aged) = pair(&double).await;
    let first = push_image(&fresh, "app", Some("1"), 1, LARGE).await;
    pull(&aged, "app", "1", &first).await;
    let second = push_image(&fresh, "app", Some("1"), 2, 10).await;
    let (repository, layer) = (name("app"), digest(&first.layer));
    fresh.delete_blob(&repository, &layer, None).await.unwrap();
    fresh
        .delete_manifest(&repository, &first.digest, None, None)
        .await
        .unwrap();
    // A client that pulls still gets what was there.
    pull(&aged, "app", "1", &first).await;

    let by_tag = Reference::Tag(tag("1"));
    let read = aged.get_manifest(&repository, &by_tag).await.unwrap();
    assert_eq!(read.digest, second.digest);
    // That brought the answer of the next pull up to date.
    assert_eq!(tagged(&aged, "1").await.unwrap(), second.digest);
    let by_digest = Reference::Digest(first.digest.clone());
    let unknown = aged.get_manifest(&repository, &by_digest).await.unwrap_err();
    assert_eq!(unknown.code(), ErrorCode::ManifestUnknown);
    let unknown = aged.open_blob(&repository, &layer).await.unwrap_err();
    assert_eq!(unknown.code(), ErrorCode::BlobUnknown);
}

#[tokio::test]
async fn a_copy_takes_the_newest_tags_and_compares_with_the_newest() {
    let double = S3Double::start().await.unwrap();
    let (fresh, aged) = pair(&double).await;
    let other = Store::new(ObjectStoreBackend::memory());
    let first = push_image(&fresh, "app", Some("1"), 1, 10).await;
    pull(&aged, "app", "1", &first).await;
    let second = push_image(&fresh, "app", Some("1"), 2, 10).await;
    // From here.
    copy(&aged, &other, &CopyOptions::new(), &()).await.unwrap();
    assert_eq!(tagged(&other, "1").await.unwrap(), second.digest);
    // To here, where the tag is not what it was a moment ago.
    pull(&aged, "app", "1", &second).await;
    push_image(&fresh, "app", Some("1"), 1, 10).await;
    let report = copy(&other, &aged, &CopyOptions::new(), &()).await.unwrap();
    assert_eq!((report.tags, report.tags_there), (1, 0));
    assert_eq!(tagged(&fresh, "1").await.unwrap(), second.digest);
}

#[tokio::test]
async fn an_immutable_tag_that_is_gone_keeps_no_repository() {
    let double = S3Double::start().await.unwrap();
    let (fresh, aged) = pair(&double).await;
    let image = push_image(&fresh, "app", Some("1"), 1, 10).await;
    pull(&aged, "app", "1", &image).await;
    double.lose("repositories/app/!/manifests/");
    let all: TagFilter = Arc::new(|_| true);
    let deleted = aged.delete_all(&name("app"), Some(all)).await.unwrap();
    assert!(deleted.is_gone);
}
