//! A tree in the bucket of a store: it is adopted where it is, written for the way back, and released once
//! there is none.

mod export;
mod links;
mod release;
mod repository;
mod source;
mod unknown;
mod update;

pub use self::export::{ExportInPlaceError, ExportInPlaceReport, export_in_place};
use self::release::has_newer;
pub use self::release::{ReleaseError, ReleaseReport, release};
use self::source::BucketTree;
pub use self::update::find_news;
use super::adopt::{Adoption, adoption};
use super::error::AdoptError;
use super::options::AdoptOptions;
use super::record;
use super::report::AdoptReport;
use super::run::{Nowhere, Run, Sink};
use super::survey::Survey;
use crate::key::Key;
use crate::object_store::ObjectStoreBackend;
use crate::observer::MaintenanceObserver;
use crate::record::{AdoptionRecord, Stamp};
use crate::store::Store;
use registry_core::{Error, ErrorCode, Timestamp};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long to wait, in milliseconds, before each look whether the clock of the bucket has reached another second.
const TICKS: [u64; 6] = [50, 100, 200, 400, 800, 1600];

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
    let tree = BucketTree(store.backend());
    let mut run = Run::new(&tree, Sink::Store(store), options, observer);
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
    let tree = BucketTree(store.backend());
    let mut run = Run::new(&tree, sink, options, observer);
    run.all().await?;
    Ok(run.into_survey())
}

/// Notes that an adoption begins, or joins the one that another process is at, and returns when it began.
async fn begin(store: &Store<ObjectStoreBackend>, options: &AdoptOptions) -> Result<Timestamp, AdoptError> {
    let is_mixed = adoption(store).await? == Adoption::OwnContent;
    record::change(store, |before| match before {
        None if is_mixed && !options.again => Err(AdoptError::OwnContent),
        Some(AdoptionRecord {
            released: Some(when), ..
        }) => Err(AdoptError::Released(when)),
        // Another process is at it, or was.
        Some(AdoptionRecord { finished: None, .. }) => Ok(None),
        Some(AdoptionRecord {
            finished: Some(when), ..
        }) if !options.again => Err(AdoptError::Finished(when)),
        None | Some(_) => Ok(Some(record::begun(store.now()))),
    })
    .await?;
    // What this process lists from now on has all that was written before the bucket dated the record.
    let dated = dated_alone(store).await?;
    let mut begun = Timestamp::default();
    record::change(store, |before| {
        let before = before.ok_or(ErrorCode::Unavailable).map_err(Error::from)?;
        begun = before.begun;
        let is_later = before.begun_in_bucket.is_some_and(|earlier| earlier <= dated);
        Ok((!is_later && before.finished.is_none()).then(|| AdoptionRecord {
            begun_in_bucket: Some(dated),
            stamp: Stamp::new(store.now()),
            ..before
        }))
    })
    .await?;
    Ok(begun)
}

/// Returns when the record of an adoption that goes on was written, by the clock of the bucket. If links were written in that second,
/// just before the distribution registry was stopped, it is written again in a later one: nobody could tell them from what
/// comes later, and an export would be refused.
async fn dated_alone(store: &Store<ObjectStoreBackend>) -> Result<Timestamp, AdoptError> {
    let mut dated = record_written(store).await?;
    for back_off in TICKS {
        if !has_newer(store.backend(), dated).await? {
            break;
        }
        tokio::time::sleep(Duration::from_millis(back_off)).await;
        record::change(store, |before| {
            let before = before.filter(|before| before.finished.is_none());
            Ok(before.map(|before| AdoptionRecord {
                stamp: Stamp::new(store.now()),
                ..before
            }))
        })
        .await?;
        dated = record_written(store).await?;
    }
    Ok(dated)
}

/// Returns when the record of the adoption was written, by the clock of the bucket.
async fn record_written(store: &Store<ObjectStoreBackend>) -> Result<Timestamp, AdoptError> {
    let key = Key::adoption();
    let found = store.backend().list_tree(key.as_str(), None).await?;
    let record = found.into_iter().find(|object| object.key == key.as_str());
    let record = record.ok_or(ErrorCode::Unavailable).map_err(Error::from)?;
    Ok(record.written)
}

async fn finish(
    store: &Store<ObjectStoreBackend>,
    begun: Timestamp,
    is_partial: bool,
) -> Result<(), AdoptError> {
    record::change(store, |before| {
        // What began since is for another process to finish. So is what was released.
        let before = before.filter(|before| before.begun == begun && before.released.is_none());
        Ok(before
            .filter(|before| before.finished.is_none() || is_partial && !before.is_partial)
            .map(|before| AdoptionRecord {
                finished: Some(before.finished.unwrap_or_else(|| store.now())),
                is_partial: is_partial || before.is_partial,
                stamp: Stamp::new(store.now()),
                ..before
            }))
    })
    .await
}
