//! Deletes by a user.

use registry_core::chain::{State, delete};
use registry_core::storage::TagFilter;
use registry_core::{Digest, Error, ErrorCode, RepositoryName, Tag, Timestamp};

use super::edge::{Stateful as _, contended, read, write};
use super::mount::GrantKeys;
use super::{ATTEMPTS, Store};
use crate::backend::{Backend, Durability, Records, Sequence, Version};
use crate::key::Key;
use crate::record::{GrantRecord, HintRecord, ManifestRecord, Stamp, TagRecord};

impl<B: Backend> Store<B> {
    pub(super) async fn delete_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), Error> {
        let delete = DeleteGrant {
            keys: GrantKeys::new(repository, digest),
            now: self.clock.now(),
        };
        let deleted = self.backend.transact(Durability::Synced, delete).await?;
        if deleted {
            Ok(())
        } else {
            Err(ErrorCode::BlobUnknown.into())
        }
    }

    pub(super) async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        may_delete: Option<TagFilter>,
    ) -> Result<(), Error> {
        let delete = DeleteManifest {
            repository: repository.clone(),
            digest: digest.clone(),
            may_delete,
            now: self.clock.now(),
        };
        let deleted = self.backend.transact(Durability::Synced, delete).await?;
        if deleted {
            Ok(())
        } else {
            Err(self.unknown_manifest(repository).await?)
        }
    }

    pub(super) async fn delete_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<(), Error> {
        let delete = DeleteTag {
            repository: repository.clone(),
            tag: tag.clone(),
            now: self.clock.now(),
        };
        let deleted = self.backend.transact(Durability::Synced, delete).await?;
        if deleted {
            Ok(())
        } else {
            Err(self.unknown_manifest(repository).await?)
        }
    }
}

#[derive(Clone)]
struct DeleteGrant {
    keys: GrantKeys,
    now: Timestamp,
}

impl Sequence for DeleteGrant {
    type Output = bool;

    fn freeing(&self) -> Option<Self> {
        Some(self.clone())
    }

    async fn run(self, records: &mut dyn Records) -> Result<bool, Error> {
        for _ in 0..ATTEMPTS {
            // The hint is read before the kill: whoever publishes the grant anew writes the hint anew first, and then
            // it is not this version that would be forgotten.
            let hint = records.get(&self.keys.hint).await?;
            let grant = read::<GrantRecord>(records, &self.keys.grant).await?;
            let condition = grant.unchanged();
            let Some((visible, _)) = grant.record.clone().filter(|_| delete(grant.state())) else {
                return Ok(false);
            };
            let dead = GrantRecord {
                blob: None,
                ..visible.in_state(State::Dead, self.now)
            };
            if let Some(dead) = write(records, &self.keys.grant, &dead, &[], condition).await? {
                records.forget(&self.keys.grant, &dead).await?;
                if let Some(hint) = hint {
                    records.forget(&self.keys.hint, &hint.version).await?;
                }
                return Ok(true);
            }
        }
        Err(contended())
    }
}

#[derive(Clone)]
struct DeleteManifest {
    repository: RepositoryName,
    digest: Digest,
    may_delete: Option<TagFilter>,
    now: Timestamp,
}

impl Sequence for DeleteManifest {
    type Output = bool;

    fn freeing(&self) -> Option<Self> {
        Some(self.clone())
    }

    async fn run(self, records: &mut dyn Records) -> Result<bool, Error> {
        let key = Key::manifest(&self.repository, &self.digest);
        for _ in 0..ATTEMPTS {
            let manifest = read::<ManifestRecord>(records, &key).await?;
            let condition = manifest.unchanged();
            let (dead, version) = match (manifest.state(), manifest.version().cloned(), manifest.record) {
                (state, _, Some((visible, _))) if delete(state) => {
                    self.check_tags(records, &visible).await?;
                    let dead = visible.in_state(State::Dead, self.now);
                    match write(records, &key, &dead, &[], condition).await? {
                        Some(version) => (dead, version),
                        None => continue,
                    }
                }
                // A delete that was ended before it came to the tags is ended here.
                (State::Dead, Some(version), Some((dead, _))) => {
                    self.bury(records, &key, &dead, &version).await?;
                    return Ok(false);
                }
                _ => return Ok(false),
            };
            self.bury(records, &key, &dead, &version).await?;
            return Ok(true);
        }
        Err(contended())
    }
}

