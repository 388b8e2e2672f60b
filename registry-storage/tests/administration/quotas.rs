//! Quotas: nothing is published beyond a limit, and what is counted is what is there.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use registry_core::quota::{Amount, Quota};
use registry_core::storage::{PageRequest, Storage};
use registry_core::{Error, ErrorCode, Reference};
use registry_storage::testing::faulty::Fault;
use registry_storage::testing::s3::S3Fault;
use registry_storage::testing::{Faulty, ManualClock, S3Double};
use registry_storage::{
    Backend, CollectOptions, DeleteRepositoryOptions, Maintenance as _, ObjectStoreBackend, QuotaUsage,
    Store, StoreOptions, SweepOptions,
};

use crate::support::images::{
    IMAGE, digest, image, name, push_blob, push_image, put, start_upload, tag, try_push, try_push_blob,
};
use crate::support::poll_times;

const DAY: Duration = Duration::from_hours(24);

/// Larger than what is kept in a record.
const LARGE: usize = 40_000;

struct World<B> {
    store: Arc<Store<B>>,
    clock: Arc<ManualClock>,
    quotas: Mutex<Vec<Quota>>,
}

fn world<B: Backend>(backend: B, _: Option<PathBuf>) -> World<B> {
    over(Arc::new(backend), &Arc::default())
}

fn over<B: Backend>(backend: Arc<B>, clock: &Arc<ManualClock>) -> World<B> {
    let store = Store::with_options(backend, Arc::clone(clock) as _, StoreOptions::default());
    World {
        store: Arc::new(store),
        clock: Arc::clone(clock),
        quotas: Mutex::default(),
    }
}

fn quota(patterns: &[&str], bytes: Option<usize>, tags: Option<u64>) -> Quota {
    Quota {
        repositories: patterns.iter().map(|pattern| pattern.parse().unwrap()).collect(),
        bytes: bytes.map(|bytes| bytes as u64),
        manifests: None,
        tags,
    }
}

fn content(seed: u8, size: usize) -> Bytes {
    vec![seed; size].into()
}

impl<B: Backend> World<B> {
    fn storage(&self) -> &dyn Storage {
        &*self.store
    }

    fn limit(&self, quotas: &[Quota]) {
        self.store.set_quotas(quotas.to_vec());
        *self.quotas.lock().unwrap() = quotas.to_vec();
    }

    async fn quotas(&self) -> Vec<QuotaUsage> {
        let quotas = self.quotas.lock().unwrap().clone();
        self.store.quota_usage(&quotas).await.unwrap()
    }

    /// What is counted of the only quota.
    async fn used(&self) -> Amount {
        let quotas = self.quotas().await;
        assert_eq!(quotas.len(), 1);
        quotas[0].used
    }

    async fn count(&self) {
        let counted = self
            .store
            .count_for_quotas(Duration::ZERO, Duration::ZERO, &())
            .await;
        counted.unwrap();
    }

    /// Counts everything, which finds what was counted already.
    async fn assert_counted(&self) {
        let before: Vec<Amount> = self.quotas().await.iter().map(|quota| quota.used).collect();
        self.count().await;
        let after: Vec<Amount> = self.quotas().await.iter().map(|quota| quota.used).collect();
        assert_eq!(before, after);
        assert!(self.quotas().await.iter().all(|quota| quota.is_exact));
    }

    async fn push_blob(&self, repository: &str, content: &Bytes) -> Result<(), Error> {
        try_push_blob(self.storage(), repository, content).await
    }

    async fn delete_blob(&self, repository: &str, content: &Bytes) -> Result<(), Error> {
        let digest = digest(content);
        self.storage().delete_blob(&name(repository), &digest, None).await
    }

    async fn has(&self, repository: &str, content: &Bytes) -> bool {
        let blob = self
            .storage()
            .stat_blob(&name(repository), &digest(content))
            .await;
        blob.is_ok()
    }

    /// Removes what no manifest names.
    async fn collect(&self) {
        for _ in 0..4 {
            self.clock.advance(2 * DAY);
            self.store.collect(&CollectOptions::new(), &()).await.unwrap();
            self.store.sweep(&SweepOptions::default()).await.unwrap();
        }
    }
}

