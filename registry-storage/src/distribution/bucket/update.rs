//! What came into the tree in a bucket after it was adopted.

use registry_core::{Error, Timestamp};

use super::unknown::find_unknown;
use crate::distribution::record;
use crate::object_store::ObjectStoreBackend;
use crate::record::AdoptionRecord;
use crate::store::Store;

/// Finds a link that the distribution registry wrote after its tree in the bucket of a store was adopted, and that says something
/// else than what is here. Returns its key, and when it was written by the clock of the bucket.
///
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

/// Returns the time before which all links of the tree were taken, by the clock of the bucket if it is known.
fn taken_until(record: &AdoptionRecord) -> Timestamp {
    record.begun_in_bucket.unwrap_or(record.begun)
}
