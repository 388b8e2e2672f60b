//! Giving up what was kept.

use std::collections::BTreeSet;

use registry_core::{Error, RepositoryName, Timestamp};

use crate::backend::{Again, Backend, Durability, RecordTransaction, Transaction};
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::pages::Pages;
use crate::store::Store;
use crate::store::collect::mark_changed;

/// How many entries are removed in one transaction.
const ENTRIES_PER_TRANSACTION: usize = 64;

/// What to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Forget {
    /// What was kept long enough.
    Old,
    /// Everything.
    All,
}

/// What was given up of what was moved or deleted, and what is still kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeletedCount {
    /// Deleted manifests that can be restored.
    pub manifests: u64,
    /// Past values of tags that can be restored, or whose manifest is there.
    pub tags: u64,
    /// Until when the last of them is kept; `None` if there is nothing.
    pub until: Option<Timestamp>,
    /// Deleted manifests that can be restored no longer.
    pub forgotten_manifests: u64,
    /// Past values of tags that can be restored no longer.
    pub forgotten_tags: u64,
}

impl DeletedCount {
    fn add(&mut self, is_forgotten: bool, is_manifest: bool, until: Timestamp) {
        let count = match (is_forgotten, is_manifest) {
            (false, true) => &mut self.manifests,
            (false, false) => &mut self.tags,
            (true, true) => &mut self.forgotten_manifests,
            (true, false) => &mut self.forgotten_tags,
        };
        *count = count.saturating_add(1);
        if !is_forgotten {
            self.until = self.until.max(Some(until));
        }
    }
}

impl<B: Backend> Store<B> {
    /// Removes what is kept under a prefix, or what was kept long enough. What times say is in the keys, so no entry is read.
    pub(in crate::store) async fn forget(
        &self,
        kept: Key,
        forget: Forget,
        is_dry_run: bool,
    ) -> Result<DeletedCount, Error> {
        let now = self.clock.now();
        let mut counted = DeletedCount::default();
        let mut pages = Pages::of(kept);
        while let Some(page) = pages.next(&*self.backend).await? {
            let mut old = Vec::new();
            for entry in page {
                let (until, repository) = match KeyKind::of(&entry.key) {
                    Some(KeyKind::PastTag { until, .. }) => (until, None),
                    Some(KeyKind::DeletedManifest {
                        until, repository, ..
                    }) => (until, Some(repository)),
                    _ => continue,
                };
                let is_forgotten = forget == Forget::All || until <= now;
                counted.add(is_forgotten, repository.is_some(), until);
                if is_forgotten && !is_dry_run {
                    old.push((entry.key, repository));
                }
            }
            for entries in old.chunks(ENTRIES_PER_TRANSACTION) {
                let remove = RemoveKept {
                    entries: entries.to_vec(),
                    now,
                };
                self.backend.transact(Durability::Deferred, remove).await?;
            }
        }
        Ok(counted)
    }
}

/// Removes entries. The collector is to look at the repositories of deleted manifests again: nothing else tells it that what
/// these name is named no longer.
#[derive(Clone)]
struct RemoveKept {
    entries: Vec<(Key, Option<RepositoryName>)>,
    now: Timestamp,
}

impl Transaction for RemoveKept {
    type Output = ();

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        let mut repositories = BTreeSet::new();
        for (key, repository) in self.entries {
            records.remove(&key).await?;
            repositories.extend(repository);
        }
        for repository in repositories {
            mark_changed(records, &Key::changed(&repository), self.now).await?;
        }
        Ok(())
    }
}
