//! Notes of deletes in progress.
//!
//! What an immutable tag reaches must stay, and content does not record which tags reach it. So a delete writes a note,
//! reads the version of the content, and walks the tags after that. A push writes its tag, looks for notes after that,
//! and then for everything that the tag reaches. A delete that did not see the tag wrote its note before the tag
//! existed. If its note still exists, the push rewrites the content, and the delete, which needs the version that it
//! read, begins again. If the note is gone, so is the content; the push notices that, and is refused.
//!
//! With a note, the sweeper also ends an interrupted delete, or a push that takes several transactions.

use crate::chain::{State, withdraw};
use registry_core::storage::{NewManifest, TagFilter};
use registry_core::{Digest, Error, ErrorCode, RepositoryName, Timestamp};

use crate::backend::{Again, Backend, Condition, Durability, RecordTransaction, Transaction, Version};
use crate::key::Key;
use crate::pages::{Pages, keys};
use crate::record::{GrantRecord, ManifestRecord, NoteKind, NoteRecord, Stamp};
use crate::store::edge::{Stateful, contended, read_cached, read_latest, rescue, write};
use crate::store::{Store, TRANSACTION_ATTEMPTS};
use crate::unique::unique;

/// A delete that may continue, because no immutable tag reached the content when it began.
#[derive(Clone)]
pub(super) struct Begun {
    /// `None` if the content did not exist. If it exists by now, the delete has to begin again.
    pub(super) note: Option<Key>,
    /// The version of the content that was read after the note was written; a version that no record has if it did not
    /// exist.
    pub(super) version: Version,
}

impl Begun {
    fn of_nothing() -> Self {
        Self {
            note: None,
            version: Version("".into()),
        }
    }
}

impl<B: Backend> Store<B> {
    /// Begins a delete if there may be immutable tags: refuses it if one reaches the content. Returns `None` if there
    /// are no such tags.
    pub(super) async fn begin_delete(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        kind: NoteKind,
        immutable: Option<&TagFilter>,
    ) -> Result<Option<Begun>, Error> {
        let Some(immutable) = immutable else {
            return Ok(None);
        };
        let begin = BeginDelete {
            repository: repository.clone(),
            digest: digest.clone(),
            kind,
            now: self.clock.now(),
        };
        let begun = self.backend.transact(Durability::Deferred, begin).await?;
        let Some(note) = &begun.note else {
            return Ok(Some(begun));
        };
        let Some(tag) = self.immutable_tag_reaching(repository, digest, immutable).await? else {
            return Ok(Some(begun));
        };
        self.backend
            .transact(Durability::Deferred, RemoveNote(note.clone()))
            .await?;
        let message = format!("the tag {tag} is immutable and needs {digest}, which therefore stays");
        Err(Error::new(ErrorCode::TagConflict, message))
    }

    /// Keeps what a manifest with an immutable tag reaches from the deletes in progress. Returns something that it
    /// needs and that is gone already.
    pub(in crate::store) async fn hold_content(
        &self,
        repository: &RepositoryName,
        new: &NewManifest,
    ) -> Result<Option<Digest>, Error> {
        let noted = self.noted_deletes(repository).await?;
        if !noted.is_empty() {
            let wanted = noted.iter().map(|(_, digest)| digest.clone()).collect();
            let reached = self.reached_by(repository, &new.manifest.digest, &wanted).await?;
            for (kind, digest) in noted.into_iter().filter(|(_, digest)| reached.contains(digest)) {
                let hold = HoldContent {
                    repository: repository.clone(),
                    kind,
                    digest,
                    now: self.clock.now(),
                };
                self.backend.transact(Durability::Synced, hold).await?;
            }
        }
        if new.allow_missing {
            return Ok(None);
        }
        self.missing_below(repository, &new.children).await
    }

    /// Returns the content that the deletes in progress in a repository concern.
    async fn noted_deletes(&self, repository: &RepositoryName) -> Result<Vec<(NoteKind, Digest)>, Error> {
        let prefix = Key::deletes_of(repository);
        let (mut noted, mut pages) = (Vec::new(), Pages::of(prefix));
        while let Some(page) = pages.next(&*self.backend).await? {
            for key in keys(page) {
                let note = read_cached::<NoteRecord>(&*self.backend, &key).await?;
                noted.extend(note.visible().map(|(note, _)| (note.kind, note.digest)));
            }
        }
        Ok(noted)
    }
}

