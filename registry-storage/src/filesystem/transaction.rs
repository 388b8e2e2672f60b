//! The records as a transaction sees them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use registry_core::{Error, ErrorCode};
use rusqlite::Connection;

use super::queries::{self, Found};
use crate::backend::{
    Condition, Part, RecordEntry, RecordTransaction, StagedBytes, Stat, Version, VersionedRecord,
};
use crate::key::Key;

/// A transaction of SQLite, which merges several of the store's. Nothing here waits: each call is done when its future
/// is first polled.
#[derive(Debug)]
pub(super) struct SqliteTransaction<'c> {
    connection: &'c mut Connection,
    /// The version of the next write.
    next_version: &'c mut i64,
    /// What was written, the newest last.
    changes: Vec<(Key, Option<VersionedRecord>)>,
    /// What is known of records that were read or written: most writes follow a read of the same record.
    known: BTreeMap<Key, Option<Found>>,
    /// How many bytes were written, including transactions that were rolled back.
    written: usize,
    /// The first error of SQLite. The whole transaction must then be rolled back.
    failure: Option<rusqlite::Error>,
    /// Whether there is room for the writes of a transaction.
    room: Result<(), Error>,
}

impl<'c> SqliteTransaction<'c> {
    pub(super) fn new(connection: &'c mut Connection, next_version: &'c mut i64) -> Self {
        Self {
            connection,
            next_version,
            changes: Vec::new(),
            known: BTreeMap::new(),
            written: 0,
            failure: None,
            room: Ok(()),
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        self.connection
    }

    pub(super) fn changes(&self) -> usize {
        self.changes.len()
    }

    /// Sets whether there is room for the writes from now on.
    pub(super) fn set_room(&mut self, room: Result<(), Error>) {
        self.room = room;
    }

    /// Returns how many bytes were written, including transactions that were rolled back.
    pub(super) const fn written(&self) -> usize {
        self.written
    }

    /// Forgets all but the first `count` changes, which were rolled back.
    pub(super) fn forget_changes(&mut self, count: usize) {
        self.changes.truncate(count);
        self.known.clear();
    }

    /// Fails with the first error of SQLite, if there was one.
    pub(super) fn check(&mut self) -> rusqlite::Result<()> {
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Returns what will be committed: the last change of each key. Readers must not see what a key was in between.
    pub(super) fn into_changes(self) -> Vec<(Key, Option<VersionedRecord>)> {
        let last: BTreeMap<Key, Option<VersionedRecord>> = self.changes.into_iter().collect();
        last.into_iter().collect()
    }

    /// Keeps an error of SQLite. Its cause is logged and answered with the whole transaction.
    fn note<T>(&mut self, result: rusqlite::Result<T>) -> Result<T, Error> {
        result.map_err(|cause| {
            self.fail(cause);
            Error::from(ErrorCode::Internal)
        })
    }

    /// Makes the whole transaction fail.
    pub(super) fn fail(&mut self, cause: rusqlite::Error) {
        self.failure.get_or_insert(cause);
    }

    /// Returns what is known of a record, or looks for it.
    fn find(&mut self, key: &Key) -> Result<Option<Found>, Error> {
        if let Some(found) = self.known.get(key) {
            return Ok(*found);
        }
        let found = queries::find(self.connection, key);
        self.note(found)
    }

    fn write(&mut self, key: &Key, value: Bytes, condition: &Condition) -> Result<Option<Version>, Error> {
        self.room.clone()?;
        let found = self.find(key)?;
        let holds = match condition {
            Condition::Absent => found.is_none(),
            Condition::Any => true,
            Condition::Matches(expected) => found.is_some_and(|found| found.is(expected)),
        };
        if !holds {
            return Ok(None);
        }
        let number = *self.next_version;
        *self.next_version = number.wrapping_add(1);
        let result = queries::write(self.connection, key, &value, number, found);
        let written = self.note(result)?;
        self.known.insert(key.clone(), Some(written));
        self.written = self.written.saturating_add(value.len());
        let version = queries::version_of(number);
        let stored = VersionedRecord::new(value, version.clone());
        self.changes.push((key.clone(), Some(stored)));
        Ok(Some(version))
    }

    /// Deletes a record if it has a version, and returns whether it is gone.
    fn delete(&mut self, key: &Key, version: Option<&Version>) -> Result<bool, Error> {
        let Some(found) = self.find(key)? else {
            return Ok(true);
        };
        if version.is_some_and(|version| !found.is(version)) {
            return Ok(false);
        }
        let result = queries::delete(self.connection, key, found);
        self.note(result)?;
        self.known.insert(key.clone(), None);
        self.changes.push((key.clone(), None));
        Ok(true)
    }
}

#[async_trait]
impl RecordTransaction for SqliteTransaction<'_> {
    async fn get(&mut self, key: &Key) -> Result<Option<VersionedRecord>, Error> {
        let result = queries::get_found(self.connection, key);
        let read = self.note(result)?;
        self.known
            .insert(key.clone(), read.as_ref().map(|(_, found)| *found));
        Ok(read.map(|(stored, _)| stored))
    }

    async fn stat(&mut self, key: &Key) -> Result<Option<Stat>, Error> {
        let result = queries::stat(self.connection, key);
        let read = self.note(result)?;
        self.known
            .insert(key.clone(), read.as_ref().map(|(_, found)| *found));
        Ok(read.map(|(stat, _)| stat))
    }

    async fn put(&mut self, key: &Key, value: Bytes, condition: Condition) -> Result<Option<Version>, Error> {
        self.write(key, value, &condition)
    }

    fn others_purge(&self) -> bool {
        false
    }

    async fn purge_if(&mut self, key: &Key, version: &Version) -> Result<bool, Error> {
        self.delete(key, Some(version))
    }

    async fn remove(&mut self, key: &Key) -> Result<(), Error> {
        self.delete(key, None).map(|_| ())
    }

    async fn list(
        &mut self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<RecordEntry>, Error> {
        let result = queries::list(self.connection, prefix, after, limit);
        self.note(result)
    }

    /// Does nothing: the bytes were sealed before the transaction began.
    async fn complete_bytes(&mut self, _: &StagedBytes, _: &[Part], _: Bytes) -> Result<(), Error> {
        Ok(())
    }
}
