//! The way back in a bucket: what the store has is written into the tree beside it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use registry_core::Digest;
use registry_core::storage::{BlobStorage as _, ManifestStorage as _};
use registry_storage::distribution::{
    AdoptOptions, Adoption, ExportInPlaceError as Refused, ExportInPlaceReport, adopt_in_place, adoption,
    export_in_place, release,
};
use registry_storage::{MaintenanceObserver, ObjectStoreBackend, Step, Store};

use crate::fixture::{Old, SMALL, content, expect_sound, get, name, repositories, sha256, tag};
use crate::in_bucket::{Bucket, ROOT, adopt, collect_and_sweep, images, layers, manifest};
use crate::served::{Registry, change, expected, push_image, served, walk};

impl Bucket {
    fn walk(&self) -> Registry {
        walk(&self.tree())
    }

    /// Runs an adoption or an export. The bucket's clock reaches another second with each write of the record of the adoption. Returns the
    /// requests too.
    pub(crate) async fn ticking<T>(&self, work: impl Future<Output = T>) -> (T, Vec<String>) {
        let mut all = Vec::new();
        let result = {
            let seen = &mut all;
            let ticks = async {
                loop {
                    let new = self.double.faults().take_seen();
                    if new.iter().any(|request| is_record(request)) {
                        self.double.pass(Duration::from_secs(1));
                    }
                    seen.extend(new);
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                biased;
                result = work => result,
                () = ticks => unreachable!("it goes on for ever"),
            }
        };
        all.extend(self.double.faults().take_seen());
        (result, all)
    }

    async fn export(&self, store: &Store<ObjectStoreBackend>) -> Result<ExportInPlaceReport, Refused> {
        self.ticking(export_in_place(store, false, &())).await.0
    }

    /// Puts a copy of the tree into another bucket.
    async fn copy_of_tree(&self) -> Self {
        let copy = Self::of(&Old::new()).await;
        for (key, content) in self.tree() {
            copy.double
                .put(&format!("{ROOT}/docker/registry/v2/{key}"), content);
        }
        copy.double.pass(Duration::from_secs(1));
        copy
    }
}

fn is_record(request: &str) -> bool {
    request.starts_with("PUT") && request.contains("adoption")
}

/// Has a bucket with the images, and a store that adopted them and changed since. Returns all digests that there ever were.
async fn changed(bucket: &Bucket, store: &Store<ObjectStoreBackend>) -> Vec<Digest> {
    adopt(store).await;
    bucket.double.pass(Duration::from_secs(1));
    change(store).await
}

#[tokio::test]
async fn the_tree_has_what_the_store_has_and_nothing_else() {
    let bucket = Bucket::of(&images()).await;
    round_trip(&bucket, bucket.store()).await;
}

#[cfg(feature = "gcs")]
#[tokio::test]
async fn so_it_is_in_a_bucket_of_google() {
    let bucket = Bucket::of(&images()).await;
    let store = Store::new(bucket.double.gcs_backend(ROOT).unwrap());
    round_trip(&bucket, store).await;
}

#[tokio::test]
async fn so_it_is_in_a_bucket_that_keeps_no_condition() {
    let bucket = Bucket::of(&images()).await;
    bucket.double.faults().ignore_conditions();
    let backend = bucket.double.backend(ROOT).unwrap().deciding_conditions();
    round_trip(&bucket, Store::new(backend)).await;
}

async fn round_trip(bucket: &Bucket, store: Store<ObjectStoreBackend>) {
    let digests = changed(bucket, &store).await;
    let before = bucket.tree();
    let expected = expected(&store, &digests).await;
    drop(bucket.double.faults().take_seen());
    let (report, requests) = bucket.ticking(export_in_place(&store, false, &())).await;
    let report = report.unwrap();
    assert_eq!(bucket.walk(), expected);
    assert_eq!((report.repositories, report.manifests, report.tags), (4, 7, 5));
    assert_eq!(report.lost, 0);
    // The large layer and the two small blobs of four images, and one more.
    assert_eq!(report.copied, 13);
    assert!(report.written > 0 && report.deleted > 0, "{report:?}");
    let reads_bytes = |request: &&String| request.starts_with("GET") && request.contains("/bytes/");
    let read: Vec<_> = requests.iter().filter(reads_bytes).collect();
    // What has another digest is read to find the one that the tree needs.
    assert!(read.len() <= 1, "{read:?}");
    // Content is neither deleted nor written again.
    let after = bucket.tree();
    let content = before.iter().filter(|(key, _)| key.starts_with("blobs/"));
    for (key, content) in content {
        assert!(after.get(key) == Some(content), "{key}");
    }
    expect_sound(&store).await;

    // Once more, there is nothing to do.
    let (again, requests) = bucket.ticking(export_in_place(&store, false, &())).await;
    let again = again.unwrap();
    assert_eq!((again.copied, again.written, again.deleted), (0, 0, 0));
    let is_write = |request: &&String| !request.starts_with("GET") && !request.starts_with("HEAD");
    let others = requests
        .iter()
        .filter(is_write)
        .filter(|request| !is_record(request));
    assert_eq!(others.collect::<Vec<_>>(), [""; 0]);

    // Another store adopts the tree as it is.
    let copy = bucket.copy_of_tree().await;
    let other = copy.store();
    let (_, defects) = adopt(&other).await;
    assert!(defects.0.is_empty(), "{:?}", defects.0);
    expect_sound(&other).await;
    assert_eq!(served(&other, &digests).await, expected);

    // The tree can be given up at once.
    release(&store, false, &()).await.unwrap();
    collect_and_sweep(&store).await;
    expect_sound(&store).await;
    let refused = bucket.export(&store).await;
    assert!(matches!(refused, Err(Refused::Released(_))), "{refused:?}");
}

#[tokio::test]
async fn what_the_distribution_registry_gets_after_an_export_is_adopted_again() {
    let bucket = Bucket::of(&images()).await;
    let store = bucket.store();
    changed(&bucket, &store).await;
    bucket.export(&store).await.unwrap();
    assert!(matches!(adoption(&store).await.unwrap(), Adoption::Finished(_)));
    let pushed = bucket.push_to_old("app/0", "later", 20);
    let again = AdoptOptions::new().again(true);
    adopt_in_place(&store, &again, &()).await.unwrap();
    assert_eq!(get(&store, "app/0", "later").await.unwrap().bytes, pushed);
    // What was deleted before the export is gone in the tree too.
    get(&store, "app/0", "v1").await.unwrap_err();
    assert!(!repositories(&store).await.contains(&"app/3".to_owned()));
    expect_sound(&store).await;
}

/// The process is killed at some request. The distribution registry finds nothing broken then, and a repetition goes on.
#[tokio::test]
async fn an_export_may_end_at_any_request() {
    let whole = Bucket::of(&images()).await;
    let store = whole.store();
    changed(&whole, &store).await;
    let begun = whole.double.faults().requests();
    whole.export(&store).await.unwrap();
    let requests = whole.double.faults().requests() - begun;
    for at in (0..requests).step_by(23) {
        let bucket = Bucket::of(&images()).await;
        let store = bucket.store();
        let digests = changed(&bucket, &store).await;
        let end = bucket.double.faults().requests() + at;
        let stop = async {
            while bucket.double.faults().requests() < end {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            exported = bucket.export(&store) => drop(exported.unwrap()),
            () = stop => {}
        }
        let (before, here) = (bucket.walk(), expected(&store, &digests).await);
        for (repository, served) in &before {
            for tag in served.tags.keys() {
                let is_here = here
                    .get(repository)
                    .is_some_and(|here| here.tags.contains_key(tag));
                assert!(is_here || *tag == "v1", "{repository}:{tag}");
            }
        }
        let next = bucket.store();
        bucket.export(&next).await.unwrap();
        assert_eq!(bucket.walk(), here, "{at}");
        expect_sound(&next).await;
    }
}

#[tokio::test]
async fn a_server_may_push_meanwhile() {
    let bucket = Bucket::of(&images()).await;
    let store = bucket.store();
    let mut digests = changed(&bucket, &store).await;
    let other = bucket.store();
    let pushes = async {
        for seed in 30..36 {
            digests.push(push_image(&other, "app/1", "v1", seed).await);
            digests.extend(layers(seed).iter().map(|layer| sha256(layer)));
            digests.push(sha256(&content(seed, SMALL)));
            let moved = tag("v1");
            if seed == 33 {
                other.delete_tag(&name("app/1"), &moved, None).await.unwrap();
            }
        }
    };
    let (exported, ()) = tokio::join!(bucket.export(&store), pushes);
    exported.unwrap();
    bucket.walk();
    // The next one finds what moved since, and knows its own links.
    bucket.export(&store).await.unwrap();
    assert_eq!(bucket.walk(), expected(&store, &digests).await);
}

#[tokio::test]
async fn nothing_that_was_never_taken_is_lost() {
    let bucket = Bucket::of(&images()).await;
    let store = bucket.store();
    let refused = bucket.export(&store).await;
    assert!(matches!(refused, Err(Refused::NotAdopted)), "{refused:?}");
    changed(&bucket, &store).await;
    let before = bucket.tree();
    // A tag that moved here too, and a repository.
    let moved = bucket.push_to_old("app/1", "v1", 40);
    let came = bucket.tree();
    assert!(came != before);
    let refused = bucket.export(&store).await;
    assert!(matches!(refused, Err(Refused::Newer { .. })), "{refused:?}");
    assert!(bucket.tree() == came, "nothing was written");
    let again = AdoptOptions::new().again(true);
    adopt_in_place(&store, &again, &()).await.unwrap();
    let moved = get(&store, "app/1", sha256(&moved).as_str()).await;
    assert!(moved.is_ok(), "{moved:?}");
    bucket.double.pass(Duration::from_secs(1));
    bucket.export(&store).await.unwrap();
    expect_sound(&store).await;
}

/// The distribution registry was stopped just before it was adopted.
#[tokio::test]
async fn what_was_pushed_in_the_second_of_the_adoption_is_known() {
    let bucket = Bucket::of(&images()).await;
    bucket.put_link("app/0", b"pushed just now");
    let store = bucket.store();
    let options = AdoptOptions::new();
    let (adopted, _) = bucket.ticking(adopt_in_place(&store, &options, &())).await;
    adopted.unwrap();
    store
        .delete_blob(&name("app/0"), &sha256(b"pushed just now"), None)
        .await
        .unwrap();
    assert_eq!(bucket.export(&store).await.unwrap().deleted, 1);
}

/// A distribution registry that is not stopped pushes once during an export.
struct Pushes<'b>(&'b Bucket, &'static str, AtomicBool);

impl MaintenanceObserver for Pushes<'_> {
    fn step(&self, step: Step, done: u64, _: Option<u64>) {
        if step == Step::Links && done > 0 && !self.2.swap(true, Ordering::Relaxed) {
            self.0.push_to_old(self.1, "v9", 50);
        }
    }
}

#[tokio::test]
async fn what_comes_during_an_export_stays_and_is_told() {
    for repository in ["aaa", "app/1", "app/3", "zzz"] {
        let bucket = Bucket::of(&images()).await;
        let store = bucket.store();
        changed(&bucket, &store).await;
        let pushes = Pushes(&bucket, repository, AtomicBool::new(false));
        let (refused, _) = bucket.ticking(export_in_place(&store, false, &pushes)).await;
        assert!(matches!(refused, Err(Refused::Newer { .. })), "{refused:?}");
        assert!(bucket.walk()[repository].tags.contains_key("v9"), "{repository}");
        let refused = release(&store, false, &()).await;
        assert!(refused.is_err(), "{refused:?}");
        let again = AdoptOptions::new().again(true);
        adopt_in_place(&store, &again, &()).await.unwrap();
        get(&store, repository, "v9").await.unwrap();
    }
}

#[tokio::test]
async fn what_was_broken_is_deleted_only_on_demand() {
    let bucket = Bucket::of(&images()).await;
    let encoded = "0".repeat(64);
    let broken = format!("repositories/app/0/_layers/sha256/{encoded}/link");
    // It is no digest, so nobody sees it.
    let odd = "repositories/app/0/_layers/sha256/odd/link".to_owned();
    for (key, text) in [(&broken, encoded.as_str()), (&odd, "odd")] {
        let key = format!("{ROOT}/docker/registry/v2/{key}");
        bucket
            .double
            .put(&key, format!("sha256:{text}").into_bytes().into());
    }
    let store = bucket.store();
    bucket.double.pass(Duration::from_secs(1));
    changed(&bucket, &store).await;
    let refused = bucket.export(&store).await;
    assert!(matches!(refused, Err(Refused::Partial)), "{refused:?}");
    assert!(bucket.tree().contains_key(&broken));
    bucket
        .ticking(export_in_place(&store, true, &()))
        .await
        .0
        .unwrap();
    assert!(!bucket.tree().contains_key(&broken));
    assert!(bucket.tree().contains_key(&odd));
}

#[tokio::test]
async fn a_bucket_without_a_tree_gets_one() {
    let bucket = Bucket::of(&Old::new()).await;
    let store = bucket.store();
    let refused = bucket.export(&store).await;
    assert!(matches!(refused, Err(Refused::Empty)), "{refused:?}");
    assert_eq!(adoption(&store).await.unwrap(), Adoption::NotBegun);
    push_image(&store, "own", "v1", 60).await;
    bucket.export(&store).await.unwrap();
    let found = bucket.walk();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["own"]);
    assert_eq!(found["own"].tags["v1"], sha256(&manifest(60)));
    // A start has nothing to adopt, and what comes is taken.
    assert!(matches!(adoption(&store).await.unwrap(), Adoption::Finished(_)));
    let pushed = bucket.push_to_old("own", "v2", 61);
    let again = AdoptOptions::new().again(true);
    adopt_in_place(&store, &again, &()).await.unwrap();
    assert_eq!(get(&store, "own", "v2").await.unwrap().bytes, pushed);
    expect_sound(&store).await;
}

