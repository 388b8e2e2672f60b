//! Writing again after a sync failed.
//!
//! The kernel drops what it could not write, so no later sync of the same pages proves anything. Writing them again
//! does: the log is copied back whole into the records and synced there, a new log is begun, and the last commit that
//! was acknowledged is found. Only then does the store write again.

use std::time::{Duration, Instant};

use rusqlite::{Connection, ffi};

use super::health::Cure;
use super::queries;
use super::writer::Writer;
use crate::backend::{Version, VersionedRecord};
use crate::key::Key;

/// The interval between two attempts.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the attempt waits for reads in progress.
const PATIENCE: Duration = Duration::from_millis(100);

/// The last change of the last commit, to find it again.
#[derive(Clone, Debug)]
pub(super) struct LastChange {
    key: Key,
    /// The version that was written, `None` if the record was removed; then the version of a commit that failed after
    /// it, and that may be found nevertheless.
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
    /// Tries to write again, if writing ended and can be resumed. Logs meanwhile that nothing is written.
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

    /// Reopens the records from the disk; returns `false` if the last commit is not there.
    fn reopen(&mut self) -> rusqlite::Result<bool> {
        self.lock.forget_log();
        self.readers.close_idle();
        if let Some(connection) = self.connection.take() {
            // A log whose sync failed is not copied back on close: that would be a sync whose result is not checked.
            drop(queries::keep_log(&connection));
        }
        let connection = queries::open_writer(&self.path, self.readers.medium())?;
        // Requests that write meanwhile are answered soon.
        connection.busy_timeout(PATIENCE)?;
        if !queries::checkpoint(&connection)? {
            return Err(busy());
        }
        let is_whole = match &self.last_change {
            Some(last) => last.is_in(&connection)?,
            None => true,
        };
        // A separate commit, to see whether syncs succeed.
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

/// Returns the error of records that are being read, or that are not open.
pub(super) fn busy() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), None)
}
