//! The connections that read.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use registry_core::Error;
use rusqlite::Connection;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::health::{closed, read_error};
use super::queries;

/// How many reads go on at once.
const READERS: usize = 4;

/// A few connections, opened when they are needed first.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            idle: Mutex::default(),
            permits: Arc::new(Semaphore::new(READERS)),
        }
    }

    /// Reads on a thread that may block. Each statement is a read transaction of its own.
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

    /// Refuses further reads and closes the connections, after the reads that go on.
    pub(super) async fn close(&self) {
        let readers = u32::try_from(READERS).unwrap_or_default();
        if let Ok(permits) = self.permits.acquire_many(readers).await {
            self.permits.close();
            drop(permits);
        }
        self.idle().clear();
    }

    fn run<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let idle = self.idle().pop();
        let connection = idle.map_or_else(|| queries::open_reader(&self.path), Ok)?;
        let result = query(&connection)?;
        self.idle().push(connection);
        Ok(result)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
