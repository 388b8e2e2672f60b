//! A tree in a bucket: adopted where it is, by one or several, after a kill, again; and released.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use registry_core::storage::{BlobStorage as _, ManifestStorage as _};
use registry_core::{Algorithm, Digest, ErrorCode};
use registry_storage::distribution::{
    AdoptError, AdoptOptions, AdoptReport, Adoption, DefectKind as Kind, ReleaseError, adopt_in_place,
    adoption, has_tree, release, survey_in_place,
};
use registry_storage::testing::Observed;
use registry_storage::{
    Maintenance as _, MaintenanceObserver, ObjectStoreBackend, Step, Store, SweepOptions,
};
use tokio::sync::Notify;

use crate::exports::put_manifest;
use crate::fixture::{
    LARGE, Old, SMALL, content, expect_sound, get, image, index, name, read, repositories, sha256, tag, tags,
};
use crate::in_bucket::{
    Bucket, IMAGES, ROOT, adopt, collect_and_sweep, expect_images, images, layers, manifest, push_blob,
};

#[tokio::test]
async fn a_bucket_is_adopted_and_its_bytes_stay_where_they_are() {
    let old = Old::new();
    let first = old.push_image("library/alpine", "latest", 1);
    old.push_image("library", "v1", 2);
    // In the order of keys, digits come between a repository's name and its own folders.
    old.push_image("library/1", "v1", 3);
    let shared = content(10_001, LARGE + 1);
    old.push_blob("other/name", &shared);
    let third = image(&content(4, SMALL), std::slice::from_ref(&shared), "");
    old.push_blob("other/name", &content(4, SMALL));
    old.push_manifest("other/name", &[], &third);
    let list = index(std::slice::from_ref(&third), "");
    old.push_manifest("other/name", &["a", "b"], &list);
    let upload = old.repository("library").join("_uploads/11111111-2222");
    std::fs::create_dir_all(&upload).unwrap();
    std::fs::write(upload.join("startedat"), "now").unwrap();
    let bucket = Bucket::of(&old).await;
    let before = bucket.tree();

    let store = bucket.store();
    assert!(has_tree(&store).await.unwrap());
    assert_eq!(adoption(&store).await.unwrap(), Adoption::NotBegun);
    let surveyed = survey_in_place(&store, &AdoptOptions::new(), &()).await.unwrap();
    let (report, defects) = adopt(&store).await;
    assert!(defects.0.is_empty(), "{:?}", defects.0);
    assert_eq!(surveyed.report, report);
    assert_eq!(
        (report.repositories, report.repositories_done, report.uploads),
        (4, 4, 1)
    );
    assert_eq!((report.manifests, report.tags), (5, 5));
    assert_eq!((report.blobs, report.grants), (10, 11));
    assert_eq!((report.links, report.links_done), (16, 16));
    assert!(matches!(adoption(&store).await.unwrap(), Adoption::Finished(_)));

    assert_eq!(
        repositories(&store).await,
        ["library", "library/1", "library/alpine", "other/name"]
    );
    assert_eq!(tags(&store, "other/name").await, ["a", "b"]);
    assert_eq!(
        get(&store, "library/alpine", "latest").await.unwrap().bytes,
        first
    );
    for (repository, content) in [("other/name", &shared), ("library", &content(20_002, SMALL))] {
        assert_eq!(
            read(&store, repository, &sha256(content)).await.unwrap(),
            *content
        );
    }
    expect_sound(&store).await;
    collect_and_sweep(&store).await;
    expect_sound(&store).await;
    assert!(bucket.tree() == before);
    let objects = bucket.double.objects();
    let copies = objects.keys().filter(|key| key.starts_with("root/bytes/"));
    assert_eq!(copies.count(), 0, "no byte was sent");

    let again = adopt_in_place(&store, &AdoptOptions::new(), &()).await;
    assert!(matches!(again, Err(AdoptError::Finished(_))), "{again:?}");
    let again = adopt_in_place(&store, &AdoptOptions::new().again(true), &())
        .await
        .unwrap();
    assert!(again.is_empty(), "{again:?}");
}

