//! A root in which nothing is written.

use std::io;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, access};
use rustix::io::Errno;
use uuid::Uuid;

use super::linked::LinkedFiles;
use super::lock::RootLock;
use super::options::OpenError;
use super::origin;
use super::queries::Medium;
use super::records::{self, Opened, WriterParts};
use super::reserve::Reserve;
use super::rights::Rights;
use super::{BYTES_FOLDER, FilesystemBackend, FilesystemOptions, LOCK_FILE, RECORDS_FILE, is_root};

/// Tells whether this process may write in a root, as far as it is there: on a read-only medium, or in the folder of another
/// user, it may not.
#[must_use]
pub fn is_writable(root: &Path) -> bool {
    unwritable(root).is_empty()
}

/// Returns what of a root this process may not read and write, as far as it is there, and what the system says: the root first.
/// What is further down than the folder of bytes is not looked at.
#[must_use]
pub fn unwritable(root: &Path) -> Vec<(PathBuf, io::Error)> {
    let log = format!("{RECORDS_FILE}-wal");
    let names = [RECORDS_FILE, &log, LOCK_FILE, BYTES_FOLDER];
    let paths = iter::once(root.to_owned()).chain(names.iter().map(|name| root.join(name)));
    paths
        .filter_map(|path| match access(&path, Access::READ_OK | Access::WRITE_OK) {
            Ok(()) | Err(Errno::NOENT) => None,
            Err(cause) => Some((path, cause.into())),
        })
        .collect()
}

impl FilesystemBackend {
    /// Opens a root to which nobody writes. Blocks.
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
        let records = if is_root(root) {
            let path = root.join(RECORDS_FILE);
            let medium = Medium::unwritten(&path);
            let connection = records::open_unwritten(&path, medium)?;
            Opened {
                is_copy: origin::is_copy(&connection, &path).unwrap_or_default(),
                connection,
                medium,
                path,
            }
        } else {
            disk = Arc::new(LinkedFiles::over(disk));
            // Connections of this process share what has the same path, so no other store may have it.
            let path = PathBuf::from(format!("/{}", Uuid::new_v4()));
            Opened {
                connection: records::open(&path, Medium::Memory)?,
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
