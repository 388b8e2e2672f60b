//! Who may read what a store makes: its owner alone, whatever the umask.
//!
//! As database servers do, a root whose group may read it, and nobody else, is taken for one that the operator meant so: its
//! group may read what is made in it, for example to make backups.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::{BYTES_FOLDER, LOCK_FILE, RECORDS_FILE};

/// The modes of files and folders that are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rights {
    is_of_group: bool,
}

/// The mode of what only its owner reads.
pub(super) const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_FOLDER: u32 = 0o700;

impl Rights {
    /// Returns the rights below a folder that is there.
    pub(super) fn below(folder: &Path) -> io::Result<Self> {
        let mode = mode(folder)?;
        Ok(Self {
            is_of_group: mode & 0o057 == 0o050,
        })
    }

    pub(super) const fn file(self) -> u32 {
        if self.is_of_group { 0o640 } else { PRIVATE_FILE }
    }

    pub(super) const fn folder(self) -> u32 {
        if self.is_of_group { 0o750 } else { PRIVATE_FOLDER }
    }

    /// Takes rights away from what an earlier version made, which left that to the umask. The root stays as it is: its
    /// operator may have made it, and is told who may read it.
    pub(super) fn tighten(self, root: &Path) {
        let log = format!("{RECORDS_FILE}-wal");
        for (name, allowed) in [
            (BYTES_FOLDER, self.folder()),
            (RECORDS_FILE, self.file()),
            (&log, self.file()),
            (LOCK_FILE, PRIVATE_FILE),
        ] {
            let path = root.join(name);
            // What cannot be looked at is told of by whoever uses it.
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

/// Makes a folder, and those above that are missing, for its owner alone. One that is there stays as it is.
///
/// # Errors
/// Those of mkdir(2).
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_FOLDER)
        .create(path)
}

/// Makes a folder with a mode, whatever the umask.
pub(super) fn create_folder(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)?;
    set_mode(path, mode)
}

/// Makes an empty file with a mode, whatever the umask.
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

/// Makes an empty file if there is none.
pub(super) fn create_file_if_missing(path: &Path, mode: u32) -> io::Result<()> {
    match create_file(path, mode) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => Err(cause),
        _ => Ok(()),
    }
}

/// Gives the group what the umask may have taken. The owner's rights no umask takes.
fn set_mode(path: &Path, wanted: u32) -> io::Result<()> {
    if wanted & 0o070 == 0 {
        return Ok(());
    }
    // A folder may have got the bit that makes groups pass on.
    let bits = mode(path)? & 0o7000;
    fs::set_permissions(path, Permissions::from_mode(bits | wanted))
}

fn mode(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode())
}
