//! Copying from one store to another: afterwards both answer the same, whatever happened in between.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use registry_core::manifest::ManifestView;
use registry_core::policy::ImmutableTagRule;
use registry_core::quota::Quota;
use registry_core::storage::{BlobStorage as _, ManifestStorage as _, PageRequest};
use registry_core::{Digest, Reference, RepositoryName, Storage};
use registry_storage::copy::{CopyError, CopyOptions, CopyReport, copy};
use registry_storage::filesystem::FilesystemBackend;
use registry_storage::testing::{Observed, S3Double};
use registry_storage::{
    CollectOptions, Key, Maintenance, MaintenanceObserver, ObjectStoreBackend, Step, Store,
};

use crate::support::images::{
    IMAGE, INDEX, digest, image, name, parsed_manifest, push_blob, push_image, push_index, push_referrer,
    put, tag,
};
use crate::support::poll_times;
use crate::support::tamper::put_raw;
use crate::support::world::{World, world};

/// The size of layers that are not kept in their records.
const LARGE: usize = 40_000;

const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";

fn memory() -> Store<ObjectStoreBackend> {
    Store::new(ObjectStoreBackend::memory())
}

async fn copy_all(source: &dyn Maintenance, target: &dyn Storage) -> CopyReport {
    let report = copy(source, target, &CopyOptions::new(), &()).await.unwrap();
    assert_eq!(report.faults, 0, "{report:?}");
    report
}

/// Images, an index with a blob as one of its entries, what refers to an image, manifests without a tag, the same layers in
/// two repositories, and Docker's kind of image.
async fn fill(storage: &dyn Storage) {
    for repository in ["a/shared", "team/app"] {
        let first = push_image(storage, repository, None, 1, LARGE).await;
        let second = push_image(storage, repository, Some("v2"), 2, 100).await;
        push_index(storage, repository, "all", &[&first, &second]).await;
        let signature = push_referrer(storage, repository, &first, 3).await;
        push_referrer(storage, repository, &signature, 4).await;
        push_image(storage, repository, Some("latest"), 2, 100).await;
    }
    let cache = Bytes::from(vec![b'c'; LARGE]);
    push_blob(storage, "team/cache", &cache).await;
    let entry = format!(
        "{{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"{}\",\"size\":{LARGE}}}",
        digest(&cache)
    );
    let index = format!("{{\"schemaVersion\":2,\"mediaType\":\"{INDEX}\",\"manifests\":[{entry}]}}").into();
    put(storage, "team/cache", Some("buildcache"), INDEX, &index)
        .await
        .unwrap();
    let outer = push_index_of(storage, "team/cache", &index).await;
    put(storage, "team/cache", Some("nested"), INDEX, &outer)
        .await
        .unwrap();
    // Only its manifest puts it into the catalog.
    push_image(storage, "untagged", None, 6, 100).await;
    let docker = image(5, 100, None);
    push_blob(storage, "old", &docker.config).await;
    push_blob(storage, "old", &docker.layer).await;
    let bytes = String::from_utf8(docker.bytes.to_vec())
        .unwrap()
        .replace(IMAGE, DOCKER)
        .into();
    put(storage, "old", Some("1"), DOCKER, &bytes).await.unwrap();
}

async fn push_index_of(storage: &dyn Storage, repository: &str, index: &Bytes) -> Bytes {
    put(storage, repository, None, INDEX, index).await.unwrap();
    let (digest, size) = (digest(index), index.len());
    format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{INDEX}\",\"manifests\":[{{\"mediaType\":\"{INDEX}\",\"digest\":\"{digest}\",\"size\":{size}}}]}}"
    )
    .into()
}

/// What a repository answers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answers {
    tags: BTreeMap<String, Digest>,
    manifests: BTreeMap<Digest, (String, Bytes)>,
    /// The hash of the content that is read.
    blobs: BTreeMap<Digest, Option<Digest>>,
    referrers: BTreeMap<Digest, BTreeSet<String>>,
}

