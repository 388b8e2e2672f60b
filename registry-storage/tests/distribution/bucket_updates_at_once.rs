//! What a start takes of the tree in a bucket while others work on it: replicas, the collector, an export; and after a kill.

use std::time::Duration;

use registry_storage::distribution::{
    AdoptError, AdoptOptions, AdoptReport, Adoption, adopt_in_place, adoption, export_in_place,
    update_in_place,
};
use registry_storage::{
    CollectOptions, Maintenance as _, MaintenanceObserver, ObjectStoreBackend, Step, Store,
};
use tokio::sync::Notify;

use crate::bucket_updates::{adopted_and_deleted, delete, expect_gone, expect_nothing_new, updated};
use crate::exports::put_manifest;
use crate::fixture::{Old, SMALL, content, expect_sound, get, image, read, repositories, sha256};
use crate::in_bucket::{Bucket, adopt, collect_and_sweep, layers, manifest};

#[tokio::test]
async fn two_replicas_may_start_at_once() {
    let (bucket, one) = adopted_and_deleted().await;
    let other = bucket.store();
    let pushed: Vec<_> = (20..24)
        .map(|seed| bucket.push_to_old(&format!("app/{seed}"), "v1", seed))
        .collect();
    let (first, second) = tokio::join!(update_in_place(&one, &()), update_in_place(&other, &()));
    let manifests =
        [first.unwrap(), second.unwrap()].map(|report| report.map_or(0, |report| report.manifests));
    assert!(manifests.iter().sum::<u64>() >= 4, "{manifests:?}");
    for store in [&one, &other] {
        for (seed, pushed) in (20..24).zip(&pushed) {
            assert_eq!(
                get(store, &format!("app/{seed}"), "v1").await.unwrap().bytes,
                *pushed
            );
        }
        expect_gone(store, "app/0", &manifest(0)).await;
        expect_nothing_new(&bucket, store).await;
    }
    collect_and_sweep(&one).await;
    expect_sound(&other).await;
}

/// Waits in an update before anything is taken.
#[derive(Default)]
struct Pause(Notify);

impl MaintenanceObserver for Pause {
    fn adopted(&self, _: &AdoptReport) {
        self.0.notify_one();
    }
}

/// A replica is slow. Another one is done, and what it brought is deleted again.
#[tokio::test]
async fn a_slow_replica_brings_nothing_back() {
    let (bucket, one) = adopted_and_deleted().await;
    let slow = bucket.store();
    let new = bucket.push_to_old("app/new", "v1", 9);
    let pause = Pause::default();
    let mut updating = std::pin::pin!(update_in_place(&slow, &pause));
    tokio::select! {
        biased;
        () = pause.0.notified() => {}
        updated = &mut updating => panic!("{updated:?}"),
    }
    assert_eq!(updated(&one).await.0.manifests, 1);
    delete(&one, "app/new", &new).await;
    collect_and_sweep(&one).await;
    let report = updating.await.unwrap().unwrap();
    assert_eq!((report.manifests, report.grants), (0, 0));
    expect_gone(&one, "app/new", &new).await;
    expect_sound(&one).await;
    expect_nothing_new(&bucket, &one).await;
}

/// A process is killed at some request of an update, and another one continues: with the next start, or with a command.
#[tokio::test]
async fn an_update_may_end_at_any_request() {
    let requests = {
        let (bucket, store) = adopted_and_deleted().await;
        bucket.push_to_old("app/new", "v1", 9);
        let begun = bucket.double.faults().requests();
        updated(&store).await;
        bucket.double.faults().requests() - begun
    };
    let mut unfinished = 0;
    for at in (0..requests).step_by(5) {
        let (bucket, dies) = adopted_and_deleted().await;
        let new = bucket.push_to_old("app/new", "v1", 9);
        let last = bucket.double.faults().requests() + at;
        let stop = async {
            while bucket.double.faults().requests() < last {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            updated = update_in_place(&dies, &()) => drop(updated.unwrap()),
            () = stop => {}
        }
        drop(dies);
        let next = bucket.store();
        // What runs beside it takes nothing away.
        collect_and_sweep(&next).await;
        let is_unfinished = matches!(adoption(&next).await.unwrap(), Adoption::Updating(_));
        unfinished += u64::from(is_unfinished);
        match is_unfinished && at % 2 == 1 {
            true => drop(adopt(&next).await),
            false => drop(update_in_place(&next, &()).await.unwrap()),
        }
        assert_eq!(get(&next, "app/new", "v1").await.unwrap().bytes, new, "{at}");
        expect_gone(&next, "app/0", &manifest(0)).await;
        expect_sound(&next).await;
        expect_nothing_new(&bucket, &next).await;
    }
    assert!(unfinished > 3, "{unfinished}");
}

/// Begins an update, which ends as by a kill.
async fn begin_and_stop(store: &Store<ObjectStoreBackend>) {
    let pause = Pause::default();
    tokio::select! {
        biased;
        () = pause.0.notified() => {}
        updated = update_in_place(store, &pause) => panic!("{updated:?}"),
    }
}

/// What comes after a killed update, and is deleted once the next start has taken it, does not come back either.
#[tokio::test]
async fn an_update_that_was_continued_knows_all_that_it_took() {
    let (bucket, store) = adopted_and_deleted().await;
    bucket.push_to_old("app/new", "v1", 9);
    begin_and_stop(&store).await;
    assert!(matches!(adoption(&store).await.unwrap(), Adoption::Updating(_)));
    bucket.double.pass(Duration::from_secs(86_400));
    let late = bucket.push_to_old("app/late", "v1", 10);
    assert_eq!(updated(&store).await.0.manifests, 2);
    delete(&store, "app/late", &late).await;
    expect_nothing_new(&bucket, &store).await;
    expect_gone(&store, "app/late", &late).await;
}

#[tokio::test]
async fn adopting_again_compares_everything_even_after_a_killed_update() {
    let (bucket, store) = adopted_and_deleted().await;
    bucket.push_to_old("app/new", "v1", 9);
    begin_and_stop(&store).await;
    let again = AdoptOptions::new().again(true);
    let report = adopt_in_place(&store, &again, &()).await.unwrap();
    assert_eq!(report.manifests, 2);
    assert_eq!(get(&store, "app/0", "v1").await.unwrap().bytes, manifest(0));
    expect_nothing_new(&bucket, &store).await;
}

/// Ends an export, as kill -9 does, once it has written tags.
struct Killed<'b>(&'b Bucket, Notify);

