//! Deleting manifests and blobs of a repository.

use crate::chain::{State, delete, names};
use registry_core::storage::TagFilter;
use registry_core::{Digest, Error, ErrorCode, RepositoryName, Tag, Timestamp};

use super::notes::{Begun, write_note};
use super::write_tag_tombstone;
use crate::backend::{
    Again, Backend, Condition, Durability, RecordTransaction, Transaction, Version, VersionedRecord,
};
use crate::key::Key;
use crate::record::{
    BackReferenceRecord, GrantRecord, ManifestRecord, NoteKind, Stamp, TagRecord, state_of_size,
};
use crate::store::TRANSACTION_ATTEMPTS;
use crate::store::collect::{mark_changed, write_candidates};
use crate::store::edge::{Found, Stateful as _, contended, read_latest, rescue, write};
use crate::store::mount::{GrantKeys, is_referred_to};
use crate::store::steps::{Counted, KEYS_PER_PAGE, Step};
use crate::store::undelete::Keep;

/// How a delete ended.
pub(super) enum Outcome {
    Deleted,
    /// There is nothing to delete.
    Absent,
    /// A tag that has to stay names it.
    Refused(Error),
    /// It was written since it was looked for in what immutable tags reach: begin again.
    Changed,
}

/// Removes a blob from a repository.
#[derive(Clone)]
pub(super) struct DeleteGrant {
    pub(super) keys: GrantKeys,
    pub(super) begun: Option<Begun>,
    pub(super) blob: Digest,
    pub(super) now: Timestamp,
}

impl Transaction for DeleteGrant {
    type Output = Outcome;

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Outcome, Error> {
        let outcome = self.delete(records).await?;
        if let Some(note) = self.begun.as_ref().and_then(|begun| begun.note.as_ref()) {
            records.remove(note).await?;
        }
        Ok(outcome)
    }
}

impl DeleteGrant {
    async fn delete(&self, records: &mut dyn RecordTransaction) -> Result<Outcome, Error> {
        for _ in 0..TRANSACTION_ATTEMPTS {
            // The back reference is read before the kill: a push that publishes the grant again rewrites the back
            // reference first, so this version is no longer there to be removed.
            let back_reference = records.get(&self.keys.back_reference).await?;
            let grant = read_latest::<GrantRecord>(records, &self.keys.grant).await?;
            if !delete(grant.state()) {
                return Ok(Outcome::Absent);
            }
            if self.begun.as_ref().is_some_and(|begun| !grant.is(&begun.version)) {
                return Ok(Outcome::Changed);
            }
            write_candidates(records, std::slice::from_ref(&self.blob), self.now).await?;
            if kill_grant(records, &self.keys, &grant, back_reference, self.now).await? {
                mark_changed(records, &self.keys.changed, self.now).await?;
                return Ok(Outcome::Deleted);
            }
        }
        Err(contended())
    }
}

/// Makes a grant Dead as it was read, also if there was none or it was Dead, and then removes the back reference, and the record.
/// Returns `false` if it was written since. The back reference has to be read before: a push that publishes the grant again
/// rewrites it first.
pub(in crate::store) async fn kill_grant(
    records: &mut dyn RecordTransaction,
    keys: &GrantKeys,
    grant: &Found<GrantRecord>,
    back_reference: Option<VersionedRecord>,
    now: Timestamp,
) -> Result<bool, Error> {
    let dead = GrantRecord {
        state: State::Dead,
        blob: None,
        condemned_in: None,
        stamp: Stamp::new(now),
    };
    let Some(dead) = write(records, &keys.grant, &dead, &[], grant.unchanged()).await? else {
        return Ok(false);
    };
    // A push that found no grant writes its own only after the record is gone, and then looks for the back reference.
    let is_removed = match back_reference {
        Some(back_reference) => remove_back_reference(records, keys, back_reference, now).await?,
        None => false,
    };
    // Another process may have removed the grant that was read, and a push may have written the back reference for its own. It does
    // not look for it again before this record is gone.
    if is_removed || !is_referred_to(records, keys).await? {
        records.purge_if(&keys.grant, &dead).await?;
    }
    Ok(true)
}

