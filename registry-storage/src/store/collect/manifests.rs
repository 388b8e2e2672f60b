//! The manifests of a repository that is deleted: which of them a tag or another manifest names.
//!
//! A push of an index that needs a manifest, and a push that points a tag at one, meet a delete as a push of an image meets
//! the collector: what is needed is found Condemned and made Live again, or is seen to be needed. So manifests are deleted
//! in cycles, those of an index after the index.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use registry_core::{Digest, Error, RepositoryName, Timestamp};

use super::cycle::{Cycle, Facts, WrittenBefore};
use super::grants::{Candidates, DIGESTS_IN_MEMORY};
use super::{BlobCount, CollectOptions, CollectReport};
use crate::backend::{Again, Backend, Durability, RecordTransaction, Transaction, Version};
use crate::chain::{Collect, State};
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::observer::{MaintenanceObserver, Step as Progress};
use crate::pages::{Pages, keys};
use crate::record::{ManifestRecord, TagRecord, state_of_size};
use crate::store::Store;
use crate::store::edge::{Found, condemn, read_latest};
use crate::store::steps::{Counted, Step, transact_all};
use crate::store::undelete::Keep;

/// How many manifests a sequence of transactions decides about: each of them carries what is left.
const MANIFESTS_PER_DECISION: usize = 512;

/// How many manifests are deleted at once; a bucket takes some milliseconds for each.
const PARALLEL_DELETES: usize = 16;

/// What a repository lost.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::store) struct RemovedContent {
    pub(in crate::store) manifests: u64,
    pub(in crate::store) blobs: BlobCount,
    /// Manifests that stay.
    pub(in crate::store) manifests_left: u64,
}

/// What a cycle did with the manifests of a repository.
#[derive(Clone, Copy, Debug, Default)]
struct CollectedManifests {
    condemned: u64,
    deleted: u64,
    left: u64,
}

impl<B: Backend> Store<B> {
    /// Removes the manifests and blobs that were written to a repository before and that no tag needs, in as many
    /// cycles as it takes. Returns `None` if a manifest cannot be read: what it names is not known.
    pub(in crate::store) async fn collect_all_of(
        &self,
        repository: &RepositoryName,
        written: WrittenBefore,
        keep: Option<&Keep>,
        observer: &dyn MaintenanceObserver,
    ) -> Result<Option<RemovedContent>, Error> {
        let mut removed = RemovedContent::default();
        // Each cycle condemns or removes something that was written before, or is the last one.
        loop {
            let cycle = self.begin_cycle(&CollectOptions::new()).await?;
            let mut cycle = cycle.for_what_was_written(written);
            let Some(manifests) = self.collect_manifests(&cycle, repository, keep).await? else {
                return Ok(None);
            };
            let mut grants = CollectReport::default();
            if self
                .collect_grants(&mut cycle, repository, None, &mut grants)
                .await?
                .is_none()
            {
                return Ok(None);
            }
            self.seal_cycle(&cycle).await?;
            removed.manifests += manifests.deleted;
            removed.manifests_left = manifests.left;
            removed.blobs.blobs += grants.removed.blobs;
            removed.blobs.bytes = removed.blobs.bytes.saturating_add(grants.removed.bytes);
            observer.step(Progress::Deletes, removed.manifests + removed.blobs.blobs, None);
            let condemned = manifests.condemned + grants.condemned.blobs;
            if condemned + manifests.deleted + grants.removed.blobs == 0 {
                return Ok(Some(removed));
            }
        }
    }

    /// Decides about all manifests of a repository; returns `None` if one cannot be read.
    async fn collect_manifests(
        &self,
        cycle: &Cycle,
        repository: &RepositoryName,
        keep: Option<&Keep>,
    ) -> Result<Option<CollectedManifests>, Error> {
        let mut collected = CollectedManifests::default();
        let mut pages = Pages::of(Key::manifests(repository));
        loop {
            let mut candidates = Candidates::new();
            while candidates.len() < DIGESTS_IN_MEMORY
                && let Some(page) = pages.next(&*self.backend).await?
            {
                for entry in page {
                    if state_of_size(entry.size).is_visible()
                        && let Some(KeyKind::Manifest(_, digest)) = KeyKind::of(&entry.key)
                    {
                        candidates.insert(digest, false);
                    }
                }
            }
            if candidates.is_empty() {
                return Ok(Some(collected));
            }
            // A push stores what names a manifest before it looks at the manifest, and the cycle began before these
            // listings. So a push that saw the manifest before it was condemned is seen here.
            self.mark_tagged(repository, &mut candidates).await?;
            let mut read = CollectReport::default();
            let named = self.mark_named(cycle, repository, &mut candidates, &mut read);
            if named.await?.is_none() {
                return Ok(None);
            }
            let unnamed = candidates.iter().filter(|(_, is_named)| !**is_named);
            let unnamed: Vec<Digest> = unnamed.map(|(digest, _)| digest.clone()).collect();
            collected.left += (candidates.len() - unnamed.len()) as u64;
            self.decide_manifests(cycle, repository, unnamed, keep, &mut collected)
                .await?;
        }
    }

