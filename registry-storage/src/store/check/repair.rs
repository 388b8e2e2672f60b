//! Repairing problems with the steps of the protocol: each write is a compare-and-swap on what was read.

use crate::chain::State;
use registry_core::manifest::ManifestView;
use registry_core::{Digest, Error, RepositoryName, Tag, Timestamp};

use super::examine::{Examined, Read, Within, examine};
use super::finding::{Problem, Repair};
use super::quarantine;
use crate::backend::{Condition, RecordTransaction, Transaction, VersionedRecord};
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::record::{
    AdoptedRecord, AdoptionRecord, BackReferenceRecord, BlobRecord, CandidatesRecord, ChangedRecord,
    CyclesRecord, DeletedManifestRecord, FullSweepRecord, GrantRecord, Header, ManifestRecord, NoteRecord,
    ParkedRecord, PassRecord, PastTagRecord, ProbedRecord, PulledRecord, PullsRecord, QuotaRecord,
    ReferrerRecord, RepositoryRecord, ScrubRecord, SecretRecord, SessionRecord, Stamp, TagRecord,
    UnnamedRecord, UsageRecord, WriterRecord, decode,
};
use crate::store::delete::write_tag_tombstone;
use crate::store::edge::{read_latest, write};
use crate::store::mount::{GrantKeys, point_grant};
use crate::store::undelete::Keep;

/// Examines a record once more, now as one step if the backend has transactions, and repairs what is still wrong.
pub(super) struct Recheck {
    pub(super) key: Key,
    /// What the first examination found. A record that was written since is left to another check.
    pub(super) suspected: Examined,
    pub(super) repair: bool,
    /// How what a tag named is kept if the delete of its manifest did not reach the tag; `None` if it is not.
    pub(super) keep: Option<Keep>,
    pub(super) now: Timestamp,
}

impl Transaction for Recheck {
    type Output = Vec<(Problem, Repair)>;

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Self::Output, Error> {
        let mut found = Vec::new();
        let Some(examined) = examine(&mut Within(records), &self.key).await? else {
            return Ok(found);
        };
        if examined.version != self.suspected.version {
            return Ok(found);
        }
        for problem in examined.problems {
            let kind = std::mem::discriminant(&problem);
            let mut suspected = self.suspected.problems.iter();
            if !suspected.any(|first| std::mem::discriminant(first) == kind) {
                continue;
            }
            let repair = match (problem.is_repairable(), self.repair, KeyKind::of(&self.key)) {
                (true, true, Some(kind)) => outcome(self.mend(records, &kind, &problem).await?),
                (true, false, _) => Repair::Possible,
                _ => Repair::None,
            };
            found.push((problem, repair));
        }
        Ok(found)
    }
}

pub(super) const fn outcome(is_done: bool) -> Repair {
    if is_done { Repair::Done } else { Repair::Failed }
}

impl Recheck {
    /// Repairs a problem; returns `false` if the records were written by another request meanwhile.
    async fn mend(
        &self,
        records: &mut dyn RecordTransaction,
        kind: &KeyKind,
        problem: &Problem,
    ) -> Result<bool, Error> {
        let now = self.now;
        match (problem, kind) {
            (Problem::DeadTag { digest }, KeyKind::Tag(repository, tag)) => {
                let keep = self.keep.as_ref();
                write_tag_tombstone(records, repository, digest, tag, keep, now).await?;
                Ok(true)
            }
            (Problem::MissingTagReference { digest }, KeyKind::Tag(repository, tag)) => {
                let back_reference = Key::tagged(repository, digest, tag);
                write_back_reference(records, &back_reference, Some(tag), Condition::Any, now).await
            }
            (Problem::MissingGrantReference, KeyKind::Grant(repository, digest)) => {
                let back_reference = Key::repository_blob(repository, digest);
                write_back_reference(records, &back_reference, None, Condition::Any, now).await
            }
            (Problem::MissingRepository { repository }, _) => {
                write_repository(records, repository, Condition::Any, now).await
            }
            (Problem::MissingReferrer { subject }, KeyKind::Manifest(repository, digest)) => {
                write_referrer(records, repository, subject, digest, now).await
            }
            (Problem::DeadReferrer, _) => records.remove(&self.key).await.map(|()| true),
            (Problem::WrongSize, kind) => self.rewrite(records, kind).await,
            (Problem::Unreadable, kind) => self.replace(records, kind).await,
            (Problem::OtherBytes, KeyKind::Grant(repository, digest)) => {
                point_grant(records, &GrantKeys::new(repository, digest), now).await
            }
            (Problem::MissingBlob, KeyKind::Grant(repository, digest)) => {
                quarantine::grant(records, repository, digest, problem, now).await
            }
            (Problem::OtherContent { .. }, KeyKind::Manifest(repository, digest)) => {
                quarantine::manifest(records, repository, digest, problem, now).await
            }
            (Problem::OtherContent { .. }, KeyKind::DeletedManifest { .. }) => {
                quarantine::deleted_manifest(records, &self.key, problem, now).await
            }
            _ => Ok(false),
        }
    }

