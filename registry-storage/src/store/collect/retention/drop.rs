//! What retention writes.

use std::collections::VecDeque;

use registry_core::{Digest, Error, RepositoryName, Tag, Timestamp};

use crate::backend::{Again, RecordTransaction, Transaction, Version};
use crate::key::Key;
use crate::record::{ManifestRecord, TagRecord};
use crate::store::collect::mark_changed;
use crate::store::delete::tombstone;
use crate::store::edge::{condemn, read_latest, rescue, write};
use crate::store::steps::{Counted, Step};
use crate::store::undelete::Keep;

/// Makes tags tombstones that are still as they were judged. Returns for each whether it was.
#[derive(Clone)]
pub(super) struct DropTags {
    pub(super) repository: RepositoryName,
    pub(super) tags: Vec<(Tag, Version)>,
    /// How what they named is kept; `None` if it is not.
    pub(super) keep: Option<Keep>,
    #[cfg(all(feature = "filesystem", unix))]
    pub(super) adopting: std::sync::Arc<tokio::sync::Semaphore>,
    pub(super) now: Timestamp,
}

impl Transaction for DropTags {
    type Output = Vec<bool>;

    fn again(&self) -> Option<Again<Self>> {
        // Without room for it, nothing is kept.
        Some(Again::Freeing(Self {
            keep: None,
            ..self.clone()
        }))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Vec<bool>, Error> {
        #[cfg(all(feature = "filesystem", unix))]
        if self.adopting.available_permits() == 0 {
            return Ok(vec![false; self.tags.len()]);
        }
        let mut dropped = Vec::with_capacity(self.tags.len());
        for (tag, version) in &self.tags {
            dropped.push(self.drop(records, tag, version).await?);
        }
        if dropped.contains(&true) {
            mark_changed(records, &Key::changed(&self.repository), self.now).await?;
        }
        Ok(dropped)
    }
}

impl DropTags {
    async fn drop(
        &self,
        records: &mut dyn RecordTransaction,
        tag: &Tag,
        version: &Version,
    ) -> Result<bool, Error> {
        let key = Key::tag(&self.repository, tag);
        let found = read_latest::<TagRecord>(records, &key).await?;
        if !found.is(version) {
            return Ok(false);
        }
        let condition = found.unchanged();
        let Some((record, _)) = found.visible() else {
            return Ok(false);
        };
        if let Some(keep) = &self.keep {
            keep.tag(records, &self.repository, tag, &record, true).await?;
        }
        let tombstone = tombstone(record, self.now);
        let Some(version) = write(records, &key, &tombstone, &[], condition).await? else {
            return Ok(false);
        };
        records.purge_if(&key, &version).await?;
        Ok(true)
    }
}

/// Condemns manifests, or makes them Live again, if they are still as they were judged. One that is not is left to a
/// later cycle.
#[derive(Clone)]
pub(super) struct ChangeManifests {
    pub(super) repository: RepositoryName,
    pub(super) changes: VecDeque<Change>,
    #[cfg(all(feature = "filesystem", unix))]
    pub(super) adopting: std::sync::Arc<tokio::sync::Semaphore>,
    pub(super) now: Timestamp,
}

/// A manifest to condemn, or to make Live again.
#[derive(Clone)]
pub(super) struct Change {
    pub(super) digest: Digest,
    pub(super) version: Version,
    /// The cycle that condemns it; `None` makes it Live.
    pub(super) condemned_in: Option<u64>,
}

impl Transaction for ChangeManifests {
    type Output = Step<Self, ()>;

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(mut self, records: &mut dyn RecordTransaction) -> Result<Self::Output, Error> {
        #[cfg(all(feature = "filesystem", unix))]
        if self.adopting.available_permits() == 0 {
            return Ok(Step::Done(()));
        }
        let mut records = Counted::new(records);
        while !records.is_enough() {
            let Some(change) = self.changes.pop_front() else {
                return Ok(Step::Done(()));
            };
            let key = Key::manifest(&self.repository, &change.digest);
            let found = read_latest::<ManifestRecord>(&mut records, &key).await?;
            if !found.is(&change.version) {
                continue;
            }
            match change.condemned_in {
                Some(cycle) => condemn(&mut records, &key, &found, cycle, self.now).await?,
                None => rescue(&mut records, &key, &found, self.now).await?,
            };
        }
        Ok(Step::More(self))
    }
}