/// A blob whose content is lost is served neither here nor there. The tree keeps its link, for a push that heals it.
#[tokio::test]
async fn lost_content_is_counted() {
    let bucket = Bucket::of(&images()).await;
    let store = bucket.store();
    adopt(&store).await;
    let lost = sha256(&layers(0)[0]);
    let encoded = lost.parts().1;
    bucket.double.lose(&format!(
        "{ROOT}/docker/registry/v2/blobs/sha256/{}/{encoded}/",
        &encoded[..2]
    ));
    let report = bucket.export(&store).await.unwrap();
    assert_eq!(report.lost, 1);
    let link = format!("repositories/app/0/_layers/sha256/{encoded}/link");
    assert!(bucket.tree().contains_key(&link));
}

/// Exports, and does something else at a request of it.
async fn export_and_meanwhile<T>(
    bucket: &Bucket,
    store: &Store<ObjectStoreBackend>,
    at: u64,
    meanwhile: impl Future<Output = T>,
) -> (Result<ExportInPlaceReport, Refused>, Option<T>) {
    let end = bucket.double.faults().requests() + at;
    let stop = async {
        while bucket.double.faults().requests() < end {
            tokio::task::yield_now().await;
        }
    };
    let mut exporting = std::pin::pin!(bucket.export(store));
    tokio::select! {
        biased;
        exported = &mut exporting => return (exported, None),
        () = stop => {}
    }
    let done = meanwhile.await;
    (exporting.await, Some(done))
}

