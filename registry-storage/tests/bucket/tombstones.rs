//! What was deleted in a bucket leaves no record, if the bucket deletes on condition, and costs no cycle of the collector otherwise.
//! Cycles that are cut off, time and again, free what nothing names.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use registry_core::{ErrorCode, Reference, Timestamp};
use registry_storage::testing::faulty::Fault;
use registry_storage::testing::{Faulty, S3Double};
use registry_storage::{
    Backend, Clock, CollectOptions, Key, Maintenance as _, ObjectStoreBackend, Store, StoreOptions,
};

use crate::support::images::{
    IMAGE, digest, name, parsed_manifest, push_blob, push_image, push_referrer, put, start_upload, tag,
};
use crate::support::poll_times;
use crate::support::tamper::remove;
use crate::support::world::{World, world};

const DAY: Duration = Duration::from_hours(24);
const LARGE: usize = 20_000;

/// The size of a record modulo 8 that is Dead, and of one that is Live.
const DEAD: usize = 4;
const LIVE: usize = 2;

async fn purging(double: &S3Double) -> ObjectStoreBackend {
    let backend = double.backend("p").unwrap();
    backend.probe_promises(Timestamp(0)).await.unwrap();
    assert!(backend.deletes_on_condition());
    backend
}

/// Returns the keys of records that are Dead, other than those of ended uploads, which are kept for a time.
fn tombstones(double: &S3Double) -> Vec<String> {
    let objects = double.objects().into_iter();
    let objects = objects.map(|(key, value)| (key.strip_prefix("p/").unwrap().to_owned(), value.len()));
    let is_record = |key: &str| !key.starts_with("bytes/") && !key.starts_with("uploads/");
    objects
        .filter(|(key, size)| is_record(key) && size % 8 == DEAD)
        .map(|(key, _)| key)
        .collect()
}

/// Returns the keys of back references from manifests that are gone.
fn back_references_of_nothing(double: &S3Double) -> Vec<String> {
    let objects = double.objects();
    let is_of_nothing = |key: &&String| {
        key.split_once("/tagged/").is_some_and(|(repository, tagged)| {
            let (digest, _) = tagged.rsplit_once('/').unwrap();
            !objects.contains_key(&format!("{repository}/manifests/{digest}"))
        })
    };
    objects.keys().filter(is_of_nothing).cloned().collect()
}

/// Pushes two images to each of two repositories, deletes one in one and both in the other, and collects.
async fn live<B: Backend>(world: &World<B>) {
    for (repository, kept) in [("a", 1), ("b/c", 2)] {
        let kept = (kept == 1).then_some("kept");
        let one = push_image(world.storage(), repository, kept, 1, LARGE).await;
        let other = push_image(world.storage(), repository, Some("gone"), 2, LARGE).await;
        world.delete_manifest(repository, &other.digest).await;
        if kept.is_none() {
            world.delete_manifest(repository, &one.digest).await;
        }
    }
    collect_all(world).await;
}

async fn collect_all<B: Backend>(world: &World<B>) {
    for _ in 0..6 {
        world.clock.advance(DAY);
        let options = CollectOptions::new().grace(DAY).remove_empty_repositories(true);
        if !world.collect_and_sweep(&options).await.has_more() {
            return;
        }
    }
    panic!("the collector has never done enough");
}

#[tokio::test]
async fn nothing_stays_of_what_was_deleted_in_a_bucket_that_deletes_on_condition() {
    let double = S3Double::start().await.unwrap();
    let world = world(purging(&double).await, None);
    live(&world).await;
    assert_eq!(tombstones(&double), Vec::<String>::new());
    let of_c = |key: &String| key.contains("b/c!") || key.contains("b/c/");
    assert_eq!(double.objects().into_keys().find(of_c), None);
    assert_eq!(world.catalog().await, ["a"]);
    world.assert_sound("at the end").await;
}

