//! What a registry has: read from its tree as the distribution registry does, and from a store.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use registry_core::storage::{BlobStorage as _, Manifest, ManifestStorage as _, NewManifest};
use registry_core::{Algorithm, Digest};
use registry_storage::{DeleteRepositoryOptions, Maintenance as _, ObjectStoreBackend, Store};

use crate::exports::{push, put_manifest};
use crate::fixture::{IMAGE, LARGE, SMALL, content, get, image, name, repositories, sha256, tag, tags};
use crate::in_bucket::{IMAGES, layers, manifest};
use crate::support::images::bare_manifest;

/// What the distribution registry has of a repository.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) tags: BTreeMap<String, Digest>,
    pub(crate) manifests: BTreeSet<Digest>,
    pub(crate) layers: BTreeSet<Digest>,
}

pub(crate) type Registry = BTreeMap<String, Served>;

/// Reads the tree as the distribution registry does, and requires that nothing is broken.
pub(crate) fn walk(tree: &BTreeMap<String, Bytes>) -> Registry {
    let mut registry = Registry::new();
    let data = |digest: &Digest| {
        let encoded = digest.parts().1;
        let key = format!("blobs/sha256/{}/{encoded}/data", &encoded[..2]);
        let content = tree.get(&key).unwrap_or_else(|| panic!("no content of {digest}"));
        assert!(sha256(content) == *digest, "{digest} is another content");
        content
    };
    for (key, text) in tree {
        let Some((repository, rest)) = key
            .strip_prefix("repositories/")
            .and_then(|key| key.split_once("/_"))
        else {
            continue;
        };
        let target: Digest = std::str::from_utf8(text).unwrap().parse().unwrap();
        data(&target);
        let served = registry.entry(repository.to_owned()).or_default();
        let parts: Vec<_> = rest.split('/').collect();
        match *parts.as_slice() {
            ["layers", algorithm, encoded, "link"] => {
                let digest = format!("{algorithm}:{encoded}").parse().unwrap();
                served.layers.insert(digest);
            }
            ["manifests", "revisions", algorithm, encoded, "link"] => {
                let digest = format!("{algorithm}:{encoded}").parse().unwrap();
                served.manifests.insert(digest);
            }
            ["manifests", "tags", tag, "current", "link"] => {
                served.tags.insert(tag.to_owned(), target);
            }
            ["manifests", "tags", _, "index", ..] => {}
            _ => panic!("{key}"),
        }
    }
    for (repository, served) in &registry {
        for (tag, target) in &served.tags {
            assert!(served.manifests.contains(target), "{repository}:{tag}");
        }
        // The others are kept under their SHA-256, which is among them.
        let kept = |digest: &&Digest| digest.algorithm() == Some(Algorithm::Sha256);
        for manifest in served.manifests.iter().filter(kept) {
            let content = String::from_utf8(data(manifest).to_vec()).unwrap();
            for named in content.split(r#""digest":""#).skip(1) {
                let digest: Digest = named[..71].parse().unwrap();
                assert!(
                    served.layers.contains(&digest),
                    "{repository}@{manifest}: {digest}"
                );
            }
        }
    }
    registry
}

/// Returns what the store serves, of these digests.
pub(crate) async fn served(store: &Store<ObjectStoreBackend>, digests: &[Digest]) -> Registry {
    let mut registry = Registry::new();
    for repository in repositories(store).await {
        let mut served = Served::default();
        for tag in tags(store, &repository).await {
            let digest = get(store, &repository, &tag).await.unwrap().digest;
            served.tags.insert(tag, digest);
        }
        for digest in digests {
            if get(store, &repository, digest.as_str()).await.is_ok() {
                served.manifests.insert(digest.clone());
            }
            if store.stat_blob(&name(&repository), digest).await.is_ok() {
                served.layers.insert(digest.clone());
            }
        }
        if served != Served::default() {
            registry.insert(repository, served);
        }
    }
    registry
}

pub(crate) async fn push_image(
    store: &Store<ObjectStoreBackend>,
    repository: &str,
    tag: &str,
    seed: usize,
) -> Digest {
    let config = content(seed, SMALL);
    let layers = layers(seed);
    for blob in layers.iter().chain([&config]) {
        push(store, repository, &sha256(blob), blob).await;
    }
    put_manifest(store, repository, tag, &image(&config, &layers, "")).await
}

/// Puts a manifest under its SHA-512.
async fn put_other(store: &Store<ObjectStoreBackend>, repository: &str, text: &str, bytes: &[u8]) -> Digest {
    let digest = Digest::of(Algorithm::Sha512, bytes);
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

/// Changes a store that adopted the images. Returns all digests that there ever were.
pub(crate) async fn change(store: &Store<ObjectStoreBackend>) -> Vec<Digest> {
    // A new tag in an old repository, a tag that moved, and a new repository.
    push_image(store, "app/0", "v2", 10).await;
    push_image(store, "app/1", "v1", 11).await;
    push_image(store, "new/one", "v1", 12).await;
    // A tag that is deleted, a manifest, and a repository.
    store.delete_tag(&name("app/0"), &tag("v1"), None).await.unwrap();
    let third = sha256(&manifest(2));
    store
        .delete_manifest(&name("app/2"), &third, None, None)
        .await
        .unwrap();
    push_image(store, "app/2", "v3", 13).await;
    let options = DeleteRepositoryOptions::new();
    store
        .delete_repository(&name("app/3"), &options, &())
        .await
        .unwrap();
    // Content under another digest than that registry has.
    let large = content(14, LARGE);
    let other = Digest::of(Algorithm::Sha512, &large);
    push(store, "app/0", &other, &large).await;
    let manifest_of_other = put_other(store, "app/0", "other", &other_manifest()).await;
    let seeds = (0..IMAGES).chain(10..14);
    let of_image = seeds.flat_map(|seed| {
        let blobs = layers(seed)
            .into_iter()
            .chain([content(seed, SMALL), manifest(seed)]);
        blobs.map(|blob| sha256(&blob)).collect::<Vec<_>>()
    });
    let all: BTreeSet<Digest> = of_image
        .chain([other, manifest_of_other, sha256(&other_manifest())])
        .collect();
    all.into_iter().collect()
}

/// A manifest that is pushed under its SHA-512 alone.
fn other_manifest() -> Vec<u8> {
    image(&content(10, SMALL), &layers(10)[..1], "")
}

/// Returns what the tree is to have: that registry keeps all manifests under their SHA-256 too, which tags name.
pub(crate) async fn expected(store: &Store<ObjectStoreBackend>, digests: &[Digest]) -> Registry {
    let mut registry = served(store, digests).await;
    let app = registry.get_mut("app/0").unwrap();
    let is_other = |digest: &Digest| digest.as_str().starts_with("sha512:");
    assert!(app.layers.iter().any(is_other) && app.manifests.iter().any(is_other));
    let kept_as = sha256(&other_manifest());
    assert!(app.manifests.insert(kept_as.clone()));
    let target = app.tags.get_mut("other").unwrap();
    assert!(is_other(target));
    *target = kept_as;
    registry
}
