//! The statements sent to SQLite.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};

use crate::backend::{RecordEntry, Stat, Version, VersionedRecord};
use crate::key::Key;
use crate::sqlite_head;

/// How long a start waits for another process that has the records open, such as an operator's shell.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// What SQLite cuts the log to, in bytes, once it was copied back.
pub(super) const LOG_BYTES: u64 = 8 << 20;

/// How many statements a connection keeps compiled: all that are here.
const CACHED_STATEMENTS: usize = 64;

/// The format of the tables below, kept in SQLite's `user_version`.
pub(super) const FORMAT: i64 = 2;

/// The maximum size in bytes of key and value together in a row of `records`.
///
/// In a tree that is searched by its rows, SQLite keeps up to 1002 bytes of a row in the page (of 4096 bytes). It would
/// assemble a larger row from other pages each time that a key is compared with it. Tags, back references and grants
/// have 250 to 400 bytes; larger records have content, and are in a separate tree that is searched by number.
const INLINE_ROW_BYTES: usize = 900;

const SCHEMA: &str = "
    CREATE TABLE records (
        key     TEXT    NOT NULL PRIMARY KEY,
        version INTEGER NOT NULL,
        size    INTEGER NOT NULL,
        value   BLOB,
        large   INTEGER
    ) WITHOUT ROWID, STRICT;
    CREATE TABLE large_values (
        id      INTEGER PRIMARY KEY,
        value   BLOB    NOT NULL
    ) STRICT";

/// Where SQLite keeps the records, and the index of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Medium {
    /// Files of this process alone, whose connections share an index in memory. An index in a file would be mapped into
    /// memory, and on a full disk of btrfs, or at the end of a quota there, SIGBUS kills the process that writes to it.
    Files,
    /// A file that no process writes to, whose log is empty or gone.
    Settled,
    /// Files that no process writes to, with a log that was not copied back; each connection has its own index.
    WithLog,
    /// All in the memory of this process; connections to the same path share it.
    Memory,
}

impl Medium {
    /// Returns how to open records that no process writes to.
    pub(super) fn unwritten(path: &Path) -> Self {
        let [_, log, ..] = sqlite_head::with_logs(path);
        if std::fs::metadata(log).is_ok_and(|log| log.len() > 0) {
            Self::WithLog
        } else {
            Self::Settled
        }
    }

    /// Returns whether there is a log beside the file.
    pub(super) const fn has_log(self) -> bool {
        matches!(self, Self::WithLog)
    }

    /// Returns whether nothing can be written.
    pub(super) const fn is_read_only(self) -> bool {
        matches!(self, Self::Settled | Self::WithLog)
    }
}

fn open(path: &Path, flags: OpenFlags, medium: Medium) -> rusqlite::Result<Connection> {
    let connection = match medium {
        Medium::Files => Connection::open_with_flags_and_vfs(path, flags, c"unix-excl"),
        Medium::Memory => Connection::open_with_flags_and_vfs(path, flags, c"memdb"),
        Medium::Settled => Connection::open_with_flags(
            sqlite_head::unchanging_uri(path),
            flags | OpenFlags::SQLITE_OPEN_URI,
        ),
        Medium::WithLog => {
            // There is no lock to take, and the index of the log is in memory if a connection has it alone.
            let connection = Connection::open_with_flags_and_vfs(path, flags, c"unix-none")?;
            connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
            Ok(connection)
        }
    }?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    keep_statements(&connection)?;
    Ok(connection)
}

/// Lets a connection keep its statements compiled. By default, SQLite looks at the bound values, and so compiles most
/// statements again each time.
fn keep_statements(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map(drop)
}

/// Opens the connection that writes, and makes the store if there is none.
///
/// 2 MiB of pages are cached, and the log is copied back every 1000 pages (4 MiB). An operator who copies the folder
/// while the log is copied back gets a broken copy, so that is not done more often.
pub(super) fn open_writer(path: &Path, medium: Medium) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = open(path, flags, medium)?;
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA temp_store = MEMORY;
         PRAGMA mmap_size = 0;
         PRAGMA cache_size = -2048;
         PRAGMA wal_autocheckpoint = 1000;
         PRAGMA journal_size_limit = {LOG_BYTES}"
    ))?;
    Ok(connection)
}

/// Opens a connection that reads, with 256 KiB of pages.
///
/// It may write if the writer may, but does not: for a read-only connection, SQLite does not keep other processes out,
/// and uses a file for the index if that connection is the first one after a failed sync.
pub(super) fn open_reader(path: &Path, medium: Medium) -> rusqlite::Result<Connection> {
    let is_shared = medium == Medium::Files;
    let access = if is_shared {
        OpenFlags::SQLITE_OPEN_READ_WRITE
    } else {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    };
    let connection = open(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX, medium)?;
    if is_shared {
        connection.pragma_update(None, "query_only", true)?;
        // Copying the log back is left to the writer.
        keep_log(&connection)?;
    }
    connection.execute_batch(
        "PRAGMA temp_store = MEMORY;
         PRAGMA mmap_size = 0;
         PRAGMA cache_size = -256",
    )?;
    Ok(connection)
}

