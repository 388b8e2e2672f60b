//! Manifests: exact bytes, children, deletes.

use std::sync::Arc;

use bytes::Bytes;
use registry_core::storage::{Manifest, NewManifest, RepositoryDeleted, TagFilter};
use registry_core::{Algorithm, Digest, ErrorCode, Reference, RepositoryName, Storage};

use super::fixtures::{
    With as _, assert_code, content, digest, digest_by, get, get_tag, manifest, media_type, push_blob,
    reference, repository, tag,
};
use super::immutable::image;

/// A manifest reads back byte for byte with its type, by digest and by tag.
pub async fn exact_bytes(storage: Arc<dyn Storage>) {
    let repository = repository("a/b");
    let latest = tag("latest");
    for text in [
        "{}",
        "",
        "\n{ \"z\" : 1,\r\n \"a\": \"\u{e9}\\u0000\" }  \n\n",
        "\n",
    ] {
        let mut new = manifest(text).with_tag(&latest);
        new.manifest.media_type = media_type("application/vnd.test+json");
        storage.put_manifest(&repository, new.clone()).await.unwrap();
        assert_manifest(
            &*storage,
            &repository,
            &Reference::Digest(new.manifest.digest.clone()),
            &new.manifest,
        )
        .await;
        assert_manifest(&*storage, &repository, &reference(&latest), &new.manifest).await;
    }
    let mut large = manifest("").with_tag(&latest);
    large.manifest.bytes = content(1, 4 * 1024 * 1024);
    large.manifest.digest = digest_by(Algorithm::Sha512, &large.manifest.bytes);
    storage.put_manifest(&repository, large.clone()).await.unwrap();
    assert_manifest(&*storage, &repository, &reference(&latest), &large.manifest).await;
}

async fn assert_manifest(
    storage: &dyn Storage,
    repository: &RepositoryName,
    reference: &Reference,
    expected: &Manifest,
) {
    assert!(storage.get_manifest(repository, reference).await.unwrap() == *expected);
    assert!(storage.pull_manifest(repository, reference).await.unwrap() == *expected);
    assert!(storage.stat_manifest(repository, reference).await.unwrap() == *expected);
}

/// What was not pushed is unknown: the repository, or the manifest in it. So are the manifests of other repositories.
pub async fn unknown_manifest(storage: Arc<dyn Storage>) {
    let a = repository("a");
    let new = manifest("one").with_tag(&tag("v1"));
    let by_digest = Reference::Digest(new.manifest.digest.clone());
    storage.put_manifest(&a, new.clone()).await.unwrap();
    for other in ["b", "a/b", "aa"] {
        let other = repository(other);
        for reference in [&by_digest, &reference(&tag("v1"))] {
            for read in [
                storage.get_manifest(&other, reference).await,
                storage.pull_manifest(&other, reference).await,
            ] {
                assert_code(read, ErrorCode::NameUnknown);
            }
            assert_code(
                storage.stat_manifest(&other, reference).await,
                ErrorCode::NameUnknown,
            );
        }
        assert_code(
            storage
                .delete_manifest(&other, &new.manifest.digest, None, None)
                .await,
            ErrorCode::NameUnknown,
        );
        assert_code(
            storage.delete_tag(&other, &tag("v1"), None).await,
            ErrorCode::NameUnknown,
        );
    }
    let never = digest(b"never pushed");
    assert_code(get(&*storage, &a, &never).await, ErrorCode::ManifestUnknown);
    assert_code(
        get_tag(&*storage, &a, &tag("v2")).await,
        ErrorCode::ManifestUnknown,
    );
    assert_code(
        storage.delete_manifest(&a, &never, None, None).await,
        ErrorCode::ManifestUnknown,
    );
    assert_code(
        storage.delete_tag(&a, &tag("v2"), None).await,
        ErrorCode::ManifestUnknown,
    );
}

