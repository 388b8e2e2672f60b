//! Records in SQLite: one thread writes, a few connections read, and a cache is in front of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;

use registry_core::Error;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use uuid::Uuid;

use super::BYTES_FOLDER;
use super::cache::{KEPT_VALUE_BYTES, RecordCache};
use super::command::{Command, Job};
use super::disk::Disk;
use super::health::{WriteHealth, closed};
use super::lock::RootLock;
use super::migration::{is_unfinished, migrate};
use super::open_error::OpenError;
use super::queries::{self, Looked, Medium};
use super::readers::Readers;
use super::reserve::Reserve;
use super::writer::{QUEUED_TRANSACTIONS, Request, Writer};
use crate::backend::{Again, Durability, RecordEntry, RecordTransaction, Transaction, VersionedRecord};
use crate::key::Key;

/// How many values that are not kept in memory are read at once.
const LARGE_READS: usize = 2;

/// What the thread shares with the rest of the store.
#[derive(Debug)]
pub(super) struct WriterParts {
    pub(super) health: Arc<WriteHealth>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) lock: Arc<RootLock>,
    pub(super) reserve: Arc<Reserve>,
}

/// Records that were opened.
#[derive(Debug)]
pub(super) struct Opened {
    /// The connection that writes.
    pub(super) connection: Connection,
    pub(super) medium: Medium,
    pub(super) path: PathBuf,
    /// The file is a copy.
    pub(super) is_copy: bool,
}

/// The records of one root. When it is dropped, the thread runs the waiting transactions and ends.
#[derive(Debug)]
pub(super) struct RecordStore {
    cache: Arc<RecordCache>,
    readers: Arc<Readers>,
    large_reads: Arc<Semaphore>,
    commands: mpsc::Sender<Command>,
    /// How the thread ended.
    ended: watch::Receiver<Option<Result<(), Error>>>,
    commits: Arc<AtomicU64>,
}

