//! What is adopted, and that the tree stays as it is.

use registry_core::storage::{
    BlobStorage as _, ListStorage as _, ManifestStorage as _, NewManifest, UploadStorage as _,
};
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use registry_core::{Algorithm, Digest, ErrorCode};
use registry_storage::distribution::{
    AdoptError, AdoptOptions, AdoptReport, Adoption, Tree, adoption, check_links, survey,
};
use registry_storage::{Finding, Maintenance as _, MaintenanceObserver, SweepOptions};

use crate::fixture::{
    INDEX, LARGE, Old, SMALL, all, content, expect_sound, get, image, index, name, read, repositories,
    set_time, sha256, tag, tags,
};
use crate::support::images::bare_manifest;

#[tokio::test]
async fn everything_is_adopted_and_nothing_is_copied() {
    let old = Old::new();
    let first = old.push_image("library/alpine", "latest", 1);
    let second = old.push_image("library", "v1", 2);
    let shared = content(10_001, LARGE + 1);
    old.push_blob("other/name", &shared);
    let third = image(&content(3, SMALL), std::slice::from_ref(&shared), "");
    old.push_blob("other/name", &content(3, SMALL));
    let list = index(std::slice::from_ref(&third), "");
    old.push_manifest("other/name", &[], &third);
    let list_digest = old.push_manifest("other/name", &["a", "b"], &list);
    // All tags of this one were deleted.
    fs::create_dir_all(old.repository("untagged").join("_manifests/tags")).unwrap();
    fs::create_dir_all(old.repository("untagged/of/old").join("_layers")).unwrap();
    fs::create_dir_all(old.repository("library").join("_uploads/11111111-2222")).unwrap();
    let before = old.snapshot();

    let expected = AdoptReport::default();
    let surveyed = survey(&old.found(), old.root.path(), &AdoptOptions::new(), &()).await;
    let surveyed = surveyed.unwrap();
    assert!(surveyed.refused.is_none());
    assert!(
        !old.root.path().join("records.sqlite").exists(),
        "a look makes no store"
    );

    let store = old.open().await;
    assert_eq!(adoption(&store).await.unwrap(), Adoption::NotBegun);
    let (report, defects) = old.adopt(&store).await;
    assert!(defects.0.is_empty(), "{:?}", defects.0);
    assert_ne!(report, expected);
    assert_eq!(
        (report.repositories, report.repositories_done, report.uploads),
        (5, 5, 1)
    );
    assert_eq!((report.manifests, report.tags), (4, 4));
    assert_eq!((report.blobs, report.grants), (7, 8));
    assert_eq!((report.links, report.links_done), (12, 12));
    assert_eq!((report.content, report.content_done), (0, 0));
    assert_eq!(surveyed.report, report);
    assert!(matches!(adoption(&store).await.unwrap(), Adoption::Finished(_)));

    assert_eq!(
        repositories(&store).await,
        ["library", "library/alpine", "other/name", "untagged"]
    );
    assert_eq!(tags(&store, "other/name").await, ["a", "b"]);
    assert!(tags(&store, "untagged").await.is_empty());
    assert_eq!(
        get(&store, "library/alpine", "latest").await.unwrap().bytes,
        first
    );
    assert_eq!(get(&store, "library", "v1").await.unwrap().bytes, second);
    let listed = get(&store, "other/name", list_digest.as_str()).await.unwrap();
    assert_eq!(
        (listed.media_type.as_str(), &listed.bytes[..]),
        (INDEX, &list[..])
    );
    for (repository, content) in [
        ("library/alpine", &shared),
        ("other/name", &shared),
        ("library", &content(10_002, LARGE + 2)),
        ("library", &content(2, SMALL)),
    ] {
        assert_eq!(
            read(&store, repository, &sha256(content)).await.unwrap(),
            *content
        );
    }
    let unknown = read(&store, "library", &sha256(&shared)).await.unwrap_err();
    assert_eq!(unknown.code(), ErrorCode::BlobUnknown);

    assert!(old.snapshot() == before);
    expect_sound(&store).await;
    assert_eq!(old.files_of_bytes(), 2, "two large blobs");
    assert_eq!(fs::metadata(old.data(&sha256(&shared))).unwrap().nlink(), 2);
}

