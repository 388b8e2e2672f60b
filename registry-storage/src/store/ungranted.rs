//! Blobs that no repository may read any more.
//!
//! A blob is reached only through a grant, so no client finds one without a grant, and no promise depends on it. On a
//! bucket a push may be about to use it nevertheless, so dropping it takes two cycles of the collector. On a disk a
//! transaction is one step, and no push is in the middle of it.

use crate::chain::{State, may_drop};
use registry_core::{Digest, Error, Timestamp};

use super::Store;
use super::collect::digests;
use super::edge::{Found, Stateful as _, write};
use super::sweep::{Unnamed, write_unnamed};
use crate::backend::{Again, Backend, Durability, RecordEntry, RecordTransaction, Transaction};
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::pages::{Pages, Values};
use crate::record::{BlobRecord, CandidatesRecord, state_of_size};

/// How many blobs are dropped in one transaction: some hundred calls.
const BLOBS_PER_TRANSACTION: usize = 100;

impl<B: Backend> Store<B> {
    /// Drops the blobs that no repository may read, and returns how many: those that were written down as candidates, or
    /// with `is_full` whatever there is. The sweeper then deletes their bytes.
    pub(super) async fn drop_ungranted_blobs(&self, is_full: bool) -> Result<u64, Error> {
        if !self.backend.is_atomic() {
            return Ok(0);
        }
        let mut dropped = self.drop_candidates().await?;
        if is_full {
            dropped += self.drop_all_ungranted().await?;
        }
        Ok(dropped)
    }

    async fn drop_candidates(&self) -> Result<u64, Error> {
        let mut dropped = 0;
        let mut candidates = Values::of(Key::all_candidates(), |_: &RecordEntry| true);
        while let Some(read) = candidates.next(&*self.backend).await? {
            let (mut blobs, mut keys) = (Vec::new(), Vec::new());
            for (key, stored) in read {
                // A record that cannot be read is the check's.
                let found = Found::<CandidatesRecord>::new(stored.as_ref()).ok();
                if let Some((_, content)) = found.and_then(|found| found.record) {
                    blobs.extend(digests(&content));
                    keys.push(key);
                }
                if blobs.len() >= BLOBS_PER_TRANSACTION {
                    dropped += self
                        .drop_blobs(std::mem::take(&mut blobs), std::mem::take(&mut keys))
                        .await?;
                }
            }
            dropped += self.drop_blobs(blobs, keys).await?;
        }
        Ok(dropped)
    }

    async fn drop_all_ungranted(&self) -> Result<u64, Error> {
        let mut dropped = 0;
        let mut granted: Option<Key> = None;
        let mut ungranted = Vec::new();
        let mut pages = Pages::of(Key::blobs());
        while let Some(page) = pages.next(&*self.backend).await? {
            for entry in page {
                let state = state_of_size(entry.size);
                let Some(folder) = entry.key.as_str().strip_suffix("record") else {
                    // The grants of a blob come before its record. An unreadable record may be a grant.
                    if state != State::Dead {
                        granted = Some(entry.key);
                    }
                    continue;
                };
                let is_granted = |grant: &Key| grant.as_str().starts_with(folder);
                if may_drop(state, granted.as_ref().is_some_and(is_granted))
                    && let Some(KeyKind::Blob(digest)) = KeyKind::of(&entry.key)
                {
                    ungranted.push(digest);
                }
            }
            while ungranted.len() >= BLOBS_PER_TRANSACTION {
                let some = ungranted.drain(..BLOBS_PER_TRANSACTION).collect();
                dropped += self.drop_blobs(some, Vec::new()).await?;
            }
        }
        dropped += self.drop_blobs(ungranted, Vec::new()).await?;
        Ok(dropped)
    }

    async fn drop_blobs(&self, blobs: Vec<Digest>, candidates: Vec<Key>) -> Result<u64, Error> {
        if blobs.is_empty() && candidates.is_empty() {
            return Ok(0);
        }
        let drop = DropBlobs {
            blobs,
            candidates,
            #[cfg(all(feature = "filesystem", unix))]
            adopting: std::sync::Arc::clone(&self.adopting),
            now: self.clock.now(),
        };
        // The sweep makes it durable before the bytes go.
        self.backend.transact(Durability::Deferred, drop).await
    }
}

