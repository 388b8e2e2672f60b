//! OCI image layouts: what is exported comes back byte for byte, and what is broken is refused.
#![expect(clippy::unwrap_used, reason = "test code")]

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use std::path::Path;

use bytes::BytesMut;
use futures_util::StreamExt as _;
use registry_core::storage::PageRequest;
use registry_core::{Digest, Reference, RepositoryName, Storage};
use registry_storage::layout::{LayoutError, LayoutReport, export, import};
use registry_storage::{ObjectStoreBackend, Store};

use crate::support::images::{Image, digest, name, push_image, push_index, push_referrer, tag};

const LARGE: usize = 600_000;

fn memory() -> Store<ObjectStoreBackend> {
    Store::new(ObjectStoreBackend::memory())
}

struct Sample {
    first: Image,
    second: Image,
    index: Digest,
    signature: Image,
    attestation: Image,
}

/// An index of two images, without tags of their own; what refers to one of them, and what refers to that.
async fn sample(storage: &dyn Storage, repository: &str) -> Sample {
    let first = push_image(storage, repository, None, 1, LARGE).await;
    let second = push_image(storage, repository, None, 2, 100).await;
    let index = push_index(storage, repository, "all", &[&first, &second]).await;
    let signature = push_referrer(storage, repository, &first, 3).await;
    let attestation = push_referrer(storage, repository, &signature, 4).await;
    push_image(storage, repository, Some("v2"), 2, 100).await;
    push_image(storage, repository, Some("same"), 2, 100).await;
    Sample {
        first,
        second,
        index,
        signature,
        attestation,
    }
}

async fn assert_sample(storage: &dyn Storage, repository: &str, sample: &Sample) {
    let repository = name(repository);
    let by_tag = async |tag_name: &str| {
        let reference = Reference::Tag(tag(tag_name));
        storage
            .get_manifest(&repository, &reference)
            .await
            .unwrap()
            .digest
    };
    assert_eq!(by_tag("all").await, sample.index);
    assert_eq!(by_tag("v2").await, sample.second.digest);
    assert_eq!(by_tag("same").await, sample.second.digest);
    for image in [
        &sample.first,
        &sample.second,
        &sample.signature,
        &sample.attestation,
    ] {
        let reference = Reference::Digest(image.digest.clone());
        assert_eq!(
            storage.get_manifest(&repository, &reference).await.unwrap().bytes,
            image.bytes
        );
        for content in [&image.config, &image.layer] {
            let blob = storage.open_blob(&repository, &digest(content)).await.unwrap();
            let mut read = BytesMut::new();
            let mut chunks = blob.content.read(0..blob.size);
            while let Some(chunk) = chunks.next().await {
                read.extend_from_slice(&chunk.unwrap());
            }
            assert!(read == *content);
        }
    }
    for (subject, referrer) in [
        (&sample.first, &sample.signature),
        (&sample.signature, &sample.attestation),
    ] {
        let page = PageRequest {
            last: None,
            limit: 10,
        };
        let listed = storage
            .list_referrers(&repository, &subject.digest, page)
            .await
            .unwrap()
            .items;
        let listed: Vec<_> = listed.into_iter().map(|descriptor| descriptor.digest).collect();
        assert_eq!(listed, std::slice::from_ref(&referrer.digest));
    }
}

async fn written(storage: &dyn Storage, repositories: &[RepositoryName], target: &Path) -> LayoutReport {
    export(storage, repositories, target, &()).await.unwrap()
}

#[tokio::test]
async fn a_repository_comes_back_from_a_folder_and_an_archive() {
    let folder = tempfile::tempdir().unwrap();
    let storage = memory();
    let sample = sample(&storage, "team/app").await;
    push_image(&storage, "other", Some("v1"), 9, 10).await;
    for target in ["layout", "layout.tar"] {
        let target = folder.path().join(target);
        let report = written(&storage, &[name("team/app")], &target).await;
        assert_eq!(
            (report.repositories, report.tags, report.manifests, report.missing),
            (1, 3, 5, 0)
        );
        let other = memory();
        let report = import(&other, &target, &[name("moved")], &()).await.unwrap();
        assert_eq!((report.repositories, report.tags), (1, 3));
        assert!(report.manifests >= 5 && report.size > LARGE as u64, "{report:?}");
        assert_sample(&other, "moved", &sample).await;
        let page = PageRequest {
            last: None,
            limit: 10,
        };
        assert_eq!(
            other.list_repositories(page).await.unwrap().items,
            [name("moved")]
        );
        // Once more stores nothing more.
        let again = import(&other, &target, &[name("moved")], &()).await.unwrap();
        assert_eq!((again.blobs, again.size), (0, 0));
        assert_sample(&other, "moved", &sample).await;
        let error = import(&other, &target, &[], &()).await.unwrap_err();
        assert!(error.to_string().contains("name the repository"), "{error}");
    }
    // A folder keeps what it has.
    let target = folder.path().join("layout");
    let again = written(&storage, &[name("team/app")], &target).await;
    assert_eq!((again.blobs, again.size), (0, 0));
}