    /// Rewrites a record unchanged, so that its size encodes its state again.
    async fn rewrite(&self, records: &mut dyn RecordTransaction, kind: &KeyKind) -> Result<bool, Error> {
        let Some(stored) = records.get(&self.key).await? else {
            return Ok(false);
        };
        let key = &self.key;
        match kind {
            KeyKind::Blob(_) => rewrite_as::<BlobRecord>(records, key, stored).await,
            KeyKind::Grant(..) => rewrite_as::<GrantRecord>(records, key, stored).await,
            KeyKind::Manifest(..) => rewrite_as::<ManifestRecord>(records, key, stored).await,
            KeyKind::Tag(..) => rewrite_as::<TagRecord>(records, key, stored).await,
            KeyKind::PastTag { .. } => rewrite_as::<PastTagRecord>(records, key, stored).await,
            KeyKind::DeletedManifest { .. } => {
                rewrite_as::<DeletedManifestRecord>(records, key, stored).await
            }
            KeyKind::Tagged(..) | KeyKind::RepositoryBlob(..) => {
                rewrite_as::<BackReferenceRecord>(records, key, stored).await
            }
            KeyKind::Referrer { .. } => rewrite_as::<ReferrerRecord>(records, key, stored).await,
            KeyKind::Repository(_) => rewrite_as::<RepositoryRecord>(records, key, stored).await,
            KeyKind::Upload(_) => rewrite_as::<SessionRecord>(records, key, stored).await,
            KeyKind::Parked(..) => rewrite_as::<ParkedRecord>(records, key, stored).await,
            KeyKind::Delete(..) | KeyKind::Push(..) => rewrite_as::<NoteRecord>(records, key, stored).await,
            KeyKind::Adoption => rewrite_as::<AdoptionRecord>(records, key, stored).await,
            KeyKind::Adopted(_) => rewrite_as::<AdoptedRecord>(records, key, stored).await,
            KeyKind::Cycles => rewrite_as::<CyclesRecord>(records, key, stored).await,
            KeyKind::Scrub => rewrite_as::<ScrubRecord>(records, key, stored).await,
            KeyKind::Probed => rewrite_as::<ProbedRecord>(records, key, stored).await,
            KeyKind::Writer => rewrite_as::<WriterRecord>(records, key, stored).await,
            KeyKind::Secret(_) => rewrite_as::<SecretRecord>(records, key, stored).await,
            KeyKind::Pulls => rewrite_as::<PullsRecord>(records, key, stored).await,
            KeyKind::Pulled(_) => rewrite_as::<PulledRecord>(records, key, stored).await,
            KeyKind::Usage(_) => rewrite_as::<UsageRecord>(records, key, stored).await,
            KeyKind::Changed(_) => rewrite_as::<ChangedRecord>(records, key, stored).await,
            KeyKind::Candidates(_) => rewrite_as::<CandidatesRecord>(records, key, stored).await,
            KeyKind::Unnamed(_) => rewrite_as::<UnnamedRecord>(records, key, stored).await,
            KeyKind::FullSweep => rewrite_as::<FullSweepRecord>(records, key, stored).await,
            KeyKind::PassOverRepositories | KeyKind::PassOverBlobs => {
                rewrite_as::<PassRecord>(records, key, stored).await
            }
            KeyKind::Quota(_) => rewrite_as::<QuotaRecord>(records, key, stored).await,
        }
    }

