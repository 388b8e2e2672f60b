//! What an immutable tag reaches stays.

#![expect(clippy::disallowed_methods, reason = "the tasks of a kit end with its test")]

use std::sync::Arc;

use registry_core::storage::{ManifestChild, NewManifest, TagFilter};
use registry_core::{Digest, Error, ErrorCode, RepositoryName, Storage, Tag};
use tokio::task::yield_now;

use super::fixtures::{
    With as _, all_tags, assert_code, content, get, get_tag, manifest, media_type, push_blob, repository, tag,
};
use super::random::Random;

/// Makes all tags that begin with `v` immutable.
fn immutable() -> Option<TagFilter> {
    Some(Arc::new(|tag| tag.as_str().starts_with('v')))
}

fn descriptor(digest: &Digest) -> String {
    format!("{{\"mediaType\":\"application/vnd.test\",\"digest\":\"{digest}\",\"size\":1}}")
}

fn descriptors(digests: &[&Digest]) -> String {
    let texts: Vec<String> = digests.iter().map(|digest| descriptor(digest)).collect();
    texts.join(",")
}

/// Returns an image manifest that names these blobs, the first as its configuration.
pub(super) fn image(blobs: &[&Digest]) -> NewManifest {
    let (config, layers) = blobs.split_first().unwrap();
    let text = format!(
        "{{\"schemaVersion\":2,\"config\":{},\"layers\":[{}]}}",
        descriptor(config),
        descriptors(layers)
    );
    blobs
        .iter()
        .fold(manifest(&text), |image, digest| image.with_blob(digest))
}

fn index(manifests: &[&Digest]) -> NewManifest {
    let text = format!(
        "{{\"schemaVersion\":2,\"manifests\":[{}]}}",
        descriptors(manifests)
    );
    let mut index = manifests
        .iter()
        .fold(manifest(&text), |index, digest| index.with_child(digest));
    index.manifest.media_type = media_type("application/vnd.oci.image.index.v1+json");
    index
}

fn fixed(manifest: NewManifest, name: &str) -> NewManifest {
    manifest.with_tag(&tag(name)).with_immutable_tags()
}

async fn push(storage: &dyn Storage, repository: &RepositoryName, new: &NewManifest) -> Digest {
    storage.put_manifest(repository, new.clone()).await.unwrap();
    new.manifest.digest.clone()
}

#[track_caller]
fn assert_stays(result: Result<(), Error>, tag: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.code(), ErrorCode::TagConflict, "{error:?}");
    assert!(error.to_string().contains(tag), "{error} names the tag {tag}");
}

/// Neither the manifests below an immutable tag nor their blobs can be deleted, at any depth; everything else can.
pub async fn what_a_tag_reaches_stays(storage: Arc<dyn Storage>) {
    let (storage, name, other) = (&*storage, repository("a"), repository("b"));
    let mut blobs = Vec::new();
    for seed in 0..5 {
        blobs.push(push_blob(storage, &name, &content(seed, 100)).await);
    }
    let [config, layer, listed, free, nobodys] = &blobs[..] else {
        unreachable!()
    };
    storage.mount_blob(&name, &other, layer).await.unwrap();
    let inner_image = push(storage, &name, &image(&[config, layer])).await;
    let free_image = push(storage, &name, &image(&[config, free]).with_tag(&tag("latest"))).await;
    // An entry of an index may be a blob.
    let inner_index = push(storage, &name, &index(&[&inner_image, listed])).await;
    let outer_index = push(storage, &name, &fixed(index(&[&inner_index]), "v1")).await;
    for blob in [config, layer, listed] {
        assert_stays(storage.delete_blob(&name, blob, immutable()).await, "v1");
        storage.stat_blob(&name, blob).await.unwrap();
    }
    for digest in [&inner_image, &inner_index, &outer_index] {
        let deleted = storage.delete_manifest(&name, digest, None, immutable()).await;
        assert_stays(deleted, "v1");
        get(storage, &name, digest).await.unwrap();
    }
    get_tag(storage, &name, &tag("v1")).await.unwrap();
    // Content that no immutable tag reaches can be deleted, and so can what another repository has.
    storage.delete_blob(&other, layer, immutable()).await.unwrap();
    storage.delete_blob(&name, nobodys, immutable()).await.unwrap();
    storage.delete_blob(&name, free, immutable()).await.unwrap();
    storage
        .delete_manifest(&name, &free_image, None, immutable())
        .await
        .unwrap();
    assert_code(
        storage.delete_blob(&name, free, immutable()).await,
        ErrorCode::BlobUnknown,
    );
    assert_code(
        storage
            .delete_manifest(&name, &free_image, None, immutable())
            .await,
        ErrorCode::ManifestUnknown,
    );
    assert_eq!(all_tags(storage, &name, 10).await, ["v1"]);
    // If no tag is immutable, content can be deleted even though a tag reaches it.
    storage.delete_blob(&name, layer, None).await.unwrap();
}