    /// Marks the candidates that a tag names.
    async fn mark_tagged(
        &self,
        repository: &RepositoryName,
        candidates: &mut Candidates,
    ) -> Result<(), Error> {
        let mut pages = Pages::of(Key::tags(repository));
        while let Some(page) = pages.next(&*self.backend).await? {
            let visible = page
                .into_iter()
                .filter(|entry| state_of_size(entry.size).is_visible());
            let visible: Vec<Key> = keys(visible.collect()).collect();
            for stored in self.backend.get_all(&visible).await? {
                let tag = Found::<TagRecord>::new(stored.as_ref())?.visible();
                if let Some((tag, _)) = tag
                    && let Some(is_named) = candidates.get_mut(&tag.digest)
                {
                    *is_named = true;
                }
            }
        }
        Ok(())
    }

    /// Condemns manifests that nothing names, and deletes those that a sealed cycle condemned.
    async fn decide_manifests(
        &self,
        cycle: &Cycle,
        repository: &RepositoryName,
        manifests: Vec<Digest>,
        keep: Option<&Keep>,
        collected: &mut CollectedManifests,
    ) -> Result<(), Error> {
        let mut to_delete = Vec::new();
        for undecided in manifests.chunks(MANIFESTS_PER_DECISION) {
            let decide = DecideManifests {
                repository: repository.clone(),
                undecided: undecided.to_vec(),
                cycle: cycle.clone(),
                now: self.clock.now(),
                condemned: 0,
                left: 0,
                to_delete: Vec::new(),
            };
            let decided = transact_all(&*self.backend, |_| Durability::Deferred, decide).await?;
            collected.condemned += decided.condemned;
            collected.left += decided.left;
            to_delete.extend(decided.to_delete);
        }
        // What becomes durable with the next transaction that is synced is at most forgotten as a whole.
        let deletes = to_delete.into_iter().map(|(digest, version)| async move {
            self.delete_manifest_as_it_was(repository, &digest, version, keep)
                .await
        });
        let mut deletes = stream::iter(deletes).buffer_unordered(PARALLEL_DELETES);
        while let Some(is_deleted) = deletes.try_next().await? {
            collected.deleted += u64::from(is_deleted);
            collected.left += u64::from(!is_deleted);
        }
        Ok(())
    }
}

/// Condemns some manifests, each by itself, and finds those to delete, in as many transactions as that takes.
#[derive(Clone)]
struct DecideManifests {
    repository: RepositoryName,
    undecided: Vec<Digest>,
    cycle: Cycle,
    now: Timestamp,
    condemned: u64,
    left: u64,
    to_delete: Vec<(Digest, Version)>,
}

impl Transaction for DecideManifests {
    type Output = Step<Self, Self>;

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(mut self, records: &mut dyn RecordTransaction) -> Result<Self::Output, Error> {
        let mut records = Counted::new(records);
        while !records.is_enough() {
            let Some(digest) = self.undecided.pop() else {
                return Ok(Step::Done(self));
            };
            self.decide(&mut records, digest).await?;
        }
        Ok(Step::More(self))
    }
}

impl DecideManifests {
    async fn decide(&mut self, records: &mut dyn RecordTransaction, digest: Digest) -> Result<(), Error> {
        let key = Key::manifest(&self.repository, &digest);
        let manifest = read_latest::<ManifestRecord>(records, &key).await?;
        let (Some(header), Some(version)) = (manifest.header(), manifest.version()) else {
            return Ok(());
        };
        let facts = Facts {
            state: header.state,
            condemned_in: header.condemned_in,
            written: header.stamp.written,
            is_root: false,
            is_certain: false,
        };
        match self.cycle.decide(facts, self.now) {
            Collect::Condemn => {
                if condemn(records, &key, &manifest, self.cycle.number(), self.now).await? {
                    self.condemned += 1;
                } else {
                    self.left += 1;
                }
            }
            Collect::Kill if facts.state.is_visible() => self.to_delete.push((digest, version.clone())),
            Collect::Kill | Collect::Leave | Collect::Revive => {
                self.left += u64::from(facts.state != State::Dead);
            }
        }
        Ok(())
    }
}