fn assert_denied(pushed: &Result<(), Error>) {
    let error = pushed.as_ref().unwrap_err();
    assert_eq!(error.code(), ErrorCode::Denied, "{error}");
    assert!(error.message().starts_with("the quota for "), "{error}");
}

async fn a_push_beyond_a_quota_is_refused_with_the_numbers<B: Backend>(world: World<B>) {
    world.limit(&[quota(&["team/*"], Some(LARGE + 100), None)]);
    let (first, second, small) = (content(1, LARGE), content(2, LARGE), content(3, 100));
    world.push_blob("team/a", &first).await.unwrap();
    let refused = world.push_blob("team/b", &second).await;
    assert_denied(&refused);
    assert_eq!(
        refused.unwrap_err().message(),
        "the quota for team/* is 40100 bytes (39.1 KiB), of which 40000 (39.0 KiB) are used, and this needs 40000 (39.0 KiB) \
         more: delete what is not needed (a layer counts until the collector has removed it) or ask for a larger quota"
    );
    assert!(!world.has("team/b", &second).await);
    // What fits exactly is taken, what is there already always, and other repositories are not limited.
    world.push_blob("team/b", &small).await.unwrap();
    world.push_blob("team/a", &first).await.unwrap();
    world.push_blob("team", &second).await.unwrap();
    assert_denied(&world.push_blob("team/b", &content(4, 1)).await);
    assert_eq!(world.used().await.bytes, 40_100);
    world.assert_counted().await;
    // A blob counts in each repository that has it; a mount is refused, and leaves nothing behind.
    let mount = |to: &'static str| {
        let from = name("team/a");
        let (world, digest) = (&world, digest(&first));
        async move { world.storage().mount_blob(&from, &name(to), &digest).await }
    };
    assert_denied(&mount("team/b").await.map(drop));
    assert!(!world.has("team/b", &first).await);
    world.delete_blob("team/a", &first).await.unwrap();
    world.push_blob("team/c", &second).await.unwrap();
    world.assert_counted().await;
}

async fn a_refused_upload_leaves_nothing<B: Backend>(world: World<B>) {
    world.limit(&[quota(&["**"], Some(10), None)]);
    let large = content(1, LARGE);
    let upload = start_upload(world.storage(), "a", &large).await;
    assert_denied(&world.storage().commit_upload(&upload, &digest(&large)).await);
    let status = world.storage().upload_status(&upload).await.unwrap_err();
    assert_eq!(status.code(), ErrorCode::BlobUploadUnknown);
    world.clock.advance(DAY);
    world.store.sweep(&SweepOptions::default()).await.unwrap();
    world.store.sweep(&SweepOptions::default()).await.unwrap();
    let bytes = world.store.backend().list_bytes(None, 10).await.unwrap();
    assert!(bytes.is_empty(), "{bytes:?}");
    assert_eq!(world.used().await, Amount::NONE);
}

async fn tags_and_manifests_are_limited_too<B: Backend>(world: World<B>) {
    let limit = |manifests| Quota {
        manifests: Some(manifests),
        ..quota(&["a"], None, Some(2))
    };
    world.limit(&[limit(2)]);
    let first = push_image(world.storage(), "a", Some("1"), 1, 100).await;
    let again = |tag: &'static str| put(world.storage(), "a", Some(tag), IMAGE, &first.bytes);
    again("2").await.unwrap();
    assert_denied(&again("3").await);
    // Neither a tag that exists nor a move of it needs room.
    again("1").await.unwrap();
    let second = push_image(world.storage(), "a", Some("1"), 2, 100).await;
    assert_denied(&try_push(world.storage(), "a", Some("1"), &image(3, 100, None)).await);
    let used = world.used().await;
    assert_eq!((used.manifests, used.tags), (2, 2));
    world.assert_counted().await;
    // After a delete there is room at once.
    world
        .storage()
        .delete_tag(&name("a"), &tag("2"), None)
        .await
        .unwrap();
    again("3").await.unwrap();
    world
        .storage()
        .delete_manifest(&name("a"), &second.digest, None, None)
        .await
        .unwrap();
    let used = world.used().await;
    assert_eq!((used.manifests, used.tags), (1, 1));
    try_push(world.storage(), "a", Some("4"), &image(3, 100, None))
        .await
        .unwrap();
    world.assert_counted().await;
}

