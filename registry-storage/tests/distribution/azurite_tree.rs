//! A tree in a container of Azurite: adopted where it is, again after changes, released, and written.
//!
//! `AZURITE=/path/to/azurite-blob cargo test -- --ignored azurite`. An object keeps its type on Azure and not on Azurite, so what follows
//! from that is tried beside the backend (`object_store/azure_rules.rs`). Azurite also copies before it answers.

use registry_core::{Algorithm, Digest};
use registry_storage::distribution::{
    AdoptOptions, Adoption, ExportInPlaceError, ReleaseError, adoption, export_in_place, has_tree, release,
    survey_in_place, update_in_place,
};
use registry_storage::{ObjectStoreBackend, Store};

use crate::bucket_updates::{delete, expect_gone, updated};
use crate::exports::put_manifest;
use crate::fixture::{LARGE, Old, SMALL, content, expect_sound, get, image, read, sha256, tags};
use crate::in_bucket::{
    IMAGES, adopt, collect_and_sweep, expect_images, images, layers, manifest, push_blob,
};
use crate::in_container::{OldContainer, Writer, next_second};
use crate::served::{change, expected, push_image, served, walk};

/// More than is appended at once.
const LARGEST: usize = (9 << 20) + 5;

async fn expect_nothing_new(store: &Store<ObjectStoreBackend>) {
    assert_eq!(update_in_place(store, &()).await.unwrap(), None);
}

#[tokio::test]
#[ignore = "needs AZURITE=/path/to/azurite-blob"]
async fn what_was_written_is_adopted_and_released() {
    let old = images();
    let largest = content(3, LARGEST);
    for blob in [&*largest, b""] {
        old.push_blob("app/0", blob);
    }
    let of_largest = image(&content(0, SMALL), &[largest.clone(), Vec::new()], "");
    old.push_manifest("app/0", &["largest"], &of_largest);
    let container = OldContainer::of(&old, Writer::Append).await;
    let before = container.tree().await;
    let store = container.store();
    assert!(has_tree(&store).await.unwrap());
    let surveyed = survey_in_place(&store, &AdoptOptions::new(), &()).await.unwrap();
    let (report, defects) = adopt(&store).await;
    assert!(defects.0.is_empty(), "{:?}", defects.0);
    assert_eq!(surveyed.report, report);
    let count = IMAGES as u64 + 1;
    assert_eq!((report.manifests, report.tags), (count, count));
    assert!(matches!(adoption(&store).await.unwrap(), Adoption::Finished(_)));
    expect_images(&store).await;
    for blob in [&*largest, b""] {
        assert_eq!(read(&store, "app/0", &sha256(blob)).await.unwrap(), blob);
    }
    delete(&store, "app/1", &manifest(1)).await;
    collect_and_sweep(&store).await;
    assert!(
        container.tree().await == before,
        "the tree is still the other registry's"
    );
    assert!(container.objects("bytes").await.is_empty(), "no byte was sent");

    let report = release(&store, false, &()).await.unwrap();
    let named = |seeds: &[usize]| {
        let own = seeds.iter().map(|seed| sha256(&layers(*seed)[0]));
        let mut named: Vec<_> = own.chain([sha256(&layers(0)[1]), sha256(&largest)]).collect();
        named.sort();
        named
    };
    assert_eq!(container.content_in_tree().await, named(&[0, 2, 3]));
    assert_eq!(report.kept, 5);
    let left = container.tree().await;
    assert!(left.keys().all(|key| key.starts_with("blobs/")));
    // From now on, its bytes are like others.
    delete(&store, "app/2", &manifest(2)).await;
    collect_and_sweep(&store).await;
    assert_eq!(container.content_in_tree().await, named(&[0, 3]));
    expect_sound(&store).await;
    let digest = push_blob(&store, "app/2", &layers(2)[0]).await;
    assert_eq!(read(&store, "app/2", &digest).await.unwrap(), layers(2)[0]);
}

