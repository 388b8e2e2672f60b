//! What is exported, and over what.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use registry_core::storage::{Manifest, ManifestStorage as _, NewManifest};
use registry_core::{Algorithm, Digest};
use registry_storage::distribution::{AdoptOptions, ExportOptions, ExportReport};
use registry_storage::filesystem::FilesystemBackend;
use registry_storage::testing::Observed;
use registry_storage::{Maintenance as _, ObjectStoreBackend, Step, Store};

use crate::fixture::{IMAGE, LARGE, Old, SMALL, content, get, image, name, read, sha256, tag, tags};
use crate::support::images::bare_manifest;

pub(crate) async fn push<S: registry_core::Storage>(
    store: &S,
    repository: &str,
    digest: &Digest,
    content: &[u8],
) {
    let id = store
        .create_upload(&name(repository), "", digest.algorithm().unwrap())
        .await
        .unwrap();
    let upload = registry_core::storage::UploadKey {
        repository: name(repository),
        id,
        principal: String::new(),
    };
    let body = std::pin::pin!(futures_util::stream::iter([Ok(content.to_vec().into())]));
    store.append_upload(&upload, None, body).await.unwrap();
    store.commit_upload(&upload, digest).await.unwrap();
}

pub(crate) async fn put_manifest<S: registry_core::Storage>(
    store: &S,
    repository: &str,
    text: &str,
    bytes: &[u8],
) -> Digest {
    let digest = sha256(bytes);
    let new = NewManifest {
        allow_missing: true,
        tags: vec![tag(text)],
        ..bare_manifest(Manifest {
            digest: digest.clone(),
            media_type: IMAGE.parse().unwrap(),
            bytes: bytes.to_vec().into(),
        })
    };
    store.put_manifest(&name(repository), new).await.unwrap();
    digest
}

async fn export_to(store: &Store<FilesystemBackend>, to: &Path) -> ExportReport {
    let options = ExportOptions::new();
    store.export_distribution(to, &options, &()).await.unwrap()
}

/// Adopts what was exported into a store of its own.
async fn adopted(exported: Old) -> (Old, Store<FilesystemBackend>) {
    let store = exported.open().await;
    let (report, defects) = exported
        .adopt_with(&store, AdoptOptions::new().verify(true))
        .await
        .unwrap();
    assert!(defects.0.is_empty(), "{:?}", defects.0);
    // What is compared is counted, and how much there is was known.
    assert!(
        (report.bytes..=report.content).contains(&report.content_done),
        "{report:?}"
    );
    (exported, store)
}

fn empty() -> Old {
    Old {
        root: tempfile::tempdir().unwrap(),
    }
}

#[tokio::test]
async fn bytes_are_linked_and_the_rest_is_written() {
    let old = Old::new();
    let manifest = old.push_image("app/one", "v1", 1);
    let store = old.open().await;
    old.adopt(&store).await;
    let (new, small) = (content(5, LARGE), content(6, SMALL));
    for pushed in [&new, &small] {
        push(&store, "app/two", &sha256(pushed), pushed).await;
    }
    let second = image(&small, std::slice::from_ref(&new), "");
    put_manifest(&store, "app/two", "latest", &second).await;
    let target = empty();
    let report = export_to(&store, target.root.path()).await;
    assert_eq!((report.repositories, report.repositories_done), (2, 2));
    assert_eq!((report.manifests, report.tags, report.grants), (2, 2, 5));
    assert_eq!((report.links, report.content), (7, 0));
    assert_eq!((report.linked, report.copied), (2, 3));
    let link = fs::read_to_string(target.tag("app/two", "latest")).unwrap();
    assert_eq!(link, sha256(&second).as_str());
    let entry = target
        .repository("app/two/_manifests/tags/latest/index")
        .join(sha256(&second).as_str().replace(':', "/"))
        .join("link");
    assert_eq!(fs::read_to_string(entry).unwrap(), link);
    let large = sha256(&content(10_001, LARGE + 1));
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&target.data(&large)), inode(&old.data(&large)));

    // Again: nothing is left to do.
    let before = target.snapshot();
    let report = export_to(&store, target.root.path()).await;
    assert_eq!((report.linked, report.copied), (0, 0));
    assert!(target.snapshot() == before);

    let (_target, exported) = adopted(target).await;
    assert_eq!(get(&exported, "app/one", "v1").await.unwrap().bytes, manifest);
    assert_eq!(get(&exported, "app/two", "latest").await.unwrap().bytes, second);
    assert_eq!(read(&exported, "app/two", &sha256(&new)).await.unwrap(), new);
    assert_eq!(read(&exported, "app/two", &sha256(&small)).await.unwrap(), small);
}