/// Opens records that are being copied, or creates the file.
pub(super) fn open_copy(path: &Path) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    open(path, flags, Medium::Files)
}

/// Returns the format of the store, 0 for one that was just created.
pub(super) fn format(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Creates the tables, and writes the format last.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    create_tables(connection)?;
    execute(connection, "COMMIT")
}

/// Creates the tables within a transaction.
pub(super) fn create_tables(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("{SCHEMA}; PRAGMA user_version = {FORMAT}"))
}

/// Writes a page without changing anything, so that a commit has something to sync.
pub(super) fn touch(connection: &Connection) -> rusqlite::Result<()> {
    execute(connection, &format!("PRAGMA user_version = {FORMAT}"))
}

/// Copies the log back and empties it; returns `false` if a reader prevented that.
pub(super) fn checkpoint(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
        Ok(row.get::<_, i64>(0)? == 0)
    })
}

/// Leaves the log as it is when the connection closes.
pub(super) fn keep_log(connection: &Connection) -> rusqlite::Result<bool> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
}

/// Runs a statement without parameters and results.
pub(super) fn execute(connection: &Connection, statement: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(statement)?.execute([]).map(drop)
}

/// The statement that reads a record.
pub(super) const GET: &str = "SELECT records.version, records.value, large_values.value, records.large
    FROM records LEFT JOIN large_values ON large_values.id = records.large WHERE key = ?1";

/// Reads a record.
pub(super) fn get(connection: &Connection, key: &Key) -> rusqlite::Result<Option<VersionedRecord>> {
    Ok(get_found(connection, key)?.map(|(stored, _)| stored))
}

/// Reads a record, and what a write has to know about it.
pub(super) fn get_found(
    connection: &Connection,
    key: &Key,
) -> rusqlite::Result<Option<(VersionedRecord, Found)>> {
    let read = |row: &Row<'_>| {
        let found = Found {
            version: row.get(0)?,
            large: row.get(3)?,
        };
        Ok((read_stored(row)?, found))
    };
    connection
        .prepare_cached(GET)?
        .query_row(params![key.as_str()], read)
        .optional()
}

/// What a read of a record found.
pub(super) enum Looked {
    /// The record, or `None` if there is none.
    Record(Option<VersionedRecord>),
    /// A value of this many bytes, which were not read.
    Large(usize),
}

/// Reads a record whose value has at most `limit` bytes.
pub(super) fn get_small(connection: &Connection, key: &Key, limit: usize) -> rusqlite::Result<Looked> {
    let read = |row: &Row<'_>| {
        let size = usize::try_from(row.get::<_, i64>(3)?).unwrap_or(usize::MAX);
        if size > limit {
            return Ok(Looked::Large(size));
        }
        read_stored(row).map(Some).map(Looked::Record)
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "SELECT records.version, records.value,
                    CASE WHEN records.size <= ?2 THEN large_values.value END, records.size
             FROM records LEFT JOIN large_values ON large_values.id = records.large WHERE key = ?1",
        )?
        .query_row(params![key.as_str(), limit], read)
        .optional()
        .map(|found| found.unwrap_or(Looked::Record(None)))
}

/// Reads a large record into `buffer`. The library would hold a second copy of the value meanwhile.
pub(super) fn get_large(
    connection: &Connection,
    key: &Key,
    mut buffer: Vec<u8>,
) -> rusqlite::Result<Option<VersionedRecord>> {
    // One snapshot of the records for all statements.
    let view = connection.unchecked_transaction()?;
    let place = view
        .prepare_cached("SELECT version, large FROM records WHERE key = ?1")?
        .query_row(params![key.as_str()], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?))
        })
        .optional()?;
    let Some((version, Some(id))) = place else {
        return get(&view, key);
    };
    let value = view.blob_open(rusqlite::MAIN_DB, "large_values", "value", id, true)?;
    buffer.resize(value.len(), 0);
    value.read_at_exact(&mut buffer, 0)?;
    Ok(Some(VersionedRecord::new(
        Bytes::from(buffer),
        version_of(version),
    )))
}

/// Reads the first record, if there is one.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    let mut first = connection.prepare_cached("SELECT version FROM records ORDER BY key LIMIT 1")?;
    first.exists([]).map(drop)
}

/// Reads the version and the size of a record, and what a write has to know about it.
pub(super) fn stat(connection: &Connection, key: &Key) -> rusqlite::Result<Option<(Stat, Found)>> {
    let read = |row: &Row<'_>| {
        let found = Found {
            version: row.get(0)?,
            large: row.get(2)?,
        };
        let size: i64 = row.get(1)?;
        let stat = Stat {
            version: version_of(found.version),
            size: size.cast_unsigned(),
        };
        Ok((stat, found))
    };
    connection
        .prepare_cached("SELECT version, size, large FROM records WHERE key = ?1")?
        .query_row(params![key.as_str()], read)
        .optional()
}

