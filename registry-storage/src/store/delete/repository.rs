//! Deleting a whole repository.
//!
//! Its tags go first. Then what no tag needs goes as the collector removes it: condemned in one cycle, and removed in a
//! later one unless a push needs it by then. So a push at the same time is refused, or is whole. Last, the repository
//! leaves the catalog, unless a push has brought a manifest.

use std::fmt;

use futures_util::{StreamExt as _, stream};
use registry_core::storage::{EndReason, ManifestStorage as _, RepositoryDeleted, TagFilter, UploadKey};
use registry_core::{Digest, Error, ErrorCode, Reference, RepositoryName, Tag, Timestamp};

use super::content::{DeleteManifest, Outcome};
use super::notes::Begun;
use super::reach::visible_tag;
use super::tombstone;
use crate::backend::{
    Again, Backend, Condition, Durability, RecordEntry, RecordTransaction, Transaction, Version,
};
use crate::chain::State;
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::observer::{MaintenanceObserver, Step as Progress};
use crate::pages::{Pages, Values};
use crate::record::{ManifestRecord, RepositoryRecord, SessionRecord, Stamp, TagRecord, state_of_size};
use crate::store::Store;
use crate::store::collect::WrittenBefore;
use crate::store::edge::{Found, read_cached, read_latest, write};
use crate::store::pulled::forget_pulled;
use crate::store::steps::{Counted, Step, transact_all};
use crate::store::undelete::{Forget, Keep};

/// How many records are read at once; a bucket takes some milliseconds for each.
const PARALLEL_READS: usize = 16;

/// How many entries in lists of referrers are looked at in one transaction.
const REFERRERS_PER_TRANSACTION: usize = 64;

/// How a repository is deleted.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct DeleteRepositoryOptions {
    /// Nothing is deleted if the repository has a tag that this selects. By default no tag is immutable.
    pub immutable: Option<TagFilter>,
    /// Nothing is kept to be restored, neither of what is deleted now nor of what was deleted before. `false` by default.
    pub purge: bool,
}

impl DeleteRepositoryOptions {
    /// Returns the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets which tags are [immutable](Self::immutable).
    #[must_use]
    pub fn immutable(mut self, immutable: Option<TagFilter>) -> Self {
        self.immutable = immutable;
        self
    }

    /// Sets whether nothing is [kept](Self::purge).
    #[must_use]
    pub const fn purge(mut self, purge: bool) -> Self {
        self.purge = purge;
        self
    }
}

impl fmt::Debug for DeleteRepositoryOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeleteRepositoryOptions")
            .field("has_immutable_tags", &self.immutable.is_some())
            .field("purge", &self.purge)
            .finish()
    }
}

