//! One process that writes alone: for a store that does not keep conditional writes.
//!
//! Nothing but this process can then say which of two writers wins. It lets one at a time have a key, reads what is there,
//! compares, and writes without a condition. A lock in the store ([`lock`]) keeps every other process from writing, and
//! the process that has it stops to write once it cannot be sure of that ([`lease`]).

mod lease;
mod lock;
#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use registry_core::Error;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use self::lease::Lease;
pub use self::lock::WriterError;
use super::error::convert;
use super::records::holds;
use super::{ObjectStoreBackend, timed_out};
use crate::backend::{Condition, Version};
use crate::background::Background;
use crate::key::Key;
use crate::unique::unique;

/// How many keys are written at once at most: keys share this many locks.
const LOCKS: usize = 256;

/// How long reading, comparing and writing one record may take. The lock of a process is believed for longer than that after
/// its last beat.
const WRITE_LIMIT: Duration = Duration::from_secs(6);

/// What a process needs that writes alone.
pub(super) struct SingleWriter {
    /// The machine, for the person who reads that the store is taken.
    host: String,
    process: u32,
    /// Tells this process from every other one.
    id: Uuid,
    lease: Arc<Lease>,
    /// The store was found not to keep conditions, so this process decides them.
    decides: AtomicBool,
    hasher: RandomState,
    /// Held over requests to the store, so they are not those of the standard library: who waits for one gives the thread to
    /// others.
    keys: Box<[Arc<tokio::sync::Mutex<()>>; LOCKS]>,
    /// What says that this process runs. Never locked over an await.
    beat: Mutex<Option<Background>>,
}

impl SingleWriter {
    fn new(host: String, process: u32) -> Self {
        Self {
            host,
            process,
            id: unique(),
            lease: Arc::default(),
            decides: AtomicBool::new(false),
            hasher: RandomState::new(),
            keys: Box::new(std::array::from_fn(|_| Arc::default())),
            beat: Mutex::default(),
        }
    }

    pub(super) fn decides(&self) -> bool {
        self.decides.load(Ordering::Relaxed)
    }

    pub(super) fn set_decides(&self, decides: bool) {
        self.decides.store(decides, Ordering::Relaxed);
    }

    /// Returns why nothing is written; `None` while this process is the writer.
    pub(super) fn stopped(&self) -> Option<String> {
        self.lease.stopped()
    }

    /// Returns whether this process never was the writer, so that it only reads.
    pub(super) fn only_reads(&self) -> bool {
        self.lease.is_unclaimed()
    }

    /// Fails unless this process is the writer.
    pub(super) fn require(&self) -> Result<(), Error> {
        self.lease.require()
    }

    fn lock_of(&self, key: &Key) -> &Arc<tokio::sync::Mutex<()>> {
        &self.keys[self.hasher.hash_one(key) as usize % LOCKS]
    }

    /// Waits until no change of a key goes on that nobody waits for any more, so that a read does not show what was before it.
    pub(super) async fn settle(&self, key: &Key) {
        if self.decides() {
            drop(self.lock_of(key).lock().await);
        }
    }

    /// Changes a record while no other change of this process has its key.
    ///
    /// Cancel safety: the change goes on without whoever waited for it, and keeps the key until it is over. A client that
    /// goes away would leave a write on its way otherwise, which could replace that of the next writer.
    async fn alone<T: Send + 'static>(
        &self,
        key: &Key,
        change: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.require()?;
        let held = Arc::clone(self.lock_of(key)).lock_owned().await;
        let lease = Arc::clone(&self.lease);
        let (answer, answered) = oneshot::channel();
        let changing = async move {
            let _held = held;
            // It may have waited for long.
            let changed = match lease.require() {
                Ok(()) => timeout(WRITE_LIMIT, change).await,
                Err(stopped) => Ok(Err(stopped)),
            };
            let is_over = changed.is_ok();
            let changed = changed.unwrap_or_else(|elapsed| Err(convert(timed_out(elapsed))));
            // Nobody may wait for it any more.
            answer.send(changed).ok();
            if !is_over {
                // The store may still do it, after what comes next to this key.
                sleep(WRITE_LIMIT).await;
            }
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "each has one of a fixed number of locks and ends in time, and a release waits for the locks"
        )]
        tokio::spawn(changing);
        answered.await.unwrap_or_else(|ended| Err(Error::internal(ended)))
    }

    fn start_beat(&self, work: impl Future<Output = ()> + Send + 'static) {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner) = Some(Background::start(work));
    }

    fn take_beat(&self) -> Option<Background> {
        self.beat.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Display for SingleWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.process, self.host)
    }
}

