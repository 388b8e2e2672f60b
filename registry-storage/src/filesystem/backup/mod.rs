//! Backups of a root, made while a server runs, and restoring them.
//!
//! ```text
//! <backup>/records.sqlite            the records at one moment, without the uploads in progress
//! <backup>/bytes/<yyyymmdd>/<uuid>   the bytes that these name: hard links if the file system allows them
//! <backup>/backup.json               written last: a backup without it was interrupted
//! ```
//! Bytes never change and their names are never reused, so links suffice, and a backup costs no space for what the root
//! still has. No bytes are deleted while it is made. Uploads in progress are left out, because their bytes do change.

mod copy;
mod restore;
mod snapshot;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use registry_core::{Error, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use self::copy::{Copier, Total};
pub use self::restore::{made_at, restore};
use super::rights::{Rights, create_file, create_file_if_missing, create_private_folder};
use super::{BYTES_FOLDER, FilesystemBackend, RECORDS_FILE};
use crate::backend::NotOnDisk;
use crate::clock::{Clock as _, SystemClock};
use crate::observer::MaintenanceObserver;

/// The file that makes a backup whole.
const MANIFEST_FILE: &str = "backup.json";

/// Returns whether a folder holds a complete backup.
#[must_use]
pub fn is_backup(path: &Path) -> bool {
    path.join(MANIFEST_FILE).is_file()
}

/// The format of a backup: 2, because its records have format 2, which a program that knows 1 cannot read.
const FORMAT: u32 = 2;

/// What a backup contains, or what was restored from one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BackupReport {
    /// Byte strings that are hard links.
    pub linked: u64,
    /// Byte strings that were copied, because the file system does not allow a second name for them there.
    pub copied: u64,
    /// The total size in bytes.
    pub size: u64,
    /// Byte strings that blobs name and that were gone already: `check` reports which.
    pub missing: u64,
}

/// The content of [`MANIFEST_FILE`].
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    /// When the records were copied.
    made: Timestamp,
    #[serde(flatten)]
    report: BackupReport,
}

