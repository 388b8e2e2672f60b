//! The collector: what no manifest names any more goes away, while pushes and pulls go on.
//!
//! A cycle ([`Maintenance::collect`](crate::Maintenance::collect)) goes over the grants of each repository ([`grants`]) and, if transactions are not one
//! step, over the blobs ([`blobs`]): it condemns what nothing names, and makes Dead what a sealed cycle condemned. The
//! decisions are those of [`chain::collect`](crate::chain::collect), so any number of cycles may run at once, in any
//! number of processes, and each may stop at any point. The [sweeper](crate::Maintenance::sweep) then deletes the bytes.

mod blobs;
mod changed;
mod cycle;
mod empty;
mod grants;
mod manifests;
mod pass;
mod retention;
#[cfg(test)]
mod tests;
mod tombstones;

use std::time::Duration;

use registry_core::{Error, Timestamp};

pub(super) use self::blobs::{digests, write_candidates};
pub(super) use self::changed::mark_changed;
pub(super) use self::cycle::WrittenBefore;
use self::cycle::{Cycle, Facts};
pub use self::retention::{RetainOptions, RetainReport};
use super::Store;
use super::edge::read_cached;
use super::undelete::{DeletedCount, Forget};
use crate::backend::Backend;
use crate::chain::{Collect, State};
use crate::key::Key;
use crate::observer::MaintenanceObserver;
use crate::record::AdoptionRecord;

/// How a store is collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CollectOptions {
    /// How long content stays at least after it was pushed, and again after a cycle found that nothing names it. It is
    /// a promise to clients: what a `HEAD` found stays for this long, and so does a blob whose manifest is still to
    /// come. What a manifest names is safe with any value. 24 hours by default.
    pub grace: Duration,
    /// Reads every repository, not only those in which something changed since they were last read. Each of the others is
    /// read once a week anyway. `false` by default.
    pub is_full: bool,
    /// Changes nothing, and only counts what is in any repository. `false` by default.
    pub is_dry_run: bool,
    /// Repositories without a manifest, a blob and an upload in progress leave the catalog. It costs a listing for each
    /// repository. `false` by default: they stay, as in the distribution registry.
    pub removes_empty_repositories: bool,
    /// What was moved or deleted, and is still kept, is given up: it cannot be restored any more, and what only it needs
    /// is collected. `false` by default.
    pub forgets_deleted: bool,
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self {
            grace: Duration::from_hours(24),
            is_full: false,
            is_dry_run: false,
            removes_empty_repositories: false,
            forgets_deleted: false,
        }
    }
}

impl CollectOptions {
    /// Returns the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the [grace](Self::grace).
    #[must_use]
    pub const fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets whether the cycle reads [every repository](Self::is_full).
    #[must_use]
    pub const fn full(mut self, is_full: bool) -> Self {
        self.is_full = is_full;
        self
    }

    /// Sets whether [empty repositories](Self::removes_empty_repositories) leave the catalog.
    #[must_use]
    pub const fn remove_empty_repositories(mut self, removes: bool) -> Self {
        self.removes_empty_repositories = removes;
        self
    }

    /// Sets whether the cycle only [counts](Self::is_dry_run).
    #[must_use]
    pub const fn dry_run(mut self, is_dry_run: bool) -> Self {
        self.is_dry_run = is_dry_run;
        self
    }

    /// Sets whether what is kept is [given up](Self::forgets_deleted).
    #[must_use]
    pub const fn forget_deleted(mut self, forgets_deleted: bool) -> Self {
        self.forgets_deleted = forgets_deleted;
        self
    }
}

/// Blobs of repositories, each counted once for each repository that has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlobCount {
    /// The number.
    pub blobs: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

impl BlobCount {
    /// Returns the sum.
    pub(in crate::store) const fn plus(mut self, other: Self) -> Self {
        self.blobs = self.blobs.saturating_add(other.blobs);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self
    }

    pub(in crate::store) const fn add(&mut self, bytes: u64) {
        self.blobs = self.blobs.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What a cycle did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CollectReport {
    /// Repositories that were read: those in which something changed or is left to do, and some of the others.
    pub repositories: u64,
    /// How many of them were left as they are, because a manifest cannot be read: what it names is not known.
    pub unreadable_repositories: u64,
    /// Manifests that were read.
    pub manifests: u64,
    /// What nothing names and is younger than the grace.
    pub young: BlobCount,
    /// What nothing names, and an earlier cycle condemned less than the grace ago.
    pub waiting: BlobCount,
    /// What nothing names and was condemned: a later cycle removes it.
    pub condemned: BlobCount,
    /// What was condemned, and is named again.
    pub revived: BlobCount,
    /// What was removed from its repository.
    pub removed: BlobCount,
    /// Blobs that no repository had and that were removed. On a disk they go with the last repository that had them, and are
    /// not counted here.
    pub removed_blobs: BlobCount,
    /// Repositories that left the catalog because they were [empty](CollectOptions::removes_empty_repositories).
    pub empty_repositories: u64,
    /// Blobs that no repository has, and that a later cycle removes. On a disk there are none.
    pub blobs_left: u64,
    /// Something else was written at the same time, or could not be read; a later cycle looks at it again.
    pub undecided: u64,
    /// Records of pushes in progress, or of pushes that were cut off: of those it is not known that they ended.
    pub pending: u64,
    /// Until when the last of those stay, whatever the grace; `None` if there are none, or if uploads may be idle for ever.
    pub pending_until: Option<Timestamp>,
    /// What is kept of what was moved or deleted. Blobs that a kept manifest names are not counted above.
    pub deleted: DeletedCount,
}

/// What a cycle decided about a record, and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decided {
    /// Something names it, or it is Dead.
    Gone,
    Young(u64),
    Waiting(u64),
    Condemned(u64),
    Revived(u64),
    Removed(u64),
    /// A push is in progress, or was cut off, and until this time it counts as in progress; `None` for ever.
    Pending(Option<Timestamp>),
    Undecided,
}

impl Decided {
    /// Combines a decision of a cycle about a record that names `bytes` with whether it could be carried out.
    fn of(cycle: &Cycle, decision: Collect, facts: Facts, bytes: u64, is_done: bool) -> Self {
        match decision {
            _ if !is_done => Self::Undecided,
            Collect::Revive => Self::Revived(bytes),
            Collect::Condemn => Self::Condemned(bytes),
            Collect::Kill => Self::Removed(bytes),
            Collect::Leave if facts.is_root || facts.state == State::Dead => Self::Gone,
            Collect::Leave if facts.state == State::Condemned => Self::Waiting(bytes),
            Collect::Leave if facts.state == State::Pending => {
                Self::Pending(cycle.pending_until(facts.written))
            }
            Collect::Leave => Self::Young(bytes),
        }
    }

