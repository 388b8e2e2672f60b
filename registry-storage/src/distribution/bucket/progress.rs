//! The record of an adoption in a bucket, which several processes may be at.

use std::time::Duration;

use registry_core::{Error, ErrorCode, Timestamp};

use super::release::has_newer;
use super::source::Update;
use super::update::taken_until;
use crate::distribution::adopt::{Adoption, adoption};
use crate::distribution::error::AdoptError;
use crate::distribution::options::AdoptOptions;
use crate::distribution::record;
use crate::key::Key;
use crate::object_store::ObjectStoreBackend;
use crate::record::{AdoptionRecord, Stamp};
use crate::store::Store;

/// How long to wait, in milliseconds, before each look whether the clock of the bucket has reached another second.
pub(super) const TICKS: [u64; 6] = [50, 100, 200, 400, 800, 1600];

/// An adoption that goes on, as this process began or joined it.
#[derive(Clone, Copy)]
pub(super) struct Begun {
    /// What tells it from others.
    begun: Timestamp,
    /// When the bucket dated its record. What this process lists has all links that were written before.
    dated: Timestamp,
    /// Before when all links were taken, by the clock of the bucket, if only what came since is taken.
    pub(super) since: Option<Timestamp>,
}

impl Begun {
    /// Returns the update that it is, if it is one.
    pub(super) fn update(&self) -> Option<Update> {
        let begun = self.begun;
        self.since.map(|since| Update { begun, since })
    }
}

/// Notes that an adoption begins, or joins the one that another process is at.
pub(super) async fn begin(
    store: &Store<ObjectStoreBackend>,
    options: &AdoptOptions,
) -> Result<Begun, AdoptError> {
    let is_mixed = adoption(store).await? == Adoption::OwnContent;
    record::change(store, |before| match before {
        None if is_mixed && !options.again => Err(AdoptError::OwnContent),
        Some(AdoptionRecord {
            released: Some(when), ..
        }) => Err(AdoptError::Released(when)),
        // An update would not compare everything.
        Some(before) if before.since.is_some() && options.again => {
            Ok(Some(record::begun(later(store, &before))))
        }
        // Another process is at it, or was.
        Some(AdoptionRecord { finished: None, .. }) => Ok(None),
        Some(AdoptionRecord {
            finished: Some(when), ..
        }) if !options.again => Err(AdoptError::Finished(when)),
        Some(before) => Ok(Some(record::begun(later(store, &before)))),
        None => Ok(Some(record::begun(store.now()))),
    })
    .await?;
    match date(store).await? {
        // Another process finished it just now, and what it was is not known any more.
        (_, Some(when)) if !options.again => Err(AdoptError::Finished(when)),
        (begun, _) => Ok(begun),
    }
}

/// Notes that what came since an adoption is taken, or joins the process that does so already. Returns `None` if that is
/// done, or something else than `looked_at` goes on.
pub(super) async fn begin_update(
    store: &Store<ObjectStoreBackend>,
    looked_at: &AdoptionRecord,
) -> Result<Option<Begun>, AdoptError> {
    let mut goes_on = false;
    record::change(store, |before| {
        let before = before.filter(|before| before.released.is_none());
        let is_same = before.as_ref().is_some_and(|before| {
            before.finished.is_some()
                && !before.is_exporting
                && (before.begun, before.begun_in_bucket) == (looked_at.begun, looked_at.begun_in_bucket)
        });
        goes_on = is_same || before.as_ref().is_some_and(|before| before.since.is_some());
        Ok(before.filter(|_| is_same).map(|before| AdoptionRecord {
            since: Some(taken_until(&before)),
            is_partial: before.is_partial,
            ..record::begun(later(store, &before))
        }))
    })
    .await?;
    if !goes_on {
        return Ok(None);
    }
    let (begun, finished) = date(store).await?;
    Ok((finished.is_none() && begun.since.is_some()).then_some(begun))
}

/// Returns the time of this process, or a later one that no adoption before has.
fn later(store: &Store<ObjectStoreBackend>, before: &AdoptionRecord) -> Timestamp {
    store.now().max(Timestamp(before.begun.0.saturating_add(1)))
}

/// Has the bucket date the record, and reads what goes on and when that was finished.
async fn date(store: &Store<ObjectStoreBackend>) -> Result<(Begun, Option<Timestamp>), AdoptError> {
    let dated = dated_alone(store).await?;
    let record = record::read(store).await?;
    let record = record.ok_or(ErrorCode::Unavailable).map_err(Error::from)?;
    if let Some(when) = record.released {
        return Err(AdoptError::Released(when));
    }
    let begun = Begun {
        begun: record.begun,
        dated,
        since: record.since,
    };
    Ok((begun, record.finished))
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
pub(super) async fn record_written(store: &Store<ObjectStoreBackend>) -> Result<Timestamp, AdoptError> {
    let key = Key::adoption();
    let found = store.backend().list_tree(key.as_str(), None).await?;
    let record = found.into_iter().find(|object| object.key == key.as_str());
    let record = record.ok_or(ErrorCode::Unavailable).map_err(Error::from)?;
    Ok(record.written)
}

/// Notes that an adoption is finished, and that something was broken. All that was written before its record was dated is taken then.
pub(super) async fn finish(
    store: &Store<ObjectStoreBackend>,
    begun: Begun,
    is_partial: bool,
) -> Result<(), AdoptError> {
    record::change(store, |before| {
        // What began since is for another process to finish. So is what was released.
        let before = before.filter(|before| before.begun == begun.begun && before.released.is_none());
        Ok(before
            .filter(|before| before.finished.is_none() || is_partial && !before.is_partial)
            .map(|before| AdoptionRecord {
                begun_in_bucket: match before.finished {
                    // Another process finished it, and is right about what it has listed.
                    Some(_) => before.begun_in_bucket,
                    None => Some(begun.dated.max(begun.since.unwrap_or_default())),
                },
                finished: Some(before.finished.unwrap_or_else(|| store.now())),
                since: None,
                is_partial: is_partial || before.is_partial,
                stamp: Stamp::new(store.now()),
                ..before
            }))
    })
    .await
}
