//! Errors that name a file and have a cause from the system.

use std::io;
use std::path::{Path, PathBuf};

use registry_storage::distribution::{AdoptError, ExportError};
use registry_storage::filesystem::backup::BackupError;
use registry_storage::filesystem::{OpenError, unusable};
use registry_storage::layout::LayoutError;
use rustix::fs::{Access, access};

use super::with_owner;

/// Adds to an error about a denied file which user this process runs as, and who owns the file.
pub(crate) trait WithOwner: Sized {
    /// Returns other errors unchanged.
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

/// Returns the file of a store that cannot be read, or otherwise not written, for an error that only names their
/// folder.
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

/// Returns the first records file that this process cannot read and write, because SQLite does not report which of its
/// files it cannot use: the records themselves, or the log next to them.
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
