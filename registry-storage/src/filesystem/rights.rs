//! Who may read what a store creates: only its owner, whatever the umask.
//!
//! As in database servers, a root that its group may read, and no other user, counts as intended by the operator: its
//! group may read what is created in it, for example to make backups.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::{BYTES_FOLDER, LOCK_FILE, RECORDS_FILE};

/// The modes of files and folders that are created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rights {
    is_of_group: bool,
}

/// The mode of a file that only its owner reads.
pub(super) const PRIVATE_FILE_MODE: u32 = 0o600;
const PRIVATE_FOLDER_MODE: u32 = 0o700;

impl Rights {
    /// Returns the rights below an existing folder.
    pub(super) fn below(folder: &Path) -> io::Result<Self> {
        let mode = mode(folder)?;
        Ok(Self {
            is_of_group: mode & 0o057 == 0o050,
        })
    }

    pub(super) const fn file(self) -> u32 {
        if self.is_of_group {
            0o640
        } else {
            PRIVATE_FILE_MODE
        }
    }

    pub(super) const fn folder(self) -> u32 {
        if self.is_of_group {
            0o750
        } else {
            PRIVATE_FOLDER_MODE
        }
    }

    /// Restricts what an earlier version created with the umask's mode. The root stays as it is: its operator may have
    /// created it, and the log says who may read it.
    pub(super) fn tighten(self, root: &Path) {
        let log = format!("{RECORDS_FILE}-wal");
        for (name, allowed) in [
            (BYTES_FOLDER, self.folder()),
            (RECORDS_FILE, self.file()),
            (&log, self.file()),
            (LOCK_FILE, PRIVATE_FILE_MODE),
        ] {
            let path = root.join(name);
            // What cannot be examined is reported by the code that uses it.
            let Ok(mode) = mode(&path) else { continue };
            if mode & 0o777 & !allowed == 0 {
                continue;
            }
            let tightened = Permissions::from_mode(mode & (allowed | 0o7000));
            if let Err(cause) = fs::set_permissions(&path, tightened) {
                tracing::warn!(path = %path.display(), %cause, "others than its owner may read this");
            }
        }
        let Ok(mode) = mode(root) else { return };
        if mode & 0o077 != 0 {
            let content = if self.is_of_group {
                "so its group may read what is in it too"
            } else {
                "and what is in it is its owner's alone; `chmod 700` takes the rest away, 750 lets the group read"
            };
            tracing::warn!("{} has the mode {:o}, {content}", root.display(), mode & 0o7777);
        }
    }
}

/// Creates a folder, and the missing ones above it, for its owner alone. An existing folder stays as it is.
///
/// # Errors
/// Those of mkdir(2).
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_FOLDER_MODE)
        .create(path)
}

/// Creates a folder with a mode, whatever the umask.
pub(super) fn create_folder(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)?;
    set_mode(path, mode)
}

/// Creates an empty file with a mode, whatever the umask.
pub(super) fn create_file(path: &Path, mode: u32) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    set_mode(path, mode)?;
    Ok(file)
}

/// Creates an empty file if there is none.
pub(super) fn create_file_if_missing(path: &Path, mode: u32) -> io::Result<()> {
    match create_file(path, mode) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => Err(cause),
        _ => Ok(()),
    }
}

/// Gives the group what the umask may have taken. No umask takes the owner's rights.
fn set_mode(path: &Path, wanted: u32) -> io::Result<()> {
    if wanted & 0o070 == 0 {
        return Ok(());
    }
    // A folder may have inherited the bit that passes its group on.
    let bits = mode(path)? & 0o7000;
    fs::set_permissions(path, Permissions::from_mode(bits | wanted))
}

fn mode(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode())
}