/// As if an older version, or one that did not try it, had been at work.
#[tokio::test]
async fn what_older_versions_left_goes_with_the_next_pass() {
    let double = S3Double::start().await.unwrap();
    let older = world(double.backend("p").unwrap(), None);
    live(&older).await;
    let left = tombstones(&double);
    for folder in ["blobs/", "catalog/", "collector/repositories/", "repositories/"] {
        assert!(
            left.iter().any(|key| key.starts_with(folder)),
            "{folder}: {left:?}"
        );
    }
    let world = world(purging(&double).await, None);
    world.clock.advance(30 * DAY);
    let options = CollectOptions::new().grace(DAY);
    world.collect(&options.dry_run(true)).await;
    assert_eq!(tombstones(&double), left);
    world.collect(&options.full(true)).await;
    assert_eq!(tombstones(&double), Vec::<String>::new());
    assert_eq!(back_references_of_nothing(&double), Vec::<String>::new());
    world.assert_sound("at the end").await;
    // What was deleted can be pushed again, and is collected again.
    live(&world).await;
    assert_eq!(tombstones(&double), Vec::<String>::new());
}

#[tokio::test]
async fn a_back_reference_that_cannot_be_read_keeps_no_cycle_from_its_end() {
    let double = S3Double::start().await.unwrap();
    live(&world(double.backend("p").unwrap(), None)).await;
    let mut keys = double.objects().into_keys();
    let broken = keys
        .find(|key| key.contains("/a/!/tagged/") && key.ends_with("/gone"))
        .unwrap();
    double.put(&broken, "x".into());
    let world = world(purging(&double).await, None);
    world.clock.advance(30 * DAY);
    world.collect(&CollectOptions::new().grace(DAY).full(true)).await;
    assert_eq!(back_references_of_nothing(&double), [broken]);
}

#[tokio::test]
async fn a_cycle_does_not_read_the_grants_that_are_gone() {
    let double = S3Double::start().await.unwrap();
    let world = world(double.backend("p").unwrap(), None);
    for number in 0..20 {
        push_image(world.storage(), "a", Some("latest"), number, LARGE).await;
    }
    push_image(world.storage(), "a", Some("kept"), 100, LARGE).await;
    for number in 0..20 {
        let gone = push_image(world.storage(), "a", None, number, LARGE).await;
        world.delete_manifest("a", &gone.digest).await;
    }
    collect_all(&world).await;
    push_image(world.storage(), "a", Some("new"), 101, LARGE).await;
    let _pushes = double.faults().take_seen();
    world.collect(&CollectOptions::new().grace(DAY)).await;
    let seen = double.faults().take_seen();
    let grants = seen
        .iter()
        .filter(|seen| seen.starts_with("GET") && seen.contains("/in/"));
    // Of the two images: each has a layer and a configuration.
    assert_eq!(grants.count(), 4, "{seen:#?}");
    // One that comes back is found again.
    let back = push_image(world.storage(), "a", Some("back"), 0, LARGE).await;
    world.delete_manifest("a", &back.digest).await;
    collect_all(&world).await;
    assert!(!world.has_blob("a", &back.layer).await);
    world.assert_sound("at the end").await;
}

/// The listing of a pass shows a manifest before what refers to it.
#[tokio::test]
async fn a_pass_asks_for_no_tagged_manifest_that_it_has_listed() {
    let double = S3Double::start().await.unwrap();
    let world = world(purging(&double).await, None);
    for number in 0..20 {
        let tag = format!("v{number}");
        push_image(
            world.storage(),
            if number < 10 { "a" } else { "b" },
            Some(&tag),
            number,
            LARGE,
        )
        .await;
    }
    world.clock.advance(30 * DAY);
    let _pushes = double.faults().take_seen();
    world.collect(&CollectOptions::new().grace(DAY).full(true)).await;
    let seen = double.faults().take_seen();
    let manifests = seen
        .iter()
        .filter(|seen| seen.starts_with("GET") && seen.contains("/manifests/"));
    // The cycle reads each of them for what it names.
    assert_eq!(manifests.count(), 20, "{seen:#?}");
}

/// A clock that goes on with each look.
#[derive(Debug)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.fetch_add(1000, Ordering::Relaxed))
    }
}

