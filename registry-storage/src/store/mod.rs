//! The storage protocol: what a registry asks of its storage, on records and bytes of any backend.
//!
//! The facets of [`Storage`](registry_core::Storage) are in [`blobs`], [`uploads`], [`manifests`] and [`lists`].
//!
//! One file for each thing that happens: [`commit`] makes uploaded bytes a blob, [`push`] stores a manifest and its
//! tags, [`mount`] lets another repository read a blob, [`delete`] takes things away. Those are transactions, whose
//! steps are each safe to be the last one; the rest reads. [`adopt`] runs many of them as one.

#[cfg(all(feature = "filesystem", unix))]
pub(crate) mod adopt;
mod blobs;
pub mod check;
mod commit;
mod contents;
mod delete;
mod edge;
mod lists;
mod looks;
mod manifests;
mod mount;
mod open_sessions;
mod push;
mod referrers;
mod room;
mod session;
mod session_lock;
mod steps;
mod sweep;
mod sweeper;
mod ungranted;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use registry_core::Error;
use tokio::sync::Semaphore;

pub use self::contents::Contents;
use self::contents::LastSweep;
pub use self::sweep::SweepReport;
pub use self::sweeper::Sweeper;
#[cfg(all(feature = "layout", unix))]
pub(crate) use self::uploads::hash;
use crate::backend::Backend;
use crate::clock::{Clock, SystemClock};
use crate::store::open_sessions::OpenSessions;
use crate::store::room::Room;
use crate::store::session_lock::SessionLocks;

/// Blobs up to this size are kept in their record: reading one costs a record more and no open file.
pub(crate) const INLINE_LIMIT: usize = 16 * 1024;

/// How often a transaction begins again because others wrote the same records, before it gives up.
const ATTEMPTS: usize = 32;

/// How a [`Store`] works.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Sessions that nobody wrote to for so long are aborted by the sweeper.
    pub upload_idle_limit: Duration,
    /// Sessions without a byte are aborted by the sweeper after so long already.
    pub empty_upload_idle_limit: Duration,
    /// How many sessions of one principal may be open, all anonymous clients together being one. Beyond that a new one
    /// takes the place of the one that was not used for the longest: of one without a byte, or else of one that was not
    /// used for ten minutes. Where there is none, the new one is refused with
    /// [`TooManyRequests`](registry_core::ErrorCode::TooManyRequests). Each process counts the sessions that it knows of;
    /// a sweep tells it of the others'.
    pub open_uploads_limit: usize,
    /// Sessions that ended are remembered for so long, so that a repeated request whose answer was lost is answered.
    pub ended_upload_memory: Duration,
}

impl Default for StoreOptions {
    /// Seven days, an hour for what has no byte, 10 000 sessions, and one day.
    fn default() -> Self {
        const DAY: Duration = Duration::from_hours(24);
        Self {
            upload_idle_limit: 7 * DAY,
            empty_upload_idle_limit: Duration::from_hours(1),
            open_uploads_limit: 10_000,
            ended_upload_memory: DAY,
        }
    }
}

/// Implements [`Storage`](registry_core::Storage) over any backend.
///
/// Any number of stores, in any number of processes, may work on one bucket at once; a disk has one owner.
#[derive(Debug)]
pub struct Store<B> {
    backend: Arc<B>,
    clock: Arc<dyn Clock>,
    options: StoreOptions,
    sessions: Arc<SessionLocks>,
    open_sessions: OpenSessions,
    /// Memory for entries of lists of referrers, in kibibytes.
    referrer_memory: Semaphore,
    room: Room,
    last_sweep: LastSweep,
    /// Its only permit is held while something is adopted.
    #[cfg(all(feature = "filesystem", unix))]
    adopting: Arc<Semaphore>,
}

impl<B: Backend> Store<B> {
    /// Makes a store of what `backend` keeps, with the system's clock and the default options.
    #[must_use]
    pub fn new(backend: B) -> Self {
        Self::with_options(Arc::new(backend), Arc::new(SystemClock), StoreOptions::default())
    }

    /// Makes a store with a clock and options of the caller's.
    #[must_use]
    pub fn with_options(backend: Arc<B>, clock: Arc<dyn Clock>, options: StoreOptions) -> Self {
        Self {
            backend,
            clock,
            referrer_memory: Semaphore::new(referrers::MEMORY),
            open_sessions: OpenSessions::new(options.open_uploads_limit),
            options,
            sessions: Arc::default(),
            room: Room::default(),
            last_sweep: LastSweep::default(),
            #[cfg(all(feature = "filesystem", unix))]
            adopting: Arc::new(Semaphore::new(1)),
        }
    }

    /// Returns the backend.
    #[must_use]
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Passes where records and bytes can be read, and, on a disk, written: what a check of health asks. It asks the
    /// medium, not a cache.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn probe(&self) -> Result<(), Error> {
        self.backend.probe().await
    }

    /// Ends background work and makes everything durable. What is asked for afterwards fails.
    ///
    /// # Errors
    /// Those of the medium.
    pub async fn close(&self) -> Result<(), Error> {
        self.backend.close().await
    }
}