/// Its blobs are not in the list that was read before, or are linked there and would be deleted.
#[tokio::test]
async fn an_image_that_is_pushed_at_any_moment_comes_whole_or_not_at_all() {
    for at in (0..).step_by(17) {
        let bucket = Bucket::of(&images()).await;
        let (store, other) = (bucket.store(), bucket.store());
        changed(&bucket, &store).await;
        let push = push_image(&other, "app/1", "late", 60);
        let (exported, pushed) = export_and_meanwhile(&bucket, &store, at, push).await;
        exported.unwrap();
        bucket.walk();
        if pushed.is_none() {
            return;
        }
    }
}

#[tokio::test]
async fn content_that_was_damaged_in_the_tree_is_replaced() {
    let bucket = Bucket::of(&images()).await;
    let store = bucket.store();
    adopt(&store).await;
    let [large, ..] = layers(40);
    let mut damaged = large.clone();
    damaged[0] ^= 1;
    let digest = sha256(&large);
    let encoded = digest.parts().1;
    let key = format!(
        "{ROOT}/docker/registry/v2/blobs/sha256/{}/{encoded}/data",
        &encoded[..2]
    );
    bucket.double.put(&key, damaged.into());
    bucket.double.pass(Duration::from_secs(1));
    push_image(&store, "app/1", "v2", 40).await;
    bucket.export(&store).await.unwrap();
    bucket.walk();
}

