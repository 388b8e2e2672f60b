//! Errors of the disk and of SQLite: how they are logged and answered, and which of them end all writing.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use registry_core::{Error, ErrorCode};
use rusqlite::ffi;
use rustix::io::Errno;

use super::health::{Cure, WriteHealth, try_again};
use super::{RECORDS_FILE, SPACE_PROBE};

/// What the space probe writes, in bytes: more than a transaction that failed for lack of space.
const PROBE_BYTES: usize = 1 << 20;

/// What an error of SQLite means for the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There is no space.
    Full,
    /// It may be gone at the next attempt: no file can be opened, a read or write failed, the records are locked. The
    /// transaction was rolled back.
    Passing,
    /// What the disk holds is not known.
    LostSync,
    /// The records are not what they were.
    Damage,
    /// A fault of this program.
    Defect,
}

/// Returns what an error means for the store whose records are in `folder`.
pub(super) fn trouble(cause: &rusqlite::Error, folder: &Path) -> Trouble {
    let Some(error) = cause.sqlite_error() else {
        return Trouble::Defect;
    };
    match (error.code, error.extended_code) {
        (ffi::ErrorCode::DiskFull, _) => Trouble::Full,
        (_, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) => Trouble::LostSync,
        (_, ffi::SQLITE_IOERR_DATA | ffi::SQLITE_IOERR_CORRUPTFS)
        | (ffi::ErrorCode::DatabaseCorrupt | ffi::ErrorCode::NotADatabase, _) => Trouble::Damage,
        // SQLite recognizes a full disk, but not a quota that is used up.
        (_, ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_TRUNCATE | ffi::SQLITE_IOERR_SHMSIZE)
            if lacks_space(folder) =>
        {
            Trouble::Full
        }
        (
            ffi::ErrorCode::SystemIoFailure
            | ffi::ErrorCode::DatabaseBusy
            | ffi::ErrorCode::DatabaseLocked
            | ffi::ErrorCode::FileLockingProtocolFailed
            | ffi::ErrorCode::CannotOpen
            | ffi::ErrorCode::OutOfMemory
            | ffi::ErrorCode::ReadOnly
            | ffi::ErrorCode::PermissionDenied
            | ffi::ErrorCode::OperationInterrupted,
            _,
        ) => Trouble::Passing,
        _ => Trouble::Defect,
    }
}

impl WriteHealth {
    /// Logs an error of writing records and returns the answer to it. It ends writing if it has to.
    pub(super) fn records_failed(&self, path: &Path, cause: rusqlite::Error) -> Error {
        let trouble = trouble(&cause, path.parent().unwrap_or(path));
        if trouble == Trouble::Full {
            tracing::error!(
                path = %path.display(),
                %cause,
                "records cannot be written: the disk is full, or a quota or the limit on the size of a file (ulimit -f) is used up"
            );
        } else {
            tracing::error!(path = %path.display(), %cause, "records cannot be written");
        }
        let answer = match trouble {
            Trouble::Full => Error::from(ErrorCode::StorageFull),
            Trouble::Passing => {
                try_again("The registry's records cannot be written at the moment; try again.")
            }
            Trouble::LostSync => {
                self.end_writing("a sync of its records failed", Cure::Reopen);
                self.refusal()
            }
            Trouble::Damage => {
                self.end_writing("its records are damaged", Cure::Restart);
                self.refusal()
            }
            Trouble::Defect => Error::from(ErrorCode::Internal),
        };
        answer.with_cause(cause)
    }

    /// Logs a failed sync of a file of bytes, whose content must be considered lost, and returns the answer to it. It
    /// ends writing, unless only the space is used up, as when a quota is detected at the sync.
    pub(super) fn sync_failed(&self, path: &Path, cause: io::Error) -> Error {
        if !is_full(&cause) {
            self.end_writing("a sync of uploaded bytes failed", Cure::Reopen);
        }
        file_error("sync", path, cause)
    }

    /// As [`sync_failed`](Self::sync_failed), for the names in a folder. The names of other files may be lost too, and no
    /// sync reports which.
    pub(super) fn folder_sync_failed(&self, path: &Path, cause: io::Error) -> Error {
        self.end_writing("a sync of the names of uploaded bytes failed", Cure::Restart);
        file_error("sync", path, cause)
    }
}

