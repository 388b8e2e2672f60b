//! Deletes by a user.

mod content;
mod notes;
mod reach;
mod repository;

use std::sync::Arc;

use crate::chain::State;
use registry_core::storage::{EndReason, TagFilter};
use registry_core::{Digest, Error, ErrorCode, RepositoryName, Tag, Timestamp};

use self::content::{DeleteGrant, DeleteManifest, Outcome};
use self::notes::{Begun, HoldContent, RemoveNote, WithdrawPush};
use super::collect::mark_changed;
use super::edge::{contended, read_latest, write};
use super::mount::GrantKeys;
use super::steps::transact_all;
use super::undelete::Keep;
use super::{Store, TRANSACTION_ATTEMPTS};
use crate::backend::{Again, Backend, Durability, RecordTransaction, Transaction, Version};
use crate::key::Key;
use crate::record::{ManifestRecord, NoteKind, NoteRecord, Stamp, TagRecord};

pub(super) use self::content::kill_grant;
pub(super) use self::notes::write_note;
pub(super) use self::reach::{all_children, parse_manifest};
pub use self::repository::DeleteRepositoryOptions;

impl<B: Backend> Store<B> {
    /// Ends the operation of a note: a delete that made its manifest Dead is continued with the tags, any other delete
    /// and a push are given up.
    pub(in crate::store) async fn end(&self, note: &Key, record: NoteRecord) -> Result<(), Error> {
        let NoteRecord {
            repository,
            digest,
            kind,
            ..
        } = record;
        let now = self.clock.now();
        match kind {
            NoteKind::PushManifest => {
                let withdraw = WithdrawPush {
                    manifest: Key::manifest(&repository, &digest),
                    note: note.clone(),
                    now,
                };
                self.backend.transact(Durability::Deferred, withdraw).await
            }
            NoteKind::DeleteBlob => {
                let hold = HoldContent {
                    repository,
                    kind,
                    digest,
                    now,
                };
                self.backend.transact(Durability::Deferred, hold).await?;
                let remove = RemoveNote(note.clone());
                self.backend.transact(Durability::Deferred, remove).await
            }
            NoteKind::DeleteManifest => self.end_delete(&repository, &digest, Some(note.clone())).await,
        }
    }

    /// Deletes what is left of the tags of a manifest that was deleted, and the note of that.
    pub(in crate::store) async fn end_delete(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        note: Option<Key>,
    ) -> Result<(), Error> {
        let end = DeleteManifest::new(&*self.backend, repository, digest, self.clock.now())
            .keeping(self.keep(EndReason::ManifestDeleted))
            .end(note);
        transact_all(&*self.backend, |_| Durability::Deferred, end).await?;
        Ok(())
    }

    /// Removes a blob from a repository.
    pub(in crate::store) async fn delete_grant(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        immutable: Option<TagFilter>,
    ) -> Result<(), Error> {
        for _ in 0..TRANSACTION_ATTEMPTS {
            let begun = self.begin_delete(repository, digest, NoteKind::DeleteBlob, immutable.as_ref());
            let delete = DeleteGrant {
                keys: GrantKeys::new(repository, digest),
                begun: begun.await?,
                blob: digest.clone(),
                now: self.clock.now(),
            };
            match self.backend.transact(Durability::Synced, delete).await? {
                Outcome::Deleted => {
                    self.note_freed();
                    return Ok(());
                }
                Outcome::Absent => return Err(ErrorCode::BlobUnknown.into()),
                Outcome::Refused(error) => return Err(error),
                Outcome::Changed => {}
            }
        }
        Err(contended())
    }

    /// Deletes a manifest and the tags that name it.
    pub(in crate::store) async fn delete_manifest_and_tags(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        may_delete: Option<TagFilter>,
        immutable: Option<TagFilter>,
    ) -> Result<(), Error> {
        for _ in 0..TRANSACTION_ATTEMPTS {
            let begun = self.begin_delete(repository, digest, NoteKind::DeleteManifest, immutable.as_ref());
            let begun = begun.await?;
            let delete = DeleteManifest::new(&*self.backend, repository, digest, self.clock.now())
                .keeping(self.keep(EndReason::ManifestDeleted))
                .with(may_delete.clone(), begun);
            match transact_all(&*self.backend, DeleteManifest::durability, delete).await? {
                Outcome::Deleted => {
                    self.fit_kept_of(repository).await;
                    return Ok(());
                }
                Outcome::Absent => return Err(self.unknown_manifest(repository).await?),
                Outcome::Refused(error) => return Err(error),
                Outcome::Changed => {}
            }
        }
        Err(contended())
    }

    /// Deletes a manifest as it was read, unless a tag names it. Returns `false` if it was written since, or a tag names it.
    pub(in crate::store) async fn delete_untagged(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        version: Version,
        keep: Option<Keep>,
    ) -> Result<bool, Error> {
        let delete = DeleteManifest::new(&*self.backend, repository, digest, self.clock.now())
            .keeping(keep)
            .with(
                Some(Arc::new(|_: &Tag| false)),
                Some(Begun { note: None, version }),
            );
        match transact_all(&*self.backend, DeleteManifest::durability, delete).await? {
            Outcome::Deleted => Ok(true),
            Outcome::Absent | Outcome::Refused(_) | Outcome::Changed => Ok(false),
        }
    }

