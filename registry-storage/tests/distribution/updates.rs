//! What a start adopts of what came into a tree since.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use registry_core::storage::{BlobStorage as _, ManifestStorage as _, NewManifest};
use registry_storage::distribution::{AdoptReport, DefectKind, ExportOptions, has_news, update};
use registry_storage::filesystem::FilesystemBackend;
use registry_storage::testing::Observed;
use registry_storage::{Maintenance as _, Store, SweepOptions};

use crate::fixture::{
    Defects, LARGE, Old, content, expect_sound, get, index, name, repositories, set_all_times, set_time,
    sha256, tag, tags,
};
use crate::support::images::bare_manifest;

/// Updates the store, which has to find something new.
async fn updated(old: &Old, store: &Store<FilesystemBackend>) -> (AdoptReport, Defects) {
    let observed = Observed::default();
    match update(store, &old.found(), &observed).await.unwrap() {
        Some(report) => (report, Defects::of(observed)),
        None => panic!("nothing changed"),
    }
}

/// Lets the store see what changed but a moment ago.
async fn updated_if_changed(old: &Old, store: &Store<FilesystemBackend>) {
    let report = update(store, &old.found(), &()).await.unwrap();
    assert!(report.is_none_or(|report| report.is_empty()));
}

async fn expect_nothing_new(old: &Old, store: &Store<FilesystemBackend>) {
    assert!(!has_news(store, &old.found()).await.unwrap());
    assert_eq!(update(store, &old.found(), &()).await.unwrap(), None);
}

fn copy(flag: &str, from: &Path, to: &Path) {
    let copied = Command::new("cp").arg(flag).args([from, to]).status();
    assert!(copied.unwrap().success());
}

/// Changes the inodes of all that is in a folder, as `chown -R` does.
fn change_all(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            change_all(&path);
        }
        let mode = metadata.permissions().mode() ^ 0o020;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

async fn delete(store: &Store<FilesystemBackend>, repository: &str, manifest: &[u8]) {
    store
        .delete_manifest(&name(repository), &sha256(manifest), None, None)
        .await
        .unwrap();
}

/// Moves a tag here to another manifest that is here.
async fn move_here(store: &Store<FilesystemBackend>, repository: &str, moved: &str, to: &str) {
    let new = NewManifest {
        allow_missing: true,
        tags: vec![tag(moved)],
        ..bare_manifest(get(store, repository, to).await.unwrap())
    };
    store.put_manifest(&name(repository), new).await.unwrap();
}

/// The other server went on after an early adoption.
#[tokio::test]
async fn what_came_later_is_adopted_and_what_was_deleted_here_stays_deleted() {
    let old = Old::new();
    let first = old.push_image("app", "moved", 1);
    let gone = sha256(&old.push_image("app", "deleted", 2));
    let quiet = sha256(&old.push_image("quiet", "v1", 3));
    set_all_times(&old.tree(), 1_000_000);
    let store = old.settled().await;
    old.adopt(&store).await;
    expect_nothing_new(&old, &store).await;
    for (repository, digest) in [("app", &gone), ("quiet", &quiet)] {
        store
            .delete_manifest(&name(repository), digest, None, None)
            .await
            .unwrap();
    }
    // A new image, a new repository, and an index of what was there before.
    let second = old.push_image("app", "new", 4);
    let other = old.push_image("other/app", "v1", 5);
    let both = index(&[first.clone(), second.clone()], "");
    old.push_manifest("app", &["both"], &both);
    let (report, defects) = updated(&old, &store).await;
    assert_eq!(defects.kinds(), []);
    assert_eq!((report.repositories, report.manifests, report.tags), (2, 3, 3));
    assert_eq!((report.blobs, report.grants), (6, 6));
    for (repository, tag, manifest) in [
        ("app", "new", &second),
        ("other/app", "v1", &other),
        ("app", "both", &both),
        ("app", "moved", &first),
    ] {
        assert_eq!(get(&store, repository, tag).await.unwrap().bytes, *manifest);
    }
    for (repository, tag) in [("app", "deleted"), ("quiet", "v1")] {
        get(&store, repository, tag).await.unwrap_err();
    }
    expect_sound(&store).await;
}

#[tokio::test]
async fn a_tag_that_moved_back_and_a_manifest_that_is_pushed_again_are_adopted() {
    let old = Old::new();
    let first = old.push_image("app", "v1", 1);
    let gone = old.push_image("app", "v2", 2);
    set_all_times(&old.tree(), 1_000_000);
    let store = old.settled().await;
    old.adopt(&store).await;
    store
        .delete_manifest(&name("app"), &sha256(&gone), None, None)
        .await
        .unwrap();
    // Nothing but the time and content of a link is new.
    fs::write(old.tag("app", "v2"), sha256(&first).as_str()).unwrap();
    let (report, _) = updated(&old, &store).await;
    assert_eq!((report.manifests, report.tags), (0, 1));
    assert_eq!(get(&store, "app", "v2").await.unwrap().bytes, first);
    old.push_manifest("app", &["v3"], &gone);
    let (report, defects) = updated(&old, &store).await;
    assert_eq!((report.manifests, report.tags, defects.kinds()), (1, 1, vec![]));
    assert_eq!(get(&store, "app", "v3").await.unwrap().bytes, gone);
    expect_sound(&store).await;
}

