//! What is said to SQLite.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};

use crate::backend::{Condition, Entry, Stored, Version};
use crate::key::Key;

/// The format of the table below, kept in SQLite's `user_version`.
pub(super) const FORMAT: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS records (
        key     TEXT    NOT NULL PRIMARY KEY,
        version INTEGER NOT NULL,
        value   BLOB    NOT NULL
    ) WITHOUT ROWID, STRICT";

/// Opens the connection that writes, and makes the store if there is none.
///
/// 2 MiB of pages are cached, and the log is copied back every 1000 pages (4 MiB).
pub(super) fn open_writer(path: &Path) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA temp_store = MEMORY;
         PRAGMA mmap_size = 0;
         PRAGMA cache_size = -2048;
         PRAGMA wal_autocheckpoint = 1000;
         PRAGMA journal_size_limit = 8388608",
    )?;
    Ok(connection)
}

/// Opens a connection that reads, with 256 KiB of pages.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.execute_batch(
        "PRAGMA temp_store = MEMORY;
         PRAGMA mmap_size = 0;
         PRAGMA cache_size = -256",
    )?;
    Ok(connection)
}

/// Returns the format of the store, 0 for one that was just made.
pub(super) fn format(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Makes the table, and writes the format last.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {SCHEMA}; PRAGMA user_version = {FORMAT}; COMMIT"
    ))
}

/// Writes a page without changing anything, so that a commit has something to sync.
pub(super) fn touch(connection: &Connection) -> rusqlite::Result<()> {
    execute(connection, &format!("PRAGMA user_version = {FORMAT}"))
}

/// Copies the log back and empties it.
pub(super) fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// Leaves the log as it is when the connection closes.
pub(super) fn keep_log(connection: &Connection) -> rusqlite::Result<bool> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
}

/// Runs a statement without parameters and results.
pub(super) fn execute(connection: &Connection, statement: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(statement)?.execute([]).map(drop)
}

/// Reads a record.
pub(super) fn get(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Stored>> {
    connection
        .prepare_cached("SELECT version, value FROM records WHERE key = ?1")?
        .query_row(params![key.as_str()], read_stored)
        .optional()
}

/// Lists records in the order of their keys; see [`Records::list`](crate::backend::Records::list).
pub(super) fn list(
    connection: &Connection,
    prefix: &Key,
    after: Option<&Key>,
    limit: usize,
) -> rusqlite::Result<Vec<Entry>> {
    let (from, comparison) = match after.filter(|after| *after >= prefix) {
        Some(after) => (after, ">"),
        None => (prefix, ">="),
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    connection
        .prepare_cached(&format!(
            "SELECT key, length(value) FROM records WHERE key {comparison} ?1 AND key < ?2 ORDER BY key LIMIT ?3"
        ))?
        .query_map(params![from.as_str(), end_of(prefix), limit], read_entry)?
        .collect()
}

/// Writes a record if `condition` holds, and tells whether it did.
pub(super) fn put(
    connection: &Connection,
    key: &Key,
    value: &[u8],
    version: i64,
    condition: &Condition,
) -> rusqlite::Result<bool> {
    let key = key.as_str();
    let written = match condition {
        Condition::Absent => connection
            .prepare_cached("INSERT OR IGNORE INTO records (key, version, value) VALUES (?1, ?2, ?3)")?
            .execute(params![key, version, value])?,
        Condition::Any => connection
            .prepare_cached("INSERT OR REPLACE INTO records (key, version, value) VALUES (?1, ?2, ?3)")?
            .execute(params![key, version, value])?,
        Condition::Matches(expected) => {
            let Some(expected) = number_of(expected) else {
                return Ok(false);
            };
            connection
                .prepare_cached(
                    "UPDATE records SET version = ?2, value = ?3 WHERE key = ?1 AND version = ?4",
                )?
                .execute(params![key, version, value, expected])?
        }
    };
    Ok(written > 0)
}

/// Removes a record, only if it is of `version` where one is given, and tells whether there was one.
pub(super) fn delete(
    connection: &Connection,
    key: &Key,
    version: Option<&Version>,
) -> rusqlite::Result<bool> {
    let removed = match version {
        None => connection
            .prepare_cached("DELETE FROM records WHERE key = ?1")?
            .execute(params![key.as_str()])?,
        Some(version) => {
            let Some(version) = number_of(version) else {
                return Ok(false);
            };
            connection
                .prepare_cached("DELETE FROM records WHERE key = ?1 AND version = ?2")?
                .execute(params![key.as_str(), version])?
        }
    };
    Ok(removed > 0)
}

/// Spells the number that a version is in the table.
pub(super) fn version_of(number: i64) -> Version {
    Version(Arc::from(format!("{number:x}")))
}

fn number_of(version: &Version) -> Option<i64> {
    u64::from_str_radix(&version.0, 16).ok().map(u64::cast_signed)
}

fn read_stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored {
        version: version_of(row.get(0)?),
        value: Bytes::from(row.get::<_, Vec<u8>>(1)?),
    })
}

fn read_entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let key = Key::from_stored(row.get_ref(0)?.as_str()?);
    let size: i64 = row.get(1)?;
    Ok(Entry {
        key,
        size: size.cast_unsigned(),
    })
}

/// Returns the first value after all keys that begin with `prefix`.
///
/// Keys are compared by the bytes of their UTF-8, whose order is that of the characters; a blob is after every text.
pub(super) fn end_of(prefix: &Key) -> Value {
    let mut text = prefix.as_str().to_owned();
    while let Some(last) = text.pop() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            text.push(next);
            return Value::Text(text);
        }
    }
    Value::Blob(Vec::new())
}
