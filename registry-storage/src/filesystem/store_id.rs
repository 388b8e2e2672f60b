//! Which records belong to a root.
//!
//! The records have an identifier, and a file in the root names it. Without it, the records of another store that were put in
//! their place would name none of the bytes, and the first sweep would delete all of them. A copy of the root and a backup
//! keep the identifier.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};
use uuid::Uuid;

use super::failure::is_full;
use super::open_error::OpenError;
use super::rights::{Rights, create_file};
use super::{ID_FILE, RECORDS_FILE, has_bytes};

/// Refuses records of another store, and gives records and root an identifier if they have none.
///
/// A full disk has no room for one, and is no reason not to start.
pub(super) fn bind(root: &Path, connection: &Connection, rights: Rights) -> Result<(), OpenError> {
    if is_bound(root, connection)? {
        return Ok(());
    }
    let path = root.join(RECORDS_FILE);
    let id = match of_records(connection).and_then(|known| known.map_or_else(|| give(connection), Ok)) {
        Err(cause) if cause.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) => return Ok(()),
        id => id.map_err(|cause| OpenError::Records { path, cause })?,
    };
    let file = root.join(ID_FILE);
    match write(&file, &id, rights) {
        Err(cause) if !is_full(&cause) => Err(OpenError::Disk { path: file, cause }),
        _ => Ok(()),
    }
}

/// Returns whether the root names an identifier, which is then that of the records.
///
/// # Errors
/// [`OpenError::RecordsOfAnother`]; [`OpenError::Disk`] and [`OpenError::Records`] if one of them cannot be read.
pub(super) fn is_bound(root: &Path, connection: &Connection) -> Result<bool, OpenError> {
    let (path, file) = (root.join(RECORDS_FILE), root.join(ID_FILE));
    let failed = |cause| OpenError::Disk {
        path: file.clone(),
        cause,
    };
    let named = match fs::read(&file) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(false),
        named => named.map_err(failed)?,
    };
    // The disk was full when it was written.
    if named.trim_ascii().is_empty() {
        return Ok(false);
    }
    let named = Uuid::try_parse_ascii(named.trim_ascii()).map_err(|_| {
        let message = "it names no registry; if records.sqlite beside it is the right one, remove this file";
        failed(io::Error::new(io::ErrorKind::InvalidData, message))
    })?;
    match of_records(connection) {
        Ok(Some(known)) if Uuid::try_parse(&known) == Ok(named) => Ok(true),
        // No bytes could be deleted.
        Ok(_) if !has_bytes(root) => Ok(false),
        Ok(_) => Err(OpenError::RecordsOfAnother { path, file }),
        Err(cause) => Err(OpenError::Records { path, cause }),
    }
}

fn of_records(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let has_table = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'store'";
    match connection.query_row(has_table, [], |_| Ok(())).optional()? {
        Some(()) => connection
            .query_row("SELECT id FROM store", [], |row| row.get(0))
            .optional(),
        None => Ok(None),
    }
}

fn give(connection: &Connection) -> rusqlite::Result<String> {
    let id = Uuid::new_v4().to_string();
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         CREATE TABLE IF NOT EXISTS store (id TEXT NOT NULL) STRICT;
         INSERT INTO store VALUES ('{id}');
         COMMIT"
    ))?;
    Ok(id)
}

/// Writes the file. The caller, which opens the root, syncs the folder.
fn write(path: &Path, id: &str, rights: Rights) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    let mut file = create_file(path, rights.file())?;
    writeln!(file, "{id}")?;
    file.sync_all()
}
