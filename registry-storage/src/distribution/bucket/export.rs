//! The way back in a bucket: the tree gets what the store has, and loses what was deleted here.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use registry_core::{Error, RepositoryName, Timestamp};

use super::has_tree;
use super::links;
use super::progress::{TICKS, record_written};
use super::release::is_newer;
use super::repository::{Export, PARALLEL_REQUESTS};
use super::source::BucketTree;
use super::unknown::find_unknown;
use crate::distribution::error::AdoptError;
use crate::distribution::export::{all_repositories, next_digests};
use crate::distribution::record;
use crate::distribution::source::Source as _;
use crate::key::Key;
use crate::object_store::ObjectStoreBackend;
use crate::object_store::tree::TreeObject;
use crate::observer::MaintenanceObserver;
use crate::pages::Pages;
use crate::record::{AdoptionRecord, Stamp};
use crate::store::Store;

/// What an export into the tree in a bucket did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportInPlaceReport {
    /// The number of repositories.
    pub repositories: u64,
    /// The number of manifests.
    pub manifests: u64,
    /// The number of tags.
    pub tags: u64,
    /// The number of rights of a repository to read a blob.
    pub grants: u64,
    /// Blobs of which the tree had no object.
    pub copied: u64,
    /// Their size in bytes.
    pub copied_bytes: u64,
    /// Links that were written.
    pub written: u64,
    /// Links that were deleted, because what they name was deleted here.
    pub deleted: u64,
    /// Rights to read a blob whose content is lost, which were left as the tree has them.
    pub lost: u64,
}

/// Why the tree in a bucket was not written, or not to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportInPlaceError {
    /// There is a tree that was not adopted, or not to its end.
    #[error("the tree in the bucket was not adopted, or not to its end; run `adopt --again` first")]
    NotAdopted,
    /// There is neither a tree nor a store.
    #[error("there is nothing here to export; name the `rootdirectory` of this registry")]
    Empty,
    /// Something was broken and left out, and would be deleted.
    #[error("something of the tree was broken and is not adopted, and its links would be deleted")]
    Partial,
    /// The tree was released: its content is this store's, and may be deleted.
    #[error(
        "the tree was released at {0}, and what is left of it belongs to this registry, which may delete it; export into a folder"
    )]
    Released(Timestamp),
    /// The tree was written to after its adoption began, and what came would be deleted.
    #[error(
        "{key} was written at {written}, after what is in the tree was adopted, and says something else than what is here; stop the \
         distribution registry, restart a server, which takes it, or run `adopt --again`, and export again"
    )]
    Newer {
        /// The link.
        key: String,
        /// When it was written, by the clock of the bucket.
        written: Timestamp,
    },
    /// Another adoption began meanwhile, and may have taken what the export deleted or wrote.
    #[error(
        "another adoption of the tree began meanwhile, so the tree may differ from what is here; export again"
    )]
    Overtaken,
    /// Tags of a repository are pushed faster than they are exported.
    #[error("{0} is pushed to all the time; export again")]
    Busy(RepositoryName),
    /// The record of the adoption could not be changed.
    #[error(transparent)]
    Adopted(#[from] AdoptError),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] Error),
}

/// Writes what a store has into the tree beside it in the bucket, for the distribution registry to go on with.
///
/// Then the tree has exactly the repositories, tags, manifests and blobs of the store, but for repositories without any manifest,
/// of which a bucket has nothing to list.
///
/// The store copies content, unless blobs name the object of the tree already; only what is larger than 5 GiB comes through this
/// process, in parts. Links whose content was deleted here are deleted. Nothing is lost: a link that was written since the
/// adoption began, or the last export, and that says something else than what is here, is an error. So the distribution registry
/// must not write meanwhile. It may read: content comes before links, tags last, and deletes go the other way round.
///
/// Each repository is exported as it is at some moment of the export. It may be ended at any point and repeated. Memory: the names of all
/// repositories, what the largest of them has, and some twenty bytes for each link that is written.
///
/// With `allow_partial`, also the links of what was broken when it was adopted, and is not here, are deleted.
///
/// # Errors
/// [`ExportInPlaceError`]; what was written before an error stays.
pub async fn export_in_place(
    store: &Store<ObjectStoreBackend>,
    allow_partial: bool,
    observer: &dyn MaintenanceObserver,
) -> Result<ExportInPlaceReport, ExportInPlaceError> {
    let _running = store.adopting().ok_or(AdoptError::Running)?;
    let before = begin(store, allow_partial).await?;
    let started = record_written(store).await?;
    let adopted = before.begun_in_bucket.unwrap_or_default();
    if let Some(object) = find_unknown(store, adopted).await? {
        return Err(newer(store, &object));
    }
    // From now on, a link that is new may be this export's.
    if !touch(store, &before, |record| record.is_exporting = true).await? {
        return Err(ExportInPlaceError::Overtaken);
    }
    let here = all_repositories(store).await?;
    let there = BucketTree::whole(store.backend()).repositories().await?.counted;
    let there = there.into_iter().map(|(name, _)| name);
    let mut export = Export::new(store, started, observer);
    export.expect(count(store, &here).await?);
    export.report.repositories = here.len() as u64;
    let all: BTreeSet<RepositoryName> = here.into_iter().chain(there).collect();
    for name in &all {
        export.repository(name).await?;
    }
    finish(store, &before, &export, started).await?;
    Ok(export.report)
}

