//! Writing again after a sync failed.
//!
//! The kernel drops what it could not write, so no later sync of the same pages proves anything. Writing them again
//! does: the log is copied back whole into the records and synced there, a new log is begun, and the last commit that
//! was acknowledged is found. Only then does the store write again.

use std::time::{Duration, Instant};

use super::health::Cure;
use super::queries::{self, busy};
use super::writer::Writer;

/// The interval between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How long the attempt waits for reads in progress.
const READS_TIMEOUT: Duration = Duration::from_millis(100);

impl Writer {
    /// Tries to write again, if writing ended and can be resumed. Logs meanwhile that nothing is written.
    pub(super) fn try_to_go_on(&mut self) {
        self.health.tell_again();
        self.look_after_root();
        let Some(number) = self.health.curable() else {
            return;
        };
        if self.tried.is_some_and(|tried| tried.elapsed() < RETRY_INTERVAL) {
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
        connection.busy_timeout(READS_TIMEOUT)?;
        if !queries::checkpoint(&connection)? {
            return Err(busy());
        }
        let is_whole = match &self.last_change {
            Some(last) => last.is_in(&connection)?,
            None => true,
        };
        // A separate commit, to see whether syncs succeed.
        queries::touch(&connection)?;
        connection.busy_timeout(queries::BUSY_TIMEOUT)?;
        self.readers.open_idle()?;
        self.cache.clear();
        self.connection = Some(connection);
        (self.is_syncing, self.has_unsynced) = (true, false);
        self.disk.records_synced(&self.path);
        Ok(is_whole)
    }
}
