//! Records that are Dead, and stayed.
//!
//! Who makes a record Dead removes it right after. What is left is that of processes that died in between, and of versions that
//! removed nothing in a bucket. The pass over all blobs finds it, and goes on through the other folders that have such records.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use registry_core::{Digest, Error, ErrorCode, RepositoryName, Timestamp};

use super::cycle::Cycle;
use super::grants::EndGrants;
use super::pass::Pass;
use crate::backend::{Again, Backend, Durability, RecordEntry, RecordTransaction, Transaction};
use crate::chain::State;
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::observer::{MaintenanceObserver, Step};
use crate::pages::Pages;
use crate::record::{state_of_size, written};
use crate::store::Store;
use crate::store::mount::{GrantKeys, ReferToPending};

/// How many are removed in one transaction.
const TOMBSTONES_PER_TRANSACTION: usize = 64;

/// How long a record stays Dead, unless it was removed at once.
const TOMBSTONE_AGE: Duration = Duration::from_hours(24);

/// How many manifests of a repository are remembered from the listing at most. Others are asked for.
const REMEMBERED_MANIFESTS: usize = 100_000;

/// The folders with such records, besides that of the blobs, which comes before them.
fn folders() -> [Key; 5] {
    [
        Key::repositories(),
        Key::all_changed(),
        Key::all_pulled(),
        Key::all_repositories(),
        Key::all_usage(),
    ]
}

impl<B: Backend> Store<B> {
    /// Ends a pass over all blobs: goes over the records that are elsewhere, and removes those that are Dead.
    pub(super) async fn pass_over_tombstones(
        &self,
        cycle: &Cycle,
        mut pass: Pass,
        observer: &dyn MaintenanceObserver,
    ) -> Result<(), Error> {
        let mut listed = 0;
        let mut seen = SeenManifests::default();
        for folder in folders() {
            let after = pass.after().filter(|after| **after > folder).cloned();
            if after.as_ref().is_some_and(|after| after.after(&folder).is_none()) {
                // The pass is beyond it.
                continue;
            }
            let mut pages = Pages::after(folder, after);
            while pass.is_due() {
                let Some(page) = pages.next(&*self.backend).await? else {
                    break;
                };
                listed += page.len() as u64;
                observer.step(Step::Records, listed, None);
                self.purge_tombstones(cycle, &page).await?;
                self.end_deletes(cycle, &page, &mut seen).await?;
                let count = page.len() as u64;
                if let Some(last) = page.into_iter().last() {
                    pass.advance(last.key, count);
                }
                self.keep_pass(&mut pass).await?;
            }
            if !pass.is_due() {
                return self.suspend_pass(pass).await;
            }
        }
        self.end_pass(pass).await
    }

    /// Removes the records of a page that are Dead.
    pub(super) async fn purge_tombstones(&self, cycle: &Cycle, page: &[RecordEntry]) -> Result<(), Error> {
        let is_dead = |entry: &&RecordEntry| state_of_size(entry.size) == State::Dead;
        let dead: Vec<Key> = page
            .iter()
            .filter(is_dead)
            .map(|entry| entry.key.clone())
            .collect();
        if cycle.is_dry_run {
            return Ok(());
        }
        let purging: Vec<_> = dead
            .chunks(TOMBSTONES_PER_TRANSACTION)
            .map(|dead| {
                let purge = PurgeTombstones(dead.to_vec(), self.clock.now());
                self.backend.transact(Durability::Deferred, purge)
            })
            .collect();
        let purging = stream::iter(purging).buffer_unordered(self.parallel_transactions());
        purging.try_collect().await
    }