#[tokio::test]
async fn deletes_and_sweeps_leave_the_tree() {
    let old = Old::new();
    let manifest = old.push_image("app", "v1", 1);
    let before = old.snapshot();
    let store = old.open().await;
    old.adopt(&store).await;
    let repository = name("app");
    store.delete_tag(&repository, &tag("v1"), None).await.unwrap();
    store
        .delete_manifest(&repository, &sha256(&manifest), None, None)
        .await
        .unwrap();
    store
        .delete_blob(&repository, &sha256(&content(10_001, LARGE + 1)), None)
        .await
        .unwrap();
    store.sweep(&SweepOptions::default()).await.unwrap();
    assert!(old.snapshot() == before);
    // Not even where the names of ours are gone.
    fs::remove_dir_all(old.root.path().join("bytes")).unwrap();
    assert!(old.snapshot() == before);
}

#[tokio::test]
async fn a_blob_that_is_known_by_two_algorithms_is_found_by_both() {
    let old = Old::new();
    for size in [SMALL, LARGE] {
        let content = content(size, size);
        let kept_as = old.push_blob("app", &content);
        let other = Digest::of(Algorithm::Sha512, &content);
        let link = old.layer("app", &other);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        fs::write(link, kept_as.as_str()).unwrap();
    }
    let store = old.open().await;
    let (report, defects) = old.adopt(&store).await;
    assert!(defects.0.is_empty(), "{:?}", defects.0);
    assert_eq!(report.blobs, 4);
    for size in [SMALL, LARGE] {
        let content = content(size, size);
        for algorithm in Algorithm::ALL {
            let digest = Digest::of(algorithm, &content);
            assert_eq!(read(&store, "app", &digest).await.unwrap(), content);
        }
    }
}

