//! A root in which nothing is written.

use std::io;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, AtFlags, CWD, StatxAttributes, StatxFlags, access, statx};
use rustix::io::Errno;
use uuid::Uuid;

use super::linked::LinkedFiles;
use super::lock::RootLock;
use super::open_error::OpenError;
use super::origin;
use super::queries::{self, Medium};
use super::records::{self, Opened, WriterParts};
use super::reserve::Reserve;
use super::rights::Rights;
use super::store_id;
use super::{
    BYTES_FOLDER, FilesystemBackend, FilesystemOptions, ID_FILE, LOCK_FILE, RECORDS_FILE, RESERVE_FILE,
    SPACE_PROBE, is_root, require_records,
};
use crate::sqlite_head::{self, HeadError};

/// Returns whether this process may write in a root, as far as the root exists: on a read-only medium, or in the folder
/// of another user, it may not.
#[must_use]
pub fn is_writable(root: &Path) -> bool {
    unusable(root).is_empty()
}

/// Returns the files and folders of a root that this process may not read and write, or that are of another kind than a
/// store has, each with the error.
///
/// The root comes first. Nothing below the folder of bytes is examined.
#[must_use]
pub fn unusable(root: &Path) -> Vec<(PathBuf, io::Error)> {
    let log = format!("{RECORDS_FILE}-wal");
    let files = [RECORDS_FILE, &log, LOCK_FILE, ID_FILE, RESERVE_FILE].map(|name| (root.join(name), false));
    iter::once((root.to_owned(), true))
        .chain(files)
        .chain([(root.join(BYTES_FOLDER), true)])
        .filter_map(|(path, is_folder)| require_usable(&path, is_folder).err().map(|cause| (path, cause)))
        .collect()
}

/// Succeeds if this process may read and write a file, or a folder, or if there is nothing at the path.
///
/// # Errors
/// The system's error, or an error that something else is in the place, a link to what does not exist, or a file that
/// can only be appended to.
pub fn require_usable(path: &Path, is_folder: bool) -> io::Result<()> {
    match access(path, Access::READ_OK | Access::WRITE_OK) {
        Err(Errno::NOENT) if path.symlink_metadata().is_ok() => {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "it is a link to what is not there",
            ));
        }
        Err(Errno::NOENT) => return Ok(()),
        result => result?,
    }
    let found = path.metadata()?;
    match (is_folder, found.is_dir()) {
        (true, true) => Ok(()),
        (true, false) => Err(io::ErrorKind::NotADirectory.into()),
        (false, true) => Err(io::ErrorKind::IsADirectory.into()),
        (false, false) if is_append_only(path) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it can only be appended to (`chattr -a` takes that away)",
        )),
        (false, false) if found.is_file() => Ok(()),
        (false, false) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "it is no regular file",
        )),
    }
}

/// Returns whether a file has the append-only attribute, which its mode does not show.
fn is_append_only(path: &Path) -> bool {
    // It is not opened: that would end the locks that SQLite has on it in this process.
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::empty());
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::APPEND))
}

/// Examines the head of the records below a root without opening them: nothing is locked or written. Blocks briefly.
///
/// # Errors
/// [`OpenError::Records`] if the file exists and has no records, [`OpenError::RecordsLost`],
/// [`OpenError::RecordsOfAnother`], [`OpenError::Newer`], and [`OpenError::Disk`] if it cannot be read or made: its path is
/// too long, or something else is in its place or beside it.
pub fn check_records(root: &Path) -> Result<(), OpenError> {
    let path = root.join(RECORDS_FILE);
    if let Err(cause) = sqlite_head::require_place(&path) {
        return Err(OpenError::Disk { path, cause });
    }
    require_records(root)?;
    let found = match sqlite_head::user_version(&path) {
        Err(HeadError::Disk(cause)) => return Err(OpenError::Disk { path, cause }),
        Err(HeadError::Foreign(cause)) => return Err(OpenError::Records { path, cause }),
        Ok(found) => i64::from(found),
    };
    if found > queries::FORMAT {
        return Err(OpenError::Newer {
            path,
            found,
            known: queries::FORMAT,
        });
    }
    // Without its log, a file may lack what it is to be compared with; so it is only asked what other store it is of.
    match sqlite_head::open_unlocked(&path).map(|connection| store_id::is_bound(root, &connection)) {
        Ok(Err(refused @ OpenError::RecordsOfAnother { .. })) if !Medium::unwritten(&path).has_log() => {
            Err(refused)
        }
        _ => Ok(()),
    }
}

/// Returns the files that a store creates in its root, whether they exist or not. Another program that writes there
/// destroys the store.
#[must_use]
pub fn own_files(root: &Path) -> Vec<PathBuf> {
    let others = [LOCK_FILE, ID_FILE, RESERVE_FILE, SPACE_PROBE, BYTES_FOLDER].map(|name| root.join(name));
    let records = sqlite_head::with_logs(&root.join(RECORDS_FILE));
    records.into_iter().chain(others).collect()
}

impl FilesystemBackend {
    /// Opens a root that no process writes to. Blocks.
    pub(super) fn open_read_only(
        root: &Path,
        lock: RootLock,
        options: &FilesystemOptions,
    ) -> Result<Self, OpenError> {
        let failed = |cause| OpenError::Disk {
            path: root.to_owned(),
            cause,
        };
        let rights = Rights::below(root).map_err(failed)?;
        let mut disk = Arc::clone(&options.disk);
        let records = if is_root(root).map_err(failed)? {
            let path = root.join(RECORDS_FILE);
            let medium = Medium::unwritten(&path);
            let connection = records::open_unwritten(&path, medium)?;
            store_id::is_bound(root, &connection)?;
            Opened {
                is_copy: origin::is_copy(&connection, &path).unwrap_or_default(),
                connection,
                medium,
                path,
            }
        } else {
            disk = Arc::new(LinkedFiles::over(disk));
            // Connections of this process share the records at one path, so no other store may have that path.
            let path = PathBuf::from(format!("/{}", Uuid::new_v4()));
            Opened {
                connection: records::open(&path, Medium::Memory, true)?,
                medium: Medium::Memory,
                path,
                is_copy: false,
            }
        };
        let parts = WriterParts {
            health: Arc::default(),
            disk,
            lock: Arc::new(lock),
            reserve: Arc::new(Reserve::unneeded(root)),
        };
        Self::start(root, records, rights, parts, options)
    }
}