/// Returns the tag under which clients list referrers.
fn list_tag() -> Tag {
    tag(&format!("sha256-{}", "ab".repeat(32)))
}

/// Pushes images that represent signatures.
async fn push_signatures(storage: &dyn Storage, name: &RepositoryName, count: u64) -> Vec<Digest> {
    let mut signatures = Vec::new();
    for seed in 0..count {
        let envelope = push_blob(storage, name, &content(seed, 100)).await;
        signatures.push(push(storage, name, &image(&[&envelope])).await);
    }
    signatures
}

/// An immutable tag that lists referrers moves to an index that names everything that the previous index did, and to
/// nothing else; the index that it left can be deleted.
pub async fn a_list_of_referrers_may_grow(storage: Arc<dyn Storage>) {
    let (storage, name) = (&*storage, &repository("a"));
    let listing: TagFilter = Arc::new(Tag::lists_referrers);
    let signatures = push_signatures(storage, name, 3).await;
    let [one, two, three] = &signatures[..] else {
        unreachable!()
    };
    let list = list_tag();
    let push_list = async |mut new: NewManifest, is_alone: bool| {
        new = new.with_tag(&list);
        if is_alone {
            new = new.with_immutable_tags();
        } else {
            // Another tag of the push may move.
            new.tags.push(tag("other"));
            new.immutable_tags = vec![list.clone()];
        }
        storage.put_manifest(name, new).await
    };
    push_list(index(&[one]), true).await.unwrap();
    push_list(index(&[two, one]), false).await.unwrap();
    for refused in [index(&[one, three]), index(&[]), image(&[one, two])] {
        for is_alone in [true, false] {
            let pushed = push_list(refused.clone(), is_alone).await;
            assert_code(pushed, ErrorCode::TagConflict);
        }
    }
    let mut docker = index(&[one, two, three]);
    docker.manifest.media_type = media_type("application/vnd.docker.distribution.manifest.list.v2+json");
    assert_code(push_list(docker, true).await, ErrorCode::TagConflict);
    let largest = index(&[one, two, three]);
    push_list(largest.clone(), true).await.unwrap();
    assert_eq!(get_tag(storage, name, &list).await.unwrap(), largest.manifest);
    // Content that the list reaches stays; the index that it left can be deleted.
    let deleted = storage.delete_manifest(name, one, None, Some(Arc::clone(&listing)));
    assert_stays(deleted.await, list.as_str());
    for left in [index(&[one]), index(&[two, one])] {
        let digest = left.manifest.digest;
        let deleted = storage.delete_manifest(name, &digest, None, Some(Arc::clone(&listing)));
        deleted.await.unwrap();
    }
    // A tag of another form does not grow.
    let short = format!("sha256-{}", "a".repeat(63));
    for (tag, first) in [
        ("v1", index(&[one])),
        (&short, index(&[one])),
        (&*format!("{list}.sig"), index(&[one])),
    ] {
        push(storage, name, &fixed(first, tag)).await;
        let grown = storage.put_manifest(name, fixed(index(&[one, two]), tag)).await;
        assert_code(grown, ErrorCode::TagConflict);
    }
}

