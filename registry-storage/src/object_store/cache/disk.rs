//! The calls to the disk of a cache, which may be full, broken or not answer.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

/// How many calls there are at once. Those to a disk that does not answer keep their threads.
const CALLS_AT_ONCE: usize = 64;

/// How long a client waits for a file before it gets content from the bucket.
const READ_PATIENCE: Duration = Duration::from_secs(5);

/// How long a write may take, with the sync of a large file.
const WRITE_PATIENCE: Duration = Duration::from_mins(1);

/// How long a disk is left alone that failed.
const REST: Duration = Duration::from_mins(1);

/// A disk.
#[derive(Debug)]
pub(super) struct Disk {
    calls: Arc<Semaphore>,
    pub(super) reads: Health,
    pub(super) writes: Health,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self {
            calls: Arc::new(Semaphore::new(CALLS_AT_ONCE)),
            reads: Health::new("read"),
            writes: Health::new("written"),
        }
    }

    /// Reads on a thread that may block. The read goes on if this is dropped, or does not wait for it any longer.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.call(READ_PATIENCE, call).await
    }

    /// Writes as [`read`](Self::read) reads.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.call(WRITE_PATIENCE, call).await
    }

    async fn call<T: Send + 'static>(
        &self,
        patience: Duration,
        call: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let made = async {
            let permit = Arc::clone(&self.calls)
                .acquire_owned()
                .await
                .map_err(io::Error::other)?;
            let calling = spawn_blocking(move || {
                let result = call();
                drop(permit);
                result
            });
            calling.await.map_err(io::Error::other)?
        };
        timeout(patience, made).await.unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the disk does not answer",
            ))
        })
    }
}

/// Whether the disk works. A failure is logged once, until it works again.
#[derive(Debug)]
pub(super) struct Health {
    /// What fails, as in "cannot be read".
    what: &'static str,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rests_until: Option<Instant>,
    is_logged: bool,
}

impl Health {
    fn new(what: &'static str) -> Self {
        let state = Mutex::default();
        Self { what, state }
    }

    /// Returns whether it failed a moment ago.
    pub(super) fn is_resting(&self) -> bool {
        self.with(|state| state.rests_until.is_some_and(|until| Instant::now() < until))
    }

    pub(super) fn failed(&self, folder: &Path, error: &io::Error) {
        let is_logged = self.with(|state| {
            state.rests_until = Some(Instant::now() + REST);
            std::mem::replace(&mut state.is_logged, true)
        });
        if !is_logged {
            tracing::warn!(
                folder = %folder.display(), %error,
                "the cache of blobs cannot be {}; content comes from the bucket", self.what
            );
        }
    }

    pub(super) fn worked(&self, folder: &Path) {
        let was_logged = self.with(|state| {
            state.rests_until = None;
            std::mem::take(&mut state.is_logged)
        });
        if was_logged {
            tracing::info!(folder = %folder.display(), "the cache of blobs can be {} again", self.what);
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
