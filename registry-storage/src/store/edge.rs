//! Typed records, and the steps that every edge of the chain has in common.

use crate::chain::{Require, State, require};
use bytes::Bytes;
use registry_core::{Error, ErrorCode, Timestamp};

use crate::backend::{Backend, Checked, Condition, RecordTransaction, Transaction, Version, VersionedRecord};
use crate::key::Key;
use crate::record::{BlobRecord, GrantRecord, Header, ManifestRecord, Stamp, decode, encode, state_of_size};

/// A record that was read, or its absence.
#[derive(Clone, Debug)]
pub(super) struct Found<H> {
    /// The header and the content, unless there is no record.
    pub(super) record: Option<(H, Bytes)>,
    version: Option<Version>,
    pub(super) checked: Checked,
}

impl<H: Header> Found<H> {
    pub(super) fn new(stored: Option<&VersionedRecord>) -> Result<Self, Error> {
        let record = stored.map(|stored| decode(&stored.value)).transpose()?;
        Ok(Self {
            record,
            version: stored.map(|stored| stored.version.clone()),
            checked: stored.map(|stored| stored.checked.clone()).unwrap_or_default(),
        })
    }

    /// Returns a record without content as it was written.
    pub(super) fn written(header: H, version: Version) -> Self {
        Self {
            record: Some((header, Bytes::new())),
            version: Some(version),
            checked: Checked::default(),
        }
    }

    pub(super) fn state(&self) -> State {
        self.record
            .as_ref()
            .map_or(State::Absent, |(header, _)| header.state())
    }

    /// Returns the header and content of a record that readers see.
    pub(super) fn visible(self) -> Option<(H, Bytes)> {
        self.record.filter(|(header, _)| header.state().is_visible())
    }

    pub(super) fn header(&self) -> Option<&H> {
        self.record.as_ref().map(|(header, _)| header)
    }

    /// Returns whether this is the record that was written or read as `version`.
    pub(super) fn is(&self, version: &Version) -> bool {
        self.version.as_ref() == Some(version)
    }

    pub(super) const fn version(&self) -> Option<&Version> {
        self.version.as_ref()
    }

    /// Returns the condition that the record was not written since.
    pub(super) fn unchanged(&self) -> Condition {
        self.version.clone().map_or(Condition::Absent, Condition::Matches)
    }
}

/// Reads a record within a transaction.
pub(super) async fn read_latest<H: Header>(
    records: &mut dyn RecordTransaction,
    key: &Key,
) -> Result<Found<H>, Error> {
    Found::new(records.get(key).await?.as_ref())
}

/// Reads a record outside of a transaction.
pub(super) async fn read_cached<H: Header>(backend: &impl Backend, key: &Key) -> Result<Found<H>, Error> {
    Found::new(backend.get(key).await?.as_ref())
}

/// Returns a record that readers see from memory, for a client that pulls; `None` if it is not there.
pub(super) fn recall<H: Header>(backend: &impl Backend, key: &Key) -> Result<Option<Found<H>>, Error> {
    let recalled = backend.recall(key);
    let found = recalled.map(|stored| Found::new(Some(&stored))).transpose()?;
    Ok(found.filter(|found: &Found<H>| found.state().is_visible()))
}

/// Writes a record within a transaction; returns `None` if `condition` does not hold.
pub(super) async fn write(
    records: &mut dyn RecordTransaction,
    key: &Key,
    header: &impl Header,
    content: &[u8],
    condition: Condition,
) -> Result<Option<Version>, Error> {
    records.put(key, encode(header, content)?, condition).await
}

/// A header whose state the protocol changes.
pub(super) trait Stateful: Header + Clone + Send + 'static {
    /// Returns the header of the same record in another state, written now.
    fn in_state(self, state: State, now: Timestamp) -> Self;

    /// Returns the header of the same record, Condemned in a cycle now.
    fn condemned_in(self, cycle: u64, now: Timestamp) -> Self;
}

macro_rules! stateful {
    ($($record:ty),*) => {
        $(impl Stateful for $record {
            fn in_state(self, state: State, now: Timestamp) -> Self {
                Self { state, condemned_in: None, stamp: Stamp::new(now), ..self }
            }

            fn condemned_in(self, cycle: u64, now: Timestamp) -> Self {
                Self { condemned_in: Some(cycle), ..self.in_state(State::Condemned, now) }
            }
        })*
    };
}
stateful!(ManifestRecord, GrantRecord, BlobRecord);

/// Makes a condemned record Live. Returns `false` if it was written since it was read.
pub(super) async fn rescue<H: Stateful>(
    records: &mut dyn RecordTransaction,
    key: &Key,
    found: &Found<H>,
    now: Timestamp,
) -> Result<bool, Error> {
    let Some((header, content)) = &found.record else {
        return Ok(false);
    };
    let live = header.clone().in_state(State::Live, now);
    Ok(write(records, key, &live, content, found.unchanged())
        .await?
        .is_some())
}

/// Makes a record Condemned in a cycle. Returns `false` if it was written since it was read.
pub(super) async fn condemn<H: Stateful>(
    records: &mut dyn RecordTransaction,
    key: &Key,
    found: &Found<H>,
    cycle: u64,
    now: Timestamp,
) -> Result<bool, Error> {
    let Some((header, content)) = &found.record else {
        return Ok(false);
    };
    let condemned = header.clone().condemned_in(cycle, now);
    Ok(write(records, key, &condemned, content, found.unchanged())
        .await?
        .is_some())
}

/// Reads a child that a Pending parent needs, and rescues it if it is condemned (step 2 of the rule).
pub(super) async fn require_child<H: Stateful>(
    records: &mut dyn RecordTransaction,
    key: &Key,
    now: Timestamp,
) -> Result<Option<(H, Bytes)>, Error> {
    for _ in 0..super::TRANSACTION_ATTEMPTS {
        let found = read_latest::<H>(records, key).await?;
        match require(found.state()) {
            Require::Ready => return Ok(found.record),
            Require::Missing => return Ok(None),
            Require::Rescue => {
                if rescue(records, key, &found, now).await? {
                    return Ok(found.record);
                }
            }
        }
    }
    Err(contended())
}

/// Returns whether a child that a Pending parent needs exists, as [`require_child`] does, but without reading a value
/// that is not needed: a child may be a manifest of some megabytes.
pub(super) async fn has_child<H: Stateful>(
    records: &mut dyn RecordTransaction,
    key: &Key,
    now: Timestamp,
) -> Result<bool, Error> {
    match records.stat(key).await? {
        None => Ok(false),
        Some(stat) if require(state_of_size(stat.size)) == Require::Ready => Ok(true),
        Some(_) => Ok(require_child::<H>(records, key, now).await?.is_some()),
    }
}

/// Keeps a visible record from collection: the promise of a HEAD that was answered with 200.
pub(super) struct Rescue<H> {
    pub(super) key: Key,
    pub(super) now: Timestamp,
    pub(super) header: std::marker::PhantomData<fn() -> H>,
}

impl<H: Stateful> Transaction for Rescue<H> {
    type Output = Option<(H, Bytes)>;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Self::Output, Error> {
        require_child(records, &self.key, self.now).await
    }
}

/// Returns the error of a transaction that began again too often.
pub(super) fn contended() -> Error {
    Error::new(
        ErrorCode::Unavailable,
        "others are writing the same content; try again",
    )
}