/// Names a link that would be lost.
pub(super) fn newer(store: &Store<ObjectStoreBackend>, object: &TreeObject) -> ExportInPlaceError {
    ExportInPlaceError::Newer {
        key: store.backend().whole_key(&object.key),
        written: object.written,
    }
}

/// Returns the record of the adoption, which was just written. A bucket without a tree gets one of an empty tree.
async fn begin(
    store: &Store<ObjectStoreBackend>,
    allow_partial: bool,
) -> Result<AdoptionRecord, ExportInPlaceError> {
    match record::read(store).await? {
        Some(before) => {
            if let Some(when) = before.released {
                return Err(ExportInPlaceError::Released(when));
            }
            if before.finished.is_none() {
                return Err(ExportInPlaceError::NotAdopted);
            }
            if before.is_partial && !allow_partial {
                return Err(ExportInPlaceError::Partial);
            }
            match touch(store, &before, |_| {}).await? {
                true => Ok(before),
                false => Err(AdoptError::Running.into()),
            }
        }
        None if has_tree(store).await? => Err(ExportInPlaceError::NotAdopted),
        // A record of an empty tree would keep a tree that is put there later from being adopted.
        None if store.is_empty().await? => Err(ExportInPlaceError::Empty),
        None => {
            let now = store.now();
            let empty = AdoptionRecord {
                finished: Some(now),
                ..record::begun(now)
            };
            let first = record::change(store, |before| match before {
                None => Ok(Some(empty.clone())),
                Some(_) => Err(AdoptError::Running),
            });
            first.await?;
            Ok(empty)
        }
    }
}

/// Writes the record of the adoption once more, so that the bucket dates it, with a change. Returns `false` if another adoption began
/// since.
async fn touch(
    store: &Store<ObjectStoreBackend>,
    before: &AdoptionRecord,
    change: impl Fn(&mut AdoptionRecord) + Send + Sync,
) -> Result<bool, ExportInPlaceError> {
    let mut is_same = false;
    let mut released = None;
    let touched = record::change(store, |found| {
        let found = found.filter(|found| found.begun == before.begun && found.finished.is_some());
        released = found.as_ref().and_then(|found| found.released);
        let found = found.filter(|found| found.released.is_none());
        is_same = found.is_some();
        Ok(found.map(|mut found| {
            change(&mut found);
            found.stamp = Stamp::new(store.now());
            found
        }))
    });
    touched.await?;
    match released {
        Some(when) => Err(ExportInPlaceError::Released(when)),
        None => Ok(is_same),
    }
}

/// Counts the blobs and manifests of repositories.
async fn count(store: &Store<ObjectStoreBackend>, names: &[RepositoryName]) -> Result<u64, Error> {
    let mut count = 0;
    for name in names {
        for prefix in [Key::repository_blobs(name), Key::manifests(name)] {
            let mut pages = Pages::of(prefix.clone());
            while let Some(digests) = next_digests(store, &prefix, &mut pages).await? {
                count += digests.len() as u64;
            }
        }
    }
    Ok(count)
}

/// Notes that the tree is known as it is now, so that a release or another export takes it for adopted. What came meanwhile, and
/// not from this export, is an error.
async fn finish(
    store: &Store<ObjectStoreBackend>,
    before: &AdoptionRecord,
    export: &Export<'_>,
    started: Timestamp,
) -> Result<(), ExportInPlaceError> {
    let Some(now) = next_second(store, before).await? else {
        return Ok(());
    };
    let mut pages = pin!(store.backend().tree_pages(links::repositories()));
    while let Some(page) = pages.try_next().await? {
        let came = page
            .into_iter()
            .filter(|object| is_newer(object, started) && !is_newer(object, now));
        let looking = stream::iter(came).map(|object| async move {
            let is_ours = export.has_written(&object).await?;
            Ok::<_, Error>((!is_ours).then_some(object))
        });
        let mut looking = pin!(looking.buffered(PARALLEL_REQUESTS));
        while let Some(other) = looking.try_next().await? {
            if let Some(object) = other {
                return Err(newer(store, &object));
            }
        }
    }
    let is_same = touch(store, before, |record| {
        record.begun_in_bucket = Some(now);
        record.is_exporting = false;
    });
    match is_same.await? {
        true => Ok(()),
        false => Err(ExportInPlaceError::Overtaken),
    }
}

/// Waits until the bucket dates in a later second than what was written before. Returns `None` if its clock stands: then what was
/// written counts as new, which loses nothing.
async fn next_second(
    store: &Store<ObjectStoreBackend>,
    before: &AdoptionRecord,
) -> Result<Option<Timestamp>, ExportInPlaceError> {
    let mut last: Option<Timestamp> = None;
    for back_off in [0].into_iter().chain(TICKS) {
        tokio::time::sleep(Duration::from_millis(back_off)).await;
        if !touch(store, before, |_| {}).await? {
            return Err(ExportInPlaceError::Overtaken);
        }
        let now = record_written(store).await?;
        match last {
            Some(last) if now.0 / 1000 > last.0 / 1000 => return Ok(Some(now)),
            Some(_) => {}
            None => last = Some(now),
        }
    }
    Ok(None)
}