#[tokio::test]
async fn several_repositories_are_a_folder_each_and_share_content() {
    let folder = tempfile::tempdir().unwrap();
    let storage = memory();
    let names = ["app", "app/blobs", "team/app/index.json"];
    let mut samples = Vec::new();
    for name in names {
        samples.push(sample(&storage, name).await);
    }
    for target in ["all", "all.tar"] {
        let target = folder.path().join(target);
        let report = written(&storage, &[], &target).await;
        assert_eq!((report.repositories, report.manifests), (3, 15));
        assert_eq!(report.blobs, 8, "what they share is written once");
        let other = memory();
        import(&other, &target, &[], &()).await.unwrap();
        for (name, sample) in names.iter().zip(&samples) {
            assert_sample(&other, name, sample).await;
        }
        let chosen = memory();
        let report = import(&chosen, &target, &[name("app/blobs")], &()).await.unwrap();
        assert_eq!(report.repositories, 1);
        assert_sample(&chosen, "app/blobs", &samples[1]).await;
        let error = import(&chosen, &target, &[name("nowhere")], &())
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("there is no layout of nowhere"),
            "{error}"
        );
    }
    assert!(std::fs::metadata(folder.path().join("all.tar")).unwrap().len() < 2 * LARGE as u64);
    assert!(folder.path().join("all/team+app+index.json/oci-layout").is_file());
}

#[tokio::test]
async fn what_is_broken_is_refused_and_nothing_of_it_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let storage = memory();
    let image = push_image(&storage, "a", Some("v1"), 1, LARGE).await;
    let target = folder.path().join("layout");
    written(&storage, &[name("a")], &target).await;
    let layer = target.join("blobs/sha256").join(digest(&image.layer).encoded());
    let manifest = target.join("blobs/sha256").join(image.digest.encoded());
    let refusal = async || {
        import(&memory(), &target, &[name("a")], &())
            .await
            .unwrap_err()
            .to_string()
    };
    let kept = std::fs::read(&layer).unwrap();
    let mut damaged = kept.clone();
    damaged[5] ^= 1;
    std::fs::write(&layer, damaged).unwrap();
    let other = memory();
    let error = import(&other, &target, &[name("a")], &()).await.unwrap_err();
    assert!(
        matches!(error, LayoutError::Storage { .. }) && error.to_string().contains("digest"),
        "{error}"
    );
    let tagged = other.get_manifest(&name("a"), &Reference::Tag(tag("v1"))).await;
    assert!(tagged.is_err());
    std::fs::remove_file(&layer).unwrap();
    assert!(refusal().await.contains("neither in it nor in a"));
    std::fs::write(&layer, kept).unwrap();
    let text = std::fs::read(&manifest).unwrap();
    std::fs::write(&manifest, [&text[..], b" "].concat()).unwrap();
    assert!(refusal().await.contains("has the digest"));
    std::fs::remove_file(&manifest).unwrap();
    assert!(refusal().await.contains("not there"));
    std::fs::write(target.join("index.json"), "{").unwrap();
    assert!(refusal().await.contains("index.json"));
    std::fs::write(target.join("oci-layout"), "{\"imageLayoutVersion\":\"2.0.0\"}").unwrap();
    assert!(refusal().await.contains("version 2.0.0"));
    std::fs::remove_file(target.join("oci-layout")).unwrap();
    assert!(refusal().await.contains("there is no"));
    let error = import(&memory(), &folder.path().join("nothing"), &[], &())
        .await
        .unwrap_err();
    assert!(matches!(error, LayoutError::Disk { .. }));
    std::fs::write(folder.path().join("x.tar"), vec![7; 5000]).unwrap();
    import(&memory(), &folder.path().join("x.tar"), &[], &())
        .await
        .unwrap_err();
}

#[tokio::test]
async fn a_manifest_whose_content_was_deleted_is_exported_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let storage = memory();
    let image = push_image(&storage, "a", Some("v1"), 1, 100).await;
    storage
        .delete_blob(&name("a"), &digest(&image.layer))
        .await
        .unwrap();
    let report = written(&storage, &[name("a")], &folder.path().join("layout")).await;
    assert_eq!((report.manifests, report.missing), (1, 1));
    let error = export(&storage, &[name("b")], &folder.path().join("b"), &())
        .await
        .unwrap_err();
    assert!(error.to_string().starts_with("b: listing its tags"), "{error}");
}
