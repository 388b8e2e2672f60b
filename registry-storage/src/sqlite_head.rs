//! A SQLite file, inspected without opening the database: nothing is locked, written or recovered.
//!
//! Data that is only in the log next to the file is not seen.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, ffi};

/// The bytes of a head (<https://www.sqlite.org/fileformat.html>).
const HEAD_BYTES: u64 = 100;

/// How the head begins.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Where the page size is, in big-endian order; the largest one, 65 536, is written as 1.
const PAGE_SIZE: std::ops::Range<usize> = 16..18;

/// Where the number is that a program gave its database, in big-endian order.
const USER_VERSION: std::ops::Range<usize> = 60..64;

/// The maximum length of a path in bytes: SQLite allows 512, and appends a suffix.
const LONGEST_PATH_BYTES: usize = 504;

/// The most bytes of a file's name.
const LONGEST_NAME_BYTES: usize = 255;

/// Why a file is no database that can be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeadError {
    /// The file system returned an error.
    #[error("the file cannot be read")]
    Disk(#[source] io::Error),
    /// It is not a database.
    #[error("the file is no database")]
    Foreign(#[source] rusqlite::Error),
}

/// Returns a file, and the files that SQLite creates next to it.
pub(crate) fn with_logs(path: &Path) -> [PathBuf; 4] {
    ["", "-wal", "-shm", "-journal"].map(|end| {
        let mut path = path.as_os_str().to_owned();
        path.push(end);
        path.into()
    })
}

/// Refuses a path at which SQLite cannot open a database, with a reason instead of its "unable to open database file".
pub(crate) fn require_place(path: &Path) -> io::Result<()> {
    let refused = |message: String| Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    // SQLite follows links first.
    let full = path.canonicalize().or_else(|_| std::path::absolute(path))?;
    let length = full.as_os_str().len();
    if length > LONGEST_PATH_BYTES {
        return refused(format!(
            "its path has {length} bytes, and that of a database has at most {LONGEST_PATH_BYTES}"
        ));
    }
    let [.., longest] = with_logs(path);
    let name = longest.file_name().map_or(0, |name| name.len());
    if name > LONGEST_NAME_BYTES {
        return refused(format!(
            "its name is too long: {longest:?} is one of the files beside it"
        ));
    }
    let other = with_logs(path)
        .into_iter()
        .find(|file| file.metadata().is_ok_and(|found| !found.is_file()));
    match other {
        Some(other) => refused(format!("{} is no regular file", other.display())),
        None => Ok(()),
    }
}

/// Returns the number that a program gave its database; 0 if the file is missing or empty, as a new one is.
pub(crate) fn user_version(path: &Path) -> Result<u32, HeadError> {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| {
        let length = file.metadata()?.len();
        file.take(HEAD_BYTES).read_to_end(&mut head)?;
        Ok(length)
    });
    let length = match read {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(0),
        read => read.map_err(HeadError::Disk)?,
    };
    if head.is_empty() {
        return Ok(0);
    }
    let foreign = |code| {
        let cause = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        HeadError::Foreign(cause)
    };
    let number = |place: std::ops::Range<usize>| {
        let bytes = head.get(place).filter(|_| head.starts_with(MAGIC));
        bytes.map(|bytes| {
            bytes
                .iter()
                .fold(0, |number: u32, byte| number << 8 | u32::from(*byte))
        })
    };
    let (Some(page_size), Some(version)) = (number(PAGE_SIZE), number(USER_VERSION)) else {
        return Err(foreign(ffi::SQLITE_NOTADB));
    };
    let page_size = if page_size == 1 { 65_536 } else { page_size };
    if length < page_size.into() {
        return Err(foreign(ffi::SQLITE_CORRUPT));
    }
    Ok(version)
}

/// Opens a database as its file is, without its log, and neither locks nor writes anything.
pub(crate) fn open_unlocked(path: &Path) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(unchanging_uri(path), flags)
}

/// Names a file as one that does not change while it is open.
pub(crate) fn unchanging_uri(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for &byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri + "?immutable=1"
}
