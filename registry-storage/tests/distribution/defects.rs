//! Trees with something broken: it is reported, and everything else is adopted.

use std::fs;
use std::path::Path;

use registry_core::ErrorCode;
use registry_storage::distribution::{
    AdoptOptions, DefectKind, DefectKind as Kind, ExportError, ExportOptions, Tree,
};
use registry_storage::{Maintenance as _, Store};

use registry_storage::filesystem::FilesystemBackend;

use crate::fixture::{Defects, LARGE, Old, SMALL, content, get, image, read, sha256};

/// Breaks a tree that has the image 1 as `app:v1`, adopts it, and requires these defects and that another image is whole.
async fn broken(break_it: impl FnOnce(&Old), kinds: &[DefectKind]) -> (Old, Defects) {
    broken_with(break_it, kinds, AdoptOptions::new()).await
}

async fn broken_with(
    break_it: impl FnOnce(&Old),
    kinds: &[DefectKind],
    options: AdoptOptions,
) -> (Old, Defects) {
    let old = Old::new();
    old.push_image("app", "v1", 1);
    let whole = old.push_image("app", "whole", 2);
    let other = old.push_image("zz/other", "whole", 3);
    break_it(&old);
    let before = old.snapshot();
    let store = old.open().await;
    let (_, defects) = old.adopt_with(&store, options).await.unwrap();
    assert_eq!(defects.kinds(), kinds, "{:?}", defects.0);
    assert_eq!(get(&store, "app", "whole").await.unwrap().bytes, whole);
    assert_eq!(get(&store, "zz/other", "whole").await.unwrap().bytes, other);
    for (repository, seed) in [("app", 2), ("zz/other", 3)] {
        let layer = content(seed + 10_000, LARGE + seed);
        assert_eq!(read(&store, repository, &sha256(&layer)).await.unwrap(), layer);
    }
    assert!(old.snapshot() == before);
    store.close().await.unwrap();
    (old, defects)
}

fn large() -> Vec<u8> {
    content(10_001, LARGE + 1)
}

fn small() -> Vec<u8> {
    content(20_001, SMALL)
}

fn manifest() -> Vec<u8> {
    image(&content(1, SMALL), &[large(), small()], "")
}