impl RecordStore {
    /// Starts the thread that writes. Blocks.
    pub(super) fn start(opened: Opened, cache_capacity: u64, parts: WriterParts) -> Result<Self, OpenError> {
        let Opened {
            connection,
            medium,
            path,
            is_copy: _,
        } = opened;
        let WriterParts {
            health,
            disk,
            lock,
            reserve,
        } = parts;
        disk.records_synced(&path);
        let cache = Arc::new(RecordCache::new(cache_capacity));
        let readers = Readers::open(path.clone(), medium).map_err(|cause| OpenError::Records {
            path: path.clone(),
            cause,
        })?;
        let readers = Arc::new(readers);
        let commits = Arc::new(AtomicU64::new(0));
        let (commands, waiting) = mpsc::channel(QUEUED_TRANSACTIONS);
        health.set_writer(commands.downgrade());
        let (end, ended) = watch::channel(None);
        let writer = Writer {
            connection: Some(connection),
            path: path.clone(),
            readers: Arc::clone(&readers),
            cache: Arc::clone(&cache),
            health,
            disk,
            lock,
            reserve,
            next_version: Uuid::new_v4().as_u64_pair().0.cast_signed(),
            is_syncing: true,
            has_unsynced: false,
            last_batch: 0,
            commits: Arc::clone(&commits),
            last_change: None,
            tried: None,
        };
        thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || end.send_replace(Some(writer.run(waiting))))
            .map_err(|cause| OpenError::Disk { path, cause })?;
        Ok(Self {
            cache,
            readers,
            large_reads: Arc::new(Semaphore::new(LARGE_READS)),
            commands,
            ended,
            commits,
        })
    }

    pub(super) async fn get(&self, key: &Key) -> Result<Option<VersionedRecord>, Error> {
        self.check_open()?;
        if let Some(known) = self.cache.get(key) {
            return Ok(known);
        }
        let (cache, wanted) = (Arc::clone(&self.cache), key.clone());
        let read = move |connection: &Connection| {
            // Another read may have read it while this one waited.
            if let Some(known) = cache.get(&wanted) {
                return Ok(Looked::Record(known));
            }
            let ticket = cache.begin_read(&wanted);
            Ok(match queries::get_small(connection, &wanted, KEPT_VALUE_BYTES)? {
                Looked::Record(found) => Looked::Record(cache.end_read(ticket, &wanted, found)),
                large => large,
            })
        };
        match self.readers.read(read).await? {
            Looked::Record(found) => Ok(found),
            Looked::Large(size) => self.get_large(key, size).await,
        }
    }

    /// Reads a large value: a few at once, into memory that is allocated here. Each reading thread would keep some of
    /// the memory that it once allocated.
    async fn get_large(&self, key: &Key, size: usize) -> Result<Option<VersionedRecord>, Error> {
        let permit = Arc::clone(&self.large_reads).acquire_owned().await;
        let permit = permit.map_err(|_| closed())?;
        if let Some(known) = self.cache.get(key) {
            return Ok(known);
        }
        let buffer = Vec::with_capacity(size);
        let (cache, wanted) = (Arc::clone(&self.cache), key.clone());
        let read = move |connection: &Connection| {
            let ticket = cache.begin_read(&wanted);
            let found = queries::get_large(connection, &wanted, buffer)?;
            let found = cache.end_read(ticket, &wanted, found);
            drop(permit);
            Ok(found)
        };
        self.readers.read(read).await
    }

    /// Reads several records; those that are not in memory are read in one go.
    pub(super) async fn get_all(&self, keys: &[Key]) -> Result<Vec<Option<VersionedRecord>>, Error> {
        self.check_open()?;
        let mut found: Vec<Option<Option<VersionedRecord>>> =
            keys.iter().map(|key| self.cache.get(key)).collect();
        let unknown = keys.iter().zip(&found).filter(|(_, known)| known.is_none());
        let (wanted, tickets): (Vec<Key>, Vec<_>) = unknown
            .map(|(key, _)| (key.clone(), self.cache.begin_read(key)))
            .unzip();
        if !wanted.is_empty() {
            let read = move |connection: &Connection| {
                let values = wanted.into_iter().map(|key| {
                    let value = queries::get(connection, &key)?;
                    Ok((key, value))
                });
                values.collect::<rusqlite::Result<Vec<_>>>()
            };
            let read = self.readers.read(read).await?;
            let places = found.iter_mut().filter(|known| known.is_none());
            for ((place, ticket), (key, value)) in places.zip(tickets).zip(read) {
                *place = Some(self.cache.end_read(ticket, &key, value));
            }
        }
        Ok(found.into_iter().map(Option::flatten).collect())
    }

    /// Returns the sizes of several values, in one go.
    pub(super) async fn sizes(&self, keys: &[Key]) -> Result<Vec<Option<u64>>, Error> {
        self.check_open()?;
        let known = keys.iter().map(|key| self.cache.get(key));
        let known: Option<Vec<Option<u64>>> = known
            .map(|known| known.map(|stored| stored.map(|stored| stored.value.len() as u64)))
            .collect();
        if let Some(known) = known {
            return Ok(known);
        }
        let keys = keys.to_vec();
        self.readers
            .read(move |connection| {
                keys.iter()
                    .map(|key| Ok(queries::stat(connection, key)?.map(|(stat, _)| stat.size)))
                    .collect()
            })
            .await
    }

    pub(super) async fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<RecordEntry>, Error> {
        self.check_open()?;
        let (prefix, after) = (prefix.clone(), after.cloned());
        self.readers
            .read(move |connection| queries::list(connection, &prefix, after.as_ref(), limit))
            .await
    }

    pub(super) async fn transact<S: Transaction>(
        &self,
        durability: Durability,
        transaction: S,
    ) -> Result<S::Output, Error> {
        let (requester, answer) = oneshot::channel();
        self.submit(durability, Box::new(Request::new(transaction, requester)))
            .await?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Reads something from the file, not from the cache, with a reading connection and with the writer thread.
    pub(super) async fn probe(&self) -> Result<(), Error> {
        self.check_open()?;
        self.readers.read(queries::probe).await?;
        self.transact(Durability::Deferred, Probe).await
    }

    /// Queues a job, and waits while the queue is full.
    pub(super) async fn submit(&self, durability: Durability, job: Box<dyn Job>) -> Result<(), Error> {
        self.commands
            .send(Command::Run(durability, job))
            .await
            .map_err(|_| closed())
    }

    /// Runs the waiting transactions, makes everything durable and ends the thread.
    pub(super) async fn close(&self) -> Result<(), Error> {
        self.readers.close().await;
        // It may have been stopped before.
        drop(self.commands.send(Command::Stop).await);
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(result) => (*result).clone().unwrap_or(Ok(())),
            Err(cause) => Err(Error::internal(cause)),
        }
    }

    /// Returns how many commits there were.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.commands.is_closed() {
            Err(closed())
        } else {
            Ok(())
        }
    }
}

/// Asks the writer thread whether it writes.
struct Probe;

impl Transaction for Probe {
    type Output = ();

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Reading(Self))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        records.get(&Key::registry()).await.map(drop)
    }
}

/// Opens the records at `path`, or creates them if that is allowed. Blocks.
pub(super) fn open(path: &Path, medium: Medium, may_create: bool) -> Result<Connection, OpenError> {
    let refused = |cause: rusqlite::Error| {
        let path = path.to_owned();
        match cause.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::Locked { path },
            _ => OpenError::Records { path, cause },
        }
    };
    let mut connection = queries::open_writer(path, medium).map_err(refused)?;
    if queries::format(&connection).map_err(refused)? == 0 {
        if !may_create {
            // The log that had the format was lost: SQLite takes a damaged one for an empty one.
            drop(queries::keep_log(&connection));
            return Err(OpenError::RecordsLost {
                path: path.to_owned(),
                bytes: path.with_file_name(BYTES_FOLDER),
            });
        }
        queries::create(&connection).map_err(refused)?;
    }
    migrate(&mut connection, path)?;
    Ok(connection)
}

/// Opens existing records that no process writes to. Blocks.
pub(super) fn open_unwritten(path: &Path, medium: Medium) -> Result<Connection, OpenError> {
    let refused = |cause| OpenError::Records {
        path: path.to_owned(),
        cause,
    };
    let connection = queries::open_reader(path, medium).map_err(refused)?;
    match queries::format(&connection).map_err(refused)? {
        queries::FORMAT if !is_unfinished(&connection).map_err(refused)? => Ok(connection),
        found if found > queries::FORMAT => Err(OpenError::Newer {
            path: path.to_owned(),
            found,
            known: queries::FORMAT,
        }),
        found => Err(OpenError::Older {
            path: path.to_owned(),
            found,
        }),
    }
}