fn page(last: Option<String>) -> PageRequest {
    PageRequest { last, limit: 100 }
}

/// Returns everything that clients can read.
async fn answers(store: &dyn Maintenance) -> BTreeMap<String, Answers> {
    let catalog = store.list_repositories(page(None)).await.unwrap().items;
    let mut all = BTreeMap::new();
    for repository in catalog {
        all.insert(repository.to_string(), answers_of(store, &repository).await);
    }
    all
}

async fn answers_of(store: &dyn Maintenance, repository: &RepositoryName) -> Answers {
    let mut answers = Answers::default();
    let mut last = None;
    loop {
        let listed = store.list_tags(repository, page(last)).await.unwrap();
        for tag in listed.items {
            let by_tag = Reference::Tag(tag.clone());
            let manifest = store.get_manifest(repository, &by_tag).await.unwrap();
            answers.tags.insert(tag.to_string(), manifest.digest);
        }
        last = listed.next;
        if last.is_none() {
            break;
        }
    }
    loop {
        let listed = store.list_manifests(repository, page(last)).await.unwrap();
        for digest in listed.items {
            let by_digest = Reference::Digest(digest.clone());
            let manifest = store.get_manifest(repository, &by_digest).await.unwrap();
            let view = ManifestView::parse(&manifest.bytes, Some(&manifest.media_type)).unwrap();
            for child in view.children() {
                answers
                    .blobs
                    .insert(child.digest.clone(), read(store, repository, &child.digest).await);
            }
            let referrers = store.list_referrers(repository, &digest, page(None).into()).await;
            let referrers = referrers
                .unwrap()
                .items
                .into_iter()
                .map(|entry| format!("{entry:?}"))
                .collect();
            answers.referrers.insert(digest.clone(), referrers);
            let content = (manifest.media_type.to_string(), manifest.bytes);
            answers.manifests.insert(digest, content);
        }
        last = listed.next;
        if last.is_none() {
            return answers;
        }
    }
}

async fn read(store: &dyn Storage, repository: &RepositoryName, wanted: &Digest) -> Option<Digest> {
    let blob = store.open_blob(repository, wanted).await.ok()?;
    let (mut content, mut chunks) = (BytesMut::new(), blob.content.read(0..blob.size));
    while let Some(chunk) = chunks.next().await {
        content.extend_from_slice(&chunk.unwrap());
    }
    Some(digest(&content))
}

#[tokio::test]
async fn a_folder_moves_to_a_bucket_and_back() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let double = S3Double::start().await.unwrap();
    let folder = Store::new(FilesystemBackend::open(one.path()).await.unwrap());
    let bucket = Store::new(double.backend("registry").unwrap());
    let back = Store::new(FilesystemBackend::open(two.path()).await.unwrap());
    fill(&folder).await;
    let observed = Observed::default();
    let report = copy(&folder, &bucket, &CopyOptions::new(), &observed)
        .await
        .unwrap();
    assert_eq!(
        (report.repositories, report.faults, report.missing, report.tags),
        (5, 0, 0, 9),
        "{report:?}"
    );
    // The two repositories have the same eight blobs.
    assert_eq!(
        (report.blobs_mounted, report.blobs_there, report.manifests_there),
        (8, 0, 0),
        "{report:?}"
    );
    let steps = observed.steps();
    let (step, done, total) = steps.last().copied().unwrap();
    assert!(
        step == Step::Copying && total == Some(done),
        "{done} of {total:?}"
    );
    assert!(
        steps.iter().all(|(_, _, total)| *total == Some(done)),
        "it was known at first"
    );
    assert_eq!(answers(&folder).await, answers(&bucket).await);
    copy_all(&bucket, &back).await;
    assert_eq!(answers(&folder).await, answers(&back).await);
    // Nothing is sent again, in any direction.
    for report in [
        copy_all(&folder, &bucket).await,
        copy_all(&back, &bucket).await,
        copy_all(&bucket, &folder).await,
    ] {
        assert_eq!(
            (
                report.manifests,
                report.tags,
                report.blobs_sent,
                report.blobs_mounted
            ),
            (0, 0, 0, 0),
            "{report:?}"
        );
        assert_eq!(
            (report.tags_there, report.tags_only_in_target),
            (9, 0),
            "{report:?}"
        );
    }
}