#[tokio::test]
async fn what_came_since_is_adopted_again_and_the_newer_tag_wins() {
    let old = Old::new();
    old.push_image("app", "v1", 1);
    let bucket = Bucket::of(&old).await;
    let store = bucket.store();
    adopt(&store).await;
    let second = old.push_image("app", "v2", 2);
    let moved = old.push_image("app", "v1", 3);
    old.push_image("app", "own", 4);
    bucket.put_all(&old);
    // By the clock of this machine, which is years later.
    let own = image(&content(5, SMALL), &[], "");
    put_manifest(&store, "app", "own", &own).await;
    let again = AdoptOptions::new().again(true);
    let report = adopt_in_place(&store, &again, &()).await.unwrap();
    assert_eq!((report.manifests, report.blobs), (3, 9));
    assert_eq!(get(&store, "app", "v2").await.unwrap().bytes, second);
    assert_eq!((report.tags, report.kept_tags), (2, 1));
    assert_eq!(get(&store, "app", "v1").await.unwrap().bytes, moved);
    assert_eq!(get(&store, "app", "own").await.unwrap().bytes, own);
}

#[tokio::test]
async fn a_store_with_content_of_its_own_is_not_mixed_up_without_being_asked() {
    let old = Old::new();
    old.push_image("app", "v1", 1);
    let bucket = Bucket::of(&old).await;
    let store = bucket.store();
    push_blob(&store, "own", &content(5, SMALL)).await;
    assert_eq!(adoption(&store).await.unwrap(), Adoption::OwnContent);
    let refused = adopt_in_place(&store, &AdoptOptions::new(), &()).await;
    assert!(matches!(refused, Err(AdoptError::OwnContent)), "{refused:?}");
    let again = AdoptOptions::new().again(true);
    let report = adopt_in_place(&store, &again, &()).await.unwrap();
    assert_eq!(report.manifests, 1);
    expect_sound(&store).await;
}

#[tokio::test]
async fn what_is_broken_is_reported_as_in_a_folder() {
    let old = Old::new();
    old.push_image("app", "v1", 1);
    let whole = old.push_image("app", "whole", 2);
    old.push_image("app", "gone", 3);
    let put = |path: std::path::PathBuf, content: &str| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    // Of image 1, the large layer has no content, and the small one is cut off.
    std::fs::remove_file(old.data(&sha256(&content(10_001, LARGE + 1)))).unwrap();
    put(old.data(&sha256(&content(20_001, SMALL))), "cut");
    // Image 3 has no manifest.
    let layers = [content(10_003, LARGE + 3), content(20_003, SMALL)];
    let third = sha256(&image(&content(3, SMALL), &layers, ""));
    std::fs::remove_file(old.data(&third)).unwrap();
    put(old.layer("app", &sha256(b"a")), "");
    put(old.layer("app", &sha256(b"b")), "no digest");
    put(old.layer("app", &sha256(b"c")), sha256(b"d").as_str());
    put(old.tag("app", "empty"), "");
    put(old.repository("app").join("_layers/md5/0/link"), "md5:0");
    put(old.repository("app").join("_layers/sha256/00/link"), "sha256:00");
    put(
        old.repository("UPPER").join("_layers/sha256/00/link"),
        "sha256:00",
    );
    put(
        old.repository("app").join("_manifests/tags/-bad/current/link"),
        "x",
    );
    put(
        old.repository("app")
            .join("_manifests/tags/old/index/sha256/00/link"),
        "x",
    );
    let bucket = Bucket::of(&old).await;

    // The folder says the same.
    let on_disk = old.open().await;
    let (_, expected) = old.adopt(&on_disk).await;
    let store = bucket.store();
    let (report, defects) = adopt(&store).await;
    let mut texts: Vec<_> = defects.0.iter().map(|(_, text)| text.clone()).collect();
    let root = format!("{}/", old.root.path().display());
    let mut expected_texts: Vec<_> = expected
        .0
        .iter()
        .map(|(_, text)| text.replace(&root, "root/"))
        .collect();
    texts.sort();
    expected_texts.sort();
    assert_eq!(texts, expected_texts);
    assert_eq!(defects.kinds(), expected.kinds());
    assert!(report.defects[&Kind::BrokenLink] >= 5, "{:?}", report.defects);
    assert_eq!(get(&store, "app", "whole").await.unwrap().bytes, whole);

    let refused = release(&store, false, &()).await;
    assert!(matches!(refused, Err(ReleaseError::Partial)), "{refused:?}");
}