#[tokio::test]
async fn cycles_that_never_end_free_what_nothing_names() {
    for is_purging in [true, false] {
        let double = S3Double::start().await.unwrap();
        let backend = match is_purging {
            true => purging(&double).await,
            false => double.backend("p").unwrap(),
        };
        let clock = Arc::new(Ticking(AtomicU64::new(1_800_000_000_000)));
        let backend = Arc::new(Faulty::new(backend));
        let store = Store::with_options(Arc::clone(&backend), clock, StoreOptions::default());
        for number in 0..20 {
            for repository in ["a", "b", "c", "d", "e", "f", "g", "h"] {
                push_blob(&store, repository, &vec![number; LARGE].into()).await;
            }
        }
        let options = CollectOptions::new().grace(Duration::ZERO);
        let grants = || {
            let objects = double.objects().into_iter();
            objects
                .filter(|(key, value)| key.contains("/in/") && value.len() % 8 != DEAD)
                .count()
        };
        assert_eq!(grants(), 160);
        let mut cycles = 0;
        while grants() > 0 {
            cycles += 1;
            assert!(cycles <= 40, "{} grants are left, {is_purging}", grants());
            backend.fault_at(backend.calls() + 250, Fault::Fail);
            store.collect(&options, &()).await.unwrap_err();
        }
    }
}

#[tokio::test]
async fn an_upload_that_ended_is_read_once_more_and_then_forgotten() {
    let double = S3Double::start().await.unwrap();
    let world = world(double.backend("p").unwrap(), None);
    for number in 0..5 {
        push_blob(world.storage(), "a", &vec![number; LARGE].into()).await;
    }
    let sessions = || {
        let objects = double.objects().into_keys();
        objects.filter(|key| key.starts_with("p/uploads/")).count()
    };
    let reads = async || {
        let _before = double.faults().take_seen();
        world.sweep().await;
        let seen = double.faults().take_seen();
        let reads = seen
            .iter()
            .filter(|seen| seen.starts_with("GET") && seen.contains("/p/uploads/"));
        reads.count()
    };
    assert_eq!((sessions(), reads().await), (5, 5));
    world.clock.advance(DAY / 2);
    assert_eq!((reads().await, sessions()), (0, 5));
    world.clock.advance(DAY);
    assert_eq!((reads().await, sessions()), (5, 0));
}

/// A generator of numbers, of which each seed has its own.
fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

/// Two collectors remove what a killed push left, and pushes write the same grant, with every call of theirs delayed at random.
#[tokio::test]
async fn no_grant_is_left_that_the_collector_does_not_find() {
    let content = bytes::Bytes::from(vec![7; LARGE]);
    let grant = Key::grant(&digest(&content), &name("a"));
    let back_reference = Key::repository_blob(&name("a"), &digest(&content));
    let mut grants = 0;
    for seed in 0..500 {
        let world = world(ObjectStoreBackend::memory(), None);
        let backend = world.store.backend();
        // A push that was killed between the back reference and the grant.
        push_blob(world.storage(), "a", &content).await;
        remove(&world.store, &grant).await;
        let upload = start_upload(world.storage(), "a", &content).await;
        let mut random = numbers(seed + 1);
        let first = backend.calls();
        for call in first..first + 150 {
            if random(3) == 0 {
                backend.fault_at(call, Fault::Delay(random(40) as u32));
            }
        }
        let options = CollectOptions::new().grace(Duration::ZERO).full(true);
        let cycle = async || world.store.collect(&options, &()).await;
        let key = digest(&content);
        let commit = world.storage().commit_upload(&upload, &key);
        // The push may be refused, because others are at the same records.
        let (one, other, pushed) = tokio::join!(cycle(), cycle(), commit);
        let ended = (one.is_ok(), other.is_ok(), pushed.is_ok());
        let state = async |key: &Key| {
            let found = backend.get(key).await.unwrap();
            found.map(|found| found.value.len() % 8)
        };
        if !matches!(state(&grant).await, None | Some(DEAD)) {
            grants += 1;
            assert_eq!(state(&back_reference).await, Some(LIVE), "seed {seed}: {ended:?}");
        }
        world.assert_sound(&format!("seed {seed}")).await;
    }
    assert!(grants > 400, "{grants}");
}

