//! What came into the tree in a bucket after it was adopted.

use registry_core::{Error, Timestamp};

use super::progress::begin_update;
use super::release::has_newer;
use super::take;
use super::unknown::find_unknown;
use crate::distribution::error::AdoptError;
use crate::distribution::options::AdoptOptions;
use crate::distribution::record;
use crate::distribution::report::AdoptReport;
use crate::object_store::ObjectStoreBackend;
use crate::observer::MaintenanceObserver;
use crate::record::AdoptionRecord;
use crate::store::Store;

/// Finds a link that the distribution registry wrote after its tree in a bucket was adopted.
///
/// It is one that says something else than what is here. Returns its key, and when it was written by the clock of the bucket.
/// Nothing is written. It takes one request for each thousand links, ends at the first link that it finds, and takes a single request if
/// no tree was adopted, or if it was released.
///
/// # Errors
/// Those of the bucket.
pub async fn find_news(store: &Store<ObjectStoreBackend>) -> Result<Option<(String, Timestamp)>, Error> {
    let Some(before) = record::read(store).await? else {
        return Ok(None);
    };
    // What goes on finds it by itself.
    if before.finished.is_none() || before.released.is_some() {
        return Ok(None);
    }
    let unknown = find_unknown(store, taken_until(&before)).await?;
    Ok(unknown.map(|object| (store.backend().whole_key(&object.key), object.written)))
}

/// Gives a store what came into the tree in its bucket since it was adopted.
///
/// That is the links that were written since, and what they name, as in a folder ([`update`](crate::distribution::update)). What was
/// deleted here stays deleted, unless it was pushed there again.
///
/// Returns `None` if nothing came, which costs one request for each thousand links, or if no tree was adopted, or if it was released,
/// which costs one. Any number of processes may do this at once, and each may be ended at any point; then the next call
/// continues. Until then nothing is collected.
///
/// # Errors
/// [`AdoptError`], of which [`Exporting`](AdoptError::Exporting) means that nothing was done. What was adopted before an error stays.
pub async fn update_in_place(
    store: &Store<ObjectStoreBackend>,
    observer: &dyn MaintenanceObserver,
) -> Result<Option<AdoptReport>, AdoptError> {
    let before = record::read(store)
        .await?
        .filter(|before| before.released.is_none());
    let Some(before) = before else {
        return Ok(None);
    };
    if before.finished.is_some() {
        if before.is_exporting {
            return match find_news(store).await? {
                Some((key, written)) => Err(AdoptError::Exporting { key, written }),
                None => Ok(None),
            };
        }
        // Also links that say what is here: once that is deleted, they would be taken for something new.
        if !has_newer(store.backend(), taken_until(&before)).await? {
            return Ok(None);
        }
    }
    // Only now, because no quota refuses anything meanwhile.
    let _running = store.adopting().ok_or(AdoptError::Running)?;
    match begin_update(store, &before).await? {
        Some(begun) => take(store, begun, &AdoptOptions::new(), observer).await.map(Some),
        None => Ok(None),
    }
}

/// Returns the time before which all links of a tree that was adopted were taken, by the clock of the bucket if it is known.
pub(super) fn taken_until(record: &AdoptionRecord) -> Timestamp {
    record.begun_in_bucket.unwrap_or(record.begun)
}