#[tokio::test]
async fn content_under_another_algorithm_is_copied() {
    let old = Old::new();
    old.push_image("app", "v1", 1);
    let large = content(8, LARGE);
    old.push_blob("app", &large);
    let other = Digest::of(Algorithm::Sha512, &large);
    let link = old.layer("app", &other);
    std::fs::create_dir_all(link.parent().unwrap()).unwrap();
    std::fs::write(link, sha256(&large).as_str()).unwrap();
    let bucket = Bucket::of(&old).await;
    let store = bucket.store();
    let (_, defects) = adopt(&store).await;
    assert!(defects.0.is_empty(), "{:?}", defects.0);
    for digest in [&other, &sha256(&large)] {
        assert_eq!(read(&store, "app", digest).await.unwrap(), large);
    }
    // The blob that has the bytes in the tree goes, and takes nothing from the other one.
    store
        .delete_blob(&name("app"), &sha256(&large), None)
        .await
        .unwrap();
    release(&store, false, &()).await.unwrap();
    store.sweep(&SweepOptions::new().full(true)).await.unwrap();
    assert_eq!(read(&store, "app", &other).await.unwrap(), large);
    expect_sound(&store).await;
}

/// The bucket fails from some request on, as for a process that is killed there; another process continues.
#[tokio::test]
async fn an_adoption_may_end_at_any_request() {
    let old = images();
    let whole = Bucket::of(&old).await;
    let begun = whole.double.faults().requests();
    adopt(&whole.store()).await;
    let requests = whole.double.faults().requests() - begun;
    for at in (0..requests).step_by(37) {
        let bucket = Bucket::of(&old).await;
        let (dies, options) = (bucket.store(), AdoptOptions::new());
        let stop = async {
            while bucket.double.faults().requests() < at {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            adopted = adopt_in_place(&dies, &options, &()) => drop(adopted.unwrap()),
            () = stop => {}
        }
        drop(dies);
        let next = bucket.store();
        // What runs beside it, in this process or another one, takes nothing away.
        collect_and_sweep(&next).await;
        if !matches!(adoption(&next).await.unwrap(), Adoption::Finished(_)) {
            adopt(&next).await;
        }
        expect_images(&next).await;
    }
}

async fn adopt_collect_and_release(store: &Store<ObjectStoreBackend>) {
    let (report, defects) = adopt(store).await;
    assert_eq!((report.manifests, defects.0.len()), (IMAGES as u64, 0));
    collect_and_sweep(store).await;
    expect_images(store).await;
    release(store, false, &()).await.unwrap();
    collect_and_sweep(store).await;
    expect_images(store).await;
}

#[cfg(feature = "gcs")]
#[tokio::test]
async fn a_bucket_of_google_is_adopted_and_released() {
    let bucket = Bucket::of(&images()).await;
    adopt_collect_and_release(&Store::new(bucket.double.gcs_backend(ROOT).unwrap())).await;
}

#[tokio::test]
async fn a_bucket_that_keeps_no_condition_is_adopted_and_released() {
    let bucket = Bucket::of(&images()).await;
    bucket.double.faults().ignore_conditions();
    let backend = bucket.double.backend(ROOT).unwrap().deciding_conditions();
    adopt_collect_and_release(&Store::new(backend)).await;
}

#[tokio::test]
async fn two_replicas_may_adopt_at_once() {
    let old = images();
    let bucket = Bucket::of(&old).await;
    let (one, other) = (bucket.store(), bucket.store());
    let options = AdoptOptions::new();
    let adopted = tokio::join!(
        adopt_in_place(&one, &options, &()),
        adopt_in_place(&other, &options, &())
    );
    let (first, second) = (adopted.0.unwrap(), adopted.1.unwrap());
    assert_eq!(first.manifests.max(second.manifests), IMAGES as u64);
    assert!(matches!(adoption(&one).await.unwrap(), Adoption::Finished(_)));
    collect_and_sweep(&one).await;
    expect_images(&other).await;
}

/// Waits in the middle of an adoption.
#[derive(Default)]
struct Pause {
    reports: AtomicUsize,
    reached: Notify,
}

impl MaintenanceObserver for Pause {
    fn adopted(&self, _: &AdoptReport) {
        if self.reports.fetch_add(1, Ordering::Relaxed) == 1 {
            self.reached.notify_one();
        }
    }
}

#[tokio::test]
async fn a_replica_that_starts_beside_an_adoption_takes_it_for_one() {
    let old = images();
    let bucket = Bucket::of(&old).await;
    let (one, other) = (bucket.store(), bucket.store());
    let pause = Pause::default();
    let options = AdoptOptions::new();
    tokio::select! {
        _ = adopt_in_place(&one, &options, &pause) => panic!("it was to be dropped"),
        () = pause.reached.notified() => {}
    }
    assert!(matches!(adoption(&other).await.unwrap(), Adoption::Begun(_)));
    adopt(&other).await;
    expect_images(&other).await;
}

#[tokio::test]
async fn deletes_leave_the_tree_alone_until_it_is_released() {
    let old = images();
    let bucket = Bucket::of(&old).await;
    let before = bucket.tree();
    let store = bucket.store();
    adopt(&store).await;
    let delete = async |seed: usize| {
        let repository = name(&format!("app/{seed}"));
        let reference = registry_core::Reference::Tag(tag("v1"));
        let manifest = store.get_manifest(&repository, &reference).await.unwrap();
        store
            .delete_manifest(&repository, &manifest.digest, None, None)
            .await
            .unwrap();
        sha256(&layers(seed)[0])
    };
    let first = delete(0).await;
    collect_and_sweep(&store).await;
    let gone = store.stat_blob(&name("app/0"), &first).await.unwrap_err();
    assert_eq!(gone.code(), ErrorCode::BlobUnknown);
    assert!(bucket.tree() == before, "the tree is still the other registry's");

    let report = release(&store, false, &()).await.unwrap();
    let own = (1..IMAGES).map(|seed| sha256(&layers(seed)[0]));
    let named: Vec<Digest> = own.chain([sha256(&content(77, LARGE))]).collect();
    let sorted = |mut digests: Vec<Digest>| {
        digests.sort();
        digests
    };
    assert_eq!(sorted(bucket.content_in_tree()), sorted(named.clone()));
    assert_eq!(report.kept, named.len() as u64);
    assert_eq!(
        report.deleted as usize + named.len(),
        before.keys().filter(|key| key.ends_with("/data")).count()
    );
    assert!(bucket.tree().keys().all(|key| key.starts_with("blobs/")));
    expect_sound(&store).await;

    // From now on, its bytes are like others.
    delete(1).await;
    collect_and_sweep(&store).await;
    assert_eq!(sorted(bucket.content_in_tree()), sorted(named[1..].to_vec()));
    expect_sound(&store).await;
    // A push of what is gone brings bytes of its own.
    let [large, ..] = layers(1);
    let digest = push_blob(&store, "app/1", &large).await;
    assert_eq!(read(&store, "app/1", &digest).await.unwrap(), large);
    assert_eq!(sorted(bucket.content_in_tree()), sorted(named[1..].to_vec()));

    let again = adopt_in_place(&store, &AdoptOptions::new().again(true), &()).await;
    assert!(matches!(again, Err(AdoptError::Released(_))), "{again:?}");
    assert_eq!(release(&store, false, &()).await.unwrap().deleted, 0);
}

#[tokio::test]
async fn a_release_loses_nothing_that_was_not_adopted() {
    let old = images();
    let bucket = Bucket::of(&old).await;
    let store = bucket.store();
    let refused = release(&store, false, &()).await;
    assert!(matches!(refused, Err(ReleaseError::NotAdopted)), "{refused:?}");
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    for time in [Duration::ZERO, 4 * YEAR] {
        let bucket = Bucket::of(&old).await;
        let store = bucket.store_at(time);
        adopt(&store).await;
        // In the same second, so nobody knows whether the adoption saw it.
        bucket.put_link("late", b"pushed to the distribution registry");
        let refused = release(&store, false, &()).await;
        assert!(matches!(refused, Err(ReleaseError::Newer { .. })), "{refused:?}");
        bucket.double.pass(Duration::from_secs(1));
        let again = AdoptOptions::new().again(true);
        adopt_in_place(&store, &again, &()).await.unwrap();
        release(&store, false, &()).await.unwrap();
        expect_images(&store).await;
    }
}

/// A distribution registry that is not stopped pushes during a release.
struct Pushes<'b>(&'b Bucket, &'static str);

impl MaintenanceObserver for Pushes<'_> {
    fn step(&self, step: Step, _: u64, _: Option<u64>) {
        if step == Step::Links {
            self.0.put_link(self.1, b"pushed meanwhile");
        }
    }
}