async fn deletes_work_beyond_a_quota_and_make_room_at_once<B: Backend>(world: World<B>) {
    let first = push_image(world.storage(), "a", Some("1"), 1, LARGE).await;
    // Set after there was too much.
    world.limit(&[quota(&["a"], Some(100), Some(0))]);
    world.count().await;
    assert!(world.used().await.bytes > 40_000);
    assert_denied(&world.push_blob("a", &content(9, 1)).await);
    assert_denied(&put(world.storage(), "a", Some("2"), IMAGE, &first.bytes).await);
    // What is there may be pushed again.
    try_push(world.storage(), "a", Some("1"), &first).await.unwrap();
    world
        .storage()
        .delete_manifest(&name("a"), &first.digest, None, None)
        .await
        .unwrap();
    world.delete_blob("a", &first.layer).await.unwrap();
    world.push_blob("a", &content(9, 1)).await.unwrap();
    world.assert_counted().await;
    // The configuration goes by the collector.
    world.collect().await;
    assert_eq!(world.used().await, Amount::NONE);
    world.assert_counted().await;
}

async fn every_quota_that_matches_applies<B: Backend>(world: World<B>) {
    world.limit(&[
        quota(&["team/**"], Some(1000), None),
        quota(&["team/a", "other"], Some(500), None),
        // The same patterns in another order have one count.
        quota(&["other", "team/a"], None, Some(1)),
    ]);
    world.push_blob("team/a", &content(1, 400)).await.unwrap();
    let refused = world.push_blob("team/a", &content(2, 200)).await;
    assert_denied(&refused);
    assert!(refused.unwrap_err().message().contains("for team/a is 500 bytes"));
    world.push_blob("team/b", &content(2, 200)).await.unwrap();
    let refused = world.push_blob("team/b", &content(3, 500)).await;
    assert!(
        refused
            .unwrap_err()
            .message()
            .contains("for team/** is 1000 bytes")
    );
    let used: Vec<u64> = world
        .quotas()
        .await
        .iter()
        .map(|quota| quota.used.bytes)
        .collect();
    assert_eq!(used, [600, 400, 400]);
    world.assert_counted().await;
}

async fn the_collector_and_the_delete_of_a_repository_give_back<B: Backend>(world: World<B>) {
    world.limit(&[quota(&["**"], None, None)]);
    push_image(world.storage(), "a", Some("1"), 1, LARGE).await;
    push_image(world.storage(), "a", Some("1"), 2, 100).await;
    push_image(world.storage(), "a/b", Some("1"), 1, LARGE).await;
    push_blob(world.storage(), "c", &content(7, 50)).await;
    world.assert_counted().await;
    world
        .store
        .delete_repository(&name("a"), &DeleteRepositoryOptions::new(), &())
        .await
        .unwrap();
    world.assert_counted().await;
    world.collect().await;
    world.assert_counted().await;
    let usage = world.store.repository_usage(&name("a/b"), true).await.unwrap();
    assert_eq!((usage.blobs.blobs, usage.manifests, usage.tags), (2, 1, 1));
    assert_eq!(usage.amount(), world.used().await);
    let gone = world.store.repository_usage(&name("a"), false).await.unwrap_err();
    assert_eq!(gone.code(), ErrorCode::NameUnknown);
}

async fn what_repositories_share_is_told<B: Backend>(world: World<B>) {
    let shared = content(1, 300);
    for (repository, own) in [("a", 10), ("a/b", 20)] {
        world.push_blob(repository, &shared).await.unwrap();
        world.push_blob(repository, &content(2, own)).await.unwrap();
    }
    let usage = world.store.repository_usage(&name("a"), true).await.unwrap();
    assert_eq!((usage.blobs.blobs, usage.blobs.bytes), (2, 310));
    let shared_with_others = usage.shared.unwrap();
    assert_eq!((shared_with_others.blobs, shared_with_others.bytes), (1, 300));
    world.delete_blob("a/b", &shared).await.unwrap();
    let usage = world.store.repository_usage(&name("a"), true).await.unwrap();
    assert_eq!(usage.shared.unwrap().blobs, 0);
    assert_eq!(
        world
            .store
            .repository_usage(&name("a"), false)
            .await
            .unwrap()
            .shared,
        None
    );
}

