//! The storage protocol: what a registry requires of its storage, on the records and bytes of any backend.
//!
//! The facets of [`Storage`](registry_core::Storage) are in [`blobs`], [`uploads`], [`manifests`] and [`lists`].
//!
//! One file for each operation: [`commit`] makes uploaded bytes a blob, [`push`] stores a manifest and its tags,
//! [`mount`] lets another repository read a blob, [`delete`] removes content and tags. Those are transactions, and each
//! of their steps may safely be the last; everything else only reads. [`adopt`] runs many of them as one,
//! and [`adopt_in_place`] several at once.

#[cfg(all(feature = "filesystem", unix))]
pub(crate) mod adopt;
#[cfg(all(feature = "filesystem", unix))]
pub(crate) mod adopt_in_place;
mod append;
mod blobs;
pub mod check;
mod collect;
mod commit;
mod contents;
mod delete;
mod edge;
mod gather;
mod hash;
mod in_flight;
mod lists;
mod looks;
mod lost;
mod manifests;
mod mount;
mod noted_pulls;
mod open_sessions;
mod parked;
mod pulled;
mod push;
mod quota;
mod referrers;
mod room;
mod secrets;
mod session;
mod session_lock;
mod steps;
mod sweep;
mod undelete;
mod ungranted;
mod uploads;
mod usage;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::Semaphore;

pub use self::check::{ScrubCounts, ScrubOptions, ScrubReport};
pub use self::collect::{BlobCount, CollectOptions, CollectReport, RetainOptions, RetainReport};
pub use self::contents::Contents;
use self::contents::LastCount;
pub use self::delete::DeleteRepositoryOptions;
#[cfg(all(feature = "layout", unix))]
pub(crate) use self::hash::hash;
pub use self::noted_pulls::NotedPulls;
use self::quota::Accounted;
pub use self::quota::QuotaUsage;
pub(crate) use self::quota::have_one_count;
pub use self::sweep::{SweepOptions, SweepReport};
pub use self::undelete::DeletedCount;
use self::usage::Touched;
pub use self::usage::{CountedPage, CountedRepository, LargestRepositories, RepositoryUsage};
use crate::backend::Backend;
use crate::clock::{Clock, SystemClock};
use crate::store::open_sessions::OpenSessions;
use crate::store::room::Room;
use crate::store::session_lock::SessionLocks;

/// Blobs up to this size are kept in their record: reading one costs one more record and no open file.
pub(crate) const INLINE_BYTES: usize = 16 * 1024;

/// How many times a transaction begins again because others wrote the same records, before it gives up.
const TRANSACTION_ATTEMPTS: usize = 32;

/// How a [`Store`] works.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The sweeper aborts sessions that were not written to for this long.
    pub upload_idle_limit: Duration,
    /// The sweeper aborts sessions without a byte after this long.
    pub empty_upload_idle_limit: Duration,
    /// How many sessions of one principal may be open; all anonymous clients together count as one principal. Beyond
    /// that, a new session replaces the least recently used one without a byte, otherwise the least recently used one
    /// that was idle for ten minutes. If there is neither, the new one is refused with
    /// [`TooManyRequests`](registry_core::ErrorCode::TooManyRequests). Each process counts the sessions that it knows
    /// of; a sweep adds those of other processes.
    pub open_uploads_limit: usize,
    /// What is moved or deleted can be restored for this long: what tags named before, and deleted manifests with the blobs
    /// that they name. It is removed by a [`Collector`](crate::Collector). Zero keeps nothing, and costs nothing.
    pub keep_deleted: Duration,
    /// Ended sessions are remembered for this long, so that a repeated request whose answer was lost is answered.
    pub ended_upload_memory: Duration,
    /// A request that reads writes nothing either, where it would otherwise keep from collection what a client asked for, or delete a
    /// tag whose manifest is gone. It is for a store to which no client writes: its answers promise nothing to a push.
    pub only_reads: bool,
}

