//! The head of a file of SQLite's, read without opening the database: nothing is locked, written or recovered.
//!
//! What only the log beside the file has is not seen.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use rusqlite::ffi;

/// The bytes of a head (<https://www.sqlite.org/fileformat.html>).
const LENGTH: u64 = 100;

/// What it begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Where the number is that its program gave it, in big-endian order.
const USER_VERSION: std::ops::Range<usize> = 60..64;

/// Why a file is no database that can be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeadError {
    /// The file system refused.
    #[error("the file cannot be read")]
    Disk(#[source] io::Error),
    /// It is no database.
    #[error("the file is no database")]
    Foreign(#[source] rusqlite::Error),
}

/// Returns the number that a program gave its database; 0 where the file is missing or empty, as a new one is.
pub(crate) fn user_version(path: &Path) -> Result<u32, HeadError> {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LENGTH).read_to_end(&mut head));
    match read {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(0),
        read => read.map_err(HeadError::Disk)?,
    };
    if head.is_empty() {
        return Ok(0);
    }
    let version = head.get(USER_VERSION).and_then(|bytes| bytes.try_into().ok());
    match version.filter(|_| head.starts_with(MAGIC)) {
        Some(bytes) => Ok(u32::from_be_bytes(bytes)),
        None => Err(HeadError::Foreign(rusqlite::Error::SqliteFailure(
            ffi::Error::new(ffi::SQLITE_NOTADB),
            None,
        ))),
    }
}
