//! How many file calls run at once, and what happens to those that do not end.
//!
//! A call to a disk that does not answer (a network file system whose server is gone) keeps its thread until the disk
//! answers, whether it opens a file, asks for its length, reads or writes. Such calls give up their permits, up to
//! a limit, so that calls for other files continue. Reads and writes have separate permits. Once the limit is reached
//! and none of the calls ends, further calls are refused at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use registry_core::{Error, ErrorCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout};

use super::health::closed;

/// How many reads have a permit at once.
const READ_PERMITS: usize = 16;

/// How many reads that do not end may give up their permits.
const HANGING_READS: usize = 128;

/// How many writes have a permit at once, and how many that do not end may give up theirs. An upload that waits
/// for a permit holds its part and what comes after it, so there are as many as hundreds of concurrent uploads need.
const WRITE_PERMITS: usize = 64;
const HANGING_WRITES: usize = 64;

/// The maximum number of threads for file calls: a runtime should have more, by as many as everything else needs.
pub const FILE_THREADS: usize = READ_PERMITS + HANGING_READS + WRITE_PERMITS + HANGING_WRITES;

/// A read that has had its permit for this long gives it up, if another read waits for one.
const PERMIT_LEASE: Duration = Duration::from_millis(250);

/// How long a read may take before its file counts as not answering.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How many such reads of a file there may be before another one is refused at once.
const HANGING_READS_OF_A_FILE: usize = 4;

/// As [`READ_TIMEOUT`], for a write: a sync of a large file may take long.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a caller waits for a read, or for a permit.
const CALLER_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the log reports that the disk does not answer.
const WARNING_INTERVAL: Duration = Duration::from_secs(1);

/// A read that was begun. It continues if this is dropped.
pub(super) type Reading<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// The reads of the files of a root, or the writes.
#[derive(Debug)]
pub(super) struct Reads {
    /// How many there may be, including those that do not end.
    limit: usize,
    /// How long one may take before its file counts as not answering.
    call_timeout: Duration,
    /// How long a caller waits for a read that was begun; `None` for no limit.
    patience: Option<Duration>,
    permits: Arc<Semaphore>,
    hanging: Arc<Semaphore>,
    going_on: Mutex<GoingOn>,
}

#[derive(Debug, Default)]
struct GoingOn {
    last: u64,
    warned_at: Option<Instant>,
    reads: BTreeMap<u64, Read>,
}

/// A read in progress.
#[derive(Debug)]
struct Read {
    path: Arc<PathBuf>,
    begun: Instant,
    has_own_permit: bool,
    /// The permit, or that of the hanging reads once the read gave its own up.
    permit: OwnedSemaphorePermit,
}

impl Reads {
    /// Creates the permits of reads.
    pub(super) fn new() -> Self {
        Self::with(READ_PERMITS, HANGING_READS, READ_TIMEOUT, Some(CALLER_TIMEOUT))
    }

    /// Creates the permits of writes. A write that was begun is waited for, however long it takes.
    pub(super) fn of_writes() -> Self {
        Self::with(WRITE_PERMITS, HANGING_WRITES, WRITE_TIMEOUT, None)
    }

    fn with(permits: usize, hanging: usize, call_timeout: Duration, patience: Option<Duration>) -> Self {
        Self {
            limit: permits.saturating_add(hanging),
            call_timeout,
            patience,
            permits: Arc::new(Semaphore::new(permits)),
            hanging: Arc::new(Semaphore::new(hanging)),
            going_on: Mutex::default(),
        }
    }

    /// Begins a read of a file on a thread that may block: at once, or when it has a permit and is polled.
    ///
    /// The future returns [`ErrorCode::Unavailable`] if the file does not answer, or no turn becomes free.
    pub(super) fn begin<T: Send + 'static>(
        self: &Arc<Self>,
        path: &Arc<PathBuf>,
        read: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Reading<T> {
        let (reads, path) = (Arc::clone(self), Arc::clone(path));
        if reads.is_hung(&path) {
            return Box::pin(std::future::ready(Err(reads.no_answer(&path))));
        }
        match Arc::clone(&reads.permits).try_acquire_owned() {
            Ok(permit) => {
                let running = reads.run(permit, &path, read);
                Box::pin(async move { reads.wait(running, &path).await })
            }
            Err(_) => Box::pin(async move {
                let permit = reads.permit(&path).await?;
                let running = reads.run(permit, &path, read);
                reads.wait(running, &path).await
            }),
        }
    }