/// A server is killed in the middle of a delete, and the pass over tombstones comes before the sweeper to what it left, perhaps after a
/// push that was refused.
#[tokio::test]
async fn a_delete_that_was_cut_off_is_ended_whatever_comes_first() {
    for has_push in [false, true] {
        let mut cuts = 0;
        loop {
            let world = world(ObjectStoreBackend::memory(), None);
            let image = push_image(world.storage(), "a", Some("latest"), 1, LARGE).await;
            let signature = push_referrer(world.storage(), "a", &image, 2).await;
            put(world.storage(), "a", Some("signed"), IMAGE, &signature.bytes)
                .await
                .unwrap();
            let backend = world.store.backend();
            let cut = backend.calls() + cuts;
            backend.fault_at(cut, Fault::Fail);
            let deleted = world.try_delete_manifest("a", &signature.digest).await;
            if backend.calls() <= cut {
                assert!(cuts > 10, "{deleted:?}");
                break;
            }
            cuts += 1;
            let was_there = world.has_manifest("a", &signature.digest).await;
            if has_push && !was_there {
                // A layer is missing.
                remove(&world.store, &Key::grant(&digest(&signature.layer), &name("a"))).await;
                let refused = put(world.storage(), "a", None, IMAGE, &signature.bytes).await;
                assert_eq!(refused.unwrap_err().code(), ErrorCode::ManifestBlobUnknown);
            }
            world.clock.advance(2 * DAY);
            world.collect(&CollectOptions::new().grace(DAY).full(true)).await;
            world.sweep().await;
            let is_there = world.has_manifest("a", &signature.digest).await;
            assert_eq!(is_there, was_there, "cut {cuts} {has_push}");
            let tags = world.tags("a").await.unwrap();
            assert_eq!(
                tags.contains(&"signed".to_owned()),
                is_there,
                "cut {cuts} {has_push}: {tags:?}"
            );
            let referrers = Key::all_referrers(&name("a"));
            let referrers = backend.list(&referrers, None, 10).await.unwrap();
            assert_eq!(!referrers.is_empty(), is_there, "cut {cuts} {has_push}");
        }
    }
}

/// A process dies at any call of the cycles that remove a blob: its bytes do not wait for the weekly sweep of everything.
#[tokio::test]
async fn a_cycle_that_is_cut_off_leaves_no_bytes() {
    for cut in 0..400 {
        let world = world(ObjectStoreBackend::memory(), None);
        let backend = world.store.backend();
        world.sweep().await;
        push_blob(world.storage(), "a", &vec![7; LARGE].into()).await;
        let options = CollectOptions::new().grace(Duration::ZERO);
        let at = backend.calls() + cut;
        backend.fault_at(at, Fault::Fail);
        for _ in 0..8 {
            let _ended = world.store.collect(&options, &()).await;
        }
        if backend.calls() <= at {
            assert!(cut > 50, "{cut}");
            return;
        }
        world.sweep().await;
        assert_eq!(world.byte_strings().await, 0, "cut {cut}");
    }
    panic!("there are more calls");
}

/// A push of a tag is killed anywhere after a delete of its manifest went by in between. What the list then says is true at the
/// latest once somebody has read it.
#[tokio::test]
async fn a_tag_that_a_killed_push_left_beside_a_delete_is_not_listed_for_long() {
    let (mut dead, mut is_whole) = (0, false);
    for cut in 0..60 {
        for more in 0..30 {
            let world = World::stepped();
            let image = push_image(world.storage(), "a", None, 1, 100).await;
            push_image(world.storage(), "a", Some("other"), 2, 100).await;
            let mut new = parsed_manifest(IMAGE, &image.bytes);
            new.tags.push(tag("v1"));
            let (repository, by_tag) = (name("a"), Reference::Tag(tag("v1")));
            {
                let mut push = pin!(world.storage().put_manifest(&repository, new));
                is_whole = poll_times(push.as_mut(), cut).await.is_some();
                if is_whole {
                    break;
                }
                let deleted = world
                    .storage()
                    .delete_manifest(&repository, &image.digest, None, None);
                deleted.await.unwrap();
                if poll_times(push.as_mut(), more).await.is_some() {
                    break;
                }
            }
            let is_listed = async || world.tags("a").await.unwrap().contains(&"v1".to_owned());
            let was_listed = is_listed().await;
            let is_read = world.storage().get_manifest(&repository, &by_tag).await.is_ok();
            assert_eq!(is_listed().await, is_read, "{cut} and {more} calls");
            dead += u32::from(was_listed && !is_read);
        }
        if is_whole {
            break;
        }
    }
    assert!(is_whole && dead > 0, "{dead} tags were left");
}