    pub(in crate::store) async fn delete_tag_alone(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        if_match: Option<&[Digest]>,
    ) -> Result<(), Error> {
        let delete = DeleteTag {
            repository: repository.clone(),
            tag: tag.clone(),
            if_match: if_match.map(<[_]>::to_vec),
            keep: self.keep(EndReason::TagDeleted),
            now: self.clock.now(),
        };
        let deleted = self.backend.transact(Durability::Synced, delete).await?;
        if deleted {
            self.fit_kept_of(repository).await;
            Ok(())
        } else {
            Err(self.unknown_manifest(repository).await?)
        }
    }

    /// Deletes a tag that was read, and whose manifest is gone. Whoever read it has an answer also if this fails.
    pub(in crate::store) async fn delete_dead_tag(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        tag: &Tag,
    ) {
        if self.only_reads() {
            return;
        }
        let delete = DeleteDeadTag {
            repository: repository.clone(),
            digest: digest.clone(),
            tag: tag.clone(),
            keep: self.keep(EndReason::ManifestDeleted),
            now: self.clock.now(),
        };
        match self.backend.transact(Durability::Deferred, delete).await {
            Ok(true) => {
                tracing::info!(%repository, %tag, %digest, "a tag whose manifest is gone was deleted");
            }
            // Its manifest is there, and damaged; or others were faster.
            Ok(false) => {}
            Err(error) => {
                let cause = std::error::Error::source(&error);
                tracing::debug!(%repository, %tag, cause, "a tag whose manifest is gone cannot be deleted");
            }
        }
    }
}

/// Makes a tag a tombstone if the manifest that it names is gone.
#[derive(Clone)]
struct DeleteDeadTag {
    repository: RepositoryName,
    digest: Digest,
    tag: Tag,
    keep: Option<Keep>,
    now: Timestamp,
}

impl Transaction for DeleteDeadTag {
    type Output = bool;

    fn again(&self) -> Option<Again<Self>> {
        // Without room for it, nothing is kept.
        Some(Again::Freeing(Self {
            keep: None,
            ..self.clone()
        }))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<bool, Error> {
        let keep = self.keep.as_ref();
        write_tag_tombstone(records, &self.repository, &self.digest, &self.tag, keep, self.now).await
    }
}

/// Makes a tag a tombstone if it names an incarnation of a manifest that is gone: the one that was just deleted, or an
/// earlier one whose delete has not reached the tag yet and will not find the back reference. Returns whether it did.
pub(super) async fn write_tag_tombstone(
    records: &mut dyn RecordTransaction,
    repository: &RepositoryName,
    digest: &Digest,
    tag: &Tag,
    keep: Option<&Keep>,
    now: Timestamp,
) -> Result<bool, Error> {
    let key = Key::tag(repository, tag);
    let manifest = Key::manifest(repository, digest);
    for _ in 0..TRANSACTION_ATTEMPTS {
        let found = read_latest::<TagRecord>(records, &key).await?;
        let condition = found.unchanged();
        let Some((record, _)) = found.visible().filter(|(tag, _)| tag.digest == *digest) else {
            return Ok(false);
        };
        // Read after the tag: an incarnation that a tag names was visible before, and once it is not, never is again.
        let manifest = read_latest::<ManifestRecord>(records, &manifest).await?.visible();
        if manifest.is_some_and(|(manifest, _)| manifest.incarnation == record.incarnation) {
            return Ok(false);
        }
        if let Some(keep) = keep {
            keep.tag(records, repository, tag, &record, true).await?;
        }
        let tombstone = tombstone(record, now);
        if let Some(version) = write(records, &key, &tombstone, &[], condition).await? {
            records.purge_if(&key, &version).await?;
            return Ok(true);
        }
    }
    Err(contended())
}

/// Returns the tombstone of a tag.
pub(super) fn tombstone(tag: TagRecord, now: Timestamp) -> TagRecord {
    TagRecord {
        state: State::Dead,
        stamp: Stamp::new(now),
        ..tag
    }
}

#[derive(Clone)]
struct DeleteTag {
    repository: RepositoryName,
    tag: Tag,
    if_match: Option<Vec<Digest>>,
    keep: Option<Keep>,
    now: Timestamp,
}

impl Transaction for DeleteTag {
    type Output = bool;

    fn again(&self) -> Option<Again<Self>> {
        // Without room for it, nothing is kept.
        Some(Again::Freeing(Self {
            keep: None,
            ..self.clone()
        }))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<bool, Error> {
        let key = Key::tag(&self.repository, &self.tag);
        for _ in 0..TRANSACTION_ATTEMPTS {
            let found = read_latest::<TagRecord>(records, &key).await?;
            let condition = found.unchanged();
            let Some((record, _)) = found.visible() else {
                return Ok(false);
            };
            let manifest = Key::manifest(&self.repository, &record.digest);
            let manifest = read_latest::<ManifestRecord>(records, &manifest).await?.visible();
            // A tag of a manifest that is gone already counts as absent, but nothing is lost by removing it.
            let counted = manifest.is_some_and(|(manifest, _)| manifest.incarnation == record.incarnation);
            let is_other = |digests: &Vec<Digest>| !digests.contains(&record.digest);
            if counted && self.if_match.as_ref().is_some_and(is_other) {
                let message = format!("tag {} names {}", self.tag, record.digest);
                return Err(Error::new(ErrorCode::PreconditionFailed, message));
            }
            if let Some(keep) = &self.keep {
                keep.tag(records, &self.repository, &self.tag, &record, counted)
                    .await?;
            }
            let tombstone = tombstone(record, self.now);
            if let Some(version) = write(records, &key, &tombstone, &[], condition).await? {
                records.purge_if(&key, &version).await?;
                mark_changed(records, &Key::changed(&self.repository), self.now).await?;
                return Ok(counted);
            }
        }
        Err(contended())
    }
}
