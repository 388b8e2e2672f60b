//! How far an adoption came, as a record of the store.

use registry_core::{Error, Timestamp};

use super::tree::Look;
use crate::backend::{Backend, Condition, Durability, RecordTransaction, Transaction};
use crate::key::Key;
use crate::record::{AdoptionRecord, Stamp, decode, encode};
use crate::store::Store;

/// How long a moment is at most, in milliseconds: the times of files are those of the kernel's last tick.
const MOMENT: u64 = 20;

pub(super) async fn read<B: Backend>(store: &Store<B>) -> Result<Option<AdoptionRecord>, Error> {
    let stored = store.backend().get(&Key::adoption()).await?;
    let record = stored.map(|stored| decode(&stored.value)).transpose()?;
    Ok(record.map(|(record, _)| record))
}

/// Makes the record of an adoption that begins.
pub(super) fn begun(now: Timestamp) -> AdoptionRecord {
    AdoptionRecord {
        begun: now,
        finished: None,
        newest: None,
        folder: None,
        stamp: Stamp::new(now),
    }
}

/// Makes the record of a tree that was adopted as it is at `looked`.
pub(super) fn finished(begun: Timestamp, now: Timestamp, looked: &Look) -> AdoptionRecord {
    AdoptionRecord {
        begun,
        finished: Some(now),
        // What is written in the same moment has the same time, and comes to be seen as well.
        newest: Some(looked.newest.min(earlier(now))),
        folder: looked.folder,
        stamp: Stamp::new(now),
    }
}

/// Returns since when a tree may have what was not adopted.
pub(super) fn since(record: &AdoptionRecord) -> Timestamp {
    record.newest.unwrap_or_else(|| earlier(record.begun))
}

const fn earlier(time: Timestamp) -> Timestamp {
    Timestamp(time.0.saturating_sub(MOMENT))
}

/// Writes the record; when that returns, it is durable, and so is all that was written before.
pub(super) async fn write<B: Backend>(store: &Store<B>, record: AdoptionRecord) -> Result<(), Error> {
    store.backend().transact(Durability::Synced, Write(record)).await
}

struct Write(AdoptionRecord);

impl Transaction for Write {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        let value = encode(&self.0, &[])?;
        records
            .put(&Key::adoption(), value, Condition::Any)
            .await
            .map(drop)
    }
}