/// Removes a back reference as it was read, or makes it Dead where the store removes nothing: the listing shows to the collector then
/// that it need not read the grant. Returns `false` if it was written since.
async fn remove_back_reference(
    records: &mut dyn RecordTransaction,
    keys: &GrantKeys,
    read: VersionedRecord,
    now: Timestamp,
) -> Result<bool, Error> {
    if records.purge_if(&keys.back_reference, &read.version).await? {
        return Ok(true);
    }
    if state_of_size(read.value.len() as u64) == State::Dead {
        return Ok(false);
    }
    let dead = BackReferenceRecord {
        state: State::Dead,
        tag: None,
        stamp: Stamp::new(now),
    };
    let condition = Condition::Matches(read.version);
    let written = write(records, &keys.back_reference, &dead, &[], condition).await?;
    Ok(written.is_some())
}

/// Deletes a manifest and its tags, in as many transactions as the tags take.
#[derive(Clone)]
pub(super) struct DeleteManifest {
    repository: RepositoryName,
    digest: Digest,
    key: Key,
    /// A transaction is one step, so a small delete cannot be cut off.
    is_one_step: bool,
    may_delete: Option<TagFilter>,
    now: Timestamp,
    /// How the manifest and what its tags named is kept; `None` if it is not.
    keep: Option<Keep>,
    /// The note of this delete, if it has one.
    note: Option<Key>,
    /// The only version to delete, if the content was looked for in what immutable tags reach: any other has to be
    /// looked for again.
    version: Option<Version>,
    /// Only ends a delete that was begun: a manifest that still exists stays.
    is_end: bool,
    attempts: usize,
    stage: Stage,
}

/// What a delete does next.
#[derive(Clone)]
enum Stage {
    /// Read the manifest.
    Read,
    /// Look for tags of this manifest that have to stay, after this back reference.
    Check(Found<ManifestRecord>, Option<Key>),
    /// Make it Dead.
    Kill(Found<ManifestRecord>),
    /// Delete its tags, after this back reference.
    Purge(Dead, Option<Key>),
    /// Delete those of its tags that name an incarnation which is gone, after this back reference.
    Stale(Option<Key>),
}

/// A Dead manifest.
#[derive(Clone)]
struct Dead {
    record: ManifestRecord,
    version: Version,
    /// This delete made it Dead.
    is_own: bool,
}

/// What a pass over the tags of a manifest found.
enum Checked {
    /// This tag has to stay.
    Stays(Tag),
    /// No such tag up to this back reference.
    Upto(Key),
    /// No such tag at all.
    All,
}

impl Transaction for DeleteManifest {
    type Output = Step<Self, Outcome>;

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
            if let Some(outcome) = self.advance(&mut records).await? {
                if let Some(note) = &self.note {
                    records.remove(note).await?;
                }
                return Ok(Step::Done(outcome));
            }
        }
        Ok(Step::More(self))
    }
}

impl DeleteManifest {
    pub(super) fn new(
        backend: &impl Backend,
        repository: &RepositoryName,
        digest: &Digest,
        now: Timestamp,
    ) -> Self {
        Self {
            repository: repository.clone(),
            digest: digest.clone(),
            key: Key::manifest(repository, digest),
            is_one_step: backend.is_atomic(),
            may_delete: None,
            now,
            keep: None,
            note: None,
            version: None,
            is_end: false,
            attempts: 0,
            stage: Stage::Read,
        }
    }

    /// Sets how what is deleted is kept.
    pub(super) fn keeping(mut self, keep: Option<Keep>) -> Self {
        self.keep = keep;
        self
    }

    pub(super) fn with(mut self, may_delete: Option<TagFilter>, begun: Option<Begun>) -> Self {
        self.may_delete = may_delete;
        if let Some(begun) = begun {
            self.note = begun.note;
            self.version = Some(begun.version);
        }
        self
    }

    /// Returns a transaction that only ends a delete, and its note if it has one. A manifest that still exists is rewritten,
    /// so that a delete of it that is still in progress begins again.
    pub(super) fn end(mut self, note: Option<Key>) -> Self {
        self.note = note;
        self.is_end = true;
        self
    }

