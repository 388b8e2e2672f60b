//! The file of an outbox.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, ffi, params};

use super::{IntentName, OutboxEntry, OutboxLimits};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS entries (sequence INTEGER PRIMARY KEY AUTOINCREMENT, value BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS intents (name BLOB NOT NULL UNIQUE, value BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS consumers (name TEXT PRIMARY KEY, sequence INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// How long to wait for another process that has the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How many entries are written, and how many are dropped if there is no room, between two checks of the size.
const ENTRIES_PER_STEP: usize = 16;

/// How large the log of the file may stay, and how much of the file may stay unused after a start.
const SPARE_BYTES: u64 = 4 * 1024 * 1024;

/// Changes that are written in one transaction.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// New entries.
    pub(super) values: Vec<Vec<u8>>,
    /// Intents, in their order, that are noted or removed.
    pub(super) intents: Vec<(IntentName, Option<Vec<u8>>)>,
    /// How far consumers have read.
    pub(super) acknowledged: Vec<(String, u64)>,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty() && self.intents.is_empty() && self.acknowledged.is_empty()
    }

    fn has_intents(&self) -> bool {
        self.intents.iter().any(|(_, value)| value.is_some())
    }

    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        for (name, value) in &self.intents {
            match value {
                Some(value) => transaction
                    .prepare_cached("INSERT OR REPLACE INTO intents (name, value) VALUES (?1, ?2)")?
                    .execute(params![name, value])?,
                None => transaction
                    .prepare_cached("DELETE FROM intents WHERE name = ?1")?
                    .execute([name])?,
            };
        }
        let mut advance = transaction
            .prepare_cached("UPDATE consumers SET sequence = max(sequence, ?2) WHERE name = ?1")?;
        for (consumer, sequence) in &self.acknowledged {
            advance.execute(params![consumer, signed(*sequence)])?;
        }
        Ok(())
    }
}

/// Entries and how far each consumer has read.
#[derive(Debug)]
pub(super) struct Queue {
    connection: Connection,
    limits: OutboxLimits,
    first: u64,
    end: u64,
}

impl Queue {
    pub(super) fn open(path: &Path, limits: OutboxLimits, consumers: &[&str]) -> rusqlite::Result<Self> {
        keep_private(path);
        let connection = open_alone(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        require_own(&connection)?;
        // What is committed survives the process; the worker syncs it soon after.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "journal_size_limit", signed(SPARE_BYTES))?;
        Self::over(connection, limits, consumers)
    }

    pub(super) fn in_memory(limits: OutboxLimits, consumers: &[&str]) -> rusqlite::Result<Self> {
        Self::over(Connection::open_in_memory()?, limits, consumers)
    }

    fn over(mut connection: Connection, limits: OutboxLimits, consumers: &[&str]) -> rusqlite::Result<Self> {
        // Otherwise SQLite looks at the bound LIMIT, and compiles the statement again each time.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        connection.execute_batch(SCHEMA)?;
        let end = end_of(&connection)?;
        let transaction = connection.transaction()?;
        let known: Vec<String> = transaction
            .prepare("SELECT name FROM consumers")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for gone in known.iter().filter(|name| !consumers.contains(&name.as_str())) {
            transaction.execute("DELETE FROM consumers WHERE name = ?1", [gone])?;
        }
        for name in consumers {
            transaction.execute(
                "INSERT OR IGNORE INTO consumers VALUES (?1, ?2)",
                params![name, signed(end)],
            )?;
        }
        transaction.commit()?;
        let mut queue = Self {
            connection,
            limits: OutboxLimits {
                entries: limits.entries.max(1),
                bytes: limits.bytes.max(OutboxLimits::LEAST_BYTES),
            },
            first: 0,
            end,
        };
        // The limit may be smaller than last time.
        queue.write(&Changes::default())?;
        if unused_bytes(&queue.connection)? > SPARE_BYTES {
            queue.connection.execute_batch("VACUUM")?;
        }
        Ok(queue)
    }

    /// Returns the sequence number of the oldest entry; if there is none, it is after the end.
    pub(super) const fn first(&self) -> u64 {
        self.first
    }

    /// Returns the sequence number of the newest entry.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// Writes changes, forgets what all consumers have and drops what exceeds the limits, in one transaction. Returns
    /// how many entries were dropped that some consumer did not have.
    pub(super) fn write(&mut self, changes: &Changes) -> rusqlite::Result<u64> {
        let limits = self.limits;
        let transaction = self.connection.transaction()?;
        changes.write(&transaction)?;
        while changes.has_intents() && intent_bytes(&transaction)? > limits.bytes / 4 {
            transaction.execute(
                "DELETE FROM intents WHERE rowid = (SELECT min(rowid) FROM intents)",
                [],
            )?;
        }
        forget(&transaction)?;
        // Step by step, so that the file does not exceed its limit meanwhile: it does not shrink again.
        let mut dropped = make_room(&transaction, limits)?;
        for values in changes.values.chunks(ENTRIES_PER_STEP) {
            for value in values {
                transaction
                    .prepare_cached("INSERT INTO entries (value) VALUES (?1)")?
                    .execute([value])?;
            }
            forget(&transaction)?;
            dropped += make_room(&transaction, limits)?;
        }
        let end = end_of(&transaction)?;
        let first = first_of(&transaction)?;
        transaction.commit()?;
        self.end = end;
        self.first = first.map_or_else(|| end.saturating_add(1), unsigned);
        Ok(dropped)
    }

    /// Reads intents, the oldest first.
    pub(super) fn intents(&self, name: Option<IntentName>) -> rusqlite::Result<Vec<(IntentName, Vec<u8>)>> {
        let mut select = self.connection.prepare_cached(
            "SELECT name, value FROM intents WHERE ?1 IS NULL OR name = ?1 ORDER BY rowid LIMIT 100",
        )?;
        let rows = select.query_map(params![name], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    }

    pub(super) fn read(
        &self,
        consumer: &str,
        after: u64,
        limit: usize,
    ) -> rusqlite::Result<Vec<OutboxEntry>> {
        let known: Option<i64> = self
            .connection
            .prepare_cached("SELECT sequence FROM consumers WHERE name = ?1")?
            .query_row([consumer], |row| row.get(0))
            .optional()?;
        let after = known.map_or(after, |known| unsigned(known).max(after));
        let mut select = self.connection.prepare_cached(
            "SELECT sequence, value FROM entries WHERE sequence > ?1 ORDER BY sequence LIMIT ?2",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = select.query_map(params![signed(after), limit], |row| {
            Ok(OutboxEntry {
                sequence: unsigned(row.get(0)?),
                value: row.get(1)?,
            })
        })?;
        rows.collect()
    }

    /// Makes what was written survive a loss of power.
    pub(super) fn sync(&self) -> rusqlite::Result<()> {
        // In memory this does nothing.
        self.connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
    }
}

/// Refuses the database of another program, which would get our tables, and lose what is dropped here.
pub(super) fn require_own(connection: &Connection) -> rusqlite::Result<()> {
    let others: u32 = connection.query_row(
        "SELECT count(*) FROM sqlite_schema
         WHERE type = 'table' AND name NOT IN ('entries', 'intents', 'consumers', 'sqlite_sequence')",
        [],
        |row| row.get(0),
    )?;
    if others == 0 {
        return Ok(());
    }
    Err(rusqlite::Error::SqliteFailure(
        ffi::Error::new(ffi::SQLITE_NOTADB),
        Some("it is the database of something else; name another file".to_owned()),
    ))
}

/// Opens a file for this process alone, with the index of its log in memory. In a file it would be mapped into memory, and on
/// a full disk of btrfs the process that writes to it is killed by SIGBUS.
fn open_alone(path: &Path) -> rusqlite::Result<Connection> {
    if cfg!(unix) {
        Connection::open_with_flags_and_vfs(path, OpenFlags::default(), c"unix-excl")
    } else {
        Connection::open(path)
    }
}

/// Creates the file so that only its owner reads it, or restricts an existing one; SQLite gives its other files the
/// same mode. If that fails, SQLite reports it.
fn keep_private(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};

        let opened = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path);
        let Ok(file) = opened else { return };
        let mode = file.metadata().map(|file| file.permissions().mode());
        if mode.is_ok_and(|mode| mode & 0o077 == 0) {
            return;
        }
        if let Err(cause) = file.set_permissions(std::fs::Permissions::from_mode(0o600)) {
            tracing::warn!(path = %path.display(), %cause, "others than its owner may read this");
        }
    }
}

