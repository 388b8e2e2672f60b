//! The records at one moment.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use registry_core::Error;
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::{BackupError, check_wanted};
use crate::bytes_name::BytesName;
use crate::filesystem::migration::migrate;
use crate::filesystem::origin;
use crate::filesystem::queries::{self, Medium};
use crate::key::Key;
use crate::observer::{MaintenanceObserver, Step};
use crate::pages::{Pages, keys};
use crate::record::{BlobRecord, QuarantineRecord, decode};

/// How many pages are copied between two checks whether the backup is still wanted.
const PAGES: i32 = 2000;

/// Copies the records of a store that is being written to. The copy is of one moment, and one file.
pub(super) fn copy_records(
    from: &Path,
    to: &Path,
    observer: &dyn MaintenanceObserver,
    is_wanted: &AtomicBool,
) -> Result<(), BackupError> {
    let source = queries::open_reader(from, Medium::Files).map_err(records(from))?;
    // One read transaction for the whole copy: otherwise it would begin anew with each commit of the server.
    queries::execute(&source, "BEGIN").map_err(records(from))?;
    queries::format(&source).map_err(records(from))?;
    let mut target = queries::open_copy(to).map_err(records(to))?;
    {
        let backup = Backup::new(&source, &mut target).map_err(records(to))?;
        loop {
            check_wanted(is_wanted)?;
            let step = backup.step(PAGES).map_err(records(to))?;
            let pages = backup.progress();
            let total = u64::try_from(pages.pagecount).unwrap_or_default();
            let left = u64::try_from(pages.remaining).unwrap_or_default();
            observer.step(Step::Copy, total.saturating_sub(left), Some(total));
            if step == StepResult::Done {
                break;
            }
        }
    }
    drop(source);
    leave_uploads_out(&target).map_err(records(to))?;
    target.close().map_err(|(_, cause)| records(to)(cause))
}

fn leave_uploads_out(target: &Connection) -> rusqlite::Result<()> {
    target.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    queries::delete_all(target, &Key::uploads())?;
    origin::disclaim(target)
}

/// Brings the copied records of an older backup to the current format.
pub(super) fn modernize(path: &Path) -> Result<(), BackupError> {
    let mut connection = queries::open_copy(path).map_err(records(path))?;
    // A copy that does not become complete is made again, so nothing of it needs to be durable before the end.
    connection
        .execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF")
        .map_err(records(path))?;
    migrate(&mut connection, path)?;
    origin::claim(&connection, path).map_err(records(path))?;
    connection
        .execute_batch("PRAGMA journal_mode = DELETE")
        .map_err(records(path))?;
    connection.close().map_err(|(_, cause)| records(path)(cause))
}

/// Calls `each` with the name of each byte string that the records of a backup name, and its size in bytes, which is
/// not known for byte strings in quarantine.
pub(super) fn each_bytes_name(
    path: &Path,
    mut each: impl FnMut(&BytesName, u64) -> Result<(), BackupError>,
) -> Result<(), BackupError> {
    let connection = queries::open_reader(path, Medium::Files).map_err(records(path))?;
    for prefix in [Key::blobs(), Key::quarantine()] {
        let mut pages = Pages::of(prefix);
        let list =
            |prefix: &Key, after: Option<&Key>, limit| queries::list(&connection, prefix, after, limit);
        while let Some(page) = pages.next_with(list).map_err(records(path))? {
            for key in keys(page) {
                for (name, size) in names(&connection, &key).map_err(records(path))? {
                    each(&name, size)?;
                }
            }
        }
    }
    Ok(())
}

/// Returns the bytes that a record names. An unreadable record names none that could be found.
fn names(connection: &Connection, key: &Key) -> rusqlite::Result<Vec<(BytesName, u64)>> {
    let is_blob = key.as_str().starts_with(Key::blobs().as_str());
    if is_blob && !key.as_str().ends_with("/record") {
        return Ok(Vec::new());
    }
    let Some(stored) = queries::get(connection, key)? else {
        return Ok(Vec::new());
    };
    let names: Result<Vec<_>, Error> = if is_blob {
        decode::<BlobRecord>(&stored.value).map(|(blob, _)| {
            let named = blob.blob.and_then(|blob| Some((blob.bytes?, blob.size)));
            named.into_iter().collect()
        })
    } else {
        decode::<QuarantineRecord>(&stored.value)
            .map(|(record, _)| record.bytes.into_iter().map(|name| (name, 0)).collect())
    };
    Ok(names.unwrap_or_else(|_| {
        tracing::warn!(%key, "this record cannot be read; run a check of the store");
        Vec::new()
    }))
}

fn records(path: &Path) -> impl FnOnce(rusqlite::Error) -> BackupError {
    move |cause| BackupError::Records {
        path: path.to_owned(),
        cause,
    }
}