impl<B: Backend> Store<B> {
    /// Deletes a repository, as [`Maintenance::delete_repository`](crate::Maintenance::delete_repository) says.
    pub(crate) async fn delete_whole_repository(
        &self,
        repository: &RepositoryName,
        options: &DeleteRepositoryOptions,
        observer: &dyn MaintenanceObserver,
    ) -> Result<RepositoryDeleted, Error> {
        let immutable = options.immutable.clone();
        let begun = self.clock.now();
        if self.is_adopting().await? {
            let message =
                "the distribution registry's folders are being adopted; delete the repository after that";
            return Err(Error::new(ErrorCode::Unavailable, message));
        }
        if let Some(immutable) = &immutable {
            self.require_no_immutable_tag(repository, immutable).await?;
        }
        let mut is_known = self.is_known(repository).await?;
        let keep = self.keep(EndReason::RepositoryDeleted).filter(|_| !options.purge);
        if options.purge {
            let forgotten = self.forget(Key::kept_of(repository), Forget::All, false).await?;
            is_known |= forgotten.forgotten_manifests + forgotten.forgotten_tags > 0;
        }
        let newest = self.newest_written(repository).await?.unwrap_or(begun);
        let written = WrittenBefore { begun, newest };
        let mut deleted = RepositoryDeleted {
            cancelled_uploads: self.cancel_uploads(repository).await?,
            tags: self
                .delete_tags(repository, immutable, written, keep.as_ref(), observer)
                .await?,
            ..RepositoryDeleted::default()
        };
        let Some(removed) = self
            .collect_all_of(repository, written, keep.as_ref(), observer)
            .await?
        else {
            let message = format!(
                "a manifest of {repository} cannot be read, so nobody knows what it names; let `check --repair` put it \
                 aside, and delete the repository again"
            );
            return Err(Error::new(ErrorCode::Unavailable, message));
        };
        deleted.manifests = removed.manifests;
        deleted.manifests_left = removed.manifests_left;
        (deleted.blobs, deleted.bytes) = (removed.blobs.blobs, removed.blobs.bytes);
        if !is_known && deleted == RepositoryDeleted::default() {
            return Err(ErrorCode::NameUnknown.into());
        }
        self.remove_dead_referrers(repository).await?;
        deleted.is_gone = self.remove_from_catalog(repository).await?;
        if deleted.is_gone {
            // Another delete removed what this one left.
            deleted.manifests_left = 0;
        }
        // What stays, and blobs that can be restored, the next cycle counts.
        self.forget_usage(repository).await?;
        drop(self.touched.at_end(repository));
        self.note_freed();
        self.fit_kept_of(repository).await;
        if let Some(until) = keep.map(|keep| keep.until()) {
            let is_kept = self.is_kept_until(repository, until).await?;
            deleted.restorable_until = is_kept.then_some(until);
        }
        Ok(deleted)
    }

    /// Returns when the newest tag or manifest of a repository was written, by the clock of the server that wrote it: it may be
    /// ahead.
    async fn newest_written(&self, repository: &RepositoryName) -> Result<Option<Timestamp>, Error> {
        let mut newest = None;
        let is_visible = |entry: &RecordEntry| state_of_size(entry.size).is_visible();
        // The cycles report a record that cannot be read.
        let mut tags = Values::of(Key::tags(repository), is_visible);
        while let Some(read) = tags.next(&*self.backend).await? {
            let read = read.iter().filter_map(|(_, stored)| {
                let (tag, _) = Found::<TagRecord>::new(stored.as_ref()).ok()?.record?;
                Some(tag.stamp.written)
            });
            newest = newest.max(read.max());
        }
        let mut manifests = Values::of(Key::manifests(repository), is_visible);
        while let Some(read) = manifests.next(&*self.backend).await? {
            let read = read.iter().filter_map(|(_, stored)| {
                let (manifest, _) = Found::<ManifestRecord>::new(stored.as_ref()).ok()?.record?;
                Some(manifest.stamp.written)
            });
            newest = newest.max(read.max());
        }
        Ok(newest)
    }

    async fn require_no_immutable_tag(
        &self,
        repository: &RepositoryName,
        immutable: &TagFilter,
    ) -> Result<(), Error> {
        let prefix = Key::tags(repository);
        let mut pages = Pages::of(prefix.clone());
        while let Some(page) = pages.next(&*self.backend).await? {
            let tags = page.iter().filter_map(|entry| visible_tag(&prefix, entry));
            for tag in tags.filter(|tag| immutable(tag)) {
                // A tag whose manifest is gone counts as absent.
                if self
                    .get_manifest(repository, &Reference::Tag(tag.clone()))
                    .await
                    .is_ok()
                {
                    let message =
                        format!("the tag {tag} is immutable, so its repository stays; nothing was deleted");
                    return Err(Error::new(ErrorCode::TagConflict, message));
                }
            }
        }
        Ok(())
    }