#[tokio::test]
async fn what_came_later_and_cannot_be_adopted_is_named_once() {
    let old = Old::new();
    old.push_image("app", "v1", 1);
    set_all_times(&old.tree(), 1_000_000);
    let store = old.settled().await;
    old.adopt(&store).await;
    old.push_image("app", "v2", 2);
    let missing = sha256(&content(10_002, LARGE + 2));
    // Later than the last link, so that the folder of content changed last.
    old.settle();
    fs::remove_file(old.data(&missing)).unwrap();
    old.settle();
    let (report, defects) = updated(&old, &store).await;
    assert_eq!(report.manifests, 1);
    assert_eq!(
        defects.kinds(),
        [DefectKind::MissingContent, DefectKind::Incomplete]
    );
    expect_nothing_new(&old, &store).await;
}

/// A tree was copied while the other server ran, adopted, and copied once more: what was pushed behind the first copy's back
/// is older than what that had.
#[tokio::test]
async fn what_a_second_copy_brings_is_adopted_however_old_it_is() {
    let old = Old::new();
    let first = old.push_image("aaa", "v1", 1);
    let gone = old.push_image("aaa", "deleted", 2);
    old.push_image("aaa", "moved-there", 3);
    old.push_image("aaa", "moved-here", 4);
    old.push_image("zzz", "v1", 5);
    set_all_times(&old.tree(), 1_000_000);
    old.push_image("zzz", "during", 6);
    let store = old.settled().await;
    old.adopt(&store).await;
    delete(&store, "aaa", &gone).await;
    move_here(&store, "aaa", "moved-here", "v1").await;

    let during = old.push_image("aaa", "during", 7);
    let other = old.push_image("aab", "during", 8);
    let moved = old.push_image("aaa", "moved-there", 9);
    old.push_image("aaa", "moved-here", 10);
    set_all_times(&old.repository("aaa"), 2_000_000);
    set_all_times(&old.repository("aab"), 2_000_000);
    set_time(&old.tag("aaa", "deleted"), 1_000_000);
    set_time(&old.revision("aaa", &sha256(&gone)), 1_000_000);
    assert!(has_news(&store, &old.found()).await.unwrap());
    let (report, defects) = updated(&old, &store).await;
    assert_eq!(defects.kinds(), []);
    assert_eq!((report.manifests, report.tags, report.kept_tags), (4, 3, 1));
    for (repository, tag, manifest) in [
        ("aaa", "during", &during),
        ("aab", "during", &other),
        ("aaa", "moved-there", &moved),
        ("aaa", "moved-here", &first),
    ] {
        assert_eq!(
            get(&store, repository, tag).await.unwrap().bytes,
            *manifest,
            "{tag}"
        );
    }
    assert_eq!(repositories(&store).await, ["aaa", "aab", "zzz"]);
    get(&store, "aaa", "deleted").await.unwrap_err();
    get(&store, "aaa", sha256(&gone).as_str()).await.unwrap_err();
    expect_sound(&store).await;
}

/// Folders keep their times where they are copied or moved to.
#[tokio::test]
async fn folders_that_were_copied_or_moved_into_the_tree_are_adopted() {
    let old = Old::new();
    old.push_image("app", "v1", 1);
    let aside = old.root.path().join("aside");
    set_all_times(&old.tree(), 1_000_000);
    let store = old.settled().await;
    old.adopt(&store).await;

    let tag_folder = old.repository("app").join("_manifests/tags/v1");
    copy("-a", &tag_folder, &tag_folder.with_file_name("v9"));
    let (report, _) = updated(&old, &store).await;
    assert_eq!((report.manifests, report.tags, report.blobs), (0, 1, 0));
    assert_eq!(tags(&store, "app").await, ["v1", "v9"]);

    copy("-a", &old.repository("app"), &old.repository("copied"));
    let (report, _) = updated(&old, &store).await;
    assert_eq!((report.manifests, report.tags, report.grants), (1, 2, 3));

    // Nothing in it changes when it comes to its place.
    fs::create_dir(&aside).unwrap();
    copy("-a", &old.repository("app"), &aside.join("app"));
    old.settle();
    updated_if_changed(&old, &store).await;
    fs::rename(&aside, old.repository("team")).unwrap();
    let (report, _) = updated(&old, &store).await;
    assert_eq!((report.manifests, report.tags, report.grants), (1, 2, 3));
    assert_eq!(repositories(&store).await, ["app", "copied", "team/app"]);
    expect_sound(&store).await;
}

