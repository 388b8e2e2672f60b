//! Why a root was not opened.

use std::io;
use std::path::PathBuf;

use registry_core::Error;

use super::lock::Holder;

/// How much space one transaction needs on the disk, in the log and in the tables, in megabytes and with some margin.
pub(super) const SPACE_MEGABYTES: u32 = 32;

/// Why a root was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process owns the root.
    #[error("{} is in use by {holder}; stop it, or wait for it", root.display())]
    Held {
        /// The root.
        root: PathBuf,
        /// The process that owns it.
        holder: Holder,
    },
    /// A newer version of this program wrote the records.
    #[error("{} has format {found}, and this program knows format {known}; use a newer one", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format that this program knows.
        known: i64,
    },
    /// The records have an older format, and the root is read-only.
    #[error("{} has format {found} of an older version; start this one once where it may write", path.display())]
    Older {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
    },
    /// The records have an older format, and could not all be brought to the current one.
    #[error(
        "the records in {} could not be brought to a newer format; nothing is lost, and the next start goes on: \
         where the disk is full, free {space} MB on it and start again",
        path.display(),
        space = SPACE_MEGABYTES
    )]
    Migration {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        #[source]
        cause: rusqlite::Error,
    },
    /// The file system returned an error.
    #[error("{}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// The error.
        #[source]
        cause: io::Error,
    },
    /// Another process has the records open, and held them for ten seconds.
    #[error("{} is open in another process, such as a shell of SQLite; end that, and start again", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// There are bytes of blobs, but the records that name them were removed or emptied.
    #[error(
        "{} is gone or has nothing in it, and {} has blobs: nothing was changed. Restore a backup into another folder, or move this one \
         away to begin an empty registry",
        path.display(),
        bytes.display()
    )]
    RecordsLost {
        /// The file of the records.
        path: PathBuf,
        /// The folder of the bytes.
        bytes: PathBuf,
    },
    /// The records are not those that the root names: they were taken from elsewhere, or are older than its identifier.
    #[error(
        "{} is of another registry than {} says: nothing was changed. Put back the one that belongs here, or restore a backup \
         into another folder; without {} it is taken as it is, and the next sweep deletes all bytes that it does not name",
        path.display(),
        file.display(),
        file.display()
    )]
    RecordsOfAnother {
        /// The file of the records.
        path: PathBuf,
        /// The file that names the records which belong here.
        file: PathBuf,
    },
    /// The records cannot be read.
    #[error("{}", path.display())]
    Records {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        #[source]
        cause: rusqlite::Error,
    },
    /// The runtime is shutting down.
    #[error("the runtime is shutting down")]
    Stopped,
}

impl From<OpenError> for Error {
    fn from(cause: OpenError) -> Self {
        Self::internal(cause)
    }
}