/// Why a backup was not made or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The folder is not empty.
    #[error("{} is not empty; name a folder that is empty or does not exist", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds no complete backup.
    #[error("{} is no backup, or one that was interrupted: it has no {MANIFEST_FILE} that can be read", path.display())]
    NotWhole {
        /// The folder.
        path: PathBuf,
    },
    /// A newer version of this program made the backup.
    #[error("{} is a backup of format {found}, and this program knows format {FORMAT}; use a newer one", path.display())]
    Newer {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Bytes are gone from a backup.
    #[error("{} is missing in the backup", path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
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
    /// The records cannot be copied or read.
    #[error("{}", path.display())]
    Records {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        #[source]
        cause: rusqlite::Error,
    },
    /// The root to restore to is in use.
    #[error(transparent)]
    Open(#[from] super::OpenError),
    /// The store is closed, or a record cannot be read.
    #[error(transparent)]
    Store(#[from] Error),
    /// Only a store in a folder has backups. For a bucket, use its versioning or replication, or export its images.
    #[error(transparent)]
    NotOnDisk(#[from] NotOnDisk),
    /// The caller no longer waits for it.
    #[error("the command was ended")]
    Cancelled,
}

impl FilesystemBackend {
    /// Makes a backup, as [`Maintenance::backup`](crate::Maintenance::backup) says.
    pub(crate) async fn back_up(
        &self,
        target: &Path,
        observer: Arc<dyn MaintenanceObserver>,
    ) -> Result<BackupReport, BackupError> {
        let files = self.files()?;
        let alone = Arc::clone(&self.deletes).write_owned().await;
        let (root, target) = (self.root.clone(), target.to_owned());
        let wanted = Wanted::default();
        let is_wanted = wanted.flag();
        let work = move || {
            let report = back_up(&root, &target, &*observer, &is_wanted);
            drop((alone, files));
            report
        };
        spawn_blocking(work).await.unwrap_or(Err(BackupError::Cancelled))
    }
}

/// Whether a caller still waits for the work on another thread.
#[derive(Debug)]
struct Wanted(Arc<AtomicBool>);

impl Default for Wanted {
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl Wanted {
    fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn check_wanted(is_wanted: &AtomicBool) -> Result<(), BackupError> {
    if is_wanted.load(Ordering::Relaxed) {
        Ok(())
    } else {
        Err(BackupError::Cancelled)
    }
}

/// Makes a backup. Blocks. No bytes are deleted meanwhile.
fn back_up(
    root: &Path,
    target: &Path,
    observer: &dyn MaintenanceObserver,
    is_wanted: &AtomicBool,
) -> Result<BackupReport, BackupError> {
    require_empty(target)?;
    let made = fill(root, target, observer, is_wanted);
    if made.is_err() {
        discard(target);
    }
    made
}

fn fill(
    root: &Path,
    target: &Path,
    observer: &dyn MaintenanceObserver,
    is_wanted: &AtomicBool,
) -> Result<BackupReport, BackupError> {
    let made = SystemClock.now();
    let rights = Rights::below(target).map_err(disk(target))?;
    let records = target.join(RECORDS_FILE);
    create_file_if_missing(&records, rights.file()).map_err(disk(&records))?;
    snapshot::copy_records(&root.join(RECORDS_FILE), &records, observer, is_wanted)?;
    let mut total = Total::default();
    snapshot::each_bytes_name(&records, |_, size| {
        check_wanted(is_wanted)?;
        total.files += 1;
        total.bytes = total.bytes.saturating_add(size);
        Ok(())
    })?;
    let folders = (root.join(BYTES_FOLDER), target.join(BYTES_FOLDER));
    let mut copier = Copier::new(folders, rights, total, (observer, is_wanted))?;
    snapshot::each_bytes_name(&records, |name, _| copier.copy(name).map(drop))?;
    let report = copier.finish()?;
    sync(&records)?;
    sync(target)?;
    let manifest = Manifest {
        format: FORMAT,
        made,
        report,
    };
    write_manifest(target, &manifest, rights)?;
    Ok(report)
}

/// Removes what was written, so that the same folder can be used again. Files that cannot be removed are still no
/// backup.
fn discard(target: &Path) {
    let emptied = std::fs::read_dir(target).and_then(|entries| {
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                std::fs::remove_dir_all(path)?;
            } else {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    });
    if let Err(error) = emptied {
        tracing::warn!(folder = %target.display(), %error, "a backup that was begun was not removed");
    }
}

/// Creates a folder, or accepts an empty one.
fn require_empty(path: &Path) -> Result<(), BackupError> {
    create_private_folder(path).map_err(disk(path))?;
    match std::fs::read_dir(path).map_err(disk(path))?.next() {
        None => Ok(()),
        Some(_) => Err(BackupError::NotEmpty {
            path: path.to_owned(),
        }),
    }
}

/// Writes the file that makes the backup complete, under another name first.
fn write_manifest(target: &Path, manifest: &Manifest, rights: Rights) -> Result<(), BackupError> {
    let text = serde_json::to_vec_pretty(manifest).map_err(Error::internal)?;
    let (unfinished, path) = (
        target.join(format!("{MANIFEST_FILE}.unfinished")),
        target.join(MANIFEST_FILE),
    );
    create_file(&unfinished, rights.file())
        .and_then(|mut file| file.write_all(&text))
        .map_err(disk(&unfinished))?;
    sync(&unfinished)?;
    std::fs::rename(&unfinished, &path).map_err(disk(&path))?;
    sync(target)
}

/// Makes a file, or the names in a folder, durable.
fn sync(path: &Path) -> Result<(), BackupError> {
    let file = std::fs::File::open(path).map_err(disk(path))?;
    file.sync_all().map_err(disk(path))
}

fn disk(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    move |cause| BackupError::Disk {
        path: path.to_owned(),
        cause,
    }
}