    /// Rewrites an unreadable record from its key, or makes it Dead and keeps its value in quarantine.
    async fn replace(&self, records: &mut dyn RecordTransaction, kind: &KeyKind) -> Result<bool, Error> {
        let Some(stored) = records.get(&self.key).await? else {
            return Ok(false);
        };
        let unchanged = Condition::Matches(stored.version.clone());
        let now = self.now;
        match kind {
            KeyKind::Tagged(_, _, tag) => {
                write_back_reference(records, &self.key, Some(tag), unchanged, now).await
            }
            KeyKind::RepositoryBlob(..) => {
                write_back_reference(records, &self.key, None, unchanged, now).await
            }
            KeyKind::Repository(name) => write_repository(records, name, unchanged, now).await,
            KeyKind::Referrer {
                repository,
                subject,
                referrer,
                ..
            } => {
                records.remove(&self.key).await?;
                // If the manifest exists, its entry is written; otherwise it has none.
                write_referrer(records, repository, subject, referrer, now).await?;
                Ok(true)
            }
            // The collector and the recorder of pulls would write the same: no number of a cycle is used twice, and no manifest
            // counts as pulled longer ago than it was.
            KeyKind::Cycles => {
                let cycles = CyclesRecord {
                    newest: now.0,
                    sealed: Vec::new(),
                    stamp: Stamp::new(now),
                };
                let written = write(records, &self.key, &cycles, &[], unchanged).await?;
                Ok(written.is_some())
            }
            KeyKind::Pulled(repository) => {
                let pulled = PulledRecord {
                    state: State::Live,
                    repository: repository.clone(),
                    since: Some(now),
                    stamp: Stamp::new(now),
                };
                let written = write(records, &self.key, &pulled, &[], unchanged).await?;
                Ok(written.is_some())
            }
            _ => quarantine::unreadable(records, &self.key, kind, stored, now).await,
        }
    }
}

async fn rewrite_as<H: Header>(
    records: &mut dyn RecordTransaction,
    key: &Key,
    stored: VersionedRecord,
) -> Result<bool, Error> {
    // The nonce stays: the number of spaces makes the bytes of the value differ nevertheless.
    let (header, content) = decode::<H>(&stored.value)?;
    let written = write(
        records,
        key,
        &header,
        &content,
        Condition::Matches(stored.version),
    )
    .await?;
    Ok(written.is_some())
}

async fn write_back_reference(
    records: &mut dyn RecordTransaction,
    key: &Key,
    tag: Option<&Tag>,
    condition: Condition,
    now: Timestamp,
) -> Result<bool, Error> {
    let back_reference = BackReferenceRecord {
        state: State::Live,
        tag: tag.cloned(),
        stamp: Stamp::new(now),
    };
    Ok(write(records, key, &back_reference, &[], condition)
        .await?
        .is_some())
}

async fn write_repository(
    records: &mut dyn RecordTransaction,
    name: &RepositoryName,
    condition: Condition,
    now: Timestamp,
) -> Result<bool, Error> {
    let record = RepositoryRecord {
        state: State::Live,
        name: name.clone(),
        stamp: Stamp::new(now),
    };
    let written = write(records, &Key::repository(name), &record, &[], condition).await?;
    Ok(written.is_some())
}

/// Enters a manifest in the list of its subject; returns `false` if the manifest does not exist.
async fn write_referrer(
    records: &mut dyn RecordTransaction,
    repository: &RepositoryName,
    subject: &Digest,
    referrer: &Digest,
    now: Timestamp,
) -> Result<bool, Error> {
    let key = Key::manifest(repository, referrer);
    let Read::Visible(manifest, content) = Read::<ManifestRecord>::new(records.get(&key).await?.as_ref())
    else {
        return Ok(false);
    };
    let Ok(view) = ManifestView::parse(&content, Some(&manifest.media_type)) else {
        return Ok(false);
    };
    let descriptor = view.referrer_descriptor(referrer, content.len() as u64);
    let entry = ReferrerRecord::new(&manifest.incarnation, &descriptor, now);
    let entry_key = Key::referrer(repository, subject, referrer, &manifest.incarnation);
    let annotations = descriptor.annotations.as_json();
    write(records, &entry_key, &entry, annotations, Condition::Absent).await?;
    // As in a push: a delete may have been faster.
    let after = read_latest::<ManifestRecord>(records, &key).await?;
    let is_same = after
        .header()
        .is_some_and(|after| after.state != State::Dead && after.incarnation == manifest.incarnation);
    if !is_same {
        records.remove(&entry_key).await?;
    }
    Ok(true)
}
