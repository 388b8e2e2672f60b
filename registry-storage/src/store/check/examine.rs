//! Examining one record and what it names.

use async_trait::async_trait;
use bytes::Bytes;
use registry_core::manifest::ManifestView;
use registry_core::storage::ChildKind;
use registry_core::upload::Upload;
use registry_core::{Digest, Error, RepositoryName};

use super::finding::Problem;
use crate::backend::{Backend, RecordTransaction, Version, VersionedRecord};
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::record::{
    AdoptedRecord, AdoptionRecord, BackReferenceRecord, BlobRecord, CandidatesRecord, ChangedRecord,
    CyclesRecord, DeletedManifestRecord, FullSweepRecord, GrantRecord, Header, ManifestRecord, NoteRecord,
    ParkedRecord, PassRecord, PastTagRecord, ProbedRecord, PulledRecord, PullsRecord, QuotaRecord,
    ReferrerRecord, RepositoryRecord, ScrubRecord, SecretRecord, SessionRecord, TagRecord, UnnamedRecord,
    UsageRecord, WriterRecord, decode, state_of_size,
};

/// How records are read: within a transaction, so that they are consistent, or outside of one.
#[async_trait]
pub(super) trait Reads: Send {
    async fn get(&mut self, key: &Key) -> Result<Option<VersionedRecord>, Error>;

    /// Returns whether the children of manifests are examined. Within a transaction they are not: there may be many,
    /// and a repair does not concern them.
    fn sees_children(&self) -> bool;
}

/// Reads within a transaction.
pub(super) struct Within<'a>(pub(super) &'a mut dyn RecordTransaction);

#[async_trait]
impl Reads for Within<'_> {
    async fn get(&mut self, key: &Key) -> Result<Option<VersionedRecord>, Error> {
        self.0.get(key).await
    }

    fn sees_children(&self) -> bool {
        false
    }
}

/// Reads outside of a transaction; several reads may return states of different times.
pub(super) struct Beside<'a, B>(pub(super) &'a B);

#[async_trait]
impl<B: Backend> Reads for Beside<'_, B> {
    async fn get(&mut self, key: &Key) -> Result<Option<VersionedRecord>, Error> {
        self.0.get(key).await
    }

    fn sees_children(&self) -> bool {
        true
    }
}

/// A record as a check finds it.
pub(super) enum Read<H> {
    /// It does not exist, or is gone.
    Invisible,
    /// It exists but cannot be read, which is a finding of its own.
    Unreadable,
    /// Readers see it.
    Visible(H, Bytes),
}

impl<H: Header> Read<H> {
    pub(super) fn new(stored: Option<&VersionedRecord>) -> Self {
        match stored.map(|stored| decode::<H>(&stored.value)) {
            None => Self::Invisible,
            Some(Err(_)) => Self::Unreadable,
            Some(Ok((header, content))) if header.state().is_visible() => Self::Visible(header, content),
            Some(Ok(_)) => Self::Invisible,
        }
    }
}

pub(super) async fn read<H: Header>(reads: &mut dyn Reads, key: &Key) -> Result<Read<H>, Error> {
    Ok(Read::new(reads.get(key).await?.as_ref()))
}

/// What is wrong with a record, in the version that was examined.
pub(super) struct Examined {
    pub(super) version: Version,
    pub(super) problems: Vec<Problem>,
}

/// Returns what is wrong with a record, apart from its bytes; `None` if there is no record.
pub(super) async fn examine(reads: &mut dyn Reads, key: &Key) -> Result<Option<Examined>, Error> {
    let Some(stored) = reads.get(key).await? else {
        return Ok(None);
    };
    let problems = problems(reads, key, &stored).await?;
    let version = stored.version;
    Ok(Some(Examined { version, problems }))
}