/// Clients look, and are refused before they send anything.
async fn what_cannot_fit_is_refused_early<B: Backend>(world: World<B>) {
    world.limit(&[quota(&["a"], Some(100), None)]);
    let there = content(1, 90);
    world.push_blob("a", &there).await.unwrap();
    let room = async |repository: &str, content: Option<&Bytes>, size| {
        let digest = content.map(|content| digest(content));
        world
            .store
            .require_room_for_blob(&name(repository), digest.as_ref(), size)
            .await
    };
    let other = content(2, 20);
    assert_denied(&room("a", Some(&other), Some(20)).await);
    room("a", Some(&other), Some(10)).await.unwrap();
    room("a", Some(&there), Some(90)).await.unwrap();
    room("a", None, None).await.unwrap();
    room("b", Some(&other), Some(1 << 40)).await.unwrap();
    world.push_blob("a", &content(3, 10)).await.unwrap();
    assert_denied(&room("a", None, None).await);
}

on_each_backend! {
    a_push_beyond_a_quota_is_refused_with_the_numbers
    a_refused_upload_leaves_nothing
    tags_and_manifests_are_limited_too
    deletes_work_beyond_a_quota_and_make_room_at_once
    every_quota_that_matches_applies
    the_collector_and_the_delete_of_a_repository_give_back
    what_repositories_share_is_told
    what_cannot_fit_is_refused_early
    what_is_counted_is_what_is_there
    a_push_whose_tag_is_refused_leaves_nothing
}

/// Pushes from several stores at once, each of which has its own connection to the records.
async fn push_at_once<B: Backend>(worlds: &[World<B>], pushes: u8, size: usize) -> usize {
    let mut running = tokio::task::JoinSet::new();
    for number in 0..pushes {
        let store = Arc::clone(&worlds[usize::from(number) % worlds.len()].store);
        running.spawn(async move {
            let repository = format!("team/{}", number % 5);
            try_push_blob(&*store, &repository, &content(number, size)).await
        });
    }
    let mut pushed = 0;
    for result in running.join_all().await {
        match result {
            Ok(()) => pushed += 1,
            Err(error) => assert_eq!(error.code(), ErrorCode::Denied, "{error}"),
        }
    }
    pushed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_at_once_on_several_stores_never_exceed_a_quota() {
    let double = S3Double::start().await.unwrap();
    let clock = Arc::default();
    let worlds: Vec<_> = (0..4)
        .map(|_| over(Arc::new(double.backend("p").unwrap()), &clock))
        .collect();
    for world in &worlds {
        world.limit(&[quota(&["team/*"], Some(10 * LARGE + 1), None)]);
    }
    assert_eq!(push_at_once(&worlds, 32, LARGE).await, 10);
    assert_eq!(worlds[0].used().await.bytes, 10 * LARGE as u64);
    worlds[1].assert_counted().await;
}

/// What is refused because of its tag is not published at all, although others took the last tags meanwhile.
async fn a_push_whose_tag_is_refused_leaves_nothing<B: Backend>(world: World<B>) {
    world.limit(&[quota(&["team/**"], None, Some(5))]);
    let subject = image(99, 100, None);
    let images: Vec<_> = (0..24).map(|seed| image(seed, 100, Some(&subject))).collect();
    let repository = |number: usize| format!("team/{}", number % 12);
    for (number, image) in images.iter().enumerate() {
        for content in [&image.config, &image.layer] {
            push_blob(world.storage(), &repository(number), content).await;
        }
    }
    let mut running = tokio::task::JoinSet::new();
    for (number, image) in images.iter().enumerate() {
        let (store, bytes, repository) = (Arc::clone(&world.store), image.bytes.clone(), repository(number));
        running.spawn(async move {
            let tag = number.to_string();
            let pushed = put(&*store, &repository, Some(&tag), IMAGE, &bytes).await;
            (number, pushed)
        });
    }
    let mut taken = Vec::new();
    for (number, pushed) in running.join_all().await {
        match pushed {
            Ok(()) => taken.push(number),
            refused => assert_denied(&refused),
        }
    }
    assert_eq!(taken.len(), 5);
    let used = world.used().await;
    assert_eq!((used.manifests, used.tags), (5, 5));
    let page = |limit| PageRequest { last: None, limit };
    for (number, image) in images.iter().enumerate() {
        let repository = name(&repository(number));
        let read = world
            .storage()
            .get_manifest(&repository, &Reference::Digest(image.digest.clone()))
            .await;
        assert_eq!(read.is_ok(), taken.contains(&number));
        let referrers = world
            .storage()
            .list_referrers(&repository, &subject.digest, page(100).into())
            .await
            .unwrap();
        let is_listed = referrers.items.iter().any(|entry| entry.digest == image.digest);
        assert_eq!(is_listed, taken.contains(&number));
    }
    let catalog = world.storage().list_repositories(page(100)).await.unwrap().items;
    let mut with_images: Vec<_> = taken.iter().map(|number| name(&repository(*number))).collect();
    with_images.sort();
    with_images.dedup();
    assert_eq!(catalog, with_images);
    world.assert_counted().await;
}

/// Each of them adds the blob to the count, and one of them publishes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_is_pushed_several_times_at_once_counts_once() {
    let double = S3Double::start().await.unwrap();
    for round in 0..10 {
        let world = over(
            Arc::new(double.backend(&format!("{round}")).unwrap()),
            &Arc::default(),
        );
        world.limit(&[quota(&["**"], None, None)]);
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let store = Arc::clone(&world.store);
            running.spawn(async move { try_push_blob(&*store, "a", &content(1, LARGE)).await });
        }
        for pushed in running.join_all().await {
            pushed.unwrap();
        }
        assert_eq!(world.used().await.bytes, LARGE as u64);
    }
}

