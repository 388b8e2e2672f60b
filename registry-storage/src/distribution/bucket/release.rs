//! Giving a tree up: what was adopted becomes the store's alone.

use std::collections::BTreeSet;
use std::pin::pin;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use registry_core::{Error, Timestamp};

use super::links;
use super::unknown::{find_unknown, is_here};
use crate::distribution::error::AdoptError;
use crate::distribution::record;
use crate::object_store::ObjectStoreBackend;
use crate::object_store::tree::TreeObject;
use crate::observer::{MaintenanceObserver, Step};
use crate::record::{AdoptionRecord, Stamp};
use crate::store::Store;

/// How many links are deleted at once.
const PARALLEL_DELETES: usize = 16;

/// What a release deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReleaseReport {
    /// Objects of repositories: links, and what uploads left.
    pub links: u64,
    /// Content that no record named: manifests, blobs of up to 16 KiB, and what was not adopted.
    pub deleted: u64,
    /// Content that stays where it is, because blobs name it.
    pub kept: u64,
    /// Its size in bytes.
    pub kept_bytes: u64,
}

/// Why a tree was not released.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// The tree was not adopted, or not to its end.
    #[error("the tree was not adopted; adopt it first")]
    NotAdopted,
    /// Something was broken and left out, and would be deleted.
    #[error("something of the tree was broken and is not adopted, and would be deleted")]
    Partial,
    /// The tree was written to after its adoption began, and what came would be deleted.
    #[error(
        "{key} was written at {written}, after the adoption began; start a server first, which takes it, or run `adopt --again`"
    )]
    Newer {
        /// The link.
        key: String,
        /// When it was written, by the clock of the bucket.
        written: Timestamp,
    },
    /// The tree was released before, and the distribution registry wrote to it since.
    #[error(
        "{key} was written at {written}, and the tree was released before; copy with a client what the distribution registry has \
         got since then, and delete it there"
    )]
    WrittenSince {
        /// The link.
        key: String,
        /// When it was written, by the clock of the bucket.
        written: Timestamp,
    },
    /// The record of the adoption could not be changed.
    #[error(transparent)]
    Adopted(#[from] AdoptError),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] Error),
}

/// Releases the tree that was adopted in the bucket of a store: its links, and the content that no record names, are deleted.
///
/// What blobs name stays where it is, and from now on is deleted as all bytes are, once nothing names it. There is no way back
/// for the distribution registry then, and nothing of this tree can be adopted again.
///
/// With `allow_partial`, also what was broken and left out is deleted. It may be ended at any point and repeated, which also finds
/// what a process that was killed did not write down.
///
/// # Errors
/// [`ReleaseError`]; after a failure of the bucket, repeat it.
pub async fn release(
    store: &Store<ObjectStoreBackend>,
    allow_partial: bool,
    observer: &dyn MaintenanceObserver,
) -> Result<ReleaseReport, ReleaseError> {
    let _running = store.adopting().ok_or(AdoptError::Running)?;
    let before = record::read(store).await?;
    let Some(before) = before.filter(|before| before.finished.is_some()) else {
        return Err(ReleaseError::NotAdopted);
    };
    let begun = before.begun_in_bucket.unwrap_or_default();
    let newer = find_newer(store, begun).await?;
    match (before.released, newer) {
        // What a release left that was killed is older than the adoption.
        (Some(_), None) => {}
        (Some(_), Some((key, written))) => return Err(ReleaseError::WrittenSince { key, written }),
        (None, _) if before.is_partial && !allow_partial => return Err(ReleaseError::Partial),
        (None, Some((key, written))) => return Err(ReleaseError::Newer { key, written }),
        (None, None) => note(store, &before).await?,
    }
    let mut report = ReleaseReport::default();
    delete_links(store, begun, &mut report, observer).await?;
    delete_content(store, &mut report, observer).await?;
    Ok(report)
}

