//! How many reads of files go on at once, and what is done about those that do not end.
//!
//! A read of a disk that does not answer (a network file system whose server is gone) keeps its thread until it does.
//! Such reads leave their turns to others, up to a bound, so that the reads of other files go on.

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

/// How many reads have a turn at once.
const TURNS: usize = 16;

/// How many reads that do not end may leave their turns to others.
const HANGING: usize = 128;

/// The most threads that reads of files take: those of a runtime should be more by what everything else needs.
pub const READ_THREADS: usize = TURNS + HANGING;

/// A read that has its turn for so long leaves it, if somebody waits for one.
const TURN: Duration = Duration::from_millis(250);

/// How long a read may take before its file counts as one that does not answer.
const SILENCE: Duration = Duration::from_secs(10);

/// How many such reads of a file there may be before another one is refused at once.
const SILENT_READS: usize = 4;

/// How long somebody waits for a read.
const PATIENCE: Duration = Duration::from_secs(30);

/// A read that was begun. It goes on if this is dropped.
pub(super) type Reading<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// The reads of the files of a root.
#[derive(Debug)]
pub(super) struct Reads {
    turns: Arc<Semaphore>,
    hanging: Arc<Semaphore>,
    going_on: Mutex<GoingOn>,
}

#[derive(Debug, Default)]
struct GoingOn {
    last: u64,
    reads: BTreeMap<u64, Read>,
}

/// A read that goes on.
#[derive(Debug)]
struct Read {
    path: Arc<PathBuf>,
    begun: Instant,
    has_turn: bool,
    /// The turn, or what stands for a read that left it.
    permit: OwnedSemaphorePermit,
}

impl Default for Reads {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(TURNS)),
            hanging: Arc::new(Semaphore::new(HANGING)),
            going_on: Mutex::default(),
        }
    }
}

impl Reads {
    /// Begins a read of a file on a thread that may block: at once, or when it has its turn and is polled.
    ///
    /// The future returns [`ErrorCode::Unavailable`] where the file does not answer, or no turn comes.
    pub(super) fn begin<T: Send + 'static>(
        self: &Arc<Self>,
        path: &Arc<PathBuf>,
        read: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Reading<T> {
        let (reads, path) = (Arc::clone(self), Arc::clone(path));
        if reads.is_silent(&path) {
            return Box::pin(std::future::ready(Err(no_answer(&path))));
        }
        match Arc::clone(&reads.turns).try_acquire_owned() {
            Ok(turn) => {
                let running = reads.run(turn, &path, read);
                Box::pin(wait(running, path))
            }
            Err(_) => Box::pin(async move {
                let turn = reads.turn(&path).await?;
                let running = reads.run(turn, &path, read);
                wait(running, path).await
            }),
        }
    }

    fn run<T: Send + 'static>(
        self: &Arc<Self>,
        turn: OwnedSemaphorePermit,
        path: &Arc<PathBuf>,
        read: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> JoinHandle<Result<T, Error>> {
        let entered = Entered {
            number: self.lock().enter(turn, path),
            reads: Arc::clone(self),
        };
        spawn_blocking(move || {
            let result = read();
            drop(entered);
            result
        })
    }

    /// Waits for a turn, and takes it from a read that does not end.
    async fn turn(&self, path: &Path) -> Result<OwnedSemaphorePermit, Error> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.set_aside();
            if let Ok(turn) = timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await {
                return turn.map_err(|_| closed());
            }
        }
        Err(no_answer(path))
    }

    /// Lets reads that have their turn for long leave it.
    fn set_aside(&self) {
        let mut going_on = self.lock();
        let long = going_on
            .reads
            .values_mut()
            .filter(|read| read.has_turn && read.begun.elapsed() > TURN);
        for read in long {
            let Ok(permit) = Arc::clone(&self.hanging).try_acquire_owned() else {
                return;
            };
            (read.permit, read.has_turn) = (permit, false);
        }
    }

    /// Tells whether so many reads of a file do not end that there is no use in another one.
    fn is_silent(&self, path: &Path) -> bool {
        let going_on = self.lock();
        let of_file = going_on.reads.values().filter(|read| read.path.as_path() == path);
        let silent = of_file.filter(|read| read.begun.elapsed() > SILENCE);
        silent.take(SILENT_READS).count() == SILENT_READS
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
            has_turn: true,
            permit,
        };
        self.reads.insert(self.last, read);
        self.last
    }
}

/// Stands for a read until it ended.
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

async fn wait<T>(running: JoinHandle<Result<T, Error>>, path: Arc<PathBuf>) -> Result<T, Error> {
    match timeout(PATIENCE, running).await {
        Ok(result) => result.unwrap_or_else(|cause| Err(Error::internal(cause))),
        Err(_) => Err(no_answer(&path)),
    }
}

fn no_answer(path: &Path) -> Error {
    tracing::warn!(path = %path.display(), "the disk does not answer a read");
    Error::new(
        ErrorCode::Unavailable,
        "the registry's disk does not answer; try again later",
    )
    .with_field("Retry-After", "10")
}
