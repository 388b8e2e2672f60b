//! A tree in the bucket of a store: it is adopted where it is, and released once there is no way back.

mod links;
mod release;
mod source;

pub use self::release::{ReleaseError, ReleaseReport, release};
use self::source::BucketTree;
use super::adopt::{Adoption, adoption};
use super::error::AdoptError;
use super::options::AdoptOptions;
use super::record;
use super::report::AdoptReport;
use super::run::{Nowhere, Run, Sink};
use super::survey::Survey;
use crate::object_store::ObjectStoreBackend;
use crate::observer::MaintenanceObserver;
use crate::record::{AdoptionRecord, Stamp};
use crate::store::Store;
use registry_core::Error;
use std::collections::BTreeSet;

/// Returns whether there is a tree of the distribution registry beside a store, in the same folder of the bucket.
///
/// # Errors
/// Those of the bucket.
pub async fn has_tree(store: &Store<ObjectStoreBackend>) -> Result<bool, Error> {
    let found = store.backend().list_tree(&links::repositories(), None).await?;
    Ok(!found.is_empty())
}

/// Adopts the tree in the bucket of a store, in the same folder, by the rules of
/// [`Maintenance::adopt`](crate::Maintenance::adopt).
///
/// No byte is copied: blobs name the objects of the tree where they are, and content of up to 16 KiB is kept in records. Nothing of
/// the tree is changed or deleted until it is [released](release), so the distribution registry can go on with it. It must not
/// collect garbage there any more.
///
/// Any number of processes may do this at once, and each may be ended at any point. A repetition continues, because what is here
/// is not adopted again. Memory: the names of all repositories, and the links and manifests of some hundred, or of one.
///
/// # Errors
/// [`AdoptError`]; what was adopted before an error stays.
pub async fn adopt_in_place(
    store: &Store<ObjectStoreBackend>,
    options: &AdoptOptions,
    observer: &dyn MaintenanceObserver,
) -> Result<AdoptReport, AdoptError> {
    let _running = store.adopting().ok_or(AdoptError::Running)?;
    begin(store, options).await?;
    let tree = BucketTree(store.backend());
    let mut run = Run::new(&tree, Sink::Store(store), options, observer);
    let report = run.all().await?;
    finish(store, !report.defects.is_empty()).await?;
    Ok(report)
}

/// Looks at what a store lacks of the tree in its bucket, without changing anything. It has the digest of each blob in memory.
///
/// # Errors
/// Those of the bucket.
pub async fn survey_in_place(
    store: &Store<ObjectStoreBackend>,
    options: &AdoptOptions,
    observer: &dyn MaintenanceObserver,
) -> Result<Survey, AdoptError> {
    let sink = Sink::Nowhere(Nowhere {
        store: Some(store),
        seen: BTreeSet::new(),
        rules: None,
        refused: None,
    });
    let tree = BucketTree(store.backend());
    let mut run = Run::new(&tree, sink, options, observer);
    run.all().await?;
    Ok(run.into_survey())
}

async fn begin(store: &Store<ObjectStoreBackend>, options: &AdoptOptions) -> Result<(), AdoptError> {
    let is_mixed = adoption(store).await? == Adoption::OwnContent;
    record::change(store, |before| {
        let begun = match before {
            None if is_mixed && !options.again => return Err(AdoptError::OwnContent),
            None => record::begun(store.now()),
            Some(AdoptionRecord {
                released: Some(when), ..
            }) => return Err(AdoptError::Released(when)),
            Some(AdoptionRecord {
                finished: Some(when), ..
            }) if !options.again => return Err(AdoptError::Finished(when)),
            // Another process is at it, or was.
            Some(AdoptionRecord { finished: None, .. }) => return Ok(None),
            Some(_) => record::begun(store.now()),
        };
        Ok(Some(begun))
    })
    .await
}

async fn finish(store: &Store<ObjectStoreBackend>, is_partial: bool) -> Result<(), AdoptError> {
    record::change(store, |before| {
        // If it is finished, another process had the same to do.
        Ok(before
            .filter(|before| before.finished.is_none())
            .map(|before| AdoptionRecord {
                finished: Some(store.now()),
                is_partial,
                stamp: Stamp::new(store.now()),
                ..before
            }))
    })
    .await
}