#[tokio::test]
async fn media_types_follow_from_the_documents() {
    let old = Old::new();
    let config = content(1, SMALL);
    old.push_blob("app", &config);
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let with_field = String::from_utf8(image(&config, &[], "")).unwrap();
    let as_docker = with_field.replace(crate::fixture::IMAGE, docker);
    let (start, rest) = with_field.split_once(r#""mediaType""#).unwrap();
    let without = format!("{start}{}", rest.split_once(',').unwrap().1);
    let list = index(&[], "");
    for (tag, manifest, media_type) in [
        ("docker", as_docker.as_bytes(), docker),
        ("field", with_field.as_bytes(), crate::fixture::IMAGE),
        ("shape", without.as_bytes(), crate::fixture::IMAGE),
        ("list", &list[..], INDEX),
    ] {
        old.push_manifest("app", &[tag], manifest);
        let store = old.open().await;
        old.adopt_with(&store, AdoptOptions::new().again(true))
            .await
            .unwrap();
        let found = get(&store, "app", tag).await.unwrap();
        assert_eq!(
            (found.media_type.as_str(), &found.bytes[..]),
            (media_type, manifest),
            "{tag}"
        );
        store.close().await.unwrap();
    }
}

/// Registry 2.1.0 linked manifests as layers.
#[tokio::test]
async fn a_tagged_manifest_that_is_linked_as_a_layer_is_a_manifest() {
    let old = Old::new();
    let manifest = old.push_image("app", "v1", 1);
    let digest = sha256(&manifest);
    fs::remove_file(old.revision("app", &digest)).unwrap();
    old.push_blob("app", &manifest);
    let store = old.open().await;
    let (report, defects) = old.adopt(&store).await;
    assert!(defects.0.is_empty(), "{:?}", defects.0);
    assert_eq!((report.manifests, report.tags), (1, 1));
    assert_eq!(get(&store, "app", "v1").await.unwrap().bytes, manifest);
}

#[tokio::test]
async fn referrers_are_listed_by_their_subject_and_by_tags_of_the_schema() {
    let old = Old::new();
    let subject = old.push_image("app", "v1", 1);
    let config = content(2, SMALL);
    old.push_blob("app", &config);
    let named = format!(
        r#","artifactType":"a/named","subject":{{"mediaType":"{}","digest":"{}","size":{}}}"#,
        crate::fixture::IMAGE,
        sha256(&subject),
        subject.len()
    );
    let named = image(&config, &[], &named);
    let listed = image(&config, &[], r#","artifactType":"a/listed""#);
    let platform = image(&config, &[], r#","annotations":{"a":"b"}"#);
    for manifest in [&named, &listed, &platform] {
        old.push_manifest("app", &[], manifest);
    }
    let schema_tag = sha256(&subject).as_str().replace(':', "-");
    let listing = index(&[named.clone(), listed.clone()], r#","artifactType":"a/x""#);
    old.push_manifest("app", &[&schema_tag], &listing);
    // An image for several platforms, tagged by its digest.
    let several = index(std::slice::from_ref(&platform), "");
    let several_tag = sha256(&several).as_str().replace(':', "-");
    old.push_manifest("app", &[&several_tag], &several);

    let store = old.open().await;
    let (_, defects) = old.adopt(&store).await;
    assert!(defects.0.is_empty(), "{:?}", defects.0);
    let list = async |digest: Digest| {
        let page = store
            .list_referrers(&name("app"), &digest, all().into())
            .await
            .unwrap();
        let mut types: Vec<_> = page
            .items
            .into_iter()
            .map(|item| item.artifact_type.unwrap())
            .collect();
        types.sort_unstable();
        types
    };
    assert_eq!(list(sha256(&subject)).await, ["a/listed", "a/named"]);
    assert!(list(sha256(&several)).await.is_empty());
    assert_eq!(get(&store, "app", &schema_tag).await.unwrap().bytes, listing);
    store
        .delete_manifest(&name("app"), &sha256(&listed), None, None)
        .await
        .unwrap();
    assert_eq!(list(sha256(&subject)).await, ["a/named"]);
}

#[tokio::test]
async fn it_is_adopted_once_and_a_store_with_content_of_its_own_not_at_all() {
    let old = Old::new();
    old.push_image("app", "v1", 1);
    let store = old.open().await;
    old.adopt(&store).await;
    let refused = old.adopt_with(&store, AdoptOptions::new()).await;
    assert!(matches!(refused, Err(AdoptError::Finished(_))));
    let (report, _) = old
        .adopt_with(&store, AdoptOptions::new().again(true))
        .await
        .unwrap();
    assert_eq!(
        (report.blobs, report.grants, report.manifests, report.tags),
        (0, 0, 0, 0)
    );

    let own = Old::new();
    let store = own.open().await;
    store
        .create_upload(&name("app"), "", Algorithm::Sha256)
        .await
        .unwrap();
    assert_eq!(adoption(&store).await.unwrap(), Adoption::OwnContent);
    let refused = own.adopt_with(&store, AdoptOptions::new()).await;
    assert!(matches!(refused, Err(AdoptError::OwnContent)));
    own.adopt_with(&store, AdoptOptions::new().again(true))
        .await
        .unwrap();
}

/// The user went back to the other server and came again.
#[tokio::test]
async fn the_later_tag_counts_where_both_sides_changed_and_nothing_is_lost() {
    let old = Old::new();
    for (tag, seed) in [
        ("kept", 1),
        ("moved-there", 2),
        ("moved-here", 3),
        ("deleted-here", 4),
    ] {
        old.push_image("app", tag, seed);
        set_time(&old.tag("app", tag), 1_000_000);
    }
    let store = old.open().await;
    old.adopt(&store).await;
    let app = name("app");
    let kept = get(&store, "app", "kept").await.unwrap();
    // Here: one tag moves, and one goes with its manifest.
    let mut retag = NewManifest {
        allow_missing: true,
        tags: vec![tag("moved-here")],
        ..bare_manifest(kept.clone())
    };
    store.put_manifest(&app, retag.clone()).await.unwrap();
    let fourth = get(&store, "app", "deleted-here").await.unwrap();
    store
        .delete_manifest(&app, &fourth.digest, None, None)
        .await
        .unwrap();
    // There: one tag moves to something new, one is new, and a blob goes.
    let moved = old.push_image("app", "moved-there", 6);
    set_time(&old.tag("app", "moved-there"), 2_000_000);
    let new = old.push_image("new/app", "v1", 7);
    let gone = sha256(&content(10_001, LARGE + 1));
    fs::remove_file(old.data(&gone)).unwrap();
    fs::remove_file(old.layer("app", &gone)).unwrap();
    let (report, _) = old
        .adopt_with(&store, AdoptOptions::new().again(true))
        .await
        .unwrap();
    assert_eq!((report.manifests, report.tags, report.kept_tags), (3, 3, 1));
    assert_eq!((report.blobs, report.grants), (6, 6));
    assert_eq!(get(&store, "app", "kept").await.unwrap().digest, kept.digest);
    assert_eq!(
        get(&store, "app", "moved-here").await.unwrap().digest,
        kept.digest
    );
    assert_eq!(get(&store, "app", "moved-there").await.unwrap().bytes, moved);
    assert_eq!(
        get(&store, "app", "deleted-here").await.unwrap().digest,
        fourth.digest
    );
    assert_eq!(get(&store, "new/app", "v1").await.unwrap().bytes, new);
    assert_eq!(
        read(&store, "app", &gone).await.unwrap(),
        content(10_001, LARGE + 1)
    );
    // A tag that was pushed here after that stays.
    retag.tags = vec![tag("kept")];
    retag.manifest = get(&store, "app", "moved-there").await.unwrap();
    store.put_manifest(&app, retag).await.unwrap();
    let (report, _) = old
        .adopt_with(&store, AdoptOptions::new().again(true))
        .await
        .unwrap();
    assert_eq!((report.tags, report.kept_tags), (0, 2));
    assert_eq!(get(&store, "app", "kept").await.unwrap().bytes, moved);
}

#[tokio::test]
async fn what_cannot_be_linked_is_refused_with_a_remedy() {
    let other_device = std::path::Path::new("/dev/shm");
    let old = Old::new();
    let device = |path: &std::path::Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    if device(other_device).is_none() || device(other_device) == device(old.root.path()) {
        return;
    }
    old.push_image("app", "v1", 1);
    let elsewhere = tempfile::tempdir_in(other_device).unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(old.root.path().join("docker"))
        .arg(elsewhere.path())
        .status();
    assert!(copied.unwrap().success());
    let store = old.open().await;
    let tree = Tree::find(elsewhere.path()).unwrap().unwrap();
    let error = store.adopt(&tree, &AdoptOptions::new(), &()).await.unwrap_err();
    assert!(error.to_string().contains("one file system"), "{error}");
    assert!(matches!(adoption(&store).await.unwrap(), Adoption::Begun(_)));
    let looked = check_links(old.root.path(), &tree, 10).unwrap_err();
    assert_eq!(looked.to_string(), error.to_string());
    let surveyed = survey(&tree, old.root.path(), &AdoptOptions::new(), &()).await;
    let refused = surveyed.unwrap().refused.unwrap();
    assert_eq!(refused.to_string(), error.to_string());
}

#[test]
fn a_root_without_a_tree_has_none() {
    let root = tempfile::tempdir().unwrap();
    assert!(Tree::find(root.path()).unwrap().is_none());
    fs::create_dir_all(root.path().join("docker/registry/v2")).unwrap();
    assert!(Tree::find(root.path()).unwrap().is_none());
}

#[derive(Default)]
struct Told(std::sync::Mutex<Vec<(u64, u64)>>);

#[async_trait::async_trait]
impl MaintenanceObserver for Told {
    async fn found(&self, finding: Finding) {
        panic!("{finding}");
    }

    fn adopted(&self, report: &AdoptReport) {
        let amounts = (report.content_done, report.content);
        self.0.lock().unwrap().push(amounts);
    }
}

#[tokio::test]
async fn a_comparison_that_goes_on_starts_from_what_is_done() {
    let old = Old::new();
    old.push_image("app", "v1", 1);
    let store = old.open().await;
    let options = AdoptOptions::new().verify(true).again(true);
    let first = store.adopt(&old.found(), &options, &()).await.unwrap();
    assert_eq!(first.content_done, first.content);
    old.push_image("app", "v2", 2);
    let told = Told::default();
    let second = store.adopt(&old.found(), &options, &told).await.unwrap();
    let told = told.0.into_inner().unwrap();
    assert!(second.content > first.content);
    assert_eq!(told.first(), Some(&(first.bytes, second.content)));
    // What came is compared, and nothing is counted twice.
    let compared = told.iter().rev().find(|(done, _)| *done < second.content);
    assert_eq!(compared, Some(&(first.bytes + second.bytes, second.content)));
    assert_eq!(told.last(), Some(&(second.content, second.content)));
}