impl DeleteManifest {
    /// Refuses the delete where a tag that names the manifest stays.
    async fn check_tags(&self, records: &mut dyn Records, manifest: &ManifestRecord) -> Result<(), Error> {
        let Some(may_delete) = &self.may_delete else {
            return Ok(());
        };
        let hints = Key::all_tagged(&self.repository, &self.digest);
        let mut after = None;
        loop {
            let page = records.list(&hints, after.as_ref(), 1000).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.key.clone());
            for entry in page {
                let hint = read::<HintRecord>(records, &entry.key).await?;
                let Some(tag) = hint.header().and_then(|hint| hint.tag.clone()) else {
                    continue;
                };
                if may_delete(&tag) {
                    continue;
                }
                let named = read::<TagRecord>(records, &Key::tag(&self.repository, &tag))
                    .await?
                    .visible();
                let names_it = named.is_some_and(|(named, _)| {
                    named.digest == self.digest && named.incarnation == manifest.incarnation
                });
                if names_it {
                    let message = format!("the tag {tag} names this manifest and may not be deleted");
                    return Err(Error::new(ErrorCode::TagConflict, message));
                }
            }
        }
    }

    /// Removes what names a manifest that is dead, then its record.
    async fn bury(
        &self,
        records: &mut dyn Records,
        key: &Key,
        dead: &ManifestRecord,
        version: &Version,
    ) -> Result<(), Error> {
        self.delete_tags(records, key, version).await?;
        if let Some(subject) = &dead.subject {
            let entry = Key::referrer(&self.repository, subject, &self.digest, &dead.incarnation);
            records.remove(&entry).await?;
        }
        records.forget(key, version).await
    }

    /// Deletes the tags that name the manifest, which was `dead`.
    async fn delete_tags(
        &self,
        records: &mut dyn Records,
        manifest: &Key,
        dead: &Version,
    ) -> Result<(), Error> {
        let hints = Key::all_tagged(&self.repository, &self.digest);
        let mut after = None;
        loop {
            let page = records.list(&hints, after.as_ref(), 1000).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.key.clone());
            for entry in page {
                let hint = read::<HintRecord>(records, &entry.key).await?;
                let Some(tag) = hint.header().and_then(|hint| hint.tag.clone()) else {
                    continue;
                };
                bury_tag(records, &self.repository, &self.digest, &tag, self.now).await?;
                // A push of this manifest writes the hint after it saw the manifest Live. While the manifest is the
                // dead record still, every such push either wrote before, and will find it dead, or has yet to write.
                let still_dead = read::<ManifestRecord>(records, manifest).await?.is(dead);
                if let Some(version) = hint.version().filter(|_| still_dead) {
                    records.forget(&entry.key, version).await?;
                }
            }
        }
    }
}

/// Makes a tag a tombstone if it names an incarnation of a manifest that is gone: the one that was deleted now, or one
/// before it whose delete has not come to the tag yet and will not find the hint.
pub(super) async fn bury_tag(
    records: &mut dyn Records,
    repository: &RepositoryName,
    digest: &Digest,
    tag: &Tag,
    now: Timestamp,
) -> Result<(), Error> {
    let key = Key::tag(repository, tag);
    let manifest = Key::manifest(repository, digest);
    for _ in 0..ATTEMPTS {
        let found = read::<TagRecord>(records, &key).await?;
        let condition = found.unchanged();
        let Some((record, _)) = found.visible().filter(|(tag, _)| tag.digest == *digest) else {
            return Ok(());
        };
        // Read after the tag: an incarnation that a tag names was visible before, and never is again once it is not.
        let manifest = read::<ManifestRecord>(records, &manifest).await?.visible();
        if manifest.is_some_and(|(manifest, _)| manifest.incarnation == record.incarnation) {
            return Ok(());
        }
        let tombstone = tombstone(record, now);
        if let Some(version) = write(records, &key, &tombstone, &[], condition).await? {
            return records.forget(&key, &version).await;
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
    now: Timestamp,
}

impl Sequence for DeleteTag {
    type Output = bool;

    fn freeing(&self) -> Option<Self> {
        Some(self.clone())
    }

    async fn run(self, records: &mut dyn Records) -> Result<bool, Error> {
        let key = Key::tag(&self.repository, &self.tag);
        for _ in 0..ATTEMPTS {
            let found = read::<TagRecord>(records, &key).await?;
            let condition = found.unchanged();
            let Some((record, _)) = found.visible() else {
                return Ok(false);
            };
            let manifest = Key::manifest(&self.repository, &record.digest);
            let manifest = read::<ManifestRecord>(records, &manifest).await?.visible();
            // A tag of a manifest that is gone counts as absent already, but nothing is lost by removing it.
            let counted = manifest.is_some_and(|(manifest, _)| manifest.incarnation == record.incarnation);
            let tombstone = tombstone(record, self.now);
            if let Some(version) = write(records, &key, &tombstone, &[], condition).await? {
                records.forget(&key, &version).await?;
                return Ok(counted);
            }
        }
        Err(contended())
    }
}
