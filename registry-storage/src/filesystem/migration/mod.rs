//! Bringing the records of an older format to the current one.
//!
//! In format 1 one table had keys and values of any size, so that SQLite copied whole values to compare keys. The first
//! transaction renames that table, creates the new ones and writes the new format, so that an older program refuses the
//! store. Each further transaction moves some records, and the last one drops the table, which is empty by then. A
//! record is in one of the two at any time, so a process may end anywhere, and the next one continues.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::open_error::OpenError;
use super::queries;
use crate::key::Key;

/// The name of the table of format 1 until it is empty.
const OLD_TABLE: &str = "records_of_format_1";

/// Roughly how many bytes of values one transaction moves, but at least one record.
const CHUNK_BYTES: usize = 4 << 20;
/// How many records one transaction moves at most.
const CHUNK_RECORDS: usize = 2000;
/// How often the log reports the progress.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// Brings the records to the current format, if they have an older one.
///
/// # Errors
/// [`OpenError::Newer`], [`OpenError::Migration`].
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let refused = |cause| OpenError::Migration {
        path: path.to_owned(),
        cause,
    };
    match queries::format(connection).map_err(refused)? {
        1 => begin(connection).map_err(refused)?,
        queries::FORMAT => {}
        found => {
            return Err(OpenError::Newer {
                path: path.to_owned(),
                found,
                known: queries::FORMAT,
            });
        }
    }
    if is_unfinished(connection).map_err(refused)? {
        move_all(connection, path).map_err(refused)?;
    }
    Ok(())
}

fn move_all(connection: &mut Connection, path: &Path) -> rusqlite::Result<()> {
    let count = format!("SELECT count(*) FROM {OLD_TABLE}");
    let total: i64 = connection.query_row(&count, [], |row| row.get(0))?;
    let (path, format) = (path.display(), queries::FORMAT);
    tracing::info!(%path, total, "bringing the records to format {format}; this happens once");
    let (mut moved, mut reported) = (0_usize, Instant::now());
    loop {
        let chunk = move_chunk(connection)?;
        if chunk == 0 {
            break;
        }
        moved = moved.saturating_add(chunk);
        if reported.elapsed() >= REPORT_INTERVAL {
            reported = Instant::now();
            tracing::info!(%path, moved, total, "bringing the records to format {format}");
        }
    }
    connection.execute_batch(&format!("DROP TABLE {OLD_TABLE}"))?;
    tracing::info!(%path, moved, "the records are of format {format}");
    Ok(())
}

/// Returns whether there are records that were not moved yet, or were when this was last checked.
pub(super) fn is_unfinished(connection: &Connection) -> rusqlite::Result<bool> {
    let table = connection
        .query_row(
            "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1",
            params![OLD_TABLE],
            |_| Ok(()),
        )
        .optional()?;
    Ok(table.is_some())
}

fn begin(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(&format!("ALTER TABLE records RENAME TO {OLD_TABLE}"))?;
    queries::create_tables(&transaction)?;
    transaction.commit()
}

/// Moves the next records in one transaction, and returns how many; 0 if all were moved.
fn move_chunk(connection: &mut Connection) -> rusqlite::Result<usize> {
    let transaction = connection.transaction()?;
    let moved = move_records(&transaction)?;
    transaction.commit()?;
    Ok(moved)
}

fn move_records(connection: &Connection) -> rusqlite::Result<usize> {
    let (mut moved, mut bytes) = (0, 0);
    let mut last = None;
    {
        let mut old = connection.prepare_cached(&format!(
            "SELECT key, version, value FROM {OLD_TABLE} ORDER BY key"
        ))?;
        let mut rows = old.query([])?;
        while moved < CHUNK_RECORDS && bytes < CHUNK_BYTES {
            let Some(row) = rows.next()? else { break };
            let key = Key::from_stored(row.get_ref(0)?.as_str()?);
            let value = row.get_ref(2)?.as_blob()?;
            queries::write(connection, &key, value, row.get(1)?, None)?;
            moved += 1;
            bytes = value.len().saturating_add(bytes);
            last = Some(key);
        }
    }
    if let Some(last) = last {
        connection
            .prepare_cached(&format!("DELETE FROM {OLD_TABLE} WHERE key <= ?1"))?
            .execute(params![last.as_str()])?;
    }
    Ok(moved)
}

#[cfg(test)]
mod tests;