#[tokio::test]
async fn what_is_named_is_copied_and_nothing_else() {
    let (source, target) = (memory(), memory());
    fill(&source).await;
    let options = CopyOptions::new().repositories(vec![name("old"), name("team/cache")]);
    let report = copy(&source, &target, &options, &()).await.unwrap();
    assert_eq!(report.repositories, 2);
    let mut expected = answers(&source).await;
    expected.retain(|repository, _| ["old", "team/cache"].contains(&repository.as_str()));
    assert_eq!(answers(&target).await, expected);
    let unknown = CopyOptions::new().repositories(vec![name("no/such")]);
    let error = copy(&source, &target, &unknown, &()).await.unwrap_err();
    assert!(matches!(error, CopyError::NoRepository(_)), "{error:?}");
    assert!(error.to_string().contains("no/such"), "{error}");
}

#[tokio::test]
async fn lists_longer_than_a_page_are_copied_whole() {
    let (source, target) = (memory(), memory());
    let first = push_image(&source, "app", None, 0, 10).await;
    for number in 0..1_001 {
        put(&source, "app", Some(&format!("t{number}")), IMAGE, &first.bytes)
            .await
            .unwrap();
    }
    for seed in 1..510 {
        push_image(&source, "app", None, seed, 10).await;
    }
    let report = copy_all(&source, &target).await;
    assert_eq!((report.tags, report.manifests), (1_001, 510));
    assert_eq!(answers(&source).await, answers(&target).await);
    assert_eq!(copy_all(&source, &target).await.tags_there, 1_001);
}

#[tokio::test]
async fn a_copy_that_was_interrupted_anywhere_is_completed_by_the_next_one() {
    let source = memory();
    fill(&source).await;
    let expected = answers(&source).await;
    let options = CopyOptions::new();
    for steps in (1..400).step_by(13).chain([500, 700, 1_000, 1_500]) {
        let world = World::stepped();
        {
            let mut cut = pin!(copy(&source, &*world.store, &options, &()));
            poll_times(cut.as_mut(), steps).await;
        }
        copy_all(&source, &*world.store).await;
        assert_eq!(answers(&*world.store).await, expected, "{steps}");
        world.assert_sound(&format!("{steps}")).await;
    }
}

