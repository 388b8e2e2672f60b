//! Which repositories a cycle reads: those in which something changed, and in a week each of the others once.
//!
//! A new grant and a delete of a manifest mark their repository. A cycle takes the mark **before** it lists what the
//! repository has, and removes it if nothing is left to do, unless it was set anew meanwhile. A mark is set **after** the
//! write that it is about, so a write that finds it set was there before the listing. On a disk a push of a manifest sets it in
//! the same step, and what a cycle without a grace removes at once depends on that. Otherwise a mark that is lost, because a process
//! died in between, only means that the pass over all repositories finds what is left.

use registry_core::{Error, RepositoryName, Timestamp};

use super::CollectReport;
use super::cycle::Cycle;
use crate::backend::{Again, Backend, Condition, Durability, RecordTransaction, Transaction, Version};
use crate::chain::State;
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::observer::{MaintenanceObserver, Step};
use crate::pages::Pages;
use crate::record::{ChangedRecord, Stamp, state_of_size};
use crate::store::Store;
use crate::store::edge::write;

/// Marks a repository as changed, by the key of the mark.
pub(in crate::store) async fn mark_changed(
    records: &mut dyn RecordTransaction,
    key: &Key,
    now: Timestamp,
) -> Result<(), Error> {
    let stat = records.stat(key).await?;
    if stat.is_some_and(|stat| state_of_size(stat.size) == State::Live) {
        return Ok(());
    }
    let changed = ChangedRecord {
        state: State::Live,
        stamp: Stamp::new(now),
    };
    write(records, key, &changed, &[], Condition::Any).await?;
    Ok(())
}

/// Returns whether a mark of this size is set.
const fn is_set(size: u64) -> bool {
    matches!(state_of_size(size), State::Live | State::Pending)
}

impl<B: Backend> Store<B> {
    /// Collects the grants of the repositories that a cycle reads.
    pub(super) async fn collect_repositories(
        &self,
        cycle: &mut Cycle,
        is_full: bool,
        report: &mut CollectReport,
        observer: &dyn MaintenanceObserver,
    ) -> Result<(), Error> {
        let mut pass = self
            .begin_pass(cycle, Key::pass_over_repositories(), is_full)
            .await?;
        let is_whole = pass.is_whole();
        if !is_whole {
            let mut pages = Pages::of(Key::all_changed());
            while let Some(page) = pages.next(&*self.backend).await? {
                for entry in page.into_iter().filter(|entry| is_set(entry.size)) {
                    if let Some(KeyKind::Changed(repository)) = KeyKind::of(&entry.key) {
                        self.collect_repository(cycle, &repository, report).await?;
                        observer.step(Step::Repositories, report.repositories, None);
                    }
                }
            }
        }
        // Who else has a blob is a listing for each, which in a bucket costs money, and is too slow for a pass that is made at
        // once.
        let counts_shared = !is_whole && !cycle.is_dry_run && self.backend.is_atomic();
        let mut last: Option<RepositoryName> = None;
        while pass.is_due() {
            // Each repository's records are in a few folders; that of the blobs is the first.
            let next = self
                .backend
                .list(&Key::all_repositories(), pass.after(), 1)
                .await?;
            let Some(entry) = next.into_iter().next() else {
                return self.end_pass(pass).await;
            };
            let end = entry.key.end_of_folder().unwrap_or_else(|| entry.key.clone());
            let repository = self.first_of_repository(&entry.key, last.as_ref()).await?;
            if let Some(repository) = repository {
                // A repository with a mark was read above, or is read by the next cycle.
                let mark = self.backend.sizes(&[Key::changed(&repository)]).await?;
                if is_whole || !mark.into_iter().flatten().any(is_set) {
                    self.collect_repository(cycle, &repository, report).await?;
                    observer.step(Step::Repositories, report.repositories, None);
                }
                if counts_shared {
                    self.count_shared(&repository).await?;
                }
                last = Some(repository);
                pass.advance(end, 1);
            } else {
                pass.advance(end, 0);
            }
            self.keep_pass(&mut pass).await?;
        }
        self.suspend_pass(pass).await
    }