/// A manifest whose child is not in the repository is refused and leaves nothing, unless missing children are allowed.
pub async fn missing_children(storage: Arc<dyn Storage>) {
    let (a, b) = (repository("a"), repository("b"));
    let here = push_blob(&*storage, &a, &content(1, 10)).await;
    let elsewhere = push_blob(&*storage, &b, &content(2, 10)).await;
    let deleted = push_blob(&*storage, &a, &content(3, 10)).await;
    storage.delete_blob(&a, &deleted, None).await.unwrap();
    let child = manifest("child");
    storage.put_manifest(&b, child.clone()).await.unwrap();
    let latest = tag("latest");
    let lacking = [
        manifest("1").with_blob(&here).with_blob(&elsewhere),
        manifest("2").with_blob(&deleted),
        manifest("3").with_blob(&digest(b"never")),
        manifest("4").with_child(&child.manifest.digest),
        manifest("5").with_child(&elsewhere),
    ];
    for new in lacking {
        let mut new = new.with_tag(&latest);
        assert_code(
            storage.put_manifest(&a, new.clone()).await,
            ErrorCode::ManifestBlobUnknown,
        );
        assert_absent(&*storage, &a, &new).await;
        new.allow_missing = true;
        storage.put_manifest(&a, new.clone()).await.unwrap();
        assert!(get_tag(&*storage, &a, &latest).await.unwrap() == new.manifest);
        storage
            .delete_manifest(&a, &new.manifest.digest, None, None)
            .await
            .unwrap();
        assert_absent(&*storage, &a, &new).await;
    }
    storage
        .put_manifest(&a, manifest("6").with_blob(&here).with_tag(&latest))
        .await
        .unwrap();
    let refused = manifest("7").with_blob(&elsewhere).with_tag(&latest);
    assert_code(
        storage.put_manifest(&a, refused).await,
        ErrorCode::ManifestBlobUnknown,
    );
    assert_eq!(
        get_tag(&*storage, &a, &latest).await.unwrap(),
        manifest("6").manifest,
        "the tag is where it was"
    );
}

async fn assert_absent(storage: &dyn Storage, repository: &RepositoryName, new: &NewManifest) {
    get(storage, repository, &new.manifest.digest).await.unwrap_err();
    for tag in &new.tags {
        get_tag(storage, repository, tag).await.unwrap_err();
    }
}

/// A manifest's children may be manifests, or blobs in place of manifests.
pub async fn child_manifests(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    let child = manifest("child");
    let index = manifest("index").with_child(&child.manifest.digest);
    assert_code(
        storage.put_manifest(&repository, index.clone()).await,
        ErrorCode::ManifestBlobUnknown,
    );
    storage.put_manifest(&repository, child.clone()).await.unwrap();
    storage.put_manifest(&repository, index).await.unwrap();
    let layer = push_blob(&*storage, &repository, &content(1, 10)).await;
    storage
        .put_manifest(&repository, manifest("cache").with_child(&layer))
        .await
        .unwrap();
    storage
        .delete_manifest(&repository, &child.manifest.digest, None, None)
        .await
        .unwrap();
    let late = manifest("late").with_child(&child.manifest.digest);
    assert_code(
        storage.put_manifest(&repository, late).await,
        ErrorCode::ManifestBlobUnknown,
    );
}

/// A manifest does not count as a child where a blob is named.
pub async fn manifest_is_no_blob(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    let child = manifest("child");
    storage.put_manifest(&repository, child.clone()).await.unwrap();
    let image = manifest("image").with_blob(&child.manifest.digest);
    assert_code(
        storage.put_manifest(&repository, image).await,
        ErrorCode::ManifestBlobUnknown,
    );
    assert_code(
        storage.stat_blob(&repository, &child.manifest.digest).await,
        ErrorCode::BlobUnknown,
    );
}

/// A deleted manifest is gone, and can be pushed again.
pub async fn delete_and_push_again(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    let (one, two) = (tag("one"), tag("two"));
    let new = manifest("image");
    let digest = &new.manifest.digest;
    for _ in 0..3 {
        storage
            .put_manifest(&repository, new.clone().with_tag(&one))
            .await
            .unwrap();
        storage
            .put_manifest(&repository, new.clone().with_tag(&two))
            .await
            .unwrap();
        storage.put_manifest(&repository, new.clone()).await.unwrap();
        assert!(get_tag(&*storage, &repository, &one).await.unwrap() == new.manifest);
        storage
            .delete_manifest(&repository, digest, None, None)
            .await
            .unwrap();
        assert_absent(&*storage, &repository, &new.clone().with_tag(&one).with_tag(&two)).await;
        assert_code(
            storage.delete_manifest(&repository, digest, None, None).await,
            ErrorCode::ManifestUnknown,
        );
    }
    // Its earlier tags do not come back with the manifest.
    storage.put_manifest(&repository, new.clone()).await.unwrap();
    assert_absent_tags(&*storage, &repository, &[one, two]).await;
    assert!(get(&*storage, &repository, digest).await.unwrap() == new.manifest);
}

