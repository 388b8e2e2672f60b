//! Errors of the disk: how they are logged and answered, and which of them end all writing.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use registry_core::{Error, ErrorCode};
use rusqlite::ffi;

/// Whether the store may still write.
///
/// After a failed sync nobody knows what the disk holds, and a second sync that succeeds proves nothing (the kernel
/// drops the pages that it could not write). So the first such error ends writing until the store is opened again.
#[derive(Debug, Default)]
pub(super) struct Health {
    failed: AtomicBool,
}

impl Health {
    /// Passes while the store may write.
    pub(super) fn check(&self) -> Result<(), Error> {
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let message = "The registry stopped writing after an error of its disk; its log says why.";
        Err(Error::new(ErrorCode::Unavailable, message))
    }

    /// Answers an error of a record store, which ends writing unless the disk is full.
    pub(super) fn records_failed(&self, path: &Path, cause: rusqlite::Error) -> Error {
        if cause.sqlite_error_code() == Some(ffi::ErrorCode::DiskFull) {
            tracing::error!(path = %path.display(), %cause, "the disk is full");
            return Error::from(ErrorCode::StorageFull).with_cause(cause);
        }
        self.end_writing();
        tracing::error!(path = %path.display(), %cause, "records cannot be written");
        Error::internal(cause)
    }

    /// Answers an error of a write to a file, which ends writing unless the space is used up.
    pub(super) fn write_failed(&self, path: &Path, cause: io::Error) -> Error {
        if !is_full(&cause) {
            self.end_writing();
        }
        file_error("write", path, cause)
    }

    /// Answers an error of a sync, which ends writing.
    pub(super) fn sync_failed(&self, path: &Path, cause: io::Error) -> Error {
        self.end_writing();
        file_error("sync", path, cause)
    }

    fn end_writing(&self) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            tracing::error!("the store writes nothing more until it is opened again");
        }
    }
}

/// Logs an error of a call to the file system and makes the answer to it.
pub(super) fn file_error(call: &'static str, path: &Path, cause: io::Error) -> Error {
    tracing::error!(call, path = %path.display(), %cause, "a call to the file system failed");
    if is_full(&cause) {
        Error::from(ErrorCode::StorageFull).with_cause(cause)
    } else {
        Error::internal(cause)
    }
}

/// Logs an error of a read of records and makes the answer to it.
pub(super) fn read_error(path: &Path, cause: rusqlite::Error) -> Error {
    tracing::error!(path = %path.display(), %cause, "records cannot be read");
    Error::internal(cause)
}

/// The answer to what is asked for after the store was closed.
pub(super) fn closed() -> Error {
    Error::new(ErrorCode::Unavailable, "The registry is shutting down.")
}

fn is_full(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
