//! What the distribution registry writes into the tree in a bucket after it was adopted.

use std::time::Duration;

use registry_core::storage::ManifestStorage as _;
use registry_core::{Digest, ErrorCode, Reference};
use registry_storage::distribution::{
    AdoptError, AdoptOptions, AdoptReport, Adoption, DefectKind, ReleaseError, adopt_in_place, adoption,
    find_news, release, update_in_place,
};
use registry_storage::testing::Observed;
use registry_storage::testing::s3::S3Fault;
use registry_storage::{ObjectStoreBackend, Store};

use crate::exports::put_manifest;
use crate::fixture::{
    Defects, LARGE, Old, SMALL, content, expect_sound, get, image, index, name, read, sha256, tags,
};
use crate::in_bucket::{Bucket, ROOT, adopt, collect_and_sweep, images, layers, manifest};

/// After an adoption, one image was deleted here.
pub(crate) async fn adopted_and_deleted() -> (Bucket, Store<ObjectStoreBackend>) {
    let bucket = Bucket::of(&images()).await;
    let store = bucket.store();
    adopt(&store).await;
    delete(&store, "app/0", &manifest(0)).await;
    bucket.double.pass(Duration::from_secs(1));
    (bucket, store)
}

pub(crate) async fn delete(store: &Store<ObjectStoreBackend>, repository: &str, manifest: &[u8]) {
    store
        .delete_manifest(&name(repository), &sha256(manifest), None, None)
        .await
        .unwrap();
}

/// Updates the store, which has to find something new.
pub(crate) async fn updated(store: &Store<ObjectStoreBackend>) -> (AdoptReport, Defects) {
    let observed = Observed::default();
    let report = update_in_place(store, &observed).await.unwrap();
    (report.unwrap(), Defects::of(observed))
}

/// Looks once more, which only reads.
pub(crate) async fn expect_nothing_new(bucket: &Bucket, store: &Store<ObjectStoreBackend>) {
    drop(bucket.double.faults().take_seen());
    assert_eq!(update_in_place(store, &()).await.unwrap(), None);
    let seen = bucket.double.faults().take_seen();
    assert!(seen.len() < 4, "{seen:?}");
    assert!(seen.iter().all(|request| request.starts_with("GET ")), "{seen:?}");
}

pub(crate) async fn expect_gone(store: &Store<ObjectStoreBackend>, repository: &str, manifest: &[u8]) {
    for reference in [
        Reference::Digest(sha256(manifest)),
        Reference::Tag("v1".parse().unwrap()),
    ] {
        let found = store.get_manifest(&name(repository), &reference).await;
        let code = found.map(|found| found.digest).unwrap_err().code();
        assert!(
            matches!(code, ErrorCode::ManifestUnknown | ErrorCode::NameUnknown),
            "{code:?}"
        );
    }
}

#[tokio::test]
async fn a_look_finds_what_came_since() {
    let bucket = Bucket::of(&images()).await;
    let store = bucket.store();
    assert_eq!(find_news(&store).await.unwrap(), None);
    adopt(&store).await;
    assert_eq!(find_news(&store).await.unwrap(), None);
    // The same image once more is nothing new.
    bucket.put_all(&images());
    assert_eq!(find_news(&store).await.unwrap(), None);
    bucket.push_to_old("app/new", "v1", 9);
    let (link, _) = find_news(&store).await.unwrap().unwrap();
    assert!(
        link.starts_with("root/docker/registry/v2/repositories/app/new/_layers/"),
        "{link}"
    );
    let again = AdoptOptions::new().again(true);
    adopt_in_place(&store, &again, &()).await.unwrap();
    assert_eq!(find_news(&store).await.unwrap(), None);
    release(&store, false, &()).await.unwrap();
    bucket.push_to_old("app/new", "v2", 10);
    for found in [
        find_news(&store).await.unwrap().is_none(),
        update_in_place(&store, &()).await.unwrap().is_none(),
    ] {
        assert!(found, "nothing of it can be adopted");
    }
}

#[tokio::test]
async fn what_came_later_is_taken_and_what_was_deleted_here_stays_deleted() {
    let (bucket, store) = adopted_and_deleted().await;
    expect_nothing_new(&bucket, &store).await;
    let new = bucket.push_to_old("app/new", "v1", 9);
    let second = bucket.push_to_old("app/0", "v2", 10);
    let (report, defects) = updated(&store).await;
    assert!(defects.0.is_empty(), "{:?}", defects.0);
    assert_eq!((report.repositories, report.repositories_done), (2, 2));
    assert_eq!((report.manifests, report.tags), (2, 2));
    assert_eq!((report.blobs, report.grants), (6, 6));
    assert_eq!((report.links, report.links_done), (8, 8));
    assert!(matches!(adoption(&store).await.unwrap(), Adoption::Finished(_)));
    for _ in 0..2 {
        assert_eq!(get(&store, "app/new", "v1").await.unwrap().bytes, new);
        assert_eq!(get(&store, "app/0", "v2").await.unwrap().bytes, second);
        assert_eq!(tags(&store, "app/0").await, ["v2"]);
        expect_gone(&store, "app/0", &manifest(0)).await;
        collect_and_sweep(&store).await;
        expect_sound(&store).await;
        expect_nothing_new(&bucket, &store).await;
    }
    // What this update brought stays deleted as well.
    delete(&store, "app/new", &new).await;
    expect_nothing_new(&bucket, &store).await;
    bucket.push_to_old("app/2", "v2", 11);
    assert_eq!(updated(&store).await.0.manifests, 1);
    expect_gone(&store, "app/new", &new).await;
    release(&store, false, &()).await.unwrap();
    expect_sound(&store).await;
}