#[tokio::test]
async fn a_release_deletes_nothing_that_comes_meanwhile() {
    let old = images();
    for repository in ["aaa", "zzz"] {
        let bucket = Bucket::of(&old).await;
        let store = bucket.store();
        adopt(&store).await;
        for _ in 0..2 {
            let refused = release(&store, false, &Pushes(&bucket, repository)).await;
            assert!(
                matches!(refused, Err(ReleaseError::WrittenSince { .. })),
                "{refused:?}"
            );
            let content = bucket.content_in_tree();
            assert!(content.contains(&sha256(b"pushed meanwhile")), "{content:?}");
            let links: Vec<_> = bucket
                .tree()
                .into_keys()
                .filter(|key| key.ends_with("/link"))
                .collect();
            assert_eq!(links.len(), 1, "{links:?}");
        }
        expect_images(&store).await;
    }
}

/// Waits once something broken was found.
struct FoundBroken(Notify);

impl MaintenanceObserver for FoundBroken {
    fn adopted(&self, report: &AdoptReport) {
        if !report.defects.is_empty() {
            self.0.notify_one();
        }
    }
}

#[tokio::test]
async fn what_one_of_two_replicas_left_out_forbids_a_release() {
    let bucket = Bucket::of(&images()).await;
    let lost = sha256(&layers(0)[0]);
    let key = format!("{ROOT}/docker/registry/v2/blobs/sha256/{}", &lost.parts().1[..2]);
    let before = bucket.double.objects();
    bucket.double.lose(&key);
    let (one, other) = (bucket.store(), bucket.store());
    let found = FoundBroken(Notify::new());
    let options = AdoptOptions::new();
    let mut slow = std::pin::pin!(adopt_in_place(&one, &options, &found));
    tokio::select! {
        biased;
        () = found.0.notified() => {}
        adopted = &mut slow => panic!("{adopted:?}"),
    }
    for (key, content) in before.into_iter().filter(|(found, _)| found.starts_with(&key)) {
        bucket.double.put(&key, content);
    }
    let (report, _) = adopt(&other).await;
    assert!(report.defects.is_empty(), "{:?}", report.defects);
    slow.await.unwrap();
    let refused = release(&other, false, &()).await;
    assert!(matches!(refused, Err(ReleaseError::Partial)), "{refused:?}");
}