    /// Deletes the tags, and the back references, of a page whose manifests are gone. A delete removes them itself, unless it
    /// was cut off, or an older version did it. Only those are asked for that the listing did not show before.
    async fn end_deletes(
        &self,
        cycle: &Cycle,
        page: &[RecordEntry],
        seen: &mut SeenManifests,
    ) -> Result<(), Error> {
        let mut tagged: BTreeSet<(RepositoryName, Digest)> = BTreeSet::new();
        for entry in page {
            match KeyKind::of(&entry.key) {
                Some(KeyKind::Manifest(repository, digest)) if state_of_size(entry.size) != State::Dead => {
                    seen.insert(repository, digest);
                }
                Some(KeyKind::Tagged(repository, digest, _)) if !seen.contains(&repository, &digest) => {
                    tagged.insert((repository, digest));
                }
                _ => {}
            }
        }
        // Where nothing removes a back reference, each pass would find it again.
        if tagged.is_empty()
            || cycle.is_dry_run
            || !self.backend.transact(Durability::Deferred, Purges).await?
        {
            return Ok(());
        }
        let manifests: Vec<Key> = tagged
            .iter()
            .map(|(repository, digest)| Key::manifest(repository, digest))
            .collect();
        let sizes = self.backend.sizes(&manifests).await?;
        let is_gone = |size: Option<u64>| size.is_none_or(|size| state_of_size(size) == State::Dead);
        let gone = tagged.into_iter().zip(sizes).filter(|(_, size)| is_gone(*size));
        let ending = gone.map(|((repository, digest), _)| async move {
            match self.end_delete(&repository, &digest, None).await {
                // A record that cannot be read keeps no other from being collected.
                Err(error) if error.code() == ErrorCode::Internal => {
                    let cause = std::error::Error::source(&error);
                    tracing::error!(
                        %repository, %digest, cause,
                        "the tags of a manifest that is gone cannot be deleted, because a record cannot be read; a check with repair \
                         puts that aside"
                    );
                    Ok(())
                }
                ended => ended,
            }
        });
        let ending = stream::iter(ending.collect::<Vec<_>>()).buffer_unordered(self.parallel_transactions());
        ending.try_collect().await
    }

    /// Has the collector find the grants of a page that are Pending.
    pub(super) async fn refer_to_pending(&self, cycle: &Cycle, page: &[RecordEntry]) -> Result<(), Error> {
        let is_pending = |entry: &&RecordEntry| state_of_size(entry.size) == State::Pending;
        let pending = page.iter().filter(is_pending);
        let pending = pending.filter_map(|entry| match KeyKind::of(&entry.key) {
            Some(KeyKind::Grant(repository, digest)) => Some(GrantKeys::new(&repository, &digest)),
            _ => None,
        });
        let pending: Vec<GrantKeys> = pending.collect();
        if pending.is_empty() || cycle.is_dry_run {
            return Ok(());
        }
        let refer = ReferToPending(pending, self.clock.now());
        self.backend.transact(Durability::Deferred, refer).await
    }
}

/// The manifests of one repository that a listing showed and that are not Dead. They are listed before what refers to them.
#[derive(Debug, Default)]
struct SeenManifests {
    repository: Option<RepositoryName>,
    digests: BTreeSet<Digest>,
}

impl SeenManifests {
    fn insert(&mut self, repository: RepositoryName, digest: Digest) {
        if self.repository.as_ref() != Some(&repository) {
            self.digests.clear();
            self.repository = Some(repository);
        }
        if self.digests.len() < REMEMBERED_MANIFESTS {
            self.digests.insert(digest);
        }
    }

    fn contains(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        self.repository.as_ref() == Some(repository) && self.digests.contains(digest)
    }
}

/// Returns whether the store removes what is Dead.
struct Purges;

impl Transaction for Purges {
    type Output = bool;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<bool, Error> {
        Ok(records.purges())
    }
}

/// Removes records that are still Dead.
#[derive(Clone)]
struct PurgeTombstones(Vec<Key>, Timestamp);

impl Transaction for PurgeTombstones {
    type Output = ();

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        if !records.purges() {
            return Ok(());
        }
        for key in self.0 {
            match KeyKind::of(&key) {
                None => {}
                // What refers to it goes first.
                Some(KeyKind::Grant(repository, digest)) => {
                    let keys = GrantKeys::new(&repository, &digest);
                    EndGrants(vec![keys], self.1).run(records).await?;
                }
                // A delete that was cut off is ended from its Dead record.
                Some(KeyKind::Manifest(repository, _)) if has_deletes(records, &repository).await? => {}
                Some(_) => {
                    let Some(stored) = records.get(&key).await? else {
                        continue;
                    };
                    let is_dead = state_of_size(stored.value.len() as u64) == State::Dead;
                    let is_old =
                        written(&stored.value).is_some_and(|written| self.1.since(written) >= TOMBSTONE_AGE);
                    if is_dead && is_old {
                        records.purge_if(&key, &stored.version).await?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Returns whether deletes in a repository are in progress, or were cut off.
async fn has_deletes(
    records: &mut dyn RecordTransaction,
    repository: &RepositoryName,
) -> Result<bool, Error> {
    let deletes = records.list(&Key::deletes_of(repository), None, 1).await?;
    Ok(!deletes.is_empty())
}
