//! Open files. All readers of the same bytes share one descriptor, and the number of descriptors is bounded, so that
//! clients that stall leave some to everything else.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use registry_core::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::disk::DiskFile;
use super::health::{closed, try_again};
use crate::bytes_name::BytesName;

/// How long a request that needs a file waits until another file is closed.
const FILE_TIMEOUT: Duration = Duration::from_secs(5);

/// The open files of a root, and how many may be open.
#[derive(Debug)]
pub(super) struct OpenedFiles {
    read: Arc<Table>,
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

type Table = Mutex<HashMap<BytesName, Weak<OpenedBytes>>>;

/// A file that is open for reading. It is closed when its last reader is done.
#[derive(Debug)]
pub(super) struct OpenedBytes {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) path: Arc<PathBuf>,
    name: BytesName,
    table: Arc<Table>,
    _permit: OwnedSemaphorePermit,
}

impl OpenedFiles {
    /// Allows `limit` files to be open at once, three quarters of them for reading.
    pub(super) fn new(limit: usize) -> Self {
        let writes = (limit / 4).clamp(1, Semaphore::MAX_PERMITS);
        let reads = limit.saturating_sub(writes).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            read: Arc::default(),
            reads: Arc::new(Semaphore::new(reads)),
            writes: Arc::new(Semaphore::new(writes)),
        }
    }

    /// Waits until one more file may be opened for reading.
    pub(super) async fn may_read(&self) -> Result<OwnedSemaphorePermit, Error> {
        permit(&self.reads).await
    }

    /// Waits until one more file may be opened for writing.
    pub(super) async fn may_write(&self) -> Result<OwnedSemaphorePermit, Error> {
        permit(&self.writes).await
    }

    /// Returns a file that is being read already.
    pub(super) fn find(&self, name: &BytesName) -> Option<Arc<OpenedBytes>> {
        lock(&self.read).get(name)?.upgrade()
    }

    /// Keeps a file that was opened, and returns the one to read.
    pub(super) fn keep(
        &self,
        name: &BytesName,
        path: Arc<PathBuf>,
        file: Arc<dyn DiskFile>,
        permit: OwnedSemaphorePermit,
    ) -> Arc<OpenedBytes> {
        let opened = Arc::new(OpenedBytes {
            file,
            path,
            name: name.clone(),
            table: Arc::clone(&self.read),
            _permit: permit,
        });
        let mut table = lock(&self.read);
        // If several readers open it at once, the first one's file is used.
        if let Some(first) = table.get(name).and_then(Weak::upgrade) {
            drop(table);
            return first;
        }
        table.insert(name.clone(), Arc::downgrade(&opened));
        opened
    }

    /// Prevents new reads of a file that was removed.
    pub(super) fn forget(&self, name: &BytesName) {
        lock(&self.read).remove(name);
    }
}

impl Drop for OpenedBytes {
    fn drop(&mut self) {
        let mut table = lock(&self.table);
        if table
            .get(&self.name)
            .is_some_and(|opened| opened.strong_count() == 0)
        {
            table.remove(&self.name);
        }
    }
}

fn lock(table: &Table) -> MutexGuard<'_, HashMap<BytesName, Weak<OpenedBytes>>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn permit(semaphore: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Error> {
    if let Ok(permit) = Arc::clone(semaphore).try_acquire_owned() {
        return Ok(permit);
    }
    match timeout(FILE_TIMEOUT, Arc::clone(semaphore).acquire_owned()).await {
        Ok(permit) => permit.map_err(|_| closed()),
        Err(_) => Err(try_again(
            "The registry has as many files open as it may; try again.",
        )),
    }
}