    /// Cancels the uploads in progress to a repository, and returns how many there were.
    async fn cancel_uploads(&self, repository: &RepositoryName) -> Result<u64, Error> {
        let mut cancelled = 0;
        let mut pages = Pages::of(Key::uploads());
        while let Some(page) = pages.next(&*self.backend).await? {
            // The listing shows which are ended.
            let open = page
                .into_iter()
                .filter(|entry| state_of_size(entry.size).is_visible());
            let reads = open.map(|RecordEntry { key, .. }| async move {
                // The sweeper reports a record that cannot be read.
                let session = read_cached::<SessionRecord>(&*self.backend, &key).await.ok();
                let session = session.and_then(|session| session.visible())?.0;
                let id = key.upload_id().filter(|_| session.repository == *repository)?;
                Some(UploadKey {
                    repository: session.repository,
                    id,
                    principal: session.principal,
                })
            });
            let mut reads = stream::iter(reads).buffered(PARALLEL_READS);
            while let Some(upload) = reads.next().await {
                let Some(upload) = upload else { continue };
                match self.cancel_session(&upload).await {
                    Ok(()) => cancelled += 1,
                    Err(error) if error.code() == ErrorCode::BlobUploadUnknown => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(cancelled)
    }

    /// Deletes the tags that were written before.
    async fn delete_tags(
        &self,
        repository: &RepositoryName,
        immutable: Option<TagFilter>,
        written: WrittenBefore,
        keep: Option<&Keep>,
        observer: &dyn MaintenanceObserver,
    ) -> Result<u64, Error> {
        let mut deleted = 0;
        let prefix = Key::tags(repository);
        let mut pages = Pages::of(prefix.clone());
        while let Some(page) = pages.next(&*self.backend).await? {
            let tags = page.iter().filter_map(|entry| visible_tag(&prefix, entry));
            // Pushed since they were looked for.
            let is_immutable = |tag: &Tag| immutable.as_ref().is_some_and(|immutable| immutable(tag));
            let delete = DeleteTags {
                repository: repository.clone(),
                tags: tags.filter(|tag| !is_immutable(tag)).collect(),
                written,
                keep: keep.cloned(),
                now: self.clock.now(),
                deleted: 0,
            };
            deleted += transact_all(&*self.backend, |_| Durability::Deferred, delete).await?;
            observer.step(Progress::Deletes, deleted, None);
        }
        Ok(deleted)
    }

    /// Removes what a delete that was cut off left in the lists of referrers.
    async fn remove_dead_referrers(&self, repository: &RepositoryName) -> Result<(), Error> {
        let mut pages = Pages::of(Key::all_referrers(repository));
        while let Some(page) = pages.next(&*self.backend).await? {
            for entries in page.chunks(REFERRERS_PER_TRANSACTION) {
                let entries = entries.iter().map(|entry| entry.key.clone()).collect();
                let remove = RemoveDeadReferrers(entries);
                self.backend.transact(Durability::Deferred, remove).await?;
            }
        }
        Ok(())
    }

    /// Deletes a manifest if it still has this version; returns whether it did.
    pub(in crate::store) async fn delete_manifest_as_it_was(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        version: Version,
        keep: Option<&Keep>,
    ) -> Result<bool, Error> {
        let begun = Begun { note: None, version };
        let delete = DeleteManifest::new(&*self.backend, repository, digest, self.clock.now())
            .keeping(keep.cloned())
            .with(None, Some(begun));
        let outcome = transact_all(&*self.backend, |_| Durability::Deferred, delete).await?;
        Ok(matches!(outcome, Outcome::Deleted))
    }

    /// Removes a repository without manifests from the catalog; returns whether it is not there any more.
    pub(in crate::store) async fn remove_from_catalog(
        &self,
        repository: &RepositoryName,
    ) -> Result<bool, Error> {
        let remove = RemoveFromCatalog {
            repository: repository.clone(),
            now: self.clock.now(),
        };
        self.backend.transact(Durability::Synced, remove).await
    }
}

/// Deletes the tags that were written before, and returns how many.
#[derive(Clone)]
struct DeleteTags {
    repository: RepositoryName,
    tags: Vec<Tag>,
    written: WrittenBefore,
    keep: Option<Keep>,
    now: Timestamp,
    deleted: u64,
}

impl Transaction for DeleteTags {
    type Output = Step<Self, u64>;

    fn again(&self) -> Option<Again<Self>> {
        // Without room for it, nothing is kept.
        Some(Again::Freeing(Self {
            keep: None,
            ..self.clone()
        }))
    }

    async fn run(mut self, records: &mut dyn RecordTransaction) -> Result<Self::Output, Error> {
        let mut records = Counted::new(records);
        while !records.is_enough() {
            let Some(tag) = self.tags.pop() else {
                return Ok(Step::Done(self.deleted));
            };
            let key = Key::tag(&self.repository, &tag);
            let found = read_latest::<TagRecord>(&mut records, &key).await?;
            let unchanged = found.unchanged();
            // A tag that is written at the same time is another push's.
            let Some((record, _)) = found
                .visible()
                .filter(|(tag, _)| self.written.includes(tag.stamp.written, self.now))
            else {
                continue;
            };
            if let Some(keep) = &self.keep {
                keep.tag(&mut records, &self.repository, &tag, &record, true)
                    .await?;
            }
            let tombstone = tombstone(record, self.now);
            if let Some(version) = write(&mut records, &key, &tombstone, &[], unchanged).await? {
                records.purge_if(&key, &version).await?;
                self.deleted += 1;
            }
        }
        Ok(Step::More(self))
    }
}

/// Removes entries in lists of referrers whose manifest is gone. A push writes the entry of an incarnation that is visible, and
/// one that is gone never is again.
#[derive(Clone)]
struct RemoveDeadReferrers(Vec<Key>);

impl Transaction for RemoveDeadReferrers {
    type Output = ();

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        for key in self.0 {
            let Some(KeyKind::Referrer {
                repository,
                referrer,
                incarnation,
                ..
            }) = KeyKind::of(&key)
            else {
                continue;
            };
            let manifest = Key::manifest(&repository, &referrer);
            let manifest = read_latest::<ManifestRecord>(records, &manifest).await?;
            let lives = manifest
                .header()
                .is_some_and(|manifest| manifest.state != State::Dead && manifest.incarnation == incarnation);
            if !lives {
                records.remove(&key).await?;
            }
        }
        Ok(())
    }
}

/// Removes a repository from the catalog by the rule for a child: its manifests are the parents that need the entry. A push
/// stores its manifest before it looks for the entry, so either this sees the manifest, or the push sees that the entry is
/// condemned, and writes it.
#[derive(Clone)]
struct RemoveFromCatalog {
    repository: RepositoryName,
    now: Timestamp,
}

impl Transaction for RemoveFromCatalog {
    type Output = bool;

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<bool, Error> {
        let key = Key::repository(&self.repository);
        let entry = read_latest::<RepositoryRecord>(records, &key).await?;
        let unchanged = entry.unchanged();
        let Some((entry, _)) = entry.visible() else {
            return Ok(true);
        };
        if self.has_manifest(records).await? {
            return Ok(false);
        }
        let condemned = RepositoryRecord {
            state: State::Condemned,
            stamp: Stamp::new(self.now),
            ..entry
        };
        let Some(version) = write(records, &key, &condemned, &[], unchanged).await? else {
            return Ok(false);
        };
        if self.has_manifest(records).await? {
            return Ok(false);
        }
        let dead = RepositoryRecord {
            state: State::Dead,
            stamp: Stamp::new(self.now),
            ..condemned
        };
        let condition = Condition::Matches(version);
        let Some(version) = write(records, &key, &dead, &[], condition).await? else {
            return Ok(false);
        };
        records.purge_if(&key, &version).await?;
        forget_pulled(records, &self.repository, self.now).await?;
        Ok(true)
    }
}

impl RemoveFromCatalog {
    async fn has_manifest(&self, records: &mut dyn RecordTransaction) -> Result<bool, Error> {
        let mut pages = Pages::of(Key::manifests(&self.repository));
        while let Some(page) = pages.next_in(records).await? {
            if page.iter().any(|entry| state_of_size(entry.size) != State::Dead) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