async fn problems(reads: &mut dyn Reads, key: &Key, stored: &VersionedRecord) -> Result<Vec<Problem>, Error> {
    let Some(kind) = KeyKind::of(key) else {
        return Ok(vec![Problem::UnknownKey]);
    };
    if let Some(problem) = malformed(&kind, &stored.value) {
        return Ok(vec![problem]);
    }
    match &kind {
        KeyKind::Tag(repository, tag) => match Read::<TagRecord>::new(Some(stored)) {
            Read::Visible(record, _) => {
                let manifest = Key::manifest(repository, &record.digest);
                let digest = record.digest.clone();
                match read::<ManifestRecord>(reads, &manifest).await? {
                    Read::Unreadable => Ok(Vec::new()),
                    Read::Visible(manifest, _) if manifest.incarnation == record.incarnation => {
                        let back_reference = reads.get(&Key::tagged(repository, &digest, tag)).await?;
                        Ok(only(
                            back_reference.is_none(),
                            Problem::MissingTagReference { digest },
                        ))
                    }
                    Read::Visible(..) | Read::Invisible => Ok(vec![Problem::DeadTag { digest }]),
                }
            }
            Read::Invisible | Read::Unreadable => Ok(Vec::new()),
        },
        KeyKind::Manifest(repository, digest) => match Read::<ManifestRecord>::new(Some(stored)) {
            Read::Visible(record, content) => manifest(reads, repository, digest, &record, &content).await,
            Read::Invisible | Read::Unreadable => Ok(Vec::new()),
        },
        KeyKind::Grant(repository, digest) => match Read::<GrantRecord>::new(Some(stored)) {
            Read::Visible(record, _) => grant(reads, repository, digest, &record).await,
            Read::Invisible | Read::Unreadable => Ok(Vec::new()),
        },
        KeyKind::Referrer {
            repository,
            referrer,
            incarnation,
            ..
        } => {
            let manifest = Key::manifest(repository, referrer);
            let is_dead = match read::<ManifestRecord>(reads, &manifest).await? {
                Read::Unreadable => false,
                Read::Visible(manifest, _) => manifest.incarnation != *incarnation,
                Read::Invisible => true,
            };
            Ok(only(is_dead, Problem::DeadReferrer))
        }
        // It only is a promise, so what it names may be gone.
        KeyKind::DeletedManifest { digest, .. } => match Read::<DeletedManifestRecord>::new(Some(stored)) {
            Read::Visible(_, content) => Ok(other_content(digest, &content).into_iter().collect()),
            Read::Invisible | Read::Unreadable => Ok(Vec::new()),
        },
        // A back reference says what is or was. The bytes of blobs and uploads are checked elsewhere.
        KeyKind::Tagged(..)
        | KeyKind::RepositoryBlob(..)
        | KeyKind::PastTag { .. }
        | KeyKind::Repository(_)
        | KeyKind::Blob(_)
        | KeyKind::Upload(_)
        | KeyKind::Parked(..)
        | KeyKind::Delete(..)
        | KeyKind::Push(..)
        | KeyKind::Adoption
        | KeyKind::Adopted(_)
        | KeyKind::Cycles
        | KeyKind::Scrub
        | KeyKind::Probed
        | KeyKind::Writer
        | KeyKind::Secret(_)
        | KeyKind::Quota(_)
        | KeyKind::Pulls
        | KeyKind::Pulled(_)
        | KeyKind::Usage(_)
        | KeyKind::Changed(_)
        | KeyKind::Candidates(_)
        | KeyKind::Unnamed(_)
        | KeyKind::FullSweep
        | KeyKind::PassOverRepositories
        | KeyKind::PassOverBlobs => Ok(Vec::new()),
    }
}

fn only(is_wrong: bool, problem: Problem) -> Vec<Problem> {
    if is_wrong { vec![problem] } else { Vec::new() }
}

async fn manifest(
    reads: &mut dyn Reads,
    repository: &RepositoryName,
    digest: &Digest,
    record: &ManifestRecord,
    content: &Bytes,
) -> Result<Vec<Problem>, Error> {
    if let Some(problem) = other_content(digest, content) {
        return Ok(vec![problem]);
    }
    let mut problems = Vec::new();
    if !is_there::<RepositoryRecord>(reads, &Key::repository(repository)).await? {
        problems.push(Problem::MissingRepository {
            repository: repository.clone(),
        });
    }
    // Content of an embedder that is no manifest names nothing.
    let Ok(view) = ManifestView::parse(content, Some(&record.media_type)) else {
        return Ok(problems);
    };
    if let Some(subject) = &record.subject {
        let entry = Key::referrer(repository, subject, digest, &record.incarnation);
        if reads.get(&entry).await?.is_none() {
            problems.push(Problem::MissingReferrer {
                subject: subject.clone(),
            });
        }
    }
    if !reads.sees_children() {
        return Ok(problems);
    }
    let mut missing = Vec::new();
    for child in view.children() {
        let grant = Key::grant(&child.digest, repository);
        let is_there = child.kind == ChildKind::Manifest
            && is_there::<ManifestRecord>(reads, &Key::manifest(repository, &child.digest)).await?
            || is_there::<GrantRecord>(reads, &grant).await?;
        if !is_there {
            missing.push(child.digest.clone());
        }
    }
    if !missing.is_empty() {
        problems.push(Problem::MissingChildren { digests: missing });
    }
    Ok(problems)
}

async fn is_there<H: Header>(reads: &mut dyn Reads, key: &Key) -> Result<bool, Error> {
    Ok(!matches!(read::<H>(reads, key).await?, Read::Invisible))
}