impl Default for StoreOptions {
    /// Seven days, an hour for sessions without a byte, 10 000 sessions, nothing is kept of what is deleted, one day, and
    /// requests that read may write.
    fn default() -> Self {
        const DAY: Duration = Duration::from_hours(24);
        Self {
            upload_idle_limit: 7 * DAY,
            empty_upload_idle_limit: Duration::from_hours(1),
            open_uploads_limit: 10_000,
            keep_deleted: Duration::ZERO,
            ended_upload_memory: DAY,
            only_reads: false,
        }
    }
}

/// Implements [`Storage`](registry_core::Storage) over any backend.
///
/// Any number of stores, in any number of processes, may work on one bucket at once; a disk has one owner.
///
/// It starts no task. A process that serves it also runs a [`Sweeper`](crate::Sweeper), without which no space is freed; if
/// what no manifest names should go, a [`Collector`](crate::Collector); and if content that rots should be found, a
/// [`Scrubber`](crate::Scrubber). [`Maintenance::close`](crate::Maintenance::close)
/// is the orderly end; a store that is only dropped keeps everything that it answered, as after a kill.
#[derive(Debug)]
pub struct Store<B> {
    backend: Arc<Accounted<B>>,
    clock: Arc<dyn Clock>,
    options: StoreOptions,
    sessions: Arc<SessionLocks>,
    open_sessions: OpenSessions,
    /// Of which the sweeper need not read anything.
    ended_sessions: sweep::EndedSessions,
    /// Memory for the entries of lists of referrers, in kibibytes.
    referrer_memory: Semaphore,
    room: Room,
    last_count: LastCount,
    /// In which repositories a push made something visible since the last cycle.
    touched: Touched,
    /// How often this process wrote down what a repository has.
    usage_writes: AtomicU64,
    scrubbed: check::Scrubbed,
    lost_blobs: lost::LostBlobs,
    recorders: noted_pulls::Recorders,
    /// Its only permit is held while an adoption is in progress.
    #[cfg(all(feature = "filesystem", unix))]
    adopting: Arc<Semaphore>,
}

impl<B: Backend> Store<B> {
    /// Creates a store over `backend`, with the system's clock and the default options.
    #[must_use]
    pub fn new(backend: B) -> Self {
        Self::with_options(Arc::new(backend), Arc::new(SystemClock), StoreOptions::default())
    }

    /// Creates a store with the given clock and options.
    #[must_use]
    pub fn with_options(backend: Arc<B>, clock: Arc<dyn Clock>, options: StoreOptions) -> Self {
        Self {
            backend: Arc::new(Accounted::new(backend)),
            clock,
            referrer_memory: Semaphore::new(referrers::READ_MEMORY_KIB),
            open_sessions: OpenSessions::new(options.open_uploads_limit),
            ended_sessions: sweep::EndedSessions::default(),
            options,
            sessions: Arc::default(),
            room: Room::default(),
            last_count: LastCount::default(),
            touched: Touched::default(),
            usage_writes: AtomicU64::default(),
            scrubbed: check::Scrubbed::default(),
            lost_blobs: lost::LostBlobs::default(),
            recorders: noted_pulls::Recorders::default(),
            #[cfg(all(feature = "filesystem", unix))]
            adopting: Arc::new(Semaphore::new(1)),
        }
    }

    /// Returns the backend.
    #[must_use]
    pub fn backend(&self) -> &B {
        &self.backend.inner
    }

    /// Returns whether a request that reads has to leave everything as it is.
    fn only_reads(&self) -> bool {
        self.options.only_reads || self.backend.is_read_only()
    }

    /// Returns the time of the clock.
    pub(crate) fn time(&self) -> registry_core::Timestamp {
        self.clock.now()
    }

    pub(crate) const fn room(&self) -> &Room {
        &self.room
    }
}
