//! Whether the file of the records is the one that they were first written to, or a copy of it.
//!
//! The records keep the number of their file (its inode), which a copy by `cp`, `rsync` or `tar` does not have. It is
//! kept as SQLite's `application_id`, so that the format stays the same. A folder that is moved on its file system and
//! a snapshot of the whole file system keep the number. A backup has none, because it is whole wherever it is copied
//! to.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use registry_core::Error;
use rusqlite::Connection;
use tokio::task::spawn_blocking;

use super::queries::{self, Medium};
use super::{FilesystemBackend, RECORDS_FILE};

/// No number: the records of a backup or of an earlier version of this program, and new ones.
const NONE: i32 = 0;

/// Returns whether records were copied to this file.
pub(super) fn is_copy(connection: &Connection, path: &Path) -> rusqlite::Result<bool> {
    let kept = kept(connection)?;
    // A file that cannot be examined is not reported as a copy.
    Ok(kept != NONE && number(path).is_ok_and(|number| number != kept))
}

/// Marks this file as the records' own, unless they have another one.
pub(super) fn claim_if_free(connection: &Connection, path: &Path) -> rusqlite::Result<()> {
    if kept(connection)? == NONE {
        claim(connection, path)?;
    }
    Ok(())
}

/// Marks this file as the records' own.
pub(super) fn claim(connection: &Connection, path: &Path) -> rusqlite::Result<()> {
    keep(connection, number(path).unwrap_or(NONE))
}

/// Marks the records as belonging to no file.
pub(super) fn disclaim(connection: &Connection) -> rusqlite::Result<()> {
    keep(connection, NONE)
}

fn kept(connection: &Connection) -> rusqlite::Result<i32> {
    connection.query_row("PRAGMA application_id", [], |row| row.get(0))
}

fn keep(connection: &Connection, number: i32) -> rusqlite::Result<()> {
    connection.pragma_update(None, "application_id", number)
}

fn number(path: &Path) -> io::Result<i32> {
    let [.., a, b, c, d] = {
        let inode = path.metadata()?.ino();
        (inode ^ (inode >> 32)).to_be_bytes()
    };
    Ok(match i32::from_be_bytes([a, b, c, d]) {
        NONE => 1,
        number => number,
    })
}

impl FilesystemBackend {
    /// Returns whether the folder is a copy of the one in which its records were written. A copy that was made while a
    /// server wrote to the original may be broken, or lack the newest data.
    #[must_use]
    pub fn is_copy(&self) -> bool {
        self.is_copy.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Makes the folder the records' own from now on. Cancel safety: after the future is dropped, it may happen anyway,
    /// and count from the next start.
    ///
    /// # Errors
    /// SQLite's error, as the cause of [`Internal`](registry_core::ErrorCode::Internal).
    pub async fn take_for_original(&self) -> Result<(), Error> {
        let path = self.root.join(RECORDS_FILE);
        let take = move || claim(&queries::open_writer(&path, Medium::Files)?, &path);
        let taken = spawn_blocking(take).await.map_err(Error::internal)?;
        taken.map_err(Error::internal)?;
        self.is_copy.store(false, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }
}