async fn grant(
    reads: &mut dyn Reads,
    repository: &RepositoryName,
    digest: &Digest,
    record: &GrantRecord,
) -> Result<Vec<Problem>, Error> {
    let mut problems = Vec::new();
    match read::<BlobRecord>(reads, &Key::blob(digest)).await? {
        Read::Unreadable => {}
        Read::Invisible => return Ok(vec![Problem::MissingBlob]),
        Read::Visible(blob, _) if blob.blob != record.blob => return Ok(vec![Problem::OtherBytes]),
        Read::Visible(..) => {}
    }
    if !is_there::<BackReferenceRecord>(reads, &Key::repository_blob(repository, digest)).await? {
        problems.push(Problem::MissingGrantReference);
    }
    Ok(problems)
}

/// Compares content that is in memory with its digest. Content whose digest has an unknown algorithm is accepted as it
/// is.
pub(super) fn other_content(digest: &Digest, content: &[u8]) -> Option<Problem> {
    let found = Digest::of(digest.algorithm()?, content);
    (found != *digest).then_some(Problem::OtherContent { found })
}

/// Returns the problem of a record that this version did not write, or whose size encodes another state.
fn malformed(kind: &KeyKind, value: &Bytes) -> Option<Problem> {
    match kind {
        KeyKind::Blob(_) => {
            malformed_as::<BlobRecord>(value, |blob| !blob.state.is_visible() || blob.blob.is_some())
        }
        KeyKind::Grant(..) => {
            malformed_as::<GrantRecord>(value, |grant| !grant.state.is_visible() || grant.blob.is_some())
        }
        KeyKind::Manifest(..) => malformed_as::<ManifestRecord>(value, |_| true),
        KeyKind::Tag(..) => malformed_as::<TagRecord>(value, |_| true),
        KeyKind::PastTag { .. } => malformed_as::<PastTagRecord>(value, |_| true),
        KeyKind::DeletedManifest { .. } => malformed_as::<DeletedManifestRecord>(value, |_| true),
        KeyKind::Tagged(_, _, tag) => malformed_as::<BackReferenceRecord>(value, |back_reference| {
            back_reference.tag.as_ref() == Some(tag)
        }),
        KeyKind::RepositoryBlob(..) => {
            malformed_as::<BackReferenceRecord>(value, |back_reference| back_reference.tag.is_none())
        }
        KeyKind::Repository(name) => malformed_as::<RepositoryRecord>(value, |record| record.name == *name),
        KeyKind::Upload(_) => {
            malformed_as::<SessionRecord>(value, |session| Upload::resume(session.upload.clone()).is_ok())
        }
        KeyKind::Delete(repository, _) | KeyKind::Push(repository, _) => {
            malformed_as::<NoteRecord>(value, |note| note.repository == *repository)
        }
        KeyKind::Adoption => malformed_as::<AdoptionRecord>(value, |_| true),
        KeyKind::Adopted(repository) => {
            malformed_as::<AdoptedRecord>(value, |record| record.repository == *repository)
        }
        KeyKind::Cycles => malformed_as::<CyclesRecord>(value, |_| true),
        KeyKind::Scrub => malformed_as::<ScrubRecord>(value, |_| true),
        KeyKind::Probed => malformed_as::<ProbedRecord>(value, |_| true),
        KeyKind::Writer => malformed_as::<WriterRecord>(value, |_| true),
        KeyKind::Secret(_) => malformed_as::<SecretRecord>(value, |_| true),
        KeyKind::Pulls => malformed_as::<PullsRecord>(value, |_| true),
        KeyKind::Pulled(repository) => {
            malformed_as::<PulledRecord>(value, |record| record.repository == *repository)
        }
        KeyKind::Usage(_) => malformed_as::<UsageRecord>(value, |_| true),
        KeyKind::Changed(_) => malformed_as::<ChangedRecord>(value, |_| true),
        KeyKind::Candidates(_) => malformed_as::<CandidatesRecord>(value, |_| true),
        KeyKind::Unnamed(_) => malformed_as::<UnnamedRecord>(value, |_| true),
        KeyKind::Parked(..) => malformed_as::<ParkedRecord>(value, |_| true),
        KeyKind::FullSweep => malformed_as::<FullSweepRecord>(value, |_| true),
        KeyKind::PassOverRepositories | KeyKind::PassOverBlobs => malformed_as::<PassRecord>(value, |_| true),
        KeyKind::Quota(_) => malformed_as::<QuotaRecord>(value, |_| true),
        KeyKind::Referrer {
            referrer,
            incarnation,
            ..
        } => malformed_as::<ReferrerRecord>(value, |record| {
            record.descriptor.digest == *referrer && record.incarnation == *incarnation
        }),
    }
}

fn malformed_as<H: Header>(value: &Bytes, is_sound: impl FnOnce(&H) -> bool) -> Option<Problem> {
    match decode::<H>(value) {
        Ok((header, _)) if !is_sound(&header) => Some(Problem::Unreadable),
        Ok((header, _)) => {
            (state_of_size(value.len() as u64) != header.state()).then_some(Problem::WrongSize)
        }
        Err(_) => Some(Problem::Unreadable),
    }
}