/// Wherever a push waits while another one of the same content goes through: it is in the quota once, and both are answered with success,
/// although there is no room for it twice. Only between the count and the write of the first does the other one find no room.
#[tokio::test]
async fn content_that_another_push_published_meanwhile_is_not_refused() {
    let content = content(1, LARGE);
    let image = image(1, LARGE, None);
    let (mut at, mut refused) = (0, 0);
    loop {
        let (bucket, clock) = (ObjectStoreBackend::memory(), Arc::default());
        let worlds = [(); 2].map(|()| over(Arc::new(Faulty::new(bucket.clone())), &clock));
        let [slow, fast] = &worlds;
        for world in &worlds {
            world.limit(&[quota(&["**"], Some(3 * LARGE), None)]);
        }
        push_blob(fast.storage(), "a", &image.config).await;
        push_blob(fast.storage(), "a", &image.layer).await;
        fast.count().await;
        let faulty = slow.store.backend();
        let begun = faulty.calls();
        faulty.fault_at(begun + at, Fault::Delay(100_000));
        let push = async |world: &World<Faulty<ObjectStoreBackend>>| {
            world.push_blob("a", &content).await?;
            put(world.storage(), "a", Some("1"), IMAGE, &image.bytes).await
        };
        let (slow_push, fast_push) = tokio::join!(push(slow), push(fast));
        match fast_push {
            Err(error) if error.code() == ErrorCode::Denied => refused += 1,
            pushed => pushed.unwrap(),
        }
        slow_push.unwrap_or_else(|error| panic!("at {at}: {error:?}"));
        fast.count().await;
        let bytes = (2 * LARGE + image.config.len() + image.bytes.len()) as u64;
        assert_eq!(fast.used().await.bytes, bytes);
        if faulty.calls() <= begun + at {
            break;
        }
        at += 1;
    }
    assert!(at > 20 && refused <= 1, "{at} {refused}");
}

