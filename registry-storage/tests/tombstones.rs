//! What was deleted in a bucket leaves no record, if the bucket deletes on condition, and costs no cycle of the collector otherwise.
//! Cycles that are cut off, time and again, free what nothing names.
#![expect(clippy::unwrap_used, reason = "test code")]

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use registry_core::Timestamp;
use registry_storage::testing::faulty::Fault;
use registry_storage::testing::{Faulty, S3Double};
use registry_storage::{
    Backend, Clock, CollectOptions, Maintenance as _, ObjectStoreBackend, Store, StoreOptions,
};

use crate::support::images::{push_blob, push_image};
use crate::support::world::{World, world};

const DAY: Duration = Duration::from_hours(24);
const LARGE: usize = 20_000;

/// The size of a record modulo 8 that is Dead.
const DEAD: usize = 4;

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
    world.assert_sound("at the end").await;
    // What was deleted can be pushed again, and is collected again.
    live(&world).await;
    assert_eq!(tombstones(&double), Vec::<String>::new());
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