/// If clients add to a list concurrently, from the same beginning, no addition is lost.
pub async fn lists_of_referrers_that_grow_at_once(storage: Arc<dyn Storage>) {
    for seed in 0..24 {
        let name = repository(&format!("growing/{seed}"));
        let signatures = push_signatures(&*storage, &name, 5).await;
        let (first, rest) = signatures.split_first().unwrap();
        push(&*storage, &name, &fixed(index(&[first]), list_tag().as_str())).await;
        let pushes = rest.iter().zip(0..).map(|(added, number)| {
            let new = fixed(index(&[first, added]), list_tag().as_str());
            let (storage, name) = (Arc::clone(&storage), name.clone());
            tokio::spawn(async move {
                pause(seed, number).await;
                storage.put_manifest(&name, new).await
            })
        });
        let pushes: Vec<_> = pushes.collect();
        let mut accepted = Vec::new();
        for (pushing, added) in pushes.into_iter().zip(rest) {
            match pushing.await.unwrap() {
                Ok(()) => accepted.push(index(&[first, added]).manifest),
                Err(error) => assert_eq!(error.code(), ErrorCode::TagConflict, "seed {seed}: {error:?}"),
            }
        }
        assert_eq!(accepted.len(), 1, "seed {seed}: what was added first is not lost");
        let read = get_tag(&*storage, &name, &list_tag()).await.unwrap();
        assert_eq!(Some(&read), accepted.first(), "seed {seed}");
    }
}

/// An immutable tag is never pointed at an image that cannot be pulled whole.
pub async fn hollow_images_get_no_immutable_tag(storage: Arc<dyn Storage>) {
    let (storage, name) = (&*storage, repository("a"));
    let (config, layer) = (
        push_blob(storage, &name, &content(1, 100)).await,
        push_blob(storage, &name, &content(2, 100)).await,
    );
    let image = image(&[&config, &layer]);
    push(storage, &name, &image).await;
    storage.delete_blob(&name, &layer, immutable()).await.unwrap();
    let refused = storage.put_manifest(&name, fixed(image.clone(), "v1")).await;
    assert_code(refused, ErrorCode::ManifestBlobUnknown);
    assert!(all_tags(storage, &name, 10).await.is_empty());
    push_blob(storage, &name, &content(2, 100)).await;
    push(storage, &name, &fixed(image, "v1")).await;
    assert_stays(storage.delete_blob(&name, &layer, immutable()).await, "v1");
}

/// Of the first push of an immutable tag and a concurrent delete of what its manifest names, one is refused.
pub async fn pushes_against_deletes(storage: Arc<dyn Storage>) {
    for seed in 0..96 {
        let name = repository(&format!("concurrent/{seed}"));
        let config = push_blob(&*storage, &name, &content(1, 100)).await;
        let layer = push_blob(&*storage, &name, &content(2, 100)).await;
        let inner = image(&[&config, &layer]);
        let outer = index(&[&inner.manifest.digest]);
        // A layer of the tagged image, the image of the tagged index, that index itself, and a layer below it.
        let what = seed / 2 % 4;
        let tagged = if what == 0 { inner.clone() } else { outer };
        if what > 0 {
            push(&*storage, &name, &inner).await;
        }
        // In half of the rounds the manifest exists already, without the tag; in the others it is new.
        if seed % 2 == 0 {
            push(&*storage, &name, &tagged).await;
        }
        let (pushed, deleted) = {
            let new = fixed(tagged.clone(), "v1");
            let (layer, inner) = (layer.clone(), inner.manifest.digest.clone());
            let tagged = tagged.manifest.digest.clone();
            let (pushing, deleting) = (
                (Arc::clone(&storage), name.clone()),
                (Arc::clone(&storage), name.clone()),
            );
            let pushing = tokio::spawn(async move {
                pause(seed, 0).await;
                pushing.0.put_manifest(&pushing.1, new).await
            });
            let deleting = tokio::spawn(async move {
                pause(seed, 1).await;
                let (storage, name) = &deleting;
                match what {
                    0 | 3 => storage.delete_blob(name, &layer, immutable()).await,
                    1 => storage.delete_manifest(name, &inner, None, immutable()).await,
                    _ => storage.delete_manifest(name, &tagged, None, immutable()).await,
                }
            });
            (pushing.await.unwrap(), deleting.await.unwrap())
        };
        if let Err(error) = &pushed {
            assert_eq!(
                error.code(),
                ErrorCode::ManifestBlobUnknown,
                "seed {seed}: {error:?}"
            );
            assert!(deleted.is_ok(), "seed {seed}: both are refused, {deleted:?}");
            assert_code(
                get_tag(&*storage, &name, &tag("v1")).await,
                unknown(&*storage, &name).await,
            );
            continue;
        }
        // The tag's manifest may have been deleted before it was pushed.
        let read = get_tag(&*storage, &name, &tag("v1")).await.unwrap();
        assert_eq!(read, tagged.manifest, "seed {seed}");
        if what > 0 {
            let inner = get(&*storage, &name, &inner.manifest.digest).await;
            inner.unwrap_or_else(|error| panic!("seed {seed}: v1 is hollow: {error}"));
        }
        for blob in [&config, &layer] {
            let stat = storage.stat_blob(&name, blob).await;
            stat.unwrap_or_else(|error| panic!("seed {seed}: v1 is hollow: {error}"));
        }
        if let Err(error) = deleted {
            let unknown = unknown(&*storage, &name).await;
            let is_told = error.code() == ErrorCode::TagConflict || what == 2 && error.code() == unknown;
            assert!(is_told, "seed {seed}: {error:?}");
        } else {
            assert_eq!(what, 2, "seed {seed}: both were done");
        }
    }
}

