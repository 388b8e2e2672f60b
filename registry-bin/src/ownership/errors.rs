//! Errors that name a file and what the system said of it.

use std::io;
use std::path::{Path, PathBuf};

use registry_storage::distribution::{AdoptError, ExportError};
use registry_storage::filesystem::backup::BackupError;
use registry_storage::filesystem::{OpenError, unusable};
use registry_storage::layout::LayoutError;
use rustix::fs::{Access, access};

use super::with_owner;

/// Says of a file that may not be used who this process runs as, and whose the file is.
pub(crate) trait WithOwner: Sized {
    /// Returns the same error where it is about anything else.
    fn with_owner(self) -> Self;
}

impl WithOwner for OpenError {
    fn with_owner(self) -> Self {
        match self {
            Self::Disk { path, cause } => {
                let path = closed_in(&path, &cause).unwrap_or(path);
                let cause = with_owner(&path, cause);
                Self::Disk { path, cause }
            }
            Self::Records { path, cause } => match denied(&path) {
                Some((path, cause)) => Self::Disk { path, cause },
                None => Self::Records { path, cause },
            },
            other => other,
        }
    }
}

/// Returns which file of a store may not be read, or else not written, where an error names their folder alone.
fn closed_in(root: &Path, cause: &io::Error) -> Option<PathBuf> {
    if cause.kind() != io::ErrorKind::PermissionDenied {
        return None;
    }
    let mut closed: Vec<PathBuf> = unusable(root).into_iter().map(|(path, _)| path).collect();
    closed.sort_by_key(|path| access(path, Access::READ_OK).is_ok());
    closed.into_iter().next()
}

impl WithOwner for BackupError {
    fn with_owner(self) -> Self {
        match self {
            Self::Disk { path, cause } => {
                let cause = with_owner(&path, cause);
                Self::Disk { path, cause }
            }
            Self::Records { path, cause } => match denied(&path) {
                Some((path, cause)) => Self::Disk { path, cause },
                None => Self::Records { path, cause },
            },
            Self::Open(cause) => Self::Open(cause.with_owner()),
            other => other,
        }
    }
}

impl WithOwner for LayoutError {
    fn with_owner(self) -> Self {
        match self {
            Self::Disk { path, cause } => {
                let cause = with_owner(&path, cause);
                Self::Disk { path, cause }
            }
            other => other,
        }
    }
}

impl WithOwner for ExportError {
    fn with_owner(self) -> Self {
        match self {
            Self::Folder { folder, cause } => {
                let cause = with_owner(&folder, cause);
                Self::Folder { folder, cause }
            }
            other => other,
        }
    }
}

impl WithOwner for AdoptError {
    fn with_owner(self) -> Self {
        match self {
            Self::Link { file, cause } => {
                let cause = with_owner(&file, cause);
                Self::Link { file, cause }
            }
            other => other,
        }
    }
}

/// SQLite does not tell which of its files it may not use: the one of records, or the log beside it. Returns the first that
/// this process may not read and write.
fn denied(records: &Path) -> Option<(PathBuf, io::Error)> {
    ["", "-wal"].into_iter().find_map(|end| {
        let mut path = records.as_os_str().to_owned();
        path.push(end);
        let path = PathBuf::from(path);
        let cause = access(&path, Access::READ_OK | Access::WRITE_OK).err()?;
        let cause = io::Error::from(cause);
        (cause.kind() == io::ErrorKind::PermissionDenied).then(|| {
            let cause = with_owner(&path, cause);
            (path, cause)
        })
    })
}