/// A tag is written, but answered with a failure, and another push moves it before the client of the store repeats the request. That
/// fails on its condition then, as if nothing had been written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_whose_answer_was_lost_and_that_another_push_moves_is_counted_again() {
    let double = S3Double::start().await.unwrap();
    let clock = Arc::default();
    let [here, there] = [(); 2].map(|()| over(Arc::new(double.backend("p").unwrap()), &clock));
    for world in [&here, &there] {
        world.limit(&[quota(&["**"], None, None)]);
    }
    let [one, two] = [image(1, 100, None), image(2, 100, None)];
    for image in [&one, &two] {
        try_push(here.storage(), "a", None, image).await.unwrap();
    }
    here.assert_counted().await;
    let manifests = here.used().await;
    drop(double.faults().take_seen());
    put(here.storage(), "a", Some("first"), IMAGE, &one.bytes)
        .await
        .unwrap();
    let seen = double.faults().take_seen();
    let is_tag = |request: &String| request.starts_with("PUT") && request.contains("/tags/first");
    let before = seen.iter().position(is_tag).unwrap() as u64;
    let repeated = double.faults().requests() + before + 1;
    double.faults().fault_after(before, S3Fault::LieAboutFailure);
    double
        .faults()
        .fault_at(repeated, S3Fault::Delay(Duration::from_secs(1)));
    let is_waiting = async {
        while double.faults().requests() <= repeated {
            tokio::task::yield_now().await;
        }
    };
    let moving = async {
        tokio::time::timeout(Duration::from_secs(60), is_waiting)
            .await
            .unwrap();
        put(there.storage(), "a", Some("second"), IMAGE, &two.bytes).await
    };
    let pushing = put(here.storage(), "a", Some("second"), IMAGE, &one.bytes);
    let (pushed, moved) = tokio::join!(pushing, moving);
    pushed.unwrap();
    moved.unwrap();

    let quotas = here.quotas().await;
    assert_eq!(
        (quotas[0].used.tags, quotas[0].is_exact),
        (manifests.tags + 1, false)
    );
    let due = here.store.count_for_quotas(DAY, Duration::ZERO, &()).await;
    assert_eq!((due.unwrap(), here.used().await.tags), (1, manifests.tags + 2));
    here.assert_counted().await;
}

#[cfg(all(feature = "filesystem", unix))]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_at_once_on_a_disk_never_exceed_a_quota() {
    let folder = tempfile::tempdir().unwrap();
    let backend = registry_storage::filesystem::FilesystemBackend::open(folder.path())
        .await
        .unwrap();
    let world = world(backend, None);
    world.limit(&[quota(&["team/*"], Some(10 * LARGE + 1), None)]);
    assert_eq!(push_at_once(std::slice::from_ref(&world), 32, LARGE).await, 10);
    assert_eq!(world.used().await.bytes, 10 * LARGE as u64);
    world.assert_counted().await;
}

/// A process that dies between two steps leaves a count that is too high, if anything, and the next count is right.
#[tokio::test]
async fn a_crash_at_any_step_counts_too_much_at_most() {
    let mut step = 0;
    loop {
        let backend = Arc::new(Faulty::new(ObjectStoreBackend::memory()));
        let clock = Arc::default();
        let world = over(Arc::clone(&backend), &clock);
        world.limit(&[quota(&["a"], None, None)]);
        push_image(world.storage(), "a", Some("1"), 1, 100).await;
        let began = backend.calls();
        backend.fault_at(began + step, Fault::Fail);
        let second = image(2, 200, None);
        let pushed = try_push(world.storage(), "a", Some("2"), &second).await;
        let deleted = world.storage().delete_tag(&name("a"), &tag("1"), None).await;
        let is_past = backend.calls() < began + step;
        backend.heal();
        let there = world
            .store
            .repository_usage(&name("a"), false)
            .await
            .unwrap()
            .amount();
        let counted = world.used().await;
        assert_eq!(
            there.minus(counted),
            Amount::NONE,
            "{step}: {counted:?} is less than {there:?}"
        );
        world.count().await;
        assert_eq!(world.used().await, there, "{step}");
        if is_past {
            assert!(pushed.is_ok() && deleted.is_ok() && counted == there);
            return;
        }
        step += 1;
    }
}