#[tokio::test]
async fn a_tree_that_got_another_owner_or_mode_brings_nothing_back() {
    let old = Old::new();
    let manifest = old.push_image("app", "v1", 1);
    let whole = old.push_image("gone", "v1", 2);
    old.push_image("app", "tag", 3);
    let store = old.settled().await;
    old.adopt(&store).await;
    delete(&store, "app", &manifest).await;
    delete(&store, "gone", &whole).await;
    store.delete_tag(&name("app"), &tag("tag"), None).await.unwrap();
    let layer = sha256(&content(10_003, LARGE + 3));
    store.delete_blob(&name("app"), &layer, None).await.unwrap();
    store.sweep(&SweepOptions::default()).await.unwrap();
    change_all(&old.tree());
    old.settle();
    let (report, _) = updated(&old, &store).await;
    assert!(report.is_empty(), "{report:?}");
    assert!(tags(&store, "app").await.is_empty());
    get(&store, "gone", "v1").await.unwrap_err();
    crate::fixture::read(&store, "app", &layer).await.unwrap_err();
    expect_nothing_new(&old, &store).await;
}

/// As a copy has it that took the content before the links.
#[tokio::test]
async fn content_that_came_after_its_links_is_adopted() {
    let old = Old::new();
    let manifest = old.push_image("app", "v1", 1);
    let aside = old.root.path().join("aside");
    let late = [sha256(&manifest), sha256(&content(10_001, LARGE + 1))].map(|digest| {
        let folder = old.data(&digest).parent().unwrap().to_owned();
        (folder, aside.join(digest.as_str()))
    });
    fs::create_dir(&aside).unwrap();
    for (folder, aside) in &late {
        fs::rename(folder, aside).unwrap();
    }
    let store = old.settled().await;
    let (report, defects) = old.adopt(&store).await;
    assert_eq!((report.manifests, defects.kinds().len()), (0, 3));
    expect_nothing_new(&old, &store).await;
    for (folder, aside) in &late {
        copy("-a", aside, folder);
    }
    old.settle();
    let (report, defects) = updated(&old, &store).await;
    assert_eq!((report.manifests, report.tags, defects.kinds()), (1, 1, vec![]));
    assert_eq!(get(&store, "app", "v1").await.unwrap().bytes, manifest);
    expect_nothing_new(&old, &store).await;
    expect_sound(&store).await;
}

/// It was copied elsewhere, and all inodes are new.
#[tokio::test]
async fn a_copy_of_the_folder_brings_what_is_new_and_nothing_back() {
    for flag in ["-a", "-r"] {
        let old = Old::new();
        let first = old.push_image("app", "moved-here", 1);
        let gone = old.push_image("app", "deleted", 2);
        old.push_image("app", "moved-there", 3);
        set_all_times(&old.tree(), 1_000_000);
        let store = old.settled().await;
        old.adopt(&store).await;
        delete(&store, "app", &gone).await;
        move_here(&store, "app", "moved-here", "moved-there").await;
        let here = get(&store, "app", "moved-here").await.unwrap();
        let moved = old.push_image("app", "moved-there", 4);
        let new = old.push_image("app", "new", 5);
        old.push_manifest("app", &["moved-here"], &first);
        set_all_times(&old.tree(), 1_000_000);
        set_time(&old.tag("app", "moved-there"), 2_000_000);
        let (there, aside) = (old.tree(), old.root.path().join("aside"));
        fs::rename(&there, &aside).unwrap();
        copy(flag, &aside, &there);
        old.settle();
        let (report, _) = updated(&old, &store).await;
        assert_eq!((report.manifests, report.tags), (2, 2), "{flag}");
        get(&store, "app", "deleted").await.unwrap_err();
        get(&store, "app", sha256(&gone).as_str()).await.unwrap_err();
        for (tag, expected) in [
            ("moved-here", &here.bytes[..]),
            ("moved-there", &moved),
            ("new", &new),
        ] {
            assert_eq!(
                get(&store, "app", tag).await.unwrap().bytes,
                expected,
                "{flag} {tag}"
            );
        }
        expect_nothing_new(&old, &store).await;
    }
}

#[tokio::test]
async fn what_this_store_wrote_to_the_tree_stays_deleted_once_it_is() {
    let old = Old::new();
    old.push_image("app", "v1", 1);
    let store = old.settled().await;
    old.adopt(&store).await;
    // One of them is here as well, and one is not.
    let here = old.push_image("app", "v2", 2);
    let (report, _) = updated(&old, &store).await;
    assert_eq!(report.manifests, 1);
    old.push_manifest("app", &["v2", "v3"], &here);
    move_here(&store, "app", "v3", "v2").await;
    let new = old.push_image("app", "v4", 4);
    let options = ExportOptions::new();
    let exported = store.export_distribution(old.root.path(), &options, &());
    exported.await.unwrap();
    delete(&store, "app", &here).await;
    let (report, _) = updated(&old, &store).await;
    assert_eq!((report.manifests, report.tags), (1, 1));
    assert_eq!(get(&store, "app", "v4").await.unwrap().bytes, new);
    assert_eq!(tags(&store, "app").await, ["v1", "v4"]);
}
