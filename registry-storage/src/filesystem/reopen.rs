//! Writing again after a sync failed.
//!
//! What the kernel could not write it drops, so no later sync of the same pages proves anything. What proves something
//! is to write them again: the log is copied back whole into the records and synced there, a new log is begun, and the
//! last commit that was acknowledged is found. Only then does the store write again.

use std::time::{Duration, Instant};

use rusqlite::{Connection, ffi};

use super::health::Cure;
use super::queries;
use super::writer::Writer;
use crate::backend::{Version, VersionedRecord};
use crate::key::Key;

/// How often it is tried.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long reads that go on are waited for.
const PATIENCE: Duration = Duration::from_millis(100);

/// What the last commit wrote last, to find it again.
#[derive(Clone, Debug)]
pub(super) struct LastChange {
    key: Key,
    /// The version that was written, nothing where the record was removed; then that of a commit which failed after
    /// it, and may be found nevertheless.
    versions: Vec<Option<Version>>,
}

impl LastChange {
    /// Notes a commit that was acknowledged.
    pub(super) fn committed(change: &(Key, Option<VersionedRecord>)) -> Self {
        Self {
            key: change.0.clone(),
            versions: vec![version_of(change)],
        }
    }

    /// Notes a commit that failed.
    pub(super) fn failed(&mut self, changes: &[(Key, Option<VersionedRecord>)]) {
        let same = changes.iter().find(|(key, _)| *key == self.key);
        self.versions.extend(same.map(version_of));
    }

    fn is_in(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let found = queries::get(connection, &self.key)?.map(|stored| stored.version);
        Ok(self.versions.contains(&found))
    }
}

fn version_of(change: &(Key, Option<VersionedRecord>)) -> Option<Version> {
    change.1.as_ref().map(|stored| stored.version.clone())
}

impl Writer {
    /// Tries to write again, if writing ended and may go on. It says so in the log meanwhile.
    pub(super) fn try_to_go_on(&mut self) {
        self.health.tell_again();
        self.look_after_root();
        let Some(number) = self.health.curable() else {
            return;
        };
        if self.tried.is_some_and(|tried| tried.elapsed() < INTERVAL) {
            return;
        }
        match self.reopen() {
            Ok(true) => self.health.resume(number),
            Ok(false) => {
                let reason = "what was acknowledged is not in its records any more";
                self.health.end_writing(reason, Cure::Restart);
            }
            Err(cause) => {
                tracing::warn!(path = %self.path.display(), %cause, "the records cannot be opened again yet");
            }
        }
        self.tried = Some(Instant::now());
    }

    /// Opens the records anew, from the disk; `false` where the last commit is not there.
    fn reopen(&mut self) -> rusqlite::Result<bool> {
        self.lock.forget_log();
        self.readers.close_idle();
        if let Some(connection) = self.connection.take() {
            // A log whose sync failed is not copied back on the way out: that would be a sync that nobody looks at.
            drop(queries::keep_log(&connection));
        }
        let connection = queries::open_writer(&self.path, self.readers.medium())?;
        // Those who ask for writes meanwhile are answered before long.
        connection.busy_timeout(PATIENCE)?;
        if !queries::checkpoint(&connection)? {
            return Err(busy());
        }
        let is_whole = match &self.last_change {
            Some(last) => last.is_in(&connection)?,
            None => true,
        };
        // A commit of its own, to see whether syncs succeed.
        queries::touch(&connection)?;
        connection.busy_timeout(queries::BUSY)?;
        self.readers.open_idle()?;
        self.cache.clear();
        self.connection = Some(connection);
        (self.is_syncing, self.has_unsynced) = (true, false);
        self.disk.records_synced(&self.path);
        Ok(is_whole)
    }
}

/// The error of records that are read at the moment, or that are not open.
pub(super) fn busy() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), None)
}
