//! The facet of manifests and tags, and reading them.

use std::marker::PhantomData;

use crate::chain::State;
use async_trait::async_trait;
use bytes::Bytes;
use registry_core::storage::{
    Manifest, ManifestStorage, NewManifest, RepositoryDeleted, RestoreTag, RestoredTag, TagFilter,
};
use registry_core::{Digest, Error, ErrorCode, Reference, RepositoryName, Tag};

use super::DeleteRepositoryOptions;
use super::edge::{Found, Rescue, contended, read_cached, recall};
use super::looks::is_content_of;
use super::{Store, TRANSACTION_ATTEMPTS};
use crate::backend::{Backend, Durability};
use crate::key::Key;
use crate::record::{ManifestRecord, TagRecord, state_of_size};

#[async_trait]
impl<B: Backend> ManifestStorage for Store<B> {
    async fn get_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Manifest, Error> {
        self.read_manifest(repository, reference, false).await
    }

    async fn pull_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Manifest, Error> {
        if let Some(manifest) = self.recall_manifest(repository, reference).await? {
            return Ok(manifest);
        }
        self.read_manifest(repository, reference, false).await
    }

    async fn stat_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Manifest, Error> {
        self.read_manifest(repository, reference, true).await
    }

    async fn put_manifest(&self, repository: &RepositoryName, manifest: NewManifest) -> Result<(), Error> {
        self.note_room(self.push_manifest(repository, manifest).await)
    }

    async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        may_delete: Option<TagFilter>,
        immutable: Option<TagFilter>,
    ) -> Result<(), Error> {
        let deleted = self.delete_manifest_and_tags(repository, digest, may_delete, immutable);
        self.note_room(deleted.await)
    }

    async fn delete_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        if_match: Option<&[Digest]>,
    ) -> Result<(), Error> {
        self.note_room(self.delete_tag_alone(repository, tag, if_match).await)
    }

    async fn delete_all(
        &self,
        repository: &RepositoryName,
        immutable: Option<TagFilter>,
    ) -> Result<RepositoryDeleted, Error> {
        let options = DeleteRepositoryOptions::new().immutable(immutable);
        self.note_room(self.delete_whole_repository(repository, &options, &()).await)
    }

    async fn find_restorable(
        &self,
        repository: &RepositoryName,
        restore: &RestoreTag,
    ) -> Result<Manifest, Error> {
        self.restorable(repository, restore).await
    }

    async fn restore_tag(
        &self,
        repository: &RepositoryName,
        restore: RestoreTag,
    ) -> Result<RestoredTag, Error> {
        self.note_room(self.restore(repository, restore).await)
    }
}

impl<B: Backend> Store<B> {
    async fn read_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        keep: bool,
    ) -> Result<Manifest, Error> {
        let found = match reference {
            Reference::Digest(digest) => self.find_manifest(repository, digest, None, keep).await?,
            Reference::Tag(tag) => self.find_tagged(repository, tag, keep).await?,
        };
        match found {
            Some(manifest) => Ok(manifest),
            None => Err(self.unknown_manifest(repository).await?),
        }
    }

    /// Returns a manifest from memory, if all that leads to it is there. What is not found is looked for in the records.
    async fn recall_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<Manifest>, Error> {
        let (digest, incarnation) = match reference {
            Reference::Digest(digest) => (digest.clone(), None),
            Reference::Tag(tag) => {
                let tag = recall::<TagRecord>(&*self.backend, &Key::tag(repository, tag))?;
                let Some((tag, _)) = tag.and_then(Found::visible) else {
                    return Ok(None);
                };
                (tag.digest, Some(tag.incarnation))
            }
        };
        let Some(manifest) = recall::<ManifestRecord>(&*self.backend, &Key::manifest(repository, &digest))?
        else {
            return Ok(None);
        };
        if !is_content_of(&digest, &manifest).await? {
            return Ok(None);
        }
        let manifest = manifest.visible().filter(|(manifest, _)| {
            incarnation.is_none_or(|incarnation| manifest.incarnation == incarnation)
        });
        Ok(manifest.map(|(manifest, bytes)| Manifest {
            digest,
            media_type: manifest.media_type,
            bytes,
        }))
    }

    /// Reads the manifest that a tag names. A tag whose manifest is gone is deleted: on a bucket, a push that is killed after
    /// it wrote the tag, and before it saw that the manifest was deleted meanwhile, leaves such a tag in the list.
    async fn find_tagged(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        keep: bool,
    ) -> Result<Option<Manifest>, Error> {
        let key = Key::tag(repository, tag);
        let mut found = read_cached::<TagRecord>(&*self.backend, &key).await?;
        for _ in 0..TRANSACTION_ATTEMPTS {
            let version = found.version().cloned();
            let Some((record, _)) = found.visible() else {
                return Ok(None);
            };
            let manifest = self.find_manifest(repository, &record.digest, Some(&record.incarnation), keep);
            if let Some(manifest) = manifest.await? {
                return Ok(Some(manifest));
            }
            // The tag names a manifest that is gone, or was moved between the two reads and its old manifest was
            // deleted.
            found = read_cached::<TagRecord>(&*self.backend, &key).await?;
            if found.version() == version.as_ref() {
                self.delete_dead_tag(repository, &record.digest, tag).await;
                return Ok(None);
            }
        }
        Err(contended())
    }

    /// Reads a manifest. A manifest of another incarnation than the tag's is not the tag's. A manifest whose content
    /// does not match its digest counts as absent: a client that compares them itself would fail at it for ever.
    async fn find_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        incarnation: Option<&str>,
        keep: bool,
    ) -> Result<Option<Manifest>, Error> {
        let key = Key::manifest(repository, digest);
        let manifest = read_cached::<ManifestRecord>(&*self.backend, &key).await?;
        if manifest.state().is_visible() && !is_content_of(digest, &manifest).await? {
            tracing::error!(
                %repository, %digest,
                "the content of a manifest is not what its digest says; a push of the manifest heals it"
            );
            return Ok(None);
        }
        let is_kept = keep && !self.only_reads();
        let manifest = if is_kept && manifest.state() == State::Condemned {
            let rescue = Rescue {
                key,
                now: self.clock.now(),
                header: PhantomData,
            };
            self.backend.transact(Durability::Synced, rescue).await?
        } else {
            manifest.visible()
        };
        let manifest = manifest.filter(|(manifest, _): &(ManifestRecord, Bytes)| {
            incarnation.is_none_or(|incarnation| manifest.incarnation == incarnation)
        });
        Ok(manifest.map(|(manifest, bytes)| Manifest {
            digest: digest.clone(),
            media_type: manifest.media_type,
            bytes,
        }))
    }

    /// Returns the error that distinguishes an unknown repository from an unknown manifest.
    pub(super) async fn unknown_manifest(&self, repository: &RepositoryName) -> Result<Error, Error> {
        let known = self.is_known(repository).await?;
        Ok(if known {
            ErrorCode::ManifestUnknown
        } else {
            ErrorCode::NameUnknown
        }
        .into())
    }

    /// Returns whether the repository is in the catalog: a manifest was pushed to it, and it was not deleted since.
    pub(super) async fn is_known(&self, repository: &RepositoryName) -> Result<bool, Error> {
        let found = self.backend.get(&Key::repository(repository)).await?;
        Ok(found.is_some_and(|stored| state_of_size(stored.value.len() as u64).is_visible()))
    }
}
