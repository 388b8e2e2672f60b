//! Restoring a backup.

use std::fs::{self, File};
use std::io::{self, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use registry_core::Timestamp;
use tokio::task::spawn_blocking;

use super::copy::{Copier, Total};
use super::{BackupError, BackupReport, FORMAT, MANIFEST_FILE, Manifest, Wanted, disk, snapshot, sync};
use crate::filesystem::options::try_take;
use crate::filesystem::rights::Rights;
use crate::filesystem::{BYTES_FOLDER, LOCK_FILE, OpenError, RECORDS_FILE};
use crate::observer::MaintenanceObserver;

/// The maximum number of bytes read of a backup's manifest, which has a few lines.
const MANIFEST_BYTES: u64 = 64 * 1024;

/// The suffix of names of files and folders that are not complete yet.
const UNFINISHED: &str = ".restoring";

/// Restores the backup in the folder `backup` into `root`, which must be empty or not exist, and not in use.
///
/// The bytes become links to those of the backup if possible. An interrupted restore can be repeated, and the backup is
/// not changed. Cancel safety: a dropped future ends it soon.
///
/// # Errors
/// [`BackupError`].
pub async fn restore(
    backup: &Path,
    root: &Path,
    observer: Arc<dyn MaintenanceObserver>,
) -> Result<BackupReport, BackupError> {
    let (backup, root) = (backup.to_owned(), root.to_owned());
    let wanted = Wanted::default();
    let is_wanted = wanted.flag();
    spawn_blocking(move || bring_back(&backup, &root, &*observer, &is_wanted))
        .await
        .unwrap_or(Err(BackupError::Cancelled))
}

fn bring_back(
    backup: &Path,
    root: &Path,
    observer: &dyn MaintenanceObserver,
    is_wanted: &AtomicBool,
) -> Result<BackupReport, BackupError> {
    let manifest = read_manifest(backup)?;
    let _lock = try_take(root)?.map_err(|holder| OpenError::Held {
        root: root.to_owned(),
        holder,
    })?;
    clear(root)?;
    let total = Total {
        files: manifest.report.linked + manifest.report.copied,
        bytes: manifest.report.size,
    };
    let (bytes, records) = (
        unfinished(&root.join(BYTES_FOLDER)),
        unfinished(&root.join(RECORDS_FILE)),
    );
    let source = backup.join(RECORDS_FILE);
    fs::copy(&source, &records).map_err(disk(&records))?;
    snapshot::modernize(&records)?;
    sync(&records)?;
    let rights = Rights::below(root).map_err(disk(root))?;
    let folders = (backup.join(BYTES_FOLDER), bytes.clone());
    let mut copier = Copier::new(folders, rights, total, (observer, is_wanted))?;
    let mut missing = 0;
    snapshot::each_bytes_name(&records, |name, _| {
        if !copier.copy(name)? {
            missing += 1;
            if missing > manifest.report.missing {
                let path = backup.join(BYTES_FOLDER).join(name.as_str());
                return Err(BackupError::Incomplete { path });
            }
        }
        Ok(())
    })?;
    let report = copier.finish()?;
    // The bytes first: records without them would be broken, but bytes without records belong to nothing.
    publish(&bytes, &root.join(BYTES_FOLDER))?;
    sync(root)?;
    publish(&records, &root.join(RECORDS_FILE))?;
    sync(root)?;
    Ok(report)
}

/// Returns when the complete backup in a folder was made; `None` if there is none that this program can read. Blocks.
#[must_use]
pub fn made_at(backup: &Path) -> Option<Timestamp> {
    Some(read_manifest(backup).ok()?.made)
}

fn read_manifest(backup: &Path) -> Result<Manifest, BackupError> {
    let not_whole = || BackupError::NotWhole {
        path: backup.to_owned(),
    };
    let path = backup.join(MANIFEST_FILE);
    let file = File::open(&path).map_err(|cause| match cause.kind() {
        io::ErrorKind::PermissionDenied => disk(&path)(cause),
        _ => not_whole(),
    })?;
    let manifest: Manifest =
        serde_json::from_reader(BufReader::new(file.take(MANIFEST_BYTES))).map_err(|_| not_whole())?;
    match manifest.format {
        // No version of this program wrote it.
        0 => Err(not_whole()),
        1..=FORMAT => Ok(manifest),
        found => Err(BackupError::Newer {
            path: backup.to_owned(),
            found,
        }),
    }
}

/// Requires that the root holds only what an interrupted restore left, and removes that.
fn clear(root: &Path) -> Result<(), BackupError> {
    let (bytes, records) = (root.join(BYTES_FOLDER), root.join(RECORDS_FILE));
    let is_interrupted = unfinished(&records).exists() && !records.exists();
    for entry in fs::read_dir(root).map_err(disk(root))? {
        let path = entry.map_err(disk(root))?.path();
        let is_left = path == unfinished(&bytes) || path == unfinished(&records);
        if !(is_left || path == root.join(LOCK_FILE) || is_interrupted && path == bytes) {
            return Err(BackupError::NotEmpty {
                path: root.to_owned(),
            });
        }
    }
    for folder in [unfinished(&bytes), bytes] {
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(disk(&folder))?;
        }
    }
    Ok(())
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    name.into()
}

fn publish(from: &Path, to: &Path) -> Result<(), BackupError> {
    fs::rename(from, to).map_err(disk(to))
}