/// Logs an error of a call to the file system and returns the answer to it.
pub(super) fn file_error(call: &'static str, path: &Path, cause: io::Error) -> Error {
    tracing::error!(call, path = %path.display(), %cause, "a call to the file system failed");
    let answer = if is_full(&cause) {
        Error::from(ErrorCode::StorageFull)
    } else if is_passing(&cause) {
        try_again("The registry has too many files open, or its disk does not answer; try again.")
    } else {
        Error::from(ErrorCode::Internal)
    };
    answer.with_cause(cause)
}

/// Logs an error of a read of records and returns the answer to it.
pub(super) fn read_error(path: &Path, cause: rusqlite::Error) -> Error {
    tracing::error!(path = %path.display(), %cause, "records cannot be read");
    let answer = match trouble(&cause, path.parent().unwrap_or(path)) {
        Trouble::Full | Trouble::Passing => {
            try_again("The registry's records cannot be read at the moment; try again.")
        }
        Trouble::LostSync | Trouble::Damage | Trouble::Defect => Error::from(ErrorCode::Internal),
    };
    answer.with_cause(cause)
}

/// Returns whether an error is that of a full disk or of a quota that is used up.
pub(super) fn is_full(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

fn is_passing(cause: &io::Error) -> bool {
    let errors = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::AGAIN,
        Errno::INTR,
        Errno::TIMEDOUT,
        Errno::STALE,
        Errno::ROFS,
    ];
    Errno::from_io_error(cause).is_some_and(|error| errors.contains(&error))
}

/// Returns whether there is no space, by writing a file and removing it again.
pub(super) fn lacks_space(folder: &Path) -> bool {
    let path = folder.join(SPACE_PROBE);
    let written = File::create(&path).and_then(|mut file| file.write_all(&vec![0; PROBE_BYTES]));
    drop(std::fs::remove_file(&path));
    written.is_err_and(|cause| is_full(&cause)) || is_too_large(folder)
}

/// Returns whether the records are as large as a file of this process may be.
fn is_too_large(folder: &Path) -> bool {
    let limit = rlimit::getrlimit(rlimit::Resource::FSIZE).map_or(u64::MAX, |(soft, _)| soft);
    let files = [RECORDS_FILE.to_owned(), format!("{RECORDS_FILE}-wal")];
    files.iter().any(|file| {
        let length = std::fs::metadata(folder.join(file)).map_or(0, |file| file.len());
        length.saturating_add(PROBE_BYTES as u64) > limit
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_lost_sync_and_damage_demand_ends_writing() {
        let folder = tempfile::tempdir().unwrap();
        let of = |code| {
            trouble(
                &rusqlite::Error::SqliteFailure(ffi::Error::new(code), None),
                folder.path(),
            )
        };
        for (code, expected) in [
            (ffi::SQLITE_FULL, Trouble::Full),
            (ffi::SQLITE_BUSY, Trouble::Passing),
            (ffi::SQLITE_BUSY_SNAPSHOT, Trouble::Passing),
            (ffi::SQLITE_LOCKED, Trouble::Passing),
            (ffi::SQLITE_CANTOPEN, Trouble::Passing),
            (ffi::SQLITE_NOMEM, Trouble::Passing),
            (ffi::SQLITE_IOERR_READ, Trouble::Passing),
            (ffi::SQLITE_IOERR_WRITE, Trouble::Passing),
            (ffi::SQLITE_IOERR_SHMLOCK, Trouble::Passing),
            (ffi::SQLITE_READONLY, Trouble::Passing),
            (ffi::SQLITE_IOERR_FSYNC, Trouble::LostSync),
            (ffi::SQLITE_IOERR_DIR_FSYNC, Trouble::LostSync),
            (ffi::SQLITE_CORRUPT, Trouble::Damage),
            (ffi::SQLITE_NOTADB, Trouble::Damage),
            (ffi::SQLITE_CONSTRAINT, Trouble::Defect),
        ] {
            assert_eq!(of(code), expected, "{code}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