/// Returns the sequence number of the newest entry that ever existed.
fn end_of(connection: &Connection) -> rusqlite::Result<u64> {
    let end: Option<i64> = connection
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'entries'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(end.map_or(0, unsigned))
}

fn first_of(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT min(sequence) FROM entries")?
        .query_row([], |row| row.get(0))
}

/// Deletes the entries up to a sequence number, and returns how many there were.
fn delete_to(connection: &Connection, sequence: i64) -> rusqlite::Result<u64> {
    let deleted = connection
        .prepare_cached("DELETE FROM entries WHERE sequence <= ?1")?
        .execute([sequence])?;
    Ok(deleted as u64)
}

/// Deletes the entries that all consumers have.
fn forget(connection: &Connection) -> rusqlite::Result<()> {
    let behind: Option<i64> = connection
        .prepare_cached("SELECT min(sequence) FROM consumers")?
        .query_row([], |row| row.get(0))?;
    delete_to(connection, behind.unwrap_or(i64::MAX)).map(drop)
}

/// Deletes the oldest entries until their number and size are within the limits, and returns how many there were.
fn make_room(connection: &Connection, limits: OutboxLimits) -> rusqlite::Result<u64> {
    let end = end_of(connection)?;
    let mut dropped = delete_to(connection, signed(end.saturating_sub(limits.entries)))?;
    while let Some(oldest) = first_of(connection)?
        && used_bytes(connection)? > limits.bytes
    {
        dropped += delete_to(
            connection,
            oldest.saturating_add(signed(ENTRIES_PER_STEP as u64) - 1),
        )?;
    }
    Ok(dropped)
}

fn intent_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let bytes: i64 = connection
        .prepare_cached("SELECT coalesce(sum(length(value)), 0) FROM intents")?
        .query_row([], |row| row.get(0))?;
    Ok(unsigned(bytes))
}

/// Returns how much of the file is used, including what is not committed yet.
fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let pages = pragma(connection, "page_count")?.saturating_sub(pragma(connection, "freelist_count")?);
    Ok(pages.saturating_mul(pragma(connection, "page_size")?))
}

/// Returns how much of the file is unused.
fn unused_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    Ok(pragma(connection, "freelist_count")?.saturating_mul(pragma(connection, "page_size")?))
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    let value = connection
        .prepare_cached(&format!("PRAGMA {name}"))?
        .query_row([], |row| row.get(0))?;
    Ok(unsigned(value))
}

fn signed(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

fn unsigned(sequence: i64) -> u64 {
    u64::try_from(sequence).unwrap_or(0)
}