    /// Once the manifest is Dead, what is left of its tags counts as absent, and need not be durable.
    pub(super) fn durability(&self) -> Durability {
        match self.stage {
            Stage::Purge(..) | Stage::Stale(_) => Durability::Deferred,
            Stage::Read | Stage::Check(..) | Stage::Kill(..) => Durability::Synced,
        }
    }

    /// Does what is next. Returns the outcome once the delete has ended.
    async fn advance(&mut self, records: &mut dyn RecordTransaction) -> Result<Option<Outcome>, Error> {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Read) {
            Stage::Read => match self.read(records).await? {
                Ok(next) => next,
                Err(outcome) => return Ok(Some(outcome)),
            },
            Stage::Check(manifest, after) => {
                match self.check_tags(records, &manifest, after.as_ref()).await? {
                    Checked::Stays(tag) => {
                        let message = format!("the tag {tag} names this manifest and may not be deleted");
                        let refusal = Error::new(ErrorCode::TagConflict, message);
                        return Ok(Some(Outcome::Refused(refusal)));
                    }
                    Checked::Upto(last) => Stage::Check(manifest, Some(last)),
                    Checked::All => Stage::Kill(manifest),
                }
            }
            Stage::Kill(manifest) => self.kill(records, manifest).await?,
            Stage::Purge(dead, after) => {
                let version = Some(&dead.version);
                match self
                    .write_tag_tombstones(records, version, after.as_ref())
                    .await?
                {
                    Some(last) => Stage::Purge(dead, Some(last)),
                    None => return self.purge(records, dead).await.map(Some),
                }
            }
            Stage::Stale(after) => match self.write_tag_tombstones(records, None, after.as_ref()).await? {
                Some(last) => Stage::Stale(Some(last)),
                None => return Ok(Some(Outcome::Absent)),
            },
        };
        Ok(None)
    }

    async fn read(&mut self, records: &mut dyn RecordTransaction) -> Result<Result<Stage, Outcome>, Error> {
        self.attempts += 1;
        if self.attempts > TRANSACTION_ATTEMPTS {
            return Err(contended());
        }
        let manifest = read_latest::<ManifestRecord>(records, &self.key).await?;
        let (state, header) = (manifest.state(), manifest.header().cloned());
        Ok(match (state, header, manifest.version().cloned()) {
            // A delete that was interrupted before it reached the tags is ended here.
            (State::Dead, Some(record), Some(version)) => {
                let dead = Dead {
                    record,
                    version,
                    is_own: false,
                };
                Ok(Stage::Purge(dead, None))
            }
            (state, Some(_), _) if delete(state) && self.is_end => {
                if rescue(records, &self.key, &manifest, self.now).await? {
                    // It may have been pushed again after the delete that died, whose tags name nothing.
                    Ok(Stage::Stale(None))
                } else {
                    Ok(Stage::Read)
                }
            }
            (state, _, version) if delete(state) && self.version.is_some() && version != self.version => {
                Err(Outcome::Changed)
            }
            (state, Some(_), Some(_)) if delete(state) => Ok(Stage::Check(manifest, None)),
            // What was Dead came back since, as a push that is in progress or was refused: its tags of before name nothing.
            (State::Absent | State::Pending, ..) if self.is_end => Ok(Stage::Stale(None)),
            _ => Err(Outcome::Absent),
        })
    }

    /// Checks a page of the tags that name the manifest for one that has to stay.
    async fn check_tags(
        &self,
        records: &mut dyn RecordTransaction,
        manifest: &Found<ManifestRecord>,
        after: Option<&Key>,
    ) -> Result<Checked, Error> {
        let Some(may_delete) = &self.may_delete else {
            return Ok(Checked::All);
        };
        let back_references = Key::all_tagged(&self.repository, &self.digest);
        let page = records.list(&back_references, after, KEYS_PER_PAGE).await?;
        let last = page.last().map(|entry| entry.key.clone());
        for entry in page {
            let back_reference = read_latest::<BackReferenceRecord>(records, &entry.key).await?;
            let Some(tag) = back_reference
                .header()
                .and_then(|back_reference| back_reference.tag.clone())
            else {
                continue;
            };
            if may_delete(&tag) {
                continue;
            }
            let named = read_latest::<TagRecord>(records, &Key::tag(&self.repository, &tag))
                .await?
                .visible();
            let incarnation = manifest.header().map(|manifest| &manifest.incarnation);
            let names_it = named.is_some_and(|(named, _)| {
                named.digest == self.digest && names(incarnation, &named.incarnation)
            });
            if names_it {
                return Ok(Checked::Stays(tag));
            }
        }
        Ok(last.map_or(Checked::All, Checked::Upto))
    }

    async fn kill(
        &mut self,
        records: &mut dyn RecordTransaction,
        manifest: Found<ManifestRecord>,
    ) -> Result<Stage, Error> {
        let condition = manifest.unchanged();
        let Some((record, content)) = manifest.record else {
            return Ok(Stage::Read);
        };
        if self.note.is_none() {
            // A delete that takes several steps may be interrupted: the note lets the sweeper end it.
            let back_references = Key::all_tagged(&self.repository, &self.digest);
            if !self.is_one_step
                || records.list(&back_references, None, KEYS_PER_PAGE).await?.len() == KEYS_PER_PAGE
            {
                let note = write_note(
                    records,
                    &self.repository,
                    &self.digest,
                    NoteKind::DeleteManifest,
                    self.now,
                );
                self.note = Some(note.await?);
            }
        }
        if let Some(keep) = &self.keep {
            keep.manifest(records, &self.repository, &self.digest, &record, &content)
                .await?;
        }
        let record = record.in_state(State::Dead, self.now);
        Ok(match write(records, &self.key, &record, &[], condition).await? {
            Some(version) => {
                // What it named may be named by nothing now.
                mark_changed(records, &Key::changed(&self.repository), self.now).await?;
                let dead = Dead {
                    record,
                    version,
                    is_own: true,
                };
                Stage::Purge(dead, None)
            }
            None => {
                // The sweeper may have ended a delete that took an hour, and removed its note.
                if let Some(note) = self.note.take() {
                    records.remove(&note).await?;
                }
                Stage::Read
            }
        })
    }

    /// Deletes tags that name the manifest, which is the `dead` record; `None` if it is another one, or gone. Returns the last back reference of
    /// the page that was read.
    async fn write_tag_tombstones(
        &self,
        records: &mut dyn RecordTransaction,
        dead: Option<&Version>,
        after: Option<&Key>,
    ) -> Result<Option<Key>, Error> {
        let back_references = Key::all_tagged(&self.repository, &self.digest);
        let page = records.list(&back_references, after, KEYS_PER_PAGE).await?;
        let last = page.last().map(|entry| entry.key.clone());
        for entry in page {
            let back_reference = read_latest::<BackReferenceRecord>(records, &entry.key).await?;
            let Some(tag) = back_reference
                .header()
                .and_then(|back_reference| back_reference.tag.clone())
            else {
                continue;
            };
            write_tag_tombstone(
                records,
                &self.repository,
                &self.digest,
                &tag,
                self.keep.as_ref(),
                self.now,
            )
            .await?;
            // A push of this manifest writes the back reference after it saw the manifest Live. While the manifest is
            // still the dead record, or none, every such push either wrote it before, and will find the manifest dead, or
            // has yet to write it.
            let manifest = read_latest::<ManifestRecord>(records, &self.key).await?;
            let still_dead = match dead {
                Some(dead) => manifest.is(dead),
                None => manifest.state() == State::Absent,
            };
            if let Some(version) = back_reference.version().filter(|_| still_dead) {
                records.purge_if(&entry.key, version).await?;
            }
        }
        Ok(last)
    }

    /// Removes everything else that names the manifest, then its record.
    async fn purge(&self, records: &mut dyn RecordTransaction, dead: Dead) -> Result<Outcome, Error> {
        if let Some(subject) = &dead.record.subject {
            let entry = Key::referrer(&self.repository, subject, &self.digest, &dead.record.incarnation);
            records.remove(&entry).await?;
        }
        records.purge_if(&self.key, &dead.version).await?;
        Ok(if dead.is_own {
            Outcome::Deleted
        } else {
            Outcome::Absent
        })
    }
}