#[tokio::test]
async fn over_the_tree_that_was_adopted_it_adds_and_moves_tags() {
    let old = Old::new();
    let first = old.push_image("app", "v1", 1);
    let second = old.push_image("app", "v2", 2);
    let store = old.open().await;
    old.adopt(&store).await;
    let third = image(&content(1, SMALL), &[], "");
    put_manifest(&store, "app", "v1", &third).await;
    put_manifest(&store, "app", "v3", &third).await;
    store.delete_tag(&name("app"), &tag("v2"), None).await.unwrap();
    let before = old.snapshot();
    export_to(&store, old.root.path()).await;
    let after = old.snapshot();
    for (path, file) in &before {
        if *path != old.tag("app", "v1") {
            assert_eq!(after.get(path), Some(file), "{}", path.display());
        }
    }
    store.close().await.unwrap();
    for file in ["records.sqlite", "registry.lock"] {
        fs::remove_file(old.root.path().join(file)).unwrap();
    }
    fs::remove_dir_all(old.root.path().join("bytes")).unwrap();
    let (_old, exported) = adopted(old).await;
    assert_eq!(tags(&exported, "app").await, ["v1", "v2", "v3"]);
    assert_eq!(get(&exported, "app", "v1").await.unwrap().bytes, third);
    assert_eq!(get(&exported, "app", "v2").await.unwrap().bytes, second);
    assert_eq!(
        get(&exported, "app", sha256(&first).as_str())
            .await
            .unwrap()
            .bytes,
        first
    );
}

#[tokio::test]
async fn what_an_export_left_half_done_is_done_by_the_next() {
    let old = Old::new();
    let manifest = old.push_image("app", "v1", 1);
    let store = old.open().await;
    old.adopt(&store).await;
    let target = empty();
    export_to(&store, target.root.path()).await;
    let whole = target.snapshot();
    let contents = |old: &Old| -> Vec<_> {
        old.snapshot()
            .into_iter()
            .map(|(path, (content, ..))| (path, content))
            .collect()
    };
    let expected = contents(&target);
    for round in 0..3 {
        for (number, (path, (content, ..))) in whole.iter().enumerate() {
            fs::remove_file(path).unwrap();
            match (number + round) % 3 {
                // It was not reached.
                0 => {}
                // The power went before it was durable.
                1 => fs::write(path, &content[..content.len() / 2]).unwrap(),
                // It was being written.
                _ => {
                    let mut aside = path.as_os_str().to_owned();
                    aside.push(".exporting");
                    fs::write(&aside, "half").unwrap();
                }
            }
        }
        export_to(&store, target.root.path()).await;
        assert!(contents(&target) == expected, "round {round}");
    }
    assert_eq!(
        read(&store, "app", &sha256(&content(10_001, LARGE + 1)))
            .await
            .unwrap()
            .len(),
        LARGE + 1
    );
    let (_target, exported) = adopted(target).await;
    assert_eq!(get(&exported, "app", "v1").await.unwrap().bytes, manifest);
}

