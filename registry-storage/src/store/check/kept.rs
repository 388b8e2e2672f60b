//! What quarantine keeps: whether it is back at its place, and until when it is kept.

use std::time::Duration;

use registry_core::{Digest, Error, RepositoryName, Timestamp};

use super::examine::{Beside, Read, Reads, read};
use super::finding::Problem;
use crate::backend::{
    Again, Backend, Durability, RecordEntry, RecordTransaction, Transaction, Version, VersionedRecord,
};
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::pages::{Pages, Values};
use crate::record::{
    GrantRecord, Header, ManifestRecord, QuarantineRecord, RepositoryRecord, TagRecord, state_of_size,
};
use crate::store::Store;
use crate::store::sweep::{Unnamed, write_unnamed};

/// How long what is in quarantine is kept.
const KEPT_FOR: Duration = Duration::from_hours(30 * 24);

/// How many of the repositories that miss a blob are named.
const NAMED_REPOSITORIES: usize = 5;

impl<B: Backend> Store<B> {
    /// Returns the problem of a blob whose bytes are gone: they are in quarantine, or the medium lost them. Content in
    /// quarantine that no repository has is no problem.
    pub(super) async fn missing_bytes(&self, digest: &Digest) -> Result<Option<Problem>, Error> {
        let key = Key::blob(digest).quarantined();
        let stored = self.backend.get(&key).await?;
        let Some((_, kept)) = kept(&key, stored.as_ref()) else {
            return Ok(Some(Problem::MissingBytes));
        };
        let repositories = self.some_repositories(digest).await?;
        Ok((!repositories.is_empty()).then_some(Problem::InQuarantine {
            reason: kept.reason,
            repositories,
        }))
    }

    async fn some_repositories(&self, digest: &Digest) -> Result<Vec<RepositoryName>, Error> {
        let mut repositories = Vec::new();
        let mut pages = Pages::of(Key::grants(digest));
        while let Some(page) = pages.next(&*self.backend).await? {
            let visible = |entry: &RecordEntry| state_of_size(entry.size).is_visible();
            for entry in page.into_iter().filter(visible) {
                if let Some(KeyKind::Grant(repository, _)) = KeyKind::of(&entry.key) {
                    repositories.push(repository);
                }
                if repositories.len() == NAMED_REPOSITORIES {
                    return Ok(repositories);
                }
            }
        }
        Ok(repositories)
    }

    /// Returns [`Problem::InQuarantine`] if what was at `key` is not back, and a repository needs it.
    pub(in crate::store) async fn missing(
        &self,
        key: &Key,
        kept: &QuarantineRecord,
    ) -> Result<Option<Problem>, Error> {
        let mut reads = Beside(&*self.backend);
        let (repository, is_visible) = match KeyKind::of(key) {
            Some(KeyKind::Blob(digest)) => {
                let suspect = self.examine_blob(&digest, None).await?;
                let problem = suspect.map(|suspect| suspect.problem);
                return Ok(problem.filter(|problem| matches!(problem, Problem::InQuarantine { .. })));
            }
            Some(KeyKind::Grant(repository, _)) => {
                (repository, is_visible::<GrantRecord>(&mut reads, key).await?)
            }
            Some(KeyKind::Manifest(repository, _)) => {
                (repository, is_visible::<ManifestRecord>(&mut reads, key).await?)
            }
            Some(KeyKind::Tag(repository, _)) => {
                (repository, is_visible::<TagRecord>(&mut reads, key).await?)
            }
            _ => return Ok(None),
        };
        let entry = Key::repository(&repository);
        let is_needed = !is_visible && self::is_visible::<RepositoryRecord>(&mut reads, &entry).await?;
        Ok(is_needed.then(|| Problem::InQuarantine {
            reason: kept.reason.clone(),
            repositories: vec![repository],
        }))
    }
}

impl<B: Backend> Store<B> {
    /// Drops what is in quarantine for longer than [`KEPT_FOR`], and returns how many records that were. The sweeper then
    /// deletes their bytes.
    pub(in crate::store) async fn drop_old_quarantine(&self) -> Result<u64, Error> {
        let mut dropped = 0;
        let mut quarantined = quarantined();
        while let Some(read) = quarantined.next(&*self.backend).await? {
            for (quarantined, stored) in read {
                let Some(stored) = stored else { continue };
                // The sweep reports a record that cannot be read.
                let Some((key, kept)) = kept(&quarantined, Some(&stored)) else {
                    continue;
                };
                if self.clock.now().since(kept.stamp.written) <= KEPT_FOR {
                    continue;
                }
                let missing = self.missing(&key, &kept).await?;
                let drop = DropKept {
                    key: quarantined,
                    version: stored.version,
                    unnamed: unnamed(&key, &kept),
                    now: self.clock.now(),
                };
                if !self.backend.transact(Durability::Deferred, drop).await? {
                    continue;
                }
                dropped += 1;
                let reason = kept.reason;
                if missing.is_some() {
                    tracing::warn!(%key, reason, "what is in quarantine for 30 days is dropped, and was never pushed again");
                } else {
                    tracing::info!(%key, reason, "what is in quarantine for 30 days is dropped");
                }
            }
        }
        Ok(dropped)
    }
}

/// Returns the bytes that are kept with a record that was at `key`.
fn unnamed(key: &Key, kept: &QuarantineRecord) -> Vec<Unnamed> {
    let Some(KeyKind::Blob(digest) | KeyKind::Grant(_, digest)) = KeyKind::of(key) else {
        return Vec::new();
    };
    Unnamed::of_blob(&digest, kept.bytes.iter().cloned()).collect()
}

/// Drops a record of the quarantine if it still is the one that was read; returns `false` if it is not.
#[derive(Clone)]
struct DropKept {
    key: Key,
    version: Version,
    unnamed: Vec<Unnamed>,
    now: Timestamp,
}

impl Transaction for DropKept {
    type Output = bool;

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<bool, Error> {
        let stored = records.get(&self.key).await?;
        if stored.is_none_or(|stored| stored.version != self.version) {
            return Ok(false);
        }
        // On a bucket, what is put into quarantine in this moment may go too. No client ever reads it.
        records.remove(&self.key).await?;
        write_unnamed(records, &self.unnamed, self.now).await?;
        Ok(true)
    }
}

async fn is_visible<H: Header>(reads: &mut dyn Reads, key: &Key) -> Result<bool, Error> {
    Ok(matches!(read::<H>(reads, key).await?, Read::Visible(..)))
}

/// Goes through the records in quarantine.
pub(in crate::store) fn quarantined() -> Values<impl Fn(&RecordEntry) -> bool> {
    Values::of(Key::quarantine(), |_: &RecordEntry| true)
}

/// Returns the key that a record in quarantine had, and why it is there; `None` if it is gone, or cannot be read.
pub(super) fn kept(quarantined: &Key, stored: Option<&VersionedRecord>) -> Option<(Key, QuarantineRecord)> {
    let key = quarantined.as_str().strip_prefix(Key::quarantine().as_str())?;
    match Read::new(stored) {
        Read::Visible(kept, _) => Some((Key::from_stored(key), kept)),
        Read::Invisible | Read::Unreadable => None,
    }
}