    fn run<T: Send + 'static>(
        self: &Arc<Self>,
        permit: OwnedSemaphorePermit,
        path: &Arc<PathBuf>,
        read: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> JoinHandle<Result<T, Error>> {
        let entered = Entered {
            number: self.lock().enter(permit, path),
            reads: Arc::clone(self),
        };
        spawn_blocking(move || {
            let result = read();
            drop(entered);
            result
        })
    }

    /// Waits for a permit, and takes one from a read that does not end.
    async fn permit(&self, path: &Path) -> Result<OwnedSemaphorePermit, Error> {
        let deadline = Instant::now() + CALLER_TIMEOUT;
        while Instant::now() < deadline {
            self.set_aside();
            if self.is_exhausted() {
                break;
            }
            if let Ok(permit) = timeout(PERMIT_LEASE, Arc::clone(&self.permits).acquire_owned()).await {
                return permit.map_err(|_| closed());
            }
        }
        Err(self.no_answer(path))
    }

    async fn wait<T>(&self, running: JoinHandle<Result<T, Error>>, path: &Path) -> Result<T, Error> {
        let joined = match self.patience {
            Some(patience) => match timeout(patience, running).await {
                Ok(joined) => joined,
                Err(_) => return Err(self.no_answer(path)),
            },
            None => running.await,
        };
        joined.unwrap_or_else(|cause| Err(Error::internal(cause)))
    }

    /// Makes reads that have had their permits for long give them up.
    fn set_aside(&self) {
        let mut going_on = self.lock();
        let long = going_on
            .reads
            .values_mut()
            .filter(|read| read.has_own_permit && read.begun.elapsed() > PERMIT_LEASE);
        for read in long {
            let Ok(permit) = Arc::clone(&self.hanging).try_acquire_owned() else {
                return;
            };
            (read.permit, read.has_own_permit) = (permit, false);
        }
    }

    /// Returns whether so many reads of a file do not end that another one is useless.
    fn is_hung(&self, path: &Path) -> bool {
        let going_on = self.lock();
        let of_file = going_on.reads.values().filter(|read| read.path.as_path() == path);
        let hung = of_file.filter(|read| read.begun.elapsed() > self.call_timeout);
        hung.take(HANGING_READS_OF_A_FILE).count() == HANGING_READS_OF_A_FILE
    }

    /// Returns whether there are as many as there may be, and none of them ends.
    fn is_exhausted(&self) -> bool {
        let going_on = self.lock();
        let mut reads = going_on.reads.values();
        going_on.reads.len() >= self.limit && reads.all(|read| read.begun.elapsed() > self.call_timeout)
    }

    /// Logs which file does not answer, and returns the answer to the caller.
    fn no_answer(&self, path: &Path) -> Error {
        let mut going_on = self.lock();
        if going_on
            .warned_at
            .is_none_or(|warned_at| warned_at.elapsed() >= WARNING_INTERVAL)
        {
            going_on.warned_at = Some(Instant::now());
            let oldest = going_on.reads.values().next();
            let hangs = oldest.map_or(path, |read| read.path.as_path());
            let seconds = oldest.map_or(0, |read| read.begun.elapsed().as_secs());
            tracing::warn!(
                path = %path.display(),
                hangs = %hangs.display(),
                seconds,
                calls = going_on.reads.len(),
                "the disk does not answer"
            );
        }
        Error::new(
            ErrorCode::Unavailable,
            "the registry's disk does not answer; try again later",
        )
        .with_field("Retry-After", "10")
    }

    fn lock(&self) -> MutexGuard<'_, GoingOn> {
        self.going_on.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GoingOn {
    fn enter(&mut self, permit: OwnedSemaphorePermit, path: &Arc<PathBuf>) -> u64 {
        self.last = self.last.wrapping_add(1);
        let read = Read {
            path: Arc::clone(path),
            begun: Instant::now(),
            has_own_permit: true,
            permit,
        };
        self.reads.insert(self.last, read);
        self.last
    }
}

/// Represents a read until it has ended.
struct Entered {
    number: u64,
    reads: Arc<Reads>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let ended = self.reads.lock().reads.remove(&self.number);
        drop(ended.map(|read| read.permit));
    }
}
