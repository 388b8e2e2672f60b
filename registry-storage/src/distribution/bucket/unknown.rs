//! Links of a tree that may not have been taken: nothing of them may be lost.

use std::pin::pin;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use registry_core::storage::ManifestStorage as _;
use registry_core::{Algorithm, Digest, Error, Reference, RepositoryName, Tag, Timestamp};

use super::links::{self, Place};
use super::release::is_newer;
use super::repository::PARALLEL_REQUESTS;
use crate::distribution::export::{is_unknown, next_digests};
use crate::distribution::tree::LINK_BYTES;
use crate::key::Key;
use crate::object_store::ObjectStoreBackend;
use crate::object_store::tree::TreeObject;
use crate::pages::Pages;
use crate::store::Store;

/// Finds a link that was written since a time and says something else than what is here. One that says what is here was written
/// by an export that ended early, or loses nothing.
pub(super) async fn find_unknown(
    store: &Store<ObjectStoreBackend>,
    since: Timestamp,
) -> Result<Option<TreeObject>, Error> {
    let mut pages = pin!(store.backend().tree_pages(links::repositories()));
    while let Some(page) = pages.try_next().await? {
        let newer = page.into_iter().filter(|object| is_newer(object, since));
        let looking = stream::iter(newer).map(|object| async move {
            let is_known = is_here(store, &object).await?;
            Ok::<_, Error>((!is_known).then_some(object))
        });
        let mut looking = pin!(looking.buffered(PARALLEL_REQUESTS));
        while let Some(unknown) = looking.try_next().await? {
            if unknown.is_some() {
                return Ok(unknown);
            }
        }
    }
    Ok(None)
}

/// Returns whether the store has what a link names, or whether an export would leave the link alone.
pub(super) async fn is_here(store: &Store<ObjectStoreBackend>, object: &TreeObject) -> Result<bool, Error> {
    let split = object.key.strip_prefix(&links::repositories());
    let Some((name, rest)) = split.and_then(links::split) else {
        return Ok(true);
    };
    let Ok(name) = name.parse::<RepositoryName>() else {
        return Ok(true);
    };
    match Place::of(rest) {
        Place::Layer(algorithm, encoded) => match format!("{algorithm}:{encoded}").parse() {
            Ok(digest) => Ok(store.granted_bytes(&name, &digest).await?.is_some()),
            Err(_) => Ok(true),
        },
        Place::Revision(algorithm, encoded) => match format!("{algorithm}:{encoded}").parse() {
            Ok(digest) => is_manifest_here(store, &name, digest).await,
            Err(_) => Ok(true),
        },
        Place::Tag(tag) => match tag.parse() {
            Ok(tag) => is_tag_here(store, &name, tag, object).await,
            Err(_) => Ok(true),
        },
        // What a tag named before is lost with the tag alone.
        Place::OfTag(_) | Place::Upload(_) | Place::Other => Ok(true),
    }
}

/// Returns whether a manifest is here, under this digest or another one of which this is the SHA-256.
async fn is_manifest_here(
    store: &Store<ObjectStoreBackend>,
    name: &RepositoryName,
    digest: Digest,
) -> Result<bool, Error> {
    let reference = Reference::Digest(digest.clone());
    if kept_as(store, name, &reference).await?.is_some() {
        return Ok(true);
    }
    let prefix = Key::manifests(name);
    let mut pages = Pages::of(prefix.clone());
    while let Some(digests) = next_digests(store, &prefix, &mut pages).await? {
        let others = digests
            .into_iter()
            .filter(|other| other.algorithm() != Some(Algorithm::Sha256));
        for other in others {
            if kept_as(store, name, &Reference::Digest(other)).await?.as_ref() == Some(&digest) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

async fn is_tag_here(
    store: &Store<ObjectStoreBackend>,
    name: &RepositoryName,
    tag: Tag,
    object: &TreeObject,
) -> Result<bool, Error> {
    if object.size > LINK_BYTES {
        return Ok(false);
    }
    let Some(there) = store.backend().read_object(&object.key).await? else {
        return Ok(true);
    };
    let here = kept_as(store, name, &Reference::Tag(tag)).await?;
    Ok(here.is_some_and(|here| here.as_str().as_bytes() == there))
}

/// Returns under which digest the distribution registry keeps a manifest; `None` if it is not here.
async fn kept_as(
    store: &Store<ObjectStoreBackend>,
    name: &RepositoryName,
    reference: &Reference,
) -> Result<Option<Digest>, Error> {
    match store.get_manifest(name, reference).await {
        Ok(manifest) => Ok(Some(Digest::of(Algorithm::Sha256, &manifest.bytes))),
        Err(error) if is_unknown(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
