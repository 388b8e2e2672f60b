//! A tree in the bucket of a store: it is adopted where it is, written for the way back, and released once
//! there is none.

mod export;
mod links;
mod progress;
mod read_links;
mod release;
mod repository;
mod source;
mod unknown;
mod update;

use std::collections::BTreeSet;

use registry_core::Error;

pub use self::export::{ExportInPlaceError, ExportInPlaceReport, export_in_place};
use self::progress::{Begun, begin, finish};
use self::release::just_before;
pub use self::release::{ReleaseError, ReleaseReport, release};
use self::source::BucketTree;
pub use self::update::{find_news, update_in_place};
use super::error::AdoptError;
use super::options::AdoptOptions;
use super::report::AdoptReport;
use super::run::{News, Nowhere, Run, Sink};
use super::survey::Survey;
use crate::object_store::ObjectStoreBackend;
use crate::observer::MaintenanceObserver;
use crate::store::Store;

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
    let begun = begin(store, options).await?;
    take(store, begun, options, observer).await
}

/// Takes what is to be taken by an adoption that began.
async fn take(
    store: &Store<ObjectStoreBackend>,
    begun: Begun,
    options: &AdoptOptions,
    observer: &dyn MaintenanceObserver,
) -> Result<AdoptReport, AdoptError> {
    let tree = BucketTree {
        backend: store.backend(),
        update: begun.update(),
    };
    let mut run = Run::new(&tree, Sink::Store(store), options, observer);
    run.news = begun.since.map(|since| News::After(just_before(since)));
    let report = run.all().await?;
    finish(store, begun, !report.defects.is_empty()).await?;
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
    let tree = BucketTree::whole(store.backend());
    let mut run = Run::new(&tree, sink, options, observer);
    run.all().await?;
    Ok(run.into_survey())
}