#[tokio::test]
async fn a_target_that_fails_now_and_then_gets_everything_in_the_end() {
    let source = memory();
    fill(&source).await;
    let expected = answers(&source).await;
    for seed in 0..20 {
        let world = world(ObjectStoreBackend::memory(), None);
        let mut ends = 0;
        for round in 0..20 {
            world.store.backend().fault_randomly(seed * 100 + round, 8);
            let copied = copy(&source, &*world.store, &CopyOptions::new(), &()).await;
            match copied {
                Ok(report) => assert_eq!(report.faults, 0, "{report:?}"),
                Err(CopyError::Target { .. }) => ends += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(ends > 0, "no copy ended early");
        world.store.backend().heal();
        copy_all(&source, &*world.store).await;
        assert_eq!(answers(&*world.store).await, expected, "{seed}");
    }
}

#[tokio::test]
async fn what_is_pushed_meanwhile_comes_with_the_next_copy() {
    for steps in (0..900).step_by(50) {
        let (source, world) = (memory(), World::stepped());
        fill(&source).await;
        let options = CopyOptions::new();
        {
            let mut first = pin!(copy(&source, &*world.store, &options, &()));
            let before = poll_times(first.as_mut(), steps).await;
            push_image(&source, "team/app", Some("latest"), 77, LARGE).await;
            push_image(&source, "zz/new", Some("1"), 78, LARGE).await;
            if before.is_none() {
                assert_eq!(first.await.unwrap().faults, 0);
            }
        }
        copy_all(&source, &*world.store).await;
        assert_eq!(answers(&source).await, answers(&*world.store).await, "{steps}");
    }
}

#[tokio::test]
async fn a_collector_without_a_grace_beside_it_takes_nothing_that_is_copied() {
    let source = memory();
    fill(&source).await;
    let expected = answers(&source).await;
    let options = CopyOptions::new();
    for between in [7, 23, 61] {
        let world = World::stepped();
        let report = {
            let mut copying = pin!(copy(&source, &*world.store, &options, &()));
            loop {
                if let Some(report) = poll_times(copying.as_mut(), between).await {
                    break report.unwrap();
                }
                world.clock.advance(Duration::from_secs(1));
                world.collect(&CollectOptions::new().grace(Duration::ZERO)).await;
                world.sweep().await;
            }
        };
        // It may take a blob again and again before its manifest comes; the next copy brings it.
        copy_all(&source, &*world.store).await;
        assert_eq!(answers(&*world.store).await, expected, "{between}: {report:?}");
    }
}

#[tokio::test]
async fn what_is_rotten_is_reported_and_everything_else_is_copied() {
    let (folder, target) = (tempfile::tempdir().unwrap(), memory());
    let source = Store::new(FilesystemBackend::open(folder.path()).await.unwrap());
    let rotten = push_image(&source, "app", Some("rotten"), 1, LARGE).await;
    for day in std::fs::read_dir(folder.path().join("bytes")).unwrap() {
        for file in std::fs::read_dir(day.unwrap().path()).unwrap() {
            std::fs::write(file.unwrap().path(), vec![b'x'; LARGE]).unwrap();
        }
    }
    let lost = push_image(&source, "app", Some("lost"), 2, LARGE).await;
    source
        .delete_blob(&name("app"), &digest(&lost.layer), None)
        .await
        .unwrap();
    let damaged = push_image(&source, "app", None, 3, LARGE).await;
    let key = Key::manifest(&name("app"), &damaged.digest);
    let record = registry_storage::Backend::get(source.backend(), &key)
        .await
        .unwrap()
        .unwrap()
        .value;
    let record = String::from_utf8(record.to_vec())
        .unwrap()
        .replace("\"size\":", "\"sizf\":")
        .into();
    put_raw(&source, &key, record).await;
    // Both have the rotten layer, which is read once.
    put(&source, "app", Some("again"), IMAGE, &rotten.bytes)
        .await
        .unwrap();
    push_image(&source, "app", Some("good"), 4, LARGE).await;
    let observed = Observed::default();
    let report = copy(&source, &target, &CopyOptions::new(), &observed)
        .await
        .unwrap();
    let mut lines = observed.lines();
    lines.sort();
    let mut expected = [
        format!(
            "app: {} was not copied: its content in the source is not what its digest says",
            digest(&rotten.layer)
        ),
        format!(
            "app: {} was not copied: its content in the source is not what its digest says",
            damaged.digest
        ),
        format!(
            "app: {} was not copied: a manifest names it, and the source does not have it",
            digest(&lost.layer)
        ),
    ];
    expected.sort();
    assert_eq!(lines, expected, "{report:?}");
    assert_eq!(
        (report.faults, report.tags, report.manifests),
        (3, 4, 3),
        "{report:?}"
    );
    let copied = answers(&target).await;
    assert_eq!(copied["app"].tags, answers_of_tags(&source, "app").await);
    assert_eq!(copied["app"].blobs[&digest(&rotten.layer)], None);
    // What is pushed again heals both, with the next copy.
    source
        .delete_manifest(&name("app"), &lost.digest, None, None)
        .await
        .unwrap();
    push_blob(&source, "app", &lost.layer).await;
    put(&source, "app", Some("lost"), IMAGE, &lost.bytes)
        .await
        .unwrap();
    let report = copy(&source, &target, &CopyOptions::new(), &()).await.unwrap();
    assert_eq!((report.faults, report.blobs_sent), (2, 1), "{report:?}");
    assert!(read(&target, &name("app"), &digest(&lost.layer)).await.is_some());
}

async fn answers_of_tags(store: &dyn Maintenance, repository: &str) -> BTreeMap<String, Digest> {
    let listed = store
        .list_tags(&name(repository), page(None))
        .await
        .unwrap()
        .items;
    let mut tags = BTreeMap::new();
    for tag in listed {
        let by_tag = Reference::Tag(tag.clone());
        let manifest = store.get_manifest(&name(repository), &by_tag).await.unwrap();
        tags.insert(tag.to_string(), manifest.digest);
    }
    tags
}

#[tokio::test]
async fn an_index_without_one_of_its_images_is_copied_without_it() {
    let (source, target) = (memory(), memory());
    let there = push_image(&source, "app", None, 1, LARGE).await;
    let absent = image(2, LARGE, None);
    let bytes: Bytes = {
        let scratch = memory();
        push_image(&scratch, "app", None, 1, LARGE).await;
        push_image(&scratch, "app", None, 2, LARGE).await;
        let whole = push_index(&scratch, "app", "all", &[&there, &absent]).await;
        let by_digest = Reference::Digest(whole);
        scratch
            .get_manifest(&name("app"), &by_digest)
            .await
            .unwrap()
            .bytes
    };
    let mut sparse = parsed_manifest(INDEX, &bytes);
    sparse.allow_missing = true;
    sparse.tags = vec![tag("all")];
    source.put_manifest(&name("app"), sparse).await.unwrap();
    let observed = Observed::default();
    let report = copy(&source, &target, &CopyOptions::new(), &observed)
        .await
        .unwrap();
    assert_eq!(
        (report.faults, report.missing, report.manifests, report.tags),
        (0, 1, 2, 1),
        "{report:?}"
    );
    assert!(observed.lines()[0].contains(absent.digest.to_string().as_str()));
    assert_eq!(answers(&source).await, answers(&target).await);
    push_image(&source, "app", None, 2, LARGE).await;
    assert_eq!(copy_all(&source, &target).await.manifests, 1);
    assert_eq!(answers(&source).await, answers(&target).await);
}

#[tokio::test]
async fn the_tags_of_the_source_win_unless_they_are_immutable_in_the_target() {
    let (source, target) = (memory(), memory());
    for (text, seed) in [("latest", 1), ("v1.0", 1), ("v1.1", 1)] {
        push_image(&source, "app", Some(text), seed, 100).await;
    }
    let other = push_image(&target, "app", Some("latest"), 2, 100).await;
    for text in ["v1.0", "v2.0", "a"] {
        push_image(&target, "app", Some(text), 2, 100).await;
    }
    let rule = ImmutableTagRule {
        repositories: vec!["app".parse().unwrap()],
        tags: vec!["v*".parse().unwrap()],
    };
    let observed = Observed::default();
    let options = CopyOptions::new().immutable(vec![rule]);
    let report = copy(&source, &target, &options, &observed).await.unwrap();
    assert_eq!(
        (
            report.tags,
            report.tags_moved,
            report.tags_kept,
            report.tags_only_in_target,
            report.faults
        ),
        (2, 1, 1, 2, 1),
        "{report:?}"
    );
    assert_eq!(
        observed.lines(),
        ["app: v1.0 was not copied: the tag names another manifest in the target, and is immutable there"]
    );
    let tags = answers_of_tags(&target, "app").await;
    let names: Vec<&str> = tags.keys().map(String::as_str).collect();
    assert_eq!(names, ["a", "latest", "v1.0", "v1.1", "v2.0"]);
    assert_eq!(tags["v1.0"], other.digest);
    assert_ne!(tags["latest"], other.digest);
}

#[tokio::test]
async fn what_a_quota_of_the_target_refuses_is_named_once_and_the_rest_is_copied() {
    let (source, target) = (memory(), memory());
    let first = push_image(&source, "full", Some("1"), 1, 100).await;
    let second = push_image(&source, "full", Some("2"), 2, 100).await;
    push_image(&source, "other", Some("1"), 3, 100).await;
    target.set_quotas(vec![Quota {
        repositories: vec!["full".parse().unwrap()],
        bytes: None,
        manifests: Some(1),
        tags: None,
    }]);
    let observed = Observed::default();
    let report = copy(&source, &target, &CopyOptions::new(), &observed)
        .await
        .unwrap();
    assert_eq!(
        (report.faults, report.manifests, report.tags),
        (2, 2, 2),
        "{report:?}"
    );
    let lines = observed.lines();
    let refused = lines
        .iter()
        .find(|line| line.contains("the target refuses it: the quota"))
        .unwrap();
    let tag = if refused.contains(&first.digest.to_string()) {
        "1"
    } else {
        "2"
    };
    assert!(tag == "1" || refused.contains(&second.digest.to_string()));
    assert!(
        lines.contains(&format!(
            "full: {tag} was not copied: the manifest that it names was not copied as a whole"
        )),
        "{lines:?}"
    );
    assert!(answers_of_tags(&target, "other").await.contains_key("1"));
}

/// An image whose layer a quota refuses does not take the tag of one that is whole.
#[tokio::test]
async fn a_tag_is_not_moved_to_an_image_without_a_layer() {
    let (source, target) = (memory(), memory());
    let whole = push_image(&source, "full", Some("1"), 1, 100).await;
    let report = copy(&source, &target, &CopyOptions::new(), &()).await.unwrap();
    assert_eq!(report.faults, 0, "{report:?}");
    target.set_quotas(vec![Quota {
        repositories: vec!["full".parse().unwrap()],
        bytes: Some(LARGE as u64 / 2),
        manifests: None,
        tags: None,
    }]);
    push_image(&source, "full", Some("1"), 2, LARGE).await;
    let observed = Observed::default();
    let report = copy(&source, &target, &CopyOptions::new(), &observed)
        .await
        .unwrap();
    assert_eq!(
        (report.tags_moved, report.faults),
        (0, 2),
        "{:?}",
        observed.lines()
    );
    assert_eq!(answers_of_tags(&target, "full").await["1"], whole.digest);
}

/// Somebody may push a manifest that names the layers of another's repository where missing content is allowed.
#[tokio::test]
async fn a_repository_gets_no_blob_that_it_does_not_have_in_the_source() {
    let (source, target) = (memory(), memory());
    let secret = push_image(&target, "secret", Some("1"), 1, LARGE).await;
    let mut greedy = parsed_manifest(IMAGE, &secret.bytes);
    greedy.allow_missing = true;
    greedy.tags = vec![tag("1")];
    source.put_manifest(&name("greedy"), greedy).await.unwrap();
    let report = copy(&source, &target, &CopyOptions::new(), &()).await.unwrap();
    assert_eq!(
        (report.faults, report.blobs_mounted, report.tags),
        (2, 0, 1),
        "{report:?}"
    );
    assert_eq!(read(&target, &name("greedy"), &digest(&secret.layer)).await, None);
}

/// The future may move between threads, as those of commands do.
#[tokio::test]
async fn the_future_can_be_sent() {
    fn sent<F: Future + Send>(future: F) -> F {
        future
    }
    let (source, target) = (memory(), memory());
    let observer: &dyn MaintenanceObserver = &();
    let options = CopyOptions::new();
    sent(copy(&source, &target, &options, observer)).await.unwrap();
}
