//! How far an adoption came, as a record of the store.

use registry_core::chain::State;
use registry_core::{Error, Timestamp};
use serde::{Deserialize, Serialize};

use crate::backend::{Backend, Condition, Durability, Records, Sequence};
use crate::key::Key;
use crate::record::{Header, Stamp, decode, encode};
use crate::store::Store;

/// The record of the adoption of a tree.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct AdoptionRecord {
    pub(super) begun: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) finished: Option<Timestamp>,
    #[serde(flatten)]
    stamp: Stamp,
}

impl Header for AdoptionRecord {
    fn state(&self) -> State {
        State::Live
    }
}

impl AdoptionRecord {
    pub(super) async fn read<B: Backend>(store: &Store<B>) -> Result<Option<Self>, Error> {
        let stored = store.backend().get(&Key::adoption()).await?;
        let record = stored.map(|stored| decode::<Self>(&stored.value)).transpose()?;
        Ok(record.map(|(record, _)| record))
    }

    /// Writes the record; when that returns, it is durable, and so is all that was written before.
    pub(super) async fn write<B: Backend>(
        store: &Store<B>,
        begun: Timestamp,
        finished: Option<Timestamp>,
    ) -> Result<(), Error> {
        let stamp = Stamp::new(finished.unwrap_or(begun));
        let record = Self {
            begun,
            finished,
            stamp,
        };
        store.backend().transact(Durability::Synced, Write(record)).await
    }
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