/// The distribution registry writes no link of a layer that it has, nor of a manifest that an index names.
#[tokio::test]
async fn what_was_deleted_comes_back_with_what_names_it_since() {
    let (bucket, store) = adopted_and_deleted().await;
    delete(&store, "app/1", &manifest(1)).await;
    collect_and_sweep(&store).await;
    let old = Old::new();
    old.push_manifest("app/0", &["v1"], &manifest(0));
    let list = index(&[manifest(1)], "");
    old.push_manifest("app/1", &["list"], &list);
    bucket.put_all(&old);
    let (report, defects) = updated(&store).await;
    assert!(defects.0.is_empty(), "{:?}", defects.0);
    assert_eq!((report.manifests, report.tags), (3, 2));
    assert_eq!(get(&store, "app/0", "v1").await.unwrap().bytes, manifest(0));
    assert_eq!(get(&store, "app/1", "list").await.unwrap().bytes, list);
    assert_eq!(tags(&store, "app/1").await, ["list"]);
    for (repository, seed) in [("app/0", 0), ("app/1", 1)] {
        for layer in layers(seed) {
            assert_eq!(read(&store, repository, &sha256(&layer)).await.unwrap(), layer);
        }
    }
    expect_sound(&store).await;
    expect_nothing_new(&bucket, &store).await;
}

/// An image that both sides have is pushed there once more: after the next start, it can be deleted here like any other.
#[tokio::test]
async fn what_was_pushed_again_is_no_news_at_each_start() {
    let (bucket, store) = adopted_and_deleted().await;
    let old = Old::new();
    old.push_manifest("app/1", &["v1"], &manifest(1));
    bucket.put_all(&old);
    let (report, _) = updated(&store).await;
    assert!(report.is_empty(), "{report:?}");
    delete(&store, "app/1", &manifest(1)).await;
    expect_nothing_new(&bucket, &store).await;
    expect_gone(&store, "app/1", &manifest(1)).await;
}

#[tokio::test]
async fn of_two_tags_that_moved_the_newer_one_wins() {
    const YEARS: Duration = Duration::from_secs(4 * 365 * 86_400);
    // The bucket's clock says 2025, that of the store 2023 and then 2027.
    for (time, is_kept) in [(Duration::ZERO, false), (YEARS, true)] {
        let bucket = Bucket::of(&images()).await;
        let store = bucket.store_at(time);
        adopt(&store).await;
        let here = image(&content(5, SMALL), &[], "");
        put_manifest(&store, "app/1", "v1", &here).await;
        let there = bucket.push_to_old("app/1", "v1", 9);
        let (report, _) = updated(&store).await;
        assert_eq!(
            (report.tags, report.kept_tags),
            if is_kept { (0, 1) } else { (1, 0) }
        );
        let expected = if is_kept { here } else { there };
        assert_eq!(get(&store, "app/1", "v1").await.unwrap().bytes, expected);
    }
}

/// Its clock may be wrong by years: only that of the bucket counts.
#[tokio::test]
async fn the_clock_of_the_store_does_not_matter() {
    const YEARS: Duration = Duration::from_secs(4 * 365 * 86_400);
    for time in [Duration::ZERO, YEARS] {
        let bucket = Bucket::of(&images()).await;
        let store = bucket.store_at(time);
        adopt(&store).await;
        delete(&store, "app/0", &manifest(0)).await;
        expect_nothing_new(&bucket, &store).await;
        // In the second of the adoption.
        bucket.push_to_old("app/new", "v1", 9);
        assert_eq!(updated(&store).await.0.manifests, 1);
        expect_nothing_new(&bucket, &store).await;
        expect_gone(&store, "app/0", &manifest(0)).await;
    }
}

/// A bucket that fails is tried again by the next start.
#[tokio::test]
async fn an_update_that_failed_is_repeated() {
    let (bucket, store) = adopted_and_deleted().await;
    let new = bucket.push_to_old("app/new", "v1", 9);
    bucket
        .double
        .faults()
        .fault_from_now_on(Some(S3Fault::Status(503)));
    let failed = update_in_place(&store, &()).await;
    assert!(matches!(failed, Err(AdoptError::Storage(_))), "{failed:?}");
    bucket.double.faults().fault_from_now_on(None);
    assert_eq!(updated(&store).await.0.manifests, 1);
    assert_eq!(get(&store, "app/new", "v1").await.unwrap().bytes, new);
}

#[tokio::test]
async fn what_is_broken_is_reported_once_and_remembered() {
    let (bucket, store) = adopted_and_deleted().await;
    bucket.push_to_old("app/new", "v1", 9);
    let lost: Digest = sha256(&content(10_009, LARGE + 9));
    let key = format!("{ROOT}/docker/registry/v2/blobs/sha256/{}", &lost.parts().1[..2]);
    bucket.double.lose(&key);
    let (report, defects) = updated(&store).await;
    assert!(!defects.0.is_empty());
    assert!(
        report.defects.contains_key(&DefectKind::MissingContent),
        "{:?}",
        report.defects
    );
    expect_nothing_new(&bucket, &store).await;
    let refused = release(&store, false, &()).await;
    assert!(matches!(refused, Err(ReleaseError::Partial)), "{refused:?}");
    // What is whole later is taken, and the older defect is not forgotten.
    let next = bucket.push_to_old("app/next", "v1", 10);
    let (report, defects) = updated(&store).await;
    assert_eq!((report.manifests, defects.0.len()), (1, 0));
    assert_eq!(get(&store, "app/next", "v1").await.unwrap().bytes, next);
    let refused = release(&store, false, &()).await;
    assert!(matches!(refused, Err(ReleaseError::Partial)), "{refused:?}");
}