impl ObjectStoreBackend {
    /// Declares that only this process will write to the store, until it [closes](crate::Backend::close) it. Then the store
    /// needs not keep conditional writes: [`probe_promises`](Self::probe_promises) finds out whether it does, and this
    /// process decides them if it does not.
    ///
    /// The process claims the store with [`begin_writing`](Self::begin_writing); before, it is read-only. `host` and
    /// `process` are for the people who read that it has the store.
    #[must_use]
    pub fn with_single_writer(mut self, host: &str, process: u32) -> Self {
        self.single_writer = Some(Arc::new(SingleWriter::new(host.to_owned(), process)));
        self
    }

    /// As [`with_single_writer`](Self::with_single_writer), as if it had claimed a store that keeps no condition: the conformance
    /// kits need not wait for a claim.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn deciding_conditions(self) -> Self {
        let backend = self.with_single_writer("a test", 0);
        if let Some(writer) = &backend.single_writer {
            writer.lease.hold_for(Duration::from_hours(1));
            writer.set_decides(true);
        }
        backend
    }

    /// Returns whether this process decides conditions, because it is the only writer and the store does not keep them.
    #[must_use]
    pub fn decides_conditions(&self) -> bool {
        self.single_writer.as_ref().is_some_and(|writer| writer.decides())
    }

    /// The same store, without regard to who writes: for the lock itself, and for what has a key to itself.
    fn unguarded(&self) -> Self {
        Self {
            single_writer: None,
            ..self.clone()
        }
    }

    /// Fails if another process may be writing.
    pub(super) fn require_writer(&self) -> Result<(), Error> {
        self.single_writer
            .as_ref()
            .map_or(Ok(()), |writer| writer.require())
    }

    /// Waits for what only this process knows of: see [`SingleWriter::settle`].
    pub(super) async fn settle(&self, key: &Key) {
        if let Some(writer) = &self.single_writer {
            writer.settle(key).await;
        }
    }

    /// As [`put_record`](Self::put_record), which the only writer calls.
    pub(super) async fn put_alone(
        &self,
        writer: &SingleWriter,
        key: &Key,
        value: Bytes,
        condition: Condition,
    ) -> Result<Option<Version>, Error> {
        let store = self.unguarded();
        let decides = writer.decides();
        let changed = key.clone();
        let put = async move {
            if !decides {
                // Two writers that meet are what such a store may still get wrong now and then.
                return store.put_on_condition(&changed, value, condition).await;
            }
            if condition != Condition::Any {
                let stored = store.get_record(&changed).await?;
                if !holds(&condition, stored.as_ref()) {
                    return Ok(None);
                }
            }
            store.put_on_condition(&changed, value, Condition::Any).await
        };
        writer.alone(key, put).await
    }

    /// As [`purge_record`](Self::purge_record), which the only writer calls and which decides conditions: nobody else writes between the
    /// look and the delete.
    pub(super) async fn purge_alone(
        &self,
        writer: &SingleWriter,
        key: &Key,
        version: &Version,
    ) -> Result<bool, Error> {
        let store = self.unguarded();
        let (key, version) = (key.clone(), version.clone());
        let purged = key.clone();
        let lease = Arc::clone(&writer.lease);
        let purge = async move {
            let stored = store.get_record(&purged).await?;
            if stored.is_some_and(|stored| stored.version != version) {
                return Ok(false);
            }
            // It may have slept since, and another process has the store.
            lease.require()?;
            store.delete_object(&store.path(purged.as_str())?).await?;
            Ok(true)
        };
        writer.alone(&key, purge).await
    }

    /// Removes a record, if it is there.
    pub(super) async fn remove_record(&self, key: &Key) -> Result<(), Error> {
        let path = self.path(key.as_str())?;
        let Some(writer) = &self.single_writer else {
            return self.delete_object(&path).await;
        };
        let store = self.unguarded();
        let remove = async move { store.delete_object(&path).await };
        writer.alone(key, remove).await
    }
}