/// Lists records in the order of their keys; see [`RecordTransaction::list`](crate::backend::RecordTransaction::list).
pub(super) fn list(
    connection: &Connection,
    prefix: &Key,
    after: Option<&Key>,
    limit: usize,
) -> rusqlite::Result<Vec<RecordEntry>> {
    let (from, comparison) = match after.filter(|after| *after >= prefix) {
        Some(after) => (after, ">"),
        None => (prefix, ">="),
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    connection
        .prepare_cached(&format!(
            "SELECT key, size FROM records WHERE key {comparison} ?1 AND key < ?2 ORDER BY key LIMIT ?3"
        ))?
        .query_map(params![from.as_str(), end_of(prefix), limit], read_entry)?
        .collect()
}

/// Writes a record over the one that was found, and returns what is found from then on.
pub(super) fn write(
    connection: &Connection,
    key: &Key,
    value: &[u8],
    version: i64,
    found: Option<Found>,
) -> rusqlite::Result<Found> {
    let is_large = key.as_str().len().saturating_add(value.len()) > INLINE_ROW_BYTES;
    let large = match (is_large, found.and_then(|found| found.large)) {
        (true, Some(id)) => {
            connection
                .prepare_cached("UPDATE large_values SET value = ?2 WHERE id = ?1")?
                .execute(params![id, value])?;
            Some(id)
        }
        (true, None) => {
            connection
                .prepare_cached("INSERT INTO large_values (value) VALUES (?1)")?
                .execute(params![value])?;
            Some(connection.last_insert_rowid())
        }
        (false, before) => {
            delete_large(connection, before)?;
            None
        }
    };
    let small = (!is_large).then_some(value);
    let size = i64::try_from(value.len()).unwrap_or(i64::MAX);
    let statement = if found.is_some() {
        "UPDATE records SET version = ?2, size = ?3, value = ?4, large = ?5 WHERE key = ?1"
    } else {
        "INSERT INTO records (key, version, size, value, large) VALUES (?1, ?2, ?3, ?4, ?5)"
    };
    connection
        .prepare_cached(statement)?
        .execute(params![key.as_str(), version, size, small, large])?;
    Ok(Found { version, large })
}

/// Removes the record that was found.
pub(super) fn delete(connection: &Connection, key: &Key, found: Found) -> rusqlite::Result<()> {
    delete_large(connection, found.large)?;
    connection
        .prepare_cached("DELETE FROM records WHERE key = ?1")?
        .execute(params![key.as_str()])?;
    Ok(())
}

/// Removes all records whose keys begin with `prefix`.
pub(super) fn delete_all(connection: &Connection, prefix: &Key) -> rusqlite::Result<()> {
    let range = params![prefix.as_str(), end_of(prefix)];
    connection.execute(
        "DELETE FROM large_values WHERE id IN (SELECT large FROM records WHERE key >= ?1 AND key < ?2)",
        range,
    )?;
    connection.execute("DELETE FROM records WHERE key >= ?1 AND key < ?2", range)?;
    Ok(())
}

fn delete_large(connection: &Connection, id: Option<i64>) -> rusqlite::Result<()> {
    if let Some(id) = id {
        connection
            .prepare_cached("DELETE FROM large_values WHERE id = ?1")?
            .execute(params![id])?;
    }
    Ok(())
}

/// What a write has to know about the record that it replaces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    version: i64,
    large: Option<i64>,
}

impl Found {
    /// Returns whether the record has a version.
    pub(super) fn is(self, version: &Version) -> bool {
        u64::from_str_radix(&version.0, 16).is_ok_and(|number| number.cast_signed() == self.version)
    }
}

pub(super) fn find(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Found>> {
    let read = |row: &Row<'_>| {
        Ok(Found {
            version: row.get(0)?,
            large: row.get(1)?,
        })
    };
    connection
        .prepare_cached("SELECT version, large FROM records WHERE key = ?1")?
        .query_row(params![key.as_str()], read)
        .optional()
}

/// Turns the number of a version in the table into a version.
pub(super) fn version_of(number: i64) -> Version {
    Version(Arc::from(format!("{number:x}")))
}

fn read_stored(row: &Row<'_>) -> rusqlite::Result<VersionedRecord> {
    let small: Option<Vec<u8>> = row.get(1)?;
    let value = match small {
        Some(value) => value,
        None => row.get(2)?,
    };
    Ok(VersionedRecord::new(Bytes::from(value), version_of(row.get(0)?)))
}

fn read_entry(row: &Row<'_>) -> rusqlite::Result<RecordEntry> {
    let key = Key::from_stored(row.get_ref(0)?.as_str()?);
    let size: i64 = row.get(1)?;
    Ok(RecordEntry {
        key,
        size: size.cast_unsigned(),
    })
}

/// Returns the first value after all keys that begin with `prefix`.
///
/// Keys are compared by the bytes of their UTF-8, whose order is that of the characters; a blob sorts after every text.
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

/// Returns the error of records that are being read, or that are not open.
pub(super) fn busy() -> rusqlite::Error {
    let cause = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
    rusqlite::Error::SqliteFailure(cause, None)
}