impl MaintenanceObserver for Killed<'_> {
    fn step(&self, _: Step, _: u64, _: Option<u64>) {
        let tree = self.0.tree();
        if tree.contains_key("repositories/app/0/_manifests/tags/mine/current/link") {
            self.1.notify_one();
        }
    }
}

/// Its links are newer than the adoption. What was deleted here since is no push to the distribution registry.
#[tokio::test]
async fn the_links_of_an_export_bring_nothing_back() {
    let (bucket, store) = adopted_and_deleted().await;
    let mine = image(&content(0, SMALL), &layers(0)[2..], "");
    put_manifest(&store, "app/0", "mine", &mine).await;
    let killed = Killed(&bucket, Notify::new());
    tokio::select! {
        biased;
        () = killed.1.notified() => {}
        exported = export_in_place(&store, false, &killed) => panic!("{exported:?}"),
    }
    bucket.double.pass(Duration::from_secs(1));
    assert_eq!(update_in_place(&store, &()).await.unwrap(), None);
    delete(&store, "app/0", &mine).await;
    let refused = update_in_place(&store, &()).await;
    assert!(
        matches!(&refused, Err(AdoptError::Exporting { key, .. }) if key.contains("/app/0/")),
        "{refused:?}"
    );
    expect_gone(&store, "app/0", &mine).await;
    let again = AdoptOptions::new().again(true);
    adopt_in_place(&store, &again, &()).await.unwrap();
    expect_nothing_new(&bucket, &store).await;

    // After one that ended, it goes on as after an adoption.
    let (exported, _) = bucket.ticking(export_in_place(&store, false, &())).await;
    assert_eq!(exported.unwrap().repositories, 4);
    delete(&store, "app/0", &mine).await;
    expect_nothing_new(&bucket, &store).await;
    bucket.double.pass(Duration::from_secs(1));
    let new = bucket.push_to_old("app/new", "v1", 9);
    assert_eq!(updated(&store).await.0.manifests, 1);
    assert_eq!(get(&store, "app/new", "v1").await.unwrap().bytes, new);
    expect_gone(&store, "app/0", &mine).await;
    assert!(repositories(&store).await.contains(&"app/new".to_owned()));
}

/// Waits once the blobs are taken, and their manifests are not.
#[derive(Default)]
struct TookBlobs(Notify);

impl MaintenanceObserver for TookBlobs {
    fn adopted(&self, report: &AdoptReport) {
        if report.links_done > 0 {
            self.0.notify_one();
        }
    }
}

/// A cycle of another replica began before the update, and is anywhere. What was deleted here is condemned by then, in part or whole,
/// or gone.
#[tokio::test]
async fn a_cycle_of_the_collector_takes_nothing_away() {
    for cycles in 1..=4 {
        let mut requests = 0;
        while takes_while_collecting(cycles, requests).await {
            requests += 10;
        }
        assert!(requests > 30, "{requests}");
    }
}

/// Takes an image while a cycle goes on that was at some request when the update began. Returns `false` if it had ended.
async fn takes_while_collecting(cycles: usize, requests: u64) -> bool {
    let options = CollectOptions::new()
        .grace(Duration::ZERO)
        .full(true)
        .forget_deleted(true);
    let (bucket, store) = adopted_and_deleted().await;
    let other = bucket.store();
    for _ in 0..cycles {
        other.collect(&options, &()).await.unwrap();
    }
    let last = bucket.double.faults().requests() + requests;
    let mut cycle = std::pin::pin!(other.collect(&options, &()));
    let stop = async {
        while bucket.double.faults().requests() < last {
            tokio::task::yield_now().await;
        }
    };
    let goes_on = tokio::select! {
        biased;
        () = stop => true,
        collected = &mut cycle => { collected.unwrap(); false }
    };
    let old = Old::new();
    old.push_manifest("app/0", &["v1"], &manifest(0));
    bucket.put_all(&old);
    let pause = TookBlobs::default();
    let mut updating = std::pin::pin!(update_in_place(&store, &pause));
    tokio::select! {
        biased;
        () = pause.0.notified() => {}
        updated = &mut updating => panic!("{updated:?}"),
    }
    if goes_on {
        cycle.await.unwrap();
    }
    updating.await.unwrap();
    for layer in layers(0) {
        let read = read(&store, "app/0", &sha256(&layer)).await;
        assert_eq!(
            read.unwrap(),
            layer,
            "after {cycles} cycles and {requests} requests"
        );
    }
    expect_sound(&store).await;
    goes_on
}