/// Finds a link that may not have been adopted and says something else than what is here, and when it was written.
async fn find_newer(
    store: &Store<ObjectStoreBackend>,
    begun: Timestamp,
) -> Result<Option<(String, Timestamp)>, Error> {
    let unknown = find_unknown(store, begun).await?;
    Ok(unknown.map(|object| (store.backend().whole_key(&object.key), object.written)))
}

/// Returns whether a link was written at a time or later, or in the second before.
pub(super) async fn has_newer(backend: &ObjectStoreBackend, begun: Timestamp) -> Result<bool, Error> {
    let mut pages = pin!(backend.tree_pages(links::repositories()));
    while let Some(page) = pages.try_next().await? {
        if page.iter().any(|object| is_newer(object, begun)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns whether an object is a link that was written once the adoption had begun, or in the second before. Some stores date
/// objects by whole seconds.
pub(super) fn is_newer(object: &TreeObject, begun: Timestamp) -> bool {
    object.key.ends_with("/link") && object.written.0 / 1000 >= begun.0 / 1000
}

/// Returns the last moment at which no object is [newer](is_newer) than a time.
pub(super) const fn just_before(begun: Timestamp) -> Timestamp {
    Timestamp((begun.0 / 1000 * 1000).saturating_sub(1))
}

/// Notes the release in the record of the adoption that was looked at. From then on nothing of the tree is named any more.
async fn note(store: &Store<ObjectStoreBackend>, looked_at: &AdoptionRecord) -> Result<(), ReleaseError> {
    let noted = record::change(store, |before| match before {
        Some(before) if before.released.is_some() => Ok(None),
        // Another adoption may have begun since.
        Some(before) if before.begun == looked_at.begun && before.finished.is_some() => {
            Ok(Some(AdoptionRecord {
                released: Some(store.now()),
                stamp: Stamp::new(store.now()),
                ..before
            }))
        }
        _ => Err(AdoptError::Running),
    });
    Ok(noted.await?)
}

async fn delete_links(
    store: &Store<ObjectStoreBackend>,
    begun: Timestamp,
    report: &mut ReleaseReport,
    observer: &dyn MaintenanceObserver,
) -> Result<(), ReleaseError> {
    let mut pages = pin!(store.backend().tree_pages(links::repositories()));
    while let Some(page) = pages.try_next().await? {
        let deleting = stream::iter(page).map(|object| async move {
            let goes = !is_newer(&object, begun) || is_here(store, &object).await?;
            if goes {
                store.backend().delete_tree_object(&object.key).await?;
            }
            Ok::<_, Error>(u64::from(goes))
        });
        let mut deleting = pin!(deleting.buffered(PARALLEL_DELETES));
        while let Some(deleted) = deleting.try_next().await? {
            report.links += deleted;
        }
        observer.step(Step::Links, report.links, None);
    }
    // A distribution registry that still runs may have written since the links were looked at. Its content stays then.
    match find_newer(store, begun).await? {
        Some((key, written)) => Err(ReleaseError::WrittenSince { key, written }),
        None => Ok(()),
    }
}

async fn delete_content(
    store: &Store<ObjectStoreBackend>,
    report: &mut ReleaseReport,
    observer: &dyn MaintenanceObserver,
) -> Result<(), Error> {
    let backend = store.backend();
    let prefix = links::blobs();
    let mut pages = pin!(backend.tree_pages(prefix.clone()));
    let mut before: Option<String> = None;
    while let Some(page) = pages.try_next().await? {
        let digests: BTreeSet<_> = page.iter().filter_map(links::digest_of_content).collect();
        report.deleted += store.delete_unnamed_of_tree(&digests).await?;
        for object in backend.list_tree(&prefix, before.as_deref()).await? {
            if links::digest_of_content(&object).is_some_and(|digest| digests.contains(&digest)) {
                report.kept += 1;
                report.kept_bytes += object.size;
            }
        }
        observer.step(Step::Bytes, report.deleted + report.kept, None);
        before = page.last().map(|last| last.key.clone());
    }
    Ok(())
}