/// Returns the answer for a manifest that does not exist.
async fn unknown(storage: &dyn Storage, name: &RepositoryName) -> ErrorCode {
    let none = get(storage, name, &manifest("none").manifest.digest).await;
    none.unwrap_err().code()
}

async fn pause(seed: u64, number: u64) {
    let mut random = Random::new(seed << 16 | number);
    for _ in 0..random.below(12) {
        yield_now().await;
    }
}

/// A manifest that names thousands of contents and one that thousands of tags name are pushed and deleted whole, even
/// though each takes several transactions.
pub async fn many_children_and_tags(storage: Arc<dyn Storage>) {
    let (storage, name) = (&*storage, repository("a"));
    let mut new = manifest("large");
    new.optional_children = (0..1500_u32)
        .map(|number| ManifestChild {
            digest: manifest(&number.to_string()).manifest.digest,
            kind: registry_core::storage::ChildKind::Blob,
        })
        .collect();
    let missing = manifest("missing").manifest.digest;
    let refused = NewManifest {
        children: vec![ManifestChild {
            digest: missing,
            kind: registry_core::storage::ChildKind::Blob,
        }],
        ..new.clone().with_tag(&tag("refused"))
    };
    let result = storage.put_manifest(&name, refused).await;
    assert_code(result, ErrorCode::ManifestBlobUnknown);
    assert_code(
        get(storage, &name, &new.manifest.digest).await,
        ErrorCode::NameUnknown,
    );
    let mut expected = Vec::new();
    for batch in 0..5 {
        let mut tagged = new.clone();
        tagged.tags = (0..60)
            .map(|number| tag(&format!("t{batch}-{number:02}")))
            .collect();
        expected.extend(tagged.tags.iter().map(ToString::to_string));
        storage.put_manifest(&name, tagged).await.unwrap();
    }
    assert_eq!(all_tags(storage, &name, 1000).await, expected);
    let stays: TagFilter = Arc::new(|tag| tag.as_str() != "t4-59");
    let digest = &new.manifest.digest;
    let result = storage.delete_manifest(&name, digest, Some(stays), None).await;
    assert_code(result, ErrorCode::TagConflict);
    assert_eq!(all_tags(storage, &name, 1000).await, expected);
    storage.delete_manifest(&name, digest, None, None).await.unwrap();
    assert!(all_tags(storage, &name, 1000).await.is_empty());
    assert_code(get(storage, &name, digest).await, ErrorCode::ManifestUnknown);
}