fn put(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Requires that the image 1 is there but for one blob.
async fn expect_without(old: &Old, missing: &[u8]) {
    let store = old.open().await;
    assert_eq!(get(&store, "app", "v1").await.unwrap().bytes, manifest());
    for content in [large(), small()] {
        let found = read(&store, "app", &sha256(&content)).await;
        if content == missing {
            // So a client that pushes again sends it.
            assert_eq!(found.unwrap_err().code(), ErrorCode::BlobUnknown);
        } else {
            assert_eq!(found.unwrap(), content);
        }
    }
}

#[tokio::test]
async fn content_of_a_blob_is_missing() {
    for missing in [large(), small()] {
        let break_it = |old: &Old| fs::remove_file(old.data(&sha256(&missing))).unwrap();
        let (old, defects) = broken(break_it, &[Kind::MissingContent, Kind::Incomplete]).await;
        assert!(
            defects.0[0].1.contains(sha256(&missing).as_str()),
            "{:?}",
            defects.0
        );
        expect_without(&old, &missing).await;
    }
}

#[tokio::test]
async fn content_of_a_blob_is_cut_off_or_empty() {
    for (whole, rest) in [
        (large(), LARGE - 5),
        (large(), 0),
        (large(), 100),
        (small(), 0),
        (small(), 10),
    ] {
        let break_it = |old: &Old| put(&old.data(&sha256(&whole)), &whole[..rest]);
        let (old, _) = broken(break_it, &[Kind::CorruptContent, Kind::Incomplete]).await;
        expect_without(&old, &whole).await;
    }
}

#[tokio::test]
async fn content_of_the_right_size_is_checked_only_on_request_unless_it_is_small() {
    let flip = |content: Vec<u8>| {
        let mut flipped = content;
        flipped[7] ^= 1;
        flipped
    };
    let break_large = |old: &Old| put(&old.data(&sha256(&large())), flip(large()));
    let (old, _) = broken(break_large, &[]).await;
    let store = old.open().await;
    assert_eq!(
        read(&store, "app", &sha256(&large())).await.unwrap(),
        flip(large())
    );
    drop(store);
    let found = [Kind::CorruptContent, Kind::Incomplete];
    let (old, _) = broken_with(break_large, &found, AdoptOptions::new().verify(true)).await;
    expect_without(&old, &large()).await;
    let break_small = |old: &Old| put(&old.data(&sha256(&small())), flip(small()));
    let (old, _) = broken(break_small, &found).await;
    expect_without(&old, &small()).await;
}

/// That registry does not compare what a manifest says of sizes.
#[tokio::test]
async fn a_manifest_that_lies_about_a_size_spoils_nothing() {
    let (old, _) = broken(
        |old| {
            let lie = String::from_utf8(manifest()).unwrap();
            let lie = lie.replace(&format!("\"size\":{}", LARGE + 1), "\"size\":7");
            old.push_manifest("app", &["lie"], lie.as_bytes());
        },
        &[],
    )
    .await;
    expect_without(&old, b"").await;
}

#[tokio::test]
async fn links_are_broken() {
    let other = sha256(b"other");
    for text in ["", "nonsense", "sha256:12", other.as_str(), "future:abc"] {
        let break_layer = |old: &Old| put(&old.layer("app", &sha256(&large())), text);
        let (old, defects) = broken(break_layer, &[Kind::BrokenLink, Kind::Incomplete]).await;
        assert!(
            defects.0.iter().any(|(_, text)| text.contains("_layers")),
            "{:?}",
            defects.0
        );
        expect_without(&old, &large()).await;
        let break_revision = |old: &Old| put(&old.revision("app", &sha256(&manifest())), text);
        broken(break_revision, &[Kind::BrokenLink, Kind::DanglingTag]).await;
    }
    for text in ["", "nonsense"] {
        broken(|old: &Old| put(&old.tag("app", "v1"), text), &[Kind::BrokenLink]).await;
    }
    broken(
        |old: &Old| fs::remove_file(old.tag("app", "v1")).unwrap(),
        &[Kind::BrokenLink],
    )
    .await;
    broken(
        |old: &Old| put(&old.tag("app", "v1"), other.as_str()),
        &[Kind::DanglingTag],
    )
    .await;
}

/// That registry deletes blobs and manifests by taking away the link.
#[tokio::test]
async fn folders_of_what_was_deleted_are_no_defects() {
    let break_it = |old: &Old| {
        fs::remove_file(old.revision("app", &sha256(&manifest()))).unwrap();
        fs::remove_dir_all(old.tag("app", "v1").parent().unwrap().parent().unwrap()).unwrap();
        fs::remove_file(old.layer("app", &sha256(&large()))).unwrap();
    };
    broken(break_it, &[]).await;
}

#[tokio::test]
async fn a_link_of_another_algorithm_is_compared_with_the_content() {
    let break_it = |old: &Old| {
        let wrong = registry_core::Digest::of(registry_core::Algorithm::Sha512, b"something else");
        put(&old.layer("app", &wrong), sha256(&large()).as_str());
    };
    broken(break_it, &[Kind::CorruptContent]).await;
}

#[tokio::test]
async fn names_are_not_valid() {
    let break_it = |old: &Old| {
        fs::create_dir_all(old.repository("Upper/case/_manifests/tags")).unwrap();
        fs::create_dir_all(old.repository("app/_manifests/tags/-x/current")).unwrap();
        fs::create_dir_all(old.repository("app/_layers/md5/0123")).unwrap();
        fs::create_dir_all(old.repository("app/_layers/sha256/0123")).unwrap();
        put(&old.tree().join("repositories/.DS_Store"), "x");
    };
    broken(break_it, &[Kind::InvalidName; 4]).await;
}

#[tokio::test]
async fn folders_and_files_cannot_be_read() {
    // Not by their rights, as the test may be run by root.
    let break_it = |old: &Old| {
        put(&old.repository("aa/_layers"), "a file");
        fs::create_dir_all(old.repository("aa/_manifests/tags")).unwrap();
        fs::remove_file(old.data(&sha256(&large()))).unwrap();
        fs::create_dir(old.data(&sha256(&large()))).unwrap();
        fs::create_dir_all(old.repository("bb/_manifests/tags/v1/current/link")).unwrap();
        fs::create_dir_all(old.repository("bb/_manifests/revisions")).unwrap();
        std::os::unix::fs::symlink("nowhere", old.repository("bb/dangling")).unwrap();
    };
    let unreadable = [Kind::Unreadable; 4];
    let kinds: Vec<_> = unreadable.into_iter().chain([Kind::Incomplete]).collect();
    broken(break_it, &kinds).await;
}

/// A tree may come from an archive that somebody else made.
#[tokio::test]
async fn symbolic_links_lead_nowhere() {
    let outside = Old::new();
    outside.push_image("secret", "v1", 50);
    let secret = content(10_050, LARGE + 50);
    let link = |to: &Path, at: &Path| {
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(to, at).unwrap();
    };
    let break_it = |old: &Old| {
        // Whole repositories, and circles that would be gone through without end.
        link(&outside.repository("secret"), &old.repository("stolen"));
        link(Path::new("."), &old.repository("circle"));
        link(Path::new("."), &old.repository("zz/circle"));
        // Parts of one.
        link(
            &outside.repository("secret/_manifests"),
            &old.repository("parts/_manifests"),
        );
        fs::create_dir_all(old.repository("parts/_layers")).unwrap();
        link(
            outside.tag("secret", "v1").parent().unwrap(),
            old.tag("app", "stolen").parent().unwrap(),
        );
        link(&outside.tag("secret", "v1"), &old.tag("app", "stolen-too"));
        // Content, large and small, and the folder that it is in.
        put(&old.layer("app", &sha256(&secret)), sha256(&secret).as_str());
        link(&outside.data(&sha256(&secret)), &old.data(&sha256(&secret)));
        let small = content(20_050, SMALL);
        put(&old.layer("app", &sha256(&small)), sha256(&small).as_str());
        link(
            outside.data(&sha256(&small)).parent().unwrap(),
            old.data(&sha256(&small)).parent().unwrap(),
        );
        let manifest = sha256(&image(&content(50, SMALL), &[secret.clone(), small], ""));
        put(&old.revision("app", &manifest), manifest.as_str());
        link(&outside.data(&manifest), &old.data(&manifest));
    };
    let (old, defects) = broken(break_it, &[Kind::Unreadable; 11]).await;
    for (_, text) in &defects.0 {
        assert!(text.contains("is a symbolic link"), "{text}");
    }
    let store = old.open().await;
    for repository in ["app", "stolen", "parts"] {
        let found = read(&store, repository, &sha256(&secret)).await;
        assert!(found.is_err(), "{repository}");
    }
    assert_eq!(old.files_of_bytes(), 3, "those of the images 1 to 3");
}

#[tokio::test]
async fn a_tree_behind_a_symbolic_link_is_refused() {
    let outside = Old::new();
    outside.push_image("secret", "v1", 50);
    for place in ["docker", "docker/registry", "docker/registry/v2/repositories"] {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join(place);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(outside.root.path().join("docker"), &place).unwrap();
        let refused = Tree::find(root.path()).unwrap_err().to_string();
        assert!(refused.contains(&place.display().to_string()), "{refused}");
        // Nor is it written through.
        let before = outside.snapshot();
        let store = Store::new(FilesystemBackend::open(root.path()).await.unwrap());
        let exported = store
            .export_distribution(root.path(), &ExportOptions::new().link(false), &())
            .await;
        assert!(matches!(exported, Err(ExportError::Folder { .. })));
        assert!(outside.snapshot() == before);
    }
}

#[tokio::test]
async fn an_export_writes_through_no_symbolic_link() {
    let old = Old::new();
    old.push_image("app", "v1", 1);
    let store = old.open().await;
    old.adopt(&store).await;
    let outside = tempfile::tempdir().unwrap();
    let precious = outside.path().join("precious");
    put(&precious, "precious");
    // A file is replaced, as it would be if it were one.
    for place in [
        "content.exporting".to_owned(),
        "repositories/app/_manifests/tags/v1/current/link.exporting".to_owned(),
    ] {
        let target = tempfile::tempdir().unwrap();
        let link = target.path().join("docker/registry/v2").join(place);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&precious, &link).unwrap();
        store
            .export_distribution(target.path(), &ExportOptions::new().link(false), &())
            .await
            .unwrap();
    }
    // A folder, or a link that is to stay, ends it.
    for place in [
        "blobs",
        "blobs/sha256",
        "repositories/app",
        "repositories/app/_manifests/tags/v1",
    ] {
        let target = tempfile::tempdir().unwrap();
        let link = target.path().join("docker/registry/v2").join(place);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(outside.path(), &link).unwrap();
        let exported = store
            .export_distribution(target.path(), &ExportOptions::new().link(false), &())
            .await;
        assert!(matches!(exported, Err(ExportError::Folder { .. })), "{place}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(fs::read(precious).unwrap(), b"precious");
}

/// A terminal shows them, and a log has a line for each.
#[tokio::test]
async fn names_have_no_effect_where_they_are_shown() {
    let break_it = |old: &Old| {
        fs::create_dir_all(old.repository("evil\n\x1b[2Jnot adopted: x")).unwrap();
        std::os::unix::fs::symlink(".", old.repository("evil\r\x07")).unwrap();
    };
    let (_, defects) = broken(break_it, &[Kind::Unreadable, Kind::InvalidName]).await;
    for (_, text) in &defects.0 {
        assert!(!text.chars().any(char::is_control), "{text:?}");
        assert!(text.contains("evil\\"), "{text:?}");
    }
}

/// Whoever opens a pipe waits for its writer.
#[tokio::test]
async fn pipes_keep_nobody_waiting() {
    let pipe = |place: &Path| {
        fs::remove_file(place).ok();
        let made = std::process::Command::new("mkfifo").arg(place).status();
        assert!(made.unwrap().success());
    };
    let break_it = |old: &Old| {
        pipe(&old.data(&sha256(&large())));
        pipe(&old.layer("app", &sha256(&small())));
        pipe(&old.tag("app", "v1"));
    };
    let mut kinds = vec![Kind::Unreadable; 3];
    kinds.extend([Kind::Incomplete; 2]);
    let old = Old::new();
    old.push_image("app", "v1", 1);
    break_it(&old);
    let store = old.open().await;
    let (_, defects) = old.adopt(&store).await;
    assert_eq!(defects.kinds(), kinds, "{:?}", defects.0);
}

#[tokio::test]
async fn manifests_are_of_schema_one_or_none_at_all() {
    for (text, kind) in [
        (
            r#"{"schemaVersion":1,"name":"a","tag":"b","fsLayers":[],"history":[],"signatures":[]}"#,
            Kind::SchemaOne,
        ),
        ("{}", Kind::InvalidManifest),
        ("not JSON", Kind::InvalidManifest),
        ("", Kind::InvalidManifest),
    ] {
        let break_it = |old: &Old| {
            old.push_manifest("app", &["bad"], text.as_bytes());
        };
        let mut kinds = [kind, Kind::DanglingTag];
        kinds.sort_unstable();
        broken(break_it, &kinds).await;
    }
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(5 << 20));
    let break_it = |old: &Old| {
        old.push_manifest("app", &[], large.as_bytes());
    };
    broken(break_it, &[Kind::InvalidManifest]).await;
}

#[tokio::test]
async fn the_content_of_a_manifest_is_missing_or_corrupt() {
    let digest = sha256(&manifest());
    let remove = |old: &Old| fs::remove_file(old.data(&digest)).unwrap();
    broken(remove, &[Kind::MissingContent, Kind::DanglingTag]).await;
    let change = |old: &Old| put(&old.data(&digest), image(&content(9, SMALL), &[], ""));
    broken(change, &[Kind::CorruptContent, Kind::DanglingTag]).await;
}