    /// Returns whether no later cycle has to look at the record, unless a listing changes.
    const fn is_final(&self) -> bool {
        matches!(self, Self::Gone | Self::Revived(_) | Self::Removed(_))
    }
}

impl CollectReport {
    fn add(&mut self, decided: Decided) {
        match decided {
            Decided::Gone => {}
            Decided::Young(bytes) => self.young.add(bytes),
            Decided::Waiting(bytes) => self.waiting.add(bytes),
            Decided::Condemned(bytes) => self.condemned.add(bytes),
            Decided::Revived(bytes) => self.revived.add(bytes),
            Decided::Removed(bytes) => self.removed.add(bytes),
            Decided::Pending(until) => self.add_pending(until),
            Decided::Undecided => self.undecided = self.undecided.saturating_add(1),
        }
    }

    fn add_pending(&mut self, until: Option<Timestamp>) {
        self.pending_until = match self.pending {
            0 => until,
            _ => self.pending_until.zip(until).map(|(one, other)| one.max(other)),
        };
        self.pending = self.pending.saturating_add(1);
    }

    /// Returns whether the cycle changed what is stored, or would have.
    const fn changes_records(&self) -> bool {
        let blobs = self.condemned.blobs + self.revived.blobs + self.removed.blobs + self.removed_blobs.blobs;
        let forgotten = self.deleted.forgotten_manifests + self.deleted.forgotten_tags;
        blobs + forgotten + self.empty_repositories > 0
    }

    /// Returns whether another cycle, at the same time and with a grace of zero, would have something to do.
    #[must_use]
    pub const fn has_more(&self) -> bool {
        let later = self.young.blobs + self.waiting.blobs + self.condemned.blobs;
        later + self.removed.blobs + self.blobs_left + self.undecided > 0
    }
}

/// How many transactions of a cycle go on at once where each is many requests. They decide about different records, as cycles of
/// several processes do.
const PARALLEL_TRANSACTIONS: usize = 16;

impl<B: Backend> Store<B> {
    /// Returns how many transactions of a cycle go on at once.
    fn parallel_transactions(&self) -> usize {
        if self.backend.is_atomic() {
            1
        } else {
            PARALLEL_TRANSACTIONS
        }
    }

    /// Returns whether an adoption is in progress, or was cut off and is still to be ended.
    pub(super) async fn is_adopting(&self) -> Result<bool, Error> {
        #[cfg(all(feature = "filesystem", unix))]
        if self.adopting.available_permits() == 0 {
            return Ok(true);
        }
        let adoption = read_cached::<AdoptionRecord>(&*self.backend, &Key::adoption()).await?;
        Ok(adoption
            .header()
            .is_some_and(|adoption| adoption.finished.is_none()))
    }

    /// Runs a cycle of the collector.
    pub(crate) async fn run_cycle(
        &self,
        options: &CollectOptions,
        observer: &dyn MaintenanceObserver,
    ) -> Result<CollectReport, Error> {
        if self.is_adopting().await? {
            return Ok(CollectReport::default());
        }
        if self.is_short_of_space() && !options.is_dry_run {
            // A cycle writes before it frees anything. With nothing to free, it would give away the space that is kept for
            // deletes.
            let dry_run = options.dry_run(true);
            let report = self.collect_in_cycle(&dry_run, options.is_full, observer).await?;
            if !report.changes_records() {
                return Ok(report);
            }
        }
        // A person who asks what a cycle would do asks about everything.
        self.collect_in_cycle(options, options.is_full || options.is_dry_run, observer)
            .await
    }

    async fn collect_in_cycle(
        &self,
        options: &CollectOptions,
        is_full: bool,
        observer: &dyn MaintenanceObserver,
    ) -> Result<CollectReport, Error> {
        let mut report = CollectReport::default();
        if !options.is_dry_run {
            self.mark_touched().await?;
        }
        let mut cycle = self.begin_cycle(options).await?;
        let forget = if options.forgets_deleted {
            Forget::All
        } else {
            Forget::Old
        };
        if !options.is_dry_run {
            self.fit_kept(None).await?;
        }
        report.deleted = self.forget(Key::all_kept(), forget, options.is_dry_run).await?;
        self.collect_repositories(&mut cycle, is_full, &mut report, observer)
            .await?;
        if options.removes_empty_repositories {
            self.remove_empty_repositories(&cycle, &mut report).await?;
        }
        // On a disk a blob goes with its last grant, in one step.
        if !self.backend.is_atomic() {
            self.collect_blobs(&mut cycle, is_full, &mut report, observer)
                .await?;
        }
        if !options.is_dry_run {
            self.seal_cycle(&cycle).await?;
        }
        Ok(report)
    }
}