#[tokio::test]
async fn other_algorithms_are_kept_by_sha256() {
    let old = Old::new();
    let store = old.open().await;
    for size in [SMALL, LARGE] {
        let content = content(size, size);
        push(&store, "app", &Digest::of(Algorithm::Sha512, &content), &content).await;
    }
    put_manifest(&store, "app", "v1", &image(b"", &[], "")).await;
    let target = empty();
    let report = export_to(&store, target.root.path()).await;
    assert_eq!((report.linked, report.copied), (0, 2));
    let exported = target.open().await;
    target.adopt(&exported).await;
    for size in [SMALL, LARGE] {
        let content = content(size, size);
        for algorithm in Algorithm::ALL {
            let digest = Digest::of(algorithm, &content);
            assert_eq!(read(&exported, "app", &digest).await.unwrap(), content);
        }
    }
}

#[tokio::test]
async fn a_store_that_is_no_disk_is_copied() {
    let store = Store::new(ObjectStoreBackend::memory());
    let blob = content(1, LARGE);
    push(&store, "app", &sha256(&blob), &blob).await;
    let manifest = image(b"{}", std::slice::from_ref(&blob), "");
    put_manifest(&store, "app", "v1", &manifest).await;
    let target = empty();
    let report = store
        .export_distribution(target.root.path(), &ExportOptions::new().link(false), &())
        .await
        .unwrap();
    assert_eq!((report.copied, report.tags), (1, 1));
    assert_eq!(
        (report.content, report.content_done),
        (report.copied_bytes, report.copied_bytes)
    );
    let exported = target.open().await;
    target.adopt(&exported).await;
    assert_eq!(read(&exported, "app", &sha256(&blob)).await.unwrap(), blob);
    assert_eq!(get(&exported, "app", "v1").await.unwrap().bytes, manifest);
}

#[tokio::test]
async fn an_export_that_goes_on_starts_from_what_is_done() {
    let store = Store::new(ObjectStoreBackend::memory());
    let (first, second) = (content(1, LARGE), content(2, LARGE + 7));
    push(&store, "app", &sha256(&first), &first).await;
    put_manifest(&store, "app", "v1", &image(&first, &[], "")).await;
    let target = empty();
    // Content of others is none that is to be copied.
    target.push_blob("other", &content(3, LARGE));
    let observed = Observed::default();
    for blob in [None, Some(&second)] {
        if let Some(blob) = blob {
            push(&store, "app", &sha256(blob), blob).await;
        }
        store
            .export_distribution(target.root.path(), &ExportOptions::new(), &observed)
            .await
            .unwrap();
    }
    let told: Vec<(u64, u64)> = observed
        .steps()
        .into_iter()
        .map(|(step, done, total)| {
            assert_eq!(step, Step::Copying);
            (done, total.unwrap())
        })
        .collect();
    let (first, both) = (first.len() as u64, (first.len() + second.len()) as u64);
    let begins = |at: &usize| *at == 0 || told[*at].1 != told[at - 1].1;
    let beginnings: Vec<(u64, u64)> = (0..told.len()).filter(begins).map(|at| told[at]).collect();
    assert_eq!(beginnings, [(0, first), (first, both)]);
    assert_eq!(told.last(), Some(&(both, both)));
}

#[tokio::test]
async fn one_export_writes_to_a_folder_at_a_time() {
    let old = Old::new();
    old.push_image("app", "v1", 1);
    let store = old.open().await;
    old.adopt(&store).await;
    let target = tempfile::tempdir().unwrap();
    let folder = target.path().join("docker/registry/v2");
    fs::create_dir_all(&folder).unwrap();
    let other = fs::File::open(&folder).unwrap();
    other.try_lock().unwrap();
    let refused = store
        .export_distribution(target.path(), &ExportOptions::new().link(false), &())
        .await
        .unwrap_err();
    let cause = std::error::Error::source(&refused).unwrap().to_string();
    assert!(cause.contains("another export"), "{cause}");
    drop(other);
    store
        .export_distribution(target.path(), &ExportOptions::new().link(false), &())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    let old = Old::new();
    let store = old.open().await;
    let file = old.root.path().join("file");
    fs::write(&file, "").unwrap();
    let error = store
        .export_distribution(&file, &ExportOptions::new().link(false), &())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("file cannot be written"), "{error}");
}
