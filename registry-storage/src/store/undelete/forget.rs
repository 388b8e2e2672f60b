//! Giving up what was kept.

use std::collections::BTreeSet;

use registry_core::{Error, RepositoryName, Timestamp};

use crate::backend::{Again, Backend, Durability, RecordEntry, RecordTransaction, Transaction};
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
                let (until, is_manifest) = match KeyKind::of(&entry.key) {
                    Some(KeyKind::PastTag { until, .. }) => (until, false),
                    Some(KeyKind::DeletedManifest { until, .. }) => (until, true),
                    _ => continue,
                };
                let is_forgotten = forget == Forget::All || until <= now;
                counted.add(is_forgotten, is_manifest, until);
                if is_forgotten && !is_dry_run {
                    old.push(entry.key);
                }
            }
            self.remove_kept(old).await?;
        }
        Ok(counted)
    }

    /// Returns whether something of a repository is kept until a time, or longer.
    pub(in crate::store) async fn is_kept_until(
        &self,
        repository: &RepositoryName,
        time: Timestamp,
    ) -> Result<bool, Error> {
        let mut pages = Pages::of(Key::kept_of(repository));
        while let Some(page) = pages.next(&*self.backend).await? {
            let is_kept = |entry: &RecordEntry| match KeyKind::of(&entry.key) {
                Some(KeyKind::PastTag { until, .. } | KeyKind::DeletedManifest { until, .. }) => {
                    until >= time
                }
                _ => false,
            };
            if page.iter().any(is_kept) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes entries of what is kept.
    pub(super) async fn remove_kept(&self, kept: Vec<Key>) -> Result<(), Error> {
        for entries in kept.chunks(ENTRIES_PER_TRANSACTION) {
            let remove = RemoveKept {
                entries: entries.to_vec(),
                now: self.clock.now(),
            };
            self.backend.transact(Durability::Deferred, remove).await?;
        }
        Ok(())
    }
}

/// Removes entries. The collector has to look at the repositories of deleted manifests again: only this informs it that
/// what these named is no longer named.
#[derive(Clone)]
struct RemoveKept {
    entries: Vec<Key>,
    now: Timestamp,
}

impl Transaction for RemoveKept {
    type Output = ();

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        let mut repositories = BTreeSet::new();
        for key in self.entries {
            records.remove(&key).await?;
            if let Some(KeyKind::DeletedManifest { repository, .. }) = KeyKind::of(&key) {
                repositories.insert(repository);
            }
        }
        for repository in repositories {
            mark_changed(records, &Key::changed(&repository), self.now).await?;
        }
        Ok(())
    }
}