/// A count that runs while others push and delete: they stop at every step, it runs for some, and then they go on.
#[tokio::test]
async fn a_count_beside_pushes_and_deletes_never_counts_too_little() {
    let mut is_over = false;
    let runs = || (0..40).step_by(3).chain([400]);
    for (stop, run) in (0..500)
        .step_by(2)
        .flat_map(|stop| runs().map(move |run| (stop, run)))
    {
        let backend = Arc::new(Faulty::new(ObjectStoreBackend::memory()));
        let world = over(Arc::clone(&backend), &Arc::default());
        world.limit(&[quota(&["**"], None, None)]);
        push_image(world.storage(), "a", Some("1"), 1, 100).await;
        push_image(world.storage(), "b", Some("1"), 2, 100).await;
        // Every call lets the others run, so that a poll is a step.
        for call in 0..600 {
            backend.fault_at(backend.calls() + call, Fault::Delay(1));
        }
        let mut change = pin!(async {
            try_push(world.storage(), "b", Some("2"), &image(3, 200, None))
                .await
                .unwrap();
            world
                .storage()
                .delete_tag(&name("a"), &tag("1"), None)
                .await
                .unwrap();
        });
        let mut count = pin!(world.count());
        let is_done = poll_times(change.as_mut(), stop).await.is_some();
        let mut is_counted = poll_times(count.as_mut(), run).await.is_some();
        if !is_done {
            change.await;
        }
        let mut there = Amount::NONE;
        for repository in ["a", "b"] {
            let usage = world
                .store
                .repository_usage(&name(repository), false)
                .await
                .unwrap();
            there = there.plus(usage.amount());
        }
        let counted = loop {
            let counted = world.used().await;
            let missing = there.minus(counted);
            let is_first = world.quotas().await[0].counted.is_none();
            assert!(
                is_first || missing == Amount::NONE,
                "{stop} {run}: {counted:?} is less than {there:?}"
            );
            if is_counted {
                break counted;
            }
            is_counted = poll_times(count.as_mut(), 1).await.is_some();
        };
        is_over |= counted != there;
        world.count().await;
        assert_eq!(world.used().await, there, "{stop} {run}");
        if is_done && run == 400 {
            assert!(is_over, "a delete that is cut by a count is not subtracted");
            return;
        }
    }
    panic!("the pushes never ended");
}

/// Whatever is done, what was counted on the way is what is there.
async fn what_is_counted_is_what_is_there<B: Backend>(world: World<B>) {
    let repositories = ["a", "a/b", "c"];
    world.limit(&[
        quota(&["a/**"], Some(2 * LARGE), Some(3)),
        quota(&["**"], Some(4 * LARGE), None),
    ]);
    let mut random = 7_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    let (mut taken, mut refused) = (0, 0);
    for step in 0..250 {
        let repository = repositories[next(3) as usize];
        let other = name(repositories[next(3) as usize]);
        let sizes = [10, 500, 20_000];
        let (seed, size) = (next(6), sizes[next(3) as usize]);
        let image = image(seed, size, None);
        let version = ["1", "2", "3"][next(3) as usize];
        let storage = world.storage();
        let done = match next(8) {
            0..=2 => try_push(storage, repository, Some(version), &image).await,
            3 => {
                let layer = digest(&image.layer);
                storage
                    .mount_blob(&other, &name(repository), &layer)
                    .await
                    .map(drop)
            }
            4 => storage.delete_tag(&name(repository), &tag(version), None).await,
            5 => {
                storage
                    .delete_manifest(&name(repository), &image.digest, None, None)
                    .await
            }
            6 => world.delete_blob(repository, &image.layer).await,
            _ => {
                world.clock.advance(DAY);
                world.store.collect(&CollectOptions::new(), &()).await.map(drop)
            }
        };
        match done {
            Ok(()) => taken += 1,
            Err(error) => refused += u64::from(error.code() == ErrorCode::Denied),
        }
        for usage in world.quotas().await {
            let limit = usage.quota.bytes.unwrap();
            assert!(usage.used.bytes <= limit, "{step}: {usage:?}");
        }
        if step % 10 == 0 {
            world.assert_counted().await;
        }
    }
    assert!(taken > 50 && refused > 10, "{taken} {refused}");
    world.assert_counted().await;
}
