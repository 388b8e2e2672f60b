//! What was counted, one record for each repository that has something.

use registry_core::{Error, RepositoryName, Timestamp};

use super::{CountedRepository, RepositoryUsage};
use crate::backend::{Again, Backend, Condition, Durability, RecordTransaction, Transaction};
use crate::chain::State;
use crate::key::Key;
use crate::record::{SharedBlobs, Stamp, UsageRecord, state_of_size};
use crate::store::edge::{Found, read_cached, write};
use crate::store::{BlobCount, Store};

impl UsageRecord {
    fn new(usage: &RepositoryUsage, shared: Option<SharedBlobs>, counted: Timestamp) -> Self {
        Self {
            state: State::Live,
            counted,
            blobs: usage.blobs.blobs,
            blob_bytes: usage.blobs.bytes,
            manifests: usage.manifests,
            manifest_bytes: usage.manifest_bytes,
            tags: usage.tags,
            shared,
            stamp: Stamp::new(counted),
        }
    }

    /// Returns what it says, shared blobs included.
    pub(super) fn usage(&self) -> RepositoryUsage {
        RepositoryUsage {
            blobs: BlobCount {
                blobs: self.blobs,
                bytes: self.blob_bytes,
            },
            manifests: self.manifests,
            manifest_bytes: self.manifest_bytes,
            tags: self.tags,
            shared: self.shared.map(|shared| BlobCount {
                blobs: shared.blobs,
                bytes: shared.bytes,
            }),
        }
    }

    pub(super) fn of(self, repository: RepositoryName, is_changed: bool) -> CountedRepository {
        CountedRepository {
            repository,
            usage: self.usage(),
            counted: self.counted,
            shared_counted: self.shared.map(|shared| shared.counted),
            is_changed,
        }
    }
}

impl<B: Backend> Store<B> {
    /// Writes down what a cycle found in a repository: its blobs and manifests, unless it never had a blob.
    pub(in crate::store) async fn write_collected(
        &self,
        repository: &RepositoryName,
        found: Option<RepositoryUsage>,
        counted: Timestamp,
    ) -> Result<(), Error> {
        let usage = match found {
            Some(usage) => RepositoryUsage {
                tags: self.count_tags(repository).await?,
                ..usage
            },
            None => self.count_repository(repository, false).await?,
        };
        self.write_usage(repository, &usage, counted).await
    }

    /// Counts what a repository shares with others, and writes it down.
    pub(in crate::store) async fn count_shared(&self, repository: &RepositoryName) -> Result<(), Error> {
        let counted = self.clock.now();
        let usage = self.count_repository(repository, true).await?;
        self.write_usage(repository, &usage, counted).await
    }

    /// Writes down what a repository has, if that is not what is written. What it shares is kept if `usage` does not say it.
    async fn write_usage(
        &self,
        repository: &RepositoryName,
        usage: &RepositoryUsage,
        counted: Timestamp,
    ) -> Result<(), Error> {
        // One that cannot be read is written anew.
        let key = Key::usage(repository);
        let before = read_cached::<UsageRecord>(&*self.backend, &key).await.ok();
        let before = before.and_then(Found::visible).map(|(before, _)| before);
        if usage.is_nothing() {
            return match before {
                Some(_) => self.forget_usage(repository).await,
                None => Ok(()),
            };
        }
        let shared = match usage.shared {
            Some(BlobCount { blobs, bytes }) => Some(SharedBlobs {
                blobs,
                bytes,
                counted,
            }),
            None => before.as_ref().and_then(|before| before.shared),
        };
        let new = UsageRecord::new(usage, shared, counted);
        let is_same = |before: &UsageRecord| {
            let is_counted_again = usage.shared.is_some() && before.shared.is_none();
            before.usage() == new.usage() && !is_counted_again
        };
        if before.as_ref().is_some_and(is_same) {
            return Ok(());
        }
        let write = WriteUsage {
            repository: repository.clone(),
            record: new,
        };
        self.backend.transact(Durability::Deferred, write).await
    }

    /// Forgets what a repository had.
    pub(in crate::store) async fn forget_usage(&self, repository: &RepositoryName) -> Result<(), Error> {
        let forget = ForgetUsage {
            repository: repository.clone(),
            now: self.clock.now(),
        };
        self.backend.transact(Durability::Deferred, forget).await
    }
}

/// Writes what a repository had, unless it is gone by then: another cycle may have removed the last of it since it was counted.
#[derive(Clone)]
struct WriteUsage {
    repository: RepositoryName,
    record: UsageRecord,
}

impl Transaction for WriteUsage {
    type Output = ();

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        // The last writer wins. What it missed has marked the repository, and is counted by the next cycle.
        let key = Key::usage(&self.repository);
        write(records, &key, &self.record, &[], Condition::Any).await?;
        let all = Key::all_of_repository(&self.repository);
        if records.list(&all, None, 1).await?.is_empty() {
            forget(records, &self.repository, self.record.counted).await?;
        }
        Ok(())
    }
}

#[derive(Clone)]
struct ForgetUsage {
    repository: RepositoryName,
    now: Timestamp,
}

impl Transaction for ForgetUsage {
    type Output = ();

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        forget(records, &self.repository, self.now).await
    }
}

async fn forget(
    records: &mut dyn RecordTransaction,
    repository: &RepositoryName,
    now: Timestamp,
) -> Result<(), Error> {
    let key = Key::usage(repository);
    let stat = records.stat(&key).await?;
    if !stat.is_some_and(|stat| state_of_size(stat.size).is_visible()) {
        return Ok(());
    }
    let dead = UsageRecord {
        state: State::Dead,
        ..UsageRecord::new(&RepositoryUsage::default(), None, now)
    };
    if let Some(version) = write(records, &key, &dead, &[], Condition::Any).await? {
        records.purge_if(&key, &version).await?;
    }
    Ok(())
}