/// Drops blobs that still have no grant, removes the records of candidates that named them, and returns how many it dropped.
#[derive(Clone)]
struct DropBlobs {
    blobs: Vec<Digest>,
    candidates: Vec<Key>,
    #[cfg(all(feature = "filesystem", unix))]
    adopting: std::sync::Arc<tokio::sync::Semaphore>,
    now: Timestamp,
}

impl Transaction for DropBlobs {
    type Output = u64;

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<u64, Error> {
        // An adoption checks in one transaction which blobs exist, and lets repositories read them in the next.
        #[cfg(all(feature = "filesystem", unix))]
        if self.adopting.available_permits() == 0 {
            return Ok(0);
        }
        let (mut dropped, mut unnamed) = (0, Vec::new());
        for digest in &self.blobs {
            if let Some(blob) = drop_blob(records, digest, self.now).await? {
                dropped += 1;
                unnamed.extend(Unnamed::of_blob(digest, blob.names().cloned()));
            }
        }
        write_unnamed(records, &unnamed, self.now).await?;
        for key in &self.candidates {
            records.remove(key).await?;
        }
        Ok(dropped)
    }
}

/// Drops a blob if it has no grant, within a transaction that is one step, and returns what it was; `None` if it stays.
pub(super) async fn drop_blob(
    records: &mut dyn RecordTransaction,
    digest: &Digest,
    now: Timestamp,
) -> Result<Option<BlobRecord>, Error> {
    let key = Key::blob(digest);
    let stored = records.get(&key).await?;
    // The sweep reports an unreadable record, and the check handles it.
    let Ok(found) = Found::<BlobRecord>::new(stored.as_ref()) else {
        return Ok(None);
    };
    if !may_drop(found.state(), is_granted(records, digest).await?) {
        return Ok(None);
    }
    let Some(blob) = found.header().cloned() else {
        return Ok(None);
    };
    let dead = BlobRecord {
        blob: None,
        proposals: Vec::new(),
        ..blob.clone().in_state(State::Dead, now)
    };
    let Some(version) = write(records, &key, &dead, &[], found.unchanged()).await? else {
        return Ok(None);
    };
    records.purge_if(&key, &version).await?;
    Ok(Some(blob))
}

/// Returns whether a repository may read a blob, or may soon.
async fn is_granted(records: &mut dyn RecordTransaction, digest: &Digest) -> Result<bool, Error> {
    let mut pages = Pages::of(Key::grants(digest));
    while let Some(page) = pages.next_in(records).await? {
        if page.iter().any(|grant| state_of_size(grant.size) != State::Dead) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(all(test, feature = "filesystem", unix))]
mod tests {
    use registry_core::Algorithm;

    use super::*;
    use crate::filesystem::FilesystemBackend;
    use crate::record::{BlobBytes, Stamp};

    struct Put(Key, BlobRecord);

    impl Transaction for Put {
        type Output = ();

        async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
            let Self(key, record) = self;
            write(records, &key, &record, b"x", crate::backend::Condition::Any).await?;
            Ok(())
        }
    }

    /// The adoption found the blob, and is about to let a repository read it.
    #[tokio::test]
    async fn no_blob_is_dropped_while_something_is_adopted() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(FilesystemBackend::open(folder.path()).await.unwrap());
        let record = BlobRecord {
            state: State::Live,
            blob: Some(BlobBytes { size: 1, bytes: None }),
            proposals: Vec::new(),
            condemned_in: None,
            stamp: Stamp::new(Timestamp(0)),
        };
        let put = Put(Key::blob(&Digest::of(Algorithm::Sha256, b"x")), record);
        store.backend.transact(Durability::Synced, put).await.unwrap();
        let adopting = store.adopting().unwrap();
        let sweep = crate::store::SweepOptions::new().full(true);
        assert_eq!(store.sweep_once(&sweep).await.unwrap().dropped_blobs, 0);
        drop(adopting);
        assert_eq!(store.sweep_once(&sweep).await.unwrap().dropped_blobs, 1);
    }
}
