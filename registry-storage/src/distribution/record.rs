//! How far an adoption came and what it took, as records of the store.

use registry_core::{Error, ErrorCode, RepositoryName, Timestamp};

use super::error::AdoptError;
use super::look::Look;
use super::seen::Seen;
use crate::backend::{Backend, Condition, Durability, RecordTransaction, Transaction};
use crate::key::Key;
use crate::record::{AdoptedRecord, AdoptionRecord, Stamp, decode, encode};
use crate::store::Store;

/// How long a moment is at most, in milliseconds: the times of files are those of the kernel's last tick.
const MOMENT_MILLISECONDS: u64 = 20;

/// How many times a change begins again because another process changed the record.
const CHANGE_ATTEMPTS: usize = 32;

pub(super) async fn read<B: Backend>(store: &Store<B>) -> Result<Option<AdoptionRecord>, Error> {
    let stored = store.backend().get(&Key::adoption()).await?;
    let record = stored.map(|stored| decode(&stored.value)).transpose()?;
    Ok(record.map(|(record, _)| record))
}

/// Returns the record of an adoption that begins.
pub(super) fn begun(now: Timestamp) -> AdoptionRecord {
    AdoptionRecord {
        begun: now,
        begun_in_bucket: None,
        since: None,
        finished: None,
        newest: None,
        changed: None,
        folder: None,
        is_partial: false,
        is_exporting: false,
        released: None,
        stamp: Stamp::new(now),
    }
}

/// Makes the record of a tree that was adopted as it was when it was looked at, just after `before`.
pub(super) fn finished(
    begun: Timestamp,
    (before, now): (Timestamp, Timestamp),
    looked: &Look,
    is_partial: bool,
) -> AdoptionRecord {
    AdoptionRecord {
        begun,
        begun_in_bucket: None,
        since: None,
        finished: Some(now),
        newest: Some(looked.newest),
        // What changed in the same moment has the same time, and comes to be seen as well.
        changed: Some(looked.last_change.min(earlier(before))),
        folder: looked.folder,
        is_partial,
        is_exporting: false,
        released: None,
        stamp: Stamp::new(now),
    }
}

/// Changes the record of a store that other processes have too, by compare-and-swap: `change` gets the record as it is, and
/// returns what it is to be, or `None` to leave it.
pub(super) async fn change<B: Backend>(
    store: &Store<B>,
    mut change: impl FnMut(Option<AdoptionRecord>) -> Result<Option<AdoptionRecord>, AdoptError>,
) -> Result<(), AdoptError> {
    for _ in 0..CHANGE_ATTEMPTS {
        let stored = store.backend().get(&Key::adoption()).await?;
        let condition = stored.as_ref().map_or(Condition::Absent, |stored| {
            Condition::Matches(stored.version.clone())
        });
        let before = stored.map(|stored| decode(&stored.value)).transpose()?;
        let Some(after) = change(before.map(|(record, _)| record))? else {
            return Ok(());
        };
        let write = PutIf(Key::adoption(), encode(&after, &[])?, condition);
        if store.backend().transact(Durability::Synced, write).await? {
            return Ok(());
        }
    }
    Err(Error::from(ErrorCode::Unavailable).into())
}

struct PutIf(Key, bytes::Bytes, Condition);

impl Transaction for PutIf {
    type Output = bool;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<bool, Error> {
        let Self(key, value, condition) = self;
        Ok(records.put(&key, value, condition).await?.is_some())
    }
}

/// Returns when the last was written of what was adopted by a version that noted no links.
pub(super) fn newest(record: &AdoptionRecord) -> Timestamp {
    record.newest.unwrap_or_else(|| earlier(record.begun))
}

const fn earlier(time: Timestamp) -> Timestamp {
    Timestamp(time.0.saturating_sub(MOMENT_MILLISECONDS))
}

/// Writes the record. Once this returns, the record and everything written before are durable.
pub(super) async fn write<B: Backend>(store: &Store<B>, record: AdoptionRecord) -> Result<(), Error> {
    let value = encode(&record, &[])?;
    let put = Put(vec![(Key::adoption(), value)]);
    store.backend().transact(Durability::Synced, put).await
}

/// Reads which links of a repository were adopted.
pub(super) async fn seen<B: Backend>(store: &Store<B>, name: &RepositoryName) -> Result<Seen, Error> {
    let Some(stored) = store.backend().get(&Key::adopted(name)).await? else {
        return Ok(Seen::default());
    };
    let (_, content) = decode::<AdoptedRecord>(&stored.value)?;
    Ok(Seen::decode(&content))
}

/// Notes which links of repositories were adopted. Writes nothing if the tree is adopted at each start.
pub(super) async fn write_seen<'s, B: Backend>(
    store: &Store<B>,
    seen: impl IntoIterator<Item = (&'s RepositoryName, &'s Seen)>,
) -> Result<(), Error> {
    if store.backend().is_read_only() {
        return Ok(());
    }
    let mut records = Vec::new();
    for (repository, seen) in seen {
        let record = AdoptedRecord {
            repository: repository.clone(),
            stamp: Stamp::new(store.now()),
        };
        records.push((Key::adopted(repository), encode(&record, &seen.encode())?));
    }
    store.backend().transact(Durability::Deferred, Put(records)).await
}

struct Put(Vec<(Key, bytes::Bytes)>);

impl Transaction for Put {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        for (key, value) in self.0 {
            records.put(&key, value, Condition::Any).await?;
        }
        Ok(())
    }
}