    /// Returns the repository of a record, unless the pass came to it with an earlier record: to `last`, or to that of a
    /// blob. A repository that never had a blob is only counted.
    async fn first_of_repository(
        &self,
        key: &Key,
        last: Option<&RepositoryName>,
    ) -> Result<Option<RepositoryName>, Error> {
        let kind = KeyKind::of(key);
        let Some(repository) = kind.as_ref().and_then(KeyKind::repository) else {
            return Ok(None);
        };
        let is_first = matches!(kind, Some(KeyKind::RepositoryBlob(..)))
            || Some(repository) != last
                && self
                    .backend
                    .list(&Key::repository_blobs(repository), None, 1)
                    .await?
                    .is_empty();
        Ok(is_first.then(|| repository.clone()))
    }

    /// Collects the grants of a repository, and writes down what it has.
    async fn collect_repository(
        &self,
        cycle: &mut Cycle,
        repository: &RepositoryName,
        report: &mut CollectReport,
    ) -> Result<(), Error> {
        let mark = Mark {
            key: Key::changed(repository),
            now: self.clock.now(),
        };
        let taken = if cycle.is_dry_run {
            None
        } else {
            self.backend
                .transact(Durability::Deferred, Take(mark.clone(), cycle.kills_at_once()))
                .await?
        };
        report.repositories += 1;
        let before = self.counted_before(repository).await?;
        let collected = self
            .collect_grants(cycle, repository, taken.as_ref(), report)
            .await?;
        report.unreadable_repositories += u64::from(collected.is_none());
        if cycle.is_dry_run {
            return Ok(());
        }
        if let Some(collected) = &collected {
            self.write_collected(repository, before, collected.usage, mark.now)
                .await?;
        }
        match (collected.is_some_and(|collected| collected.is_settled), taken) {
            (true, Some(taken)) => {
                self.backend
                    .transact(Durability::Deferred, Remove(mark, taken))
                    .await
            }
            (true, None) | (false, Some(_)) => Ok(()),
            (false, None) => self.backend.transact(Durability::Deferred, Set(mark)).await,
        }
    }
}

/// The mark that a repository changed.
#[derive(Clone)]
struct Mark {
    key: Key,
    now: Timestamp,
}

impl Mark {
    /// Writes the mark in another state; returns `None` if it changed meanwhile.
    async fn write(
        &self,
        records: &mut dyn RecordTransaction,
        state: State,
        condition: Condition,
    ) -> Result<Option<Version>, Error> {
        let stamp = Stamp::new(self.now);
        write(
            records,
            &self.key,
            &ChangedRecord { state, stamp },
            &[],
            condition,
        )
        .await
    }
}

/// Takes a mark, if there is one or one is made then, and returns its version. One that was taken by another cycle, which may
/// be dead, is taken again.
#[derive(Clone)]
struct Take(Mark, bool);

impl Transaction for Take {
    type Output = Option<Version>;

    /// Without it, a cycle on a full disk would end here, and never free anything.
    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Option<Version>, Error> {
        let Self(mark, is_made) = self;
        let stat = records.stat(&mark.key).await?;
        if !is_made && !stat.as_ref().is_some_and(|stat| is_set(stat.size)) {
            return Ok(None);
        }
        // The condition fails if another cycle takes it at the same time: that one removes it, or leaves it.
        let condition = stat.map_or(Condition::Absent, |stat| Condition::Matches(stat.version));
        mark.write(records, State::Pending, condition).await
    }
}

/// Sets a mark.
#[derive(Clone)]
struct Set(Mark);

impl Transaction for Set {
    type Output = ();

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        mark_changed(records, &self.0.key, self.0.now).await
    }
}

/// Removes a mark that was taken as this version.
#[derive(Clone)]
struct Remove(Mark, Version);

impl Transaction for Remove {
    type Output = ();

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        let condition = Condition::Matches(self.1);
        if let Some(version) = self.0.write(records, State::Dead, condition).await? {
            records.purge_if(&self.0.key, &version).await?;
        }
        Ok(())
    }
}