async fn assert_absent_tags(storage: &dyn Storage, repository: &RepositoryName, tags: &[registry_core::Tag]) {
    for tag in tags {
        assert_code(
            get_tag(storage, repository, tag).await,
            ErrorCode::ManifestUnknown,
        );
    }
}

/// The same bytes under digests of two algorithms are two manifests.
pub async fn two_digests_of_the_same_bytes(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    let new = manifest("image");
    let mut other = new.clone();
    other.manifest.digest = digest_by(Algorithm::Sha512, &new.manifest.bytes);
    storage.put_manifest(&repository, new.clone()).await.unwrap();
    assert_code(
        get(&*storage, &repository, &other.manifest.digest).await,
        ErrorCode::ManifestUnknown,
    );
    storage.put_manifest(&repository, other.clone()).await.unwrap();
    storage
        .delete_manifest(&repository, &new.manifest.digest, None, None)
        .await
        .unwrap();
    assert!(get(&*storage, &repository, &other.manifest.digest).await.unwrap() == other.manifest);
}

/// Blobs of a manifest may be deleted; the manifest stays.
pub async fn delete_of_a_blob_that_is_named(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    let content: Bytes = content(1, 10);
    let blob: Digest = push_blob(&*storage, &repository, &content).await;
    let image = manifest("image").with_blob(&blob);
    storage.put_manifest(&repository, image.clone()).await.unwrap();
    storage.delete_blob(&repository, &blob, None).await.unwrap();
    assert!(get(&*storage, &repository, &image.manifest.digest).await.unwrap() == image.manifest);
    storage.put_manifest(&repository, image).await.unwrap();
}

/// A repository is deleted with all that is in it, and no other. A storage that cannot says so.
pub async fn delete_of_a_repository(storage: Arc<dyn Storage>) {
    let (a, below) = (repository("a"), repository("a/b"));
    let blob = push_blob(&*storage, &a, &content(1, 10)).await;
    push_blob(&*storage, &below, &content(1, 10)).await;
    let images = [image(&[&blob]), image(&[&blob, &blob])];
    for image in &images {
        let image = image.clone().with_tag(&tag("v1"));
        storage.put_manifest(&a, image.clone()).await.unwrap();
        storage.put_manifest(&below, image).await.unwrap();
    }
    let is_v1: TagFilter = Arc::new(|tag| tag.as_str() == "v1");
    match storage.delete_all(&a, Some(is_v1)).await {
        Err(error) if error.code() == ErrorCode::MethodNotAllowed => return,
        refused => assert_code(refused, ErrorCode::TagConflict),
    }
    assert!(get_tag(&*storage, &a, &tag("v1")).await.unwrap() == images[1].manifest);
    let is_v2: TagFilter = Arc::new(|tag| tag.as_str() == "v2");
    let deleted = storage.delete_all(&a, Some(is_v2)).await.unwrap();
    // A storage from which it can be restored keeps what that needs.
    let is_kept = deleted.restorable_until.is_some();
    assert_eq!(
        deleted,
        RepositoryDeleted {
            tags: 1,
            manifests: 2,
            blobs: u64::from(!is_kept),
            bytes: if is_kept { 0 } else { 10 },
            is_gone: true,
            restorable_until: deleted.restorable_until,
            ..RepositoryDeleted::default()
        }
    );
    for image in &images {
        assert_code(
            get(&*storage, &a, &image.manifest.digest).await,
            ErrorCode::NameUnknown,
        );
    }
    if !is_kept {
        assert_code(storage.stat_blob(&a, &blob).await, ErrorCode::BlobUnknown);
    }
    assert_code(storage.delete_all(&a, None).await, ErrorCode::NameUnknown);
    assert!(get_tag(&*storage, &below, &tag("v1")).await.unwrap() == images[1].manifest);
    assert_eq!(storage.stat_blob(&below, &blob).await.unwrap(), 10);
    // It is a new one when something is pushed.
    storage.put_manifest(&a, manifest("3")).await.unwrap();
    assert_absent_tags(&*storage, &a, &[tag("v1")]).await;
    if !is_kept {
        assert_code(storage.stat_blob(&a, &blob).await, ErrorCode::BlobUnknown);
    }
}
