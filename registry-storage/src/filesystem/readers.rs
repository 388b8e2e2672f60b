//! The connections that read.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use registry_core::Error;
use rusqlite::Connection;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::failure::read_error;
use super::health::closed;
use super::queries::{self, Medium};

/// How many reads run at once.
const PARALLEL_READS: usize = 4;

/// A few connections, opened before anything is read: later it may not be possible to open a file.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    medium: Medium,
    idle: Mutex<Idle>,
    permits: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Idle {
    connections: Vec<Connection>,
    /// How many times all connections were replaced.
    generation: u64,
}

impl Readers {
    pub(super) fn open(path: PathBuf, medium: Medium) -> rusqlite::Result<Self> {
        let connections = open_all(&path, medium)?;
        Ok(Self {
            path,
            medium,
            idle: Mutex::new(Idle {
                connections,
                generation: 0,
            }),
            permits: Arc::new(Semaphore::new(PARALLEL_READS)),
        })
    }

    /// Returns where the records are.
    pub(super) const fn medium(&self) -> Medium {
        self.medium
    }

    /// Reads on a thread that may block. Each statement is its own read transaction.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| closed())?;
        let readers = Arc::clone(self);
        let read = move || {
            let result = readers
                .run(query)
                .map_err(|cause| read_error(&readers.path, cause));
            drop(permit);
            result
        };
        spawn_blocking(read)
            .await
            .unwrap_or_else(|cause| Err(Error::internal(cause)))
    }

    /// Refuses further reads and closes the connections, after the reads in progress.
    pub(super) async fn close(&self) {
        let readers = u32::try_from(PARALLEL_READS).unwrap_or_default();
        if let Ok(permits) = self.permits.acquire_many(readers).await {
            self.permits.close();
            drop(permits);
        }
        self.idle().connections.clear();
    }

    /// Closes the connections; those in use are closed once they are not. Until they are reopened, each read opens its
    /// own.
    pub(super) fn close_idle(&self) {
        let mut idle = self.idle();
        idle.connections.clear();
        idle.generation = idle.generation.wrapping_add(1);
    }

    /// Opens connections to replace those that were closed.
    pub(super) fn open_idle(&self) -> rusqlite::Result<()> {
        let connections = open_all(&self.path, self.medium)?;
        self.idle().connections = connections;
        Ok(())
    }

    fn run<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let (connection, generation) = {
            let mut idle = self.idle();
            (idle.connections.pop(), idle.generation)
        };
        let connection = connection.map_or_else(|| queries::open_reader(&self.path, self.medium), Ok)?;
        let result = query(&connection);
        let mut idle = self.idle();
        if idle.generation == generation && idle.connections.len() < PARALLEL_READS {
            idle.connections.push(connection);
        }
        result
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_all(path: &Path, medium: Medium) -> rusqlite::Result<Vec<Connection>> {
    (0..PARALLEL_READS)
        .map(|_| queries::open_reader(path, medium))
        .collect()
}