/// Writes a note.
pub(in crate::store) async fn write_note(
    records: &mut dyn RecordTransaction,
    repository: &RepositoryName,
    digest: &Digest,
    kind: NoteKind,
    now: Timestamp,
) -> Result<Key, Error> {
    let id = unique();
    let key = match kind {
        NoteKind::DeleteBlob | NoteKind::DeleteManifest => Key::delete(repository, id),
        NoteKind::PushManifest => Key::push(repository, id),
    };
    let note = NoteRecord {
        repository: repository.clone(),
        digest: digest.clone(),
        kind,
        stamp: Stamp::new(now),
    };
    let written = write(records, &key, &note, &[], Condition::Absent).await?;
    written.map(|_| key).ok_or_else(contended)
}

/// Returns the key of content.
fn key_of(repository: &RepositoryName, kind: NoteKind, digest: &Digest) -> Key {
    match kind {
        NoteKind::DeleteManifest | NoteKind::PushManifest => Key::manifest(repository, digest),
        NoteKind::DeleteBlob => Key::grant(digest, repository),
    }
}

/// Writes a note, and reads the content to delete after that.
#[derive(Clone)]
struct BeginDelete {
    repository: RepositoryName,
    digest: Digest,
    kind: NoteKind,
    now: Timestamp,
}

impl Transaction for BeginDelete {
    type Output = Begun;

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Begun, Error> {
        let key = key_of(&self.repository, self.kind, &self.digest);
        if records.stat(&key).await?.is_none() {
            return Ok(Begun::of_nothing());
        }
        let note = write_note(records, &self.repository, &self.digest, self.kind, self.now).await?;
        let found = match self.kind {
            NoteKind::DeleteManifest | NoteKind::PushManifest => {
                state_of::<ManifestRecord>(records, &key).await
            }
            NoteKind::DeleteBlob => state_of::<GrantRecord>(records, &key).await,
        };
        match found {
            Ok((state, Some(version))) if state.is_visible() => {
                let note = Some(note);
                Ok(Begun { note, version })
            }
            // Also if the record cannot be read.
            found => {
                records.remove(&note).await?;
                found.map(|_| Begun::of_nothing())
            }
        }
    }
}

async fn state_of<H: Stateful>(
    records: &mut dyn RecordTransaction,
    key: &Key,
) -> Result<(State, Option<Version>), Error> {
    let found = read_latest::<H>(records, key).await?;
    Ok((found.state(), found.version().cloned()))
}

#[derive(Clone)]
pub(super) struct RemoveNote(pub(super) Key);

impl Transaction for RemoveNote {
    type Output = ();

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        records.remove(&self.0).await
    }
}

/// Makes a manifest Dead if it is still Pending, because its push was interrupted. A push that is still in progress
/// begins again.
pub(super) struct WithdrawPush {
    pub(super) manifest: Key,
    pub(super) note: Key,
    pub(super) now: Timestamp,
}

impl Transaction for WithdrawPush {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        let manifest = read_latest::<ManifestRecord>(records, &self.manifest).await?;
        let (condition, state) = (manifest.unchanged(), manifest.state());
        if let Some((pending, _)) = manifest.record.filter(|_| withdraw(state, true)) {
            let dead = pending.in_state(State::Dead, self.now);
            if let Some(dead) = write(records, &self.manifest, &dead, &[], condition).await? {
                records.purge_if(&self.manifest, &dead).await?;
            }
        }
        records.remove(&self.note).await
    }
}

/// Rewrites content, if it exists, so that a delete that read it begins again.
#[derive(Clone)]
pub(super) struct HoldContent {
    pub(super) repository: RepositoryName,
    pub(super) kind: NoteKind,
    pub(super) digest: Digest,
    pub(super) now: Timestamp,
}

impl Transaction for HoldContent {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        let key = key_of(&self.repository, self.kind, &self.digest);
        match self.kind {
            NoteKind::DeleteManifest | NoteKind::PushManifest => {
                hold::<ManifestRecord>(records, &key, self.now).await
            }
            NoteKind::DeleteBlob => hold::<GrantRecord>(records, &key, self.now).await,
        }
    }
}

async fn hold<H: Stateful>(
    records: &mut dyn RecordTransaction,
    key: &Key,
    now: Timestamp,
) -> Result<(), Error> {
    for _ in 0..TRANSACTION_ATTEMPTS {
        let found = read_latest::<H>(records, key).await?;
        if !found.state().is_visible() || rescue(records, key, &found, now).await? {
            return Ok(());
        }
    }
    Err(contended())
}