#[tokio::test]
#[ignore = "needs AZURITE=/path/to/azurite-blob"]
async fn what_came_later_is_taken_and_what_was_deleted_here_stays_deleted() {
    let container = OldContainer::of(&images(), Writer::Mixed).await;
    let store = container.store();
    adopt(&store).await;
    delete(&store, "app/0", &manifest(0)).await;
    expect_nothing_new(&store).await;
    let new = container.push_to_old("app/new", "v1", 9).await;
    let second = container.push_to_old("app/0", "v2", 10).await;
    let moved = container.push_to_old("app/1", "v1", 11).await;
    let refused = release(&store, false, &()).await;
    assert!(matches!(refused, Err(ReleaseError::Newer { .. })), "{refused:?}");
    let refused = export_in_place(&store, false, &()).await;
    assert!(
        matches!(refused, Err(ExportInPlaceError::Newer { .. })),
        "{refused:?}"
    );
    let (report, defects) = updated(&store).await;
    assert!(defects.0.is_empty(), "{:?}", defects.0);
    assert_eq!((report.manifests, report.tags, report.blobs), (3, 3, 9));
    assert_eq!(get(&store, "app/new", "v1").await.unwrap().bytes, new);
    assert_eq!(get(&store, "app/0", "v2").await.unwrap().bytes, second);
    assert_eq!(get(&store, "app/1", "v1").await.unwrap().bytes, moved);
    assert_eq!(tags(&store, "app/0").await, ["v2"]);
    expect_gone(&store, "app/0", &manifest(0)).await;
    expect_nothing_new(&store).await;
    // The distribution registry writes no link of a layer that it has.
    let old = Old::new();
    old.push_manifest("app/0", &["v1"], &manifest(0));
    container.put_all(&old).await;
    assert_eq!(updated(&store).await.0.manifests, 1);
    for layer in layers(0) {
        assert_eq!(read(&store, "app/0", &sha256(&layer)).await.unwrap(), layer);
    }
    collect_and_sweep(&store).await;
    release(&store, false, &()).await.unwrap();
    expect_sound(&store).await;
}

#[tokio::test]
#[ignore = "needs AZURITE=/path/to/azurite-blob"]
async fn the_tree_gets_what_the_store_has_and_nothing_else() {
    let container = OldContainer::of(&images(), Writer::Append).await;
    let store = container.store();
    adopt(&store).await;
    // Deleted, collected and pushed again: the tree has older objects of it.
    delete(&store, "app/3", &manifest(3)).await;
    collect_and_sweep(&store).await;
    next_second().await;
    push_image(&store, "app/9", "v1", 3).await;
    let digests = change(&store).await;
    let expected = expected(&store, &digests).await;
    let before = container.tree().await;
    let report = export_in_place(&store, false, &()).await.unwrap();
    assert_eq!(report.lost, 0);
    assert!(
        report.copied > 0 && report.written > 0 && report.deleted > 0,
        "{report:?}"
    );
    let after = container.tree().await;
    assert_eq!(walk(&after), expected);
    for (key, content) in before.iter().filter(|(key, _)| key.starts_with("blobs/")) {
        assert!(after.get(key) == Some(content), "{key}");
    }
    expect_sound(&store).await;
    let again = export_in_place(&store, false, &()).await.unwrap();
    assert_eq!((again.copied, again.written, again.deleted), (0, 0, 0));

    // Another store adopts the tree as it is.
    let copy = container.copy_of_tree().await;
    let other = copy.store();
    let (_, defects) = adopt(&other).await;
    assert!(defects.0.is_empty(), "{:?}", defects.0);
    expect_sound(&other).await;
    assert_eq!(served(&other, &digests).await, expected);

    // The distribution registry goes on with it, and is taken over once more.
    let pushed = container.push_to_old("app/0", "later", 20).await;
    assert_eq!(updated(&store).await.0.manifests, 1);
    assert_eq!(get(&store, "app/0", "later").await.unwrap().bytes, pushed);
    release(&store, false, &()).await.unwrap();
    collect_and_sweep(&store).await;
    expect_sound(&store).await;
}

#[tokio::test]
#[ignore = "needs AZURITE=/path/to/azurite-blob"]
async fn a_large_layer_is_copied_into_the_tree() {
    let container = OldContainer::of(&images(), Writer::Append).await;
    let store = container.store();
    adopt(&store).await;
    next_second().await;
    let largest = content(4, LARGEST);
    push_blob(&store, "new", &largest).await;
    let tagged = image(&largest, &[], "");
    put_manifest(&store, "new", "v1", &tagged).await;
    let report = export_in_place(&store, false, &()).await.unwrap();
    assert_eq!((report.copied, report.lost), (1, 0));
    let registry = walk(&container.tree().await);
    assert!(registry["new"].layers.contains(&sha256(&largest)));
    assert_eq!(registry["new"].tags["v1"], sha256(&tagged));
}

/// The object of the tree belongs to the blob under its SHA-256.
#[tokio::test]
#[ignore = "needs AZURITE=/path/to/azurite-blob"]
async fn content_under_another_digest_is_copied_here_and_not_over_what_a_blob_names() {
    let old = images();
    let large = content(8, LARGE);
    old.push_blob("app/0", &large);
    let other = Digest::of(Algorithm::Sha512, &large);
    let link = old.layer("app/0", &other);
    std::fs::create_dir_all(link.parent().unwrap()).unwrap();
    std::fs::write(link, sha256(&large).as_str()).unwrap();
    let container = OldContainer::of(&old, Writer::Append).await;
    next_second().await;
    let store = container.store();
    let (_, defects) = adopt(&store).await;
    assert!(defects.0.is_empty(), "{:?}", defects.0);
    next_second().await;
    let report = export_in_place(&store, false, &()).await.unwrap();
    assert_eq!((report.copied, report.lost), (0, 0));
    for digest in [&other, &sha256(&large)] {
        assert_eq!(read(&store, "app/0", digest).await.unwrap(), large);
    }
}