/// The adoption of a replica that was slow does not end the one that began since.
#[tokio::test]
async fn a_slow_adoption_finishes_no_later_one() {
    let old = images();
    let bucket = Bucket::of(&old).await;
    let (one, other) = (
        bucket.store_at(Duration::ZERO),
        bucket.store_at(Duration::from_secs(1)),
    );
    let pause = Pause::default();
    let options = AdoptOptions::new();
    let mut slow = std::pin::pin!(adopt_in_place(&one, &options, &pause));
    tokio::select! {
        biased;
        () = pause.reached.notified() => {}
        adopted = &mut slow => panic!("{adopted:?}"),
    }
    adopt(&other).await;
    old.push_image("aaa", "v1", 9);
    bucket.put_all(&old);
    let (again, next) = (AdoptOptions::new().again(true), Pause::default());
    let mut later = std::pin::pin!(adopt_in_place(&other, &again, &next));
    tokio::select! {
        biased;
        () = next.reached.notified() => {}
        adopted = &mut later => panic!("{adopted:?}"),
    }
    slow.await.unwrap();
    let refused = release(&one, false, &()).await;
    assert!(matches!(refused, Err(ReleaseError::NotAdopted)), "{refused:?}");
    later.await.unwrap();
    release(&one, false, &()).await.unwrap();
}

/// A replica stops at any request of its adoption. Meanwhile another one finishes it, everything is deleted, and the tree is
/// released. Then the first one goes on: it names nothing of the tree any more.
#[tokio::test]
async fn nothing_of_a_released_tree_is_named() {
    let old = images();
    let mut refused = 0;
    for at in (0..).step_by(13) {
        let bucket = Bucket::of(&old).await;
        let (one, slow) = (bucket.store(), bucket.store());
        let options = AdoptOptions::new();
        let mut adopting = std::pin::pin!(adopt_in_place(&slow, &options, &()));
        let stop = async {
            while bucket.double.faults().requests() < at {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = stop => {}
            adopted = &mut adopting => {
                adopted.unwrap();
                break;
            }
        }
        // Its last request may have been the one that finishes it.
        if !matches!(adoption(&one).await.unwrap(), Adoption::Finished(_)) {
            adopt(&one).await;
        }
        for seed in 0..IMAGES {
            let repository = name(&format!("app/{seed}"));
            let digest = sha256(&manifest(seed));
            one.delete_manifest(&repository, &digest, None, None)
                .await
                .unwrap();
        }
        collect_and_sweep(&one).await;
        release(&one, false, &()).await.unwrap();
        collect_and_sweep(&one).await;
        assert_eq!(bucket.content_in_tree(), []);
        match adopting.await {
            Ok(_) => {}
            Err(AdoptError::Released(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        // A blob whose bytes are lost is what the check finds; a manifest that lacks one may be.
        let options = registry_storage::check::CheckOptions::new().settle(Duration::ZERO);
        let observed = Observed::default();
        one.check(&options, &observed).await.unwrap();
        for line in observed.lines() {
            assert!(
                line.contains("names what is not in the repository"),
                "{at}: {line}"
            );
        }
    }
    assert!(refused > 0, "no adoption came to know of the release");
}