#[tokio::test]
async fn an_export_beside_an_adoption_says_that_it_may_be_wrong() {
    let bucket = Bucket::of(&images()).await;
    let (store, other) = (bucket.store(), bucket.store());
    changed(&bucket, &store).await;
    bucket.double.pass(Duration::from_secs(1));
    let options = AdoptOptions::new().again(true);
    let adoption = Box::pin(adopt_in_place(&other, &options, &()));
    let (exported, adopted) = export_and_meanwhile(&bucket, &store, 40, adoption).await;
    adopted.unwrap().unwrap();
    assert!(matches!(exported, Err(Refused::Overtaken)), "{exported:?}");
    bucket.export(&store).await.unwrap();
    bucket.walk();
}

#[tokio::test]
async fn a_release_beside_an_export_can_be_repeated() {
    let bucket = Bucket::of(&images()).await;
    let (store, other) = (bucket.store(), bucket.store());
    let digests = changed(&bucket, &store).await;
    let before = served(&store, &digests).await;
    let releasing = Box::pin(release(&other, false, &()));
    let (exported, _) = export_and_meanwhile(&bucket, &store, 60, releasing).await;
    assert!(matches!(exported, Err(Refused::Released(_))), "{exported:?}");
    release(&other, false, &()).await.unwrap();
    let links = bucket.tree().into_keys().filter(|key| key.ends_with("/link"));
    assert_eq!(links.count(), 0);
    assert_eq!(served(&store, &digests).await, before);
    expect_sound(&store).await;
}
