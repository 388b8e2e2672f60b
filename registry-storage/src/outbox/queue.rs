//! The file of an outbox.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::OutboxEntry;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS entries (sequence INTEGER PRIMARY KEY AUTOINCREMENT, value BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS consumers (name TEXT PRIMARY KEY, sequence INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// How long another process that has the file is waited for.
const BUSY: Duration = Duration::from_secs(5);

/// Entries and how far each consumer is.
#[derive(Debug)]
pub(super) struct Queue {
    connection: Connection,
    limit: u64,
    first: u64,
    end: u64,
}

impl Queue {
    pub(super) fn open(path: &Path, limit: u64, consumers: &[&str]) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        // What is committed survives the process; the worker syncs it soon after.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        Self::over(connection, limit, consumers)
    }

    pub(super) fn in_memory(limit: u64, consumers: &[&str]) -> rusqlite::Result<Self> {
        Self::over(Connection::open_in_memory()?, limit, consumers)
    }

    fn over(mut connection: Connection, limit: u64, consumers: &[&str]) -> rusqlite::Result<Self> {
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
            limit: limit.max(1),
            first: 0,
            end,
        };
        // The limit may be smaller than the last time.
        queue.write(&[], &[])?;
        Ok(queue)
    }

    /// Returns the place of the oldest entry, which is after the end where there is none.
    pub(super) const fn first(&self) -> u64 {
        self.first
    }

    /// Returns the place of the newest entry.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// Appends values, notes how far consumers are, forgets what all have and drops what is too much, at once. Returns
    /// how many entries were dropped that some consumer did not have.
    pub(super) fn write(
        &mut self,
        values: &[Vec<u8>],
        acknowledged: &[(String, u64)],
    ) -> rusqlite::Result<u64> {
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO entries (value) VALUES (?1)")?;
            for value in values {
                insert.execute([value])?;
            }
            let mut advance = transaction
                .prepare_cached("UPDATE consumers SET sequence = max(sequence, ?2) WHERE name = ?1")?;
            for (consumer, sequence) in acknowledged {
                advance.execute(params![consumer, signed(*sequence)])?;
            }
        }
        let end = end_of(&transaction)?;
        let behind: Option<i64> =
            transaction.query_row("SELECT min(sequence) FROM consumers", [], |row| row.get(0))?;
        transaction.execute(
            "DELETE FROM entries WHERE sequence <= ?1",
            [behind.unwrap_or(i64::MAX)],
        )?;
        let dropped = transaction.execute(
            "DELETE FROM entries WHERE sequence <= ?1",
            [signed(end.saturating_sub(self.limit))],
        )?;
        let first: Option<i64> =
            transaction.query_row("SELECT min(sequence) FROM entries", [], |row| row.get(0))?;
        transaction.commit()?;
        self.end = end;
        self.first = first.map_or_else(|| end.saturating_add(1), unsigned);
        Ok(dropped as u64)
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

    /// Makes what was written survive the loss of power.
    pub(super) fn sync(&self) -> rusqlite::Result<()> {
        // In memory this does nothing.
        self.connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
    }
}

/// Returns the place of the newest entry there ever was.
fn end_of(connection: &Connection) -> rusqlite::Result<u64> {
    let end: Option<i64> = connection
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'entries'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(end.map_or(0, unsigned))
}

fn signed(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

fn unsigned(sequence: i64) -> u64 {
    u64::try_from(sequence).unwrap_or(0)
}
