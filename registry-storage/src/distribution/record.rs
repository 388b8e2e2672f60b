//! How far an adoption came, as a record of the store.

use registry_core::{Error, Timestamp};

use crate::backend::{Backend, Condition, Durability, Records, Sequence};
use crate::key::Key;
use crate::record::{AdoptionRecord, Stamp, decode, encode};
use crate::store::Store;

pub(super) async fn read<B: Backend>(store: &Store<B>) -> Result<Option<AdoptionRecord>, Error> {
    let stored = store.backend().get(&Key::adoption()).await?;
    let record = stored.map(|stored| decode(&stored.value)).transpose()?;
    Ok(record.map(|(record, _)| record))
}

/// Writes the record; when that returns, it is durable, and so is all that was written before.
pub(super) async fn write<B: Backend>(
    store: &Store<B>,
    begun: Timestamp,
    finished: Option<Timestamp>,
) -> Result<(), Error> {
    let stamp = Stamp::new(finished.unwrap_or(begun));
    let record = AdoptionRecord {
        begun,
        finished,
        stamp,
    };
    store.backend().transact(Durability::Synced, Write(record)).await
}

struct Write(AdoptionRecord);

impl Sequence for Write {
    type Output = ();

    async fn run(self, records: &mut dyn Records) -> Result<(), Error> {
        let value = encode(&self.0, &[])?;
        records
            .put(&Key::adoption(), value, Condition::Any)
            .await
            .map(drop)
    }
}
