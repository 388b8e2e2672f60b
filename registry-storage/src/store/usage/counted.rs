//! What was counted, one record for each repository that has something.

use std::sync::atomic::Ordering;

use registry_core::{Error, RepositoryName, Timestamp};

use super::{CountedRepository, RepositoryUsage};
use crate::backend::{Again, Backend, Condition, Durability, RecordTransaction, Transaction};
use crate::chain::State;
use crate::key::Key;
use crate::record::{SharedBlobs, Stamp, UsageRecord, state_of_size};
use crate::store::collect::mark_changed;
use crate::store::edge::{Found, write};
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

/// What was written down about a repository before it is counted anew.
pub(in crate::store) struct CountedBefore {
    /// `None` if nothing is, or if it cannot be read.
    record: Option<UsageRecord>,
    /// There is one, though it may not be readable.
    is_visible: bool,
    unchanged: Condition,
}

impl<B: Backend> Store<B> {
    /// Returns what is written down about a repository. Whoever counts it reads this **before** it counts: so it notices that
    /// another process, which may have seen more, wrote meanwhile.
    pub(in crate::store) async fn counted_before(
        &self,
        repository: &RepositoryName,
    ) -> Result<CountedBefore, Error> {
        let stored = self.backend.get(&Key::usage(repository)).await?;
        let unchanged = stored.as_ref().map_or(Condition::Absent, |stored| {
            Condition::Matches(stored.version.clone())
        });
        let record = Found::<UsageRecord>::new(stored.as_ref()).ok();
        let record = record.and_then(Found::visible).map(|(record, _)| record);
        Ok(CountedBefore {
            record,
            is_visible: stored.is_some_and(|stored| state_of_size(stored.value.len() as u64).is_visible()),
            unchanged,
        })
    }

    /// Writes down what a cycle found in a repository: its blobs and manifests, unless it never had a blob.
    pub(in crate::store) async fn write_collected(
        &self,
        repository: &RepositoryName,
        before: CountedBefore,
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
        self.write_usage(repository, before, &usage, counted).await
    }

    /// Counts what a repository shares with others, and writes it down.
    pub(in crate::store) async fn count_shared(&self, repository: &RepositoryName) -> Result<(), Error> {
        let counted = self.clock.now();
        let before = self.counted_before(repository).await?;
        let usage = self.count_repository(repository, true).await?;
        self.write_usage(repository, before, &usage, counted).await
    }

    /// Writes down what a repository has, if that is not what is written. What it shares is kept if `usage` does not say it.
    async fn write_usage(
        &self,
        repository: &RepositoryName,
        before: CountedBefore,
        usage: &RepositoryUsage,
        counted: Timestamp,
    ) -> Result<(), Error> {
        if usage.is_nothing() {
            return self.forget_counted(repository, before).await;
        }
        let shared = match usage.shared {
            Some(BlobCount { blobs, bytes }) => Some(SharedBlobs {
                blobs,
                bytes,
                counted,
            }),
            None => before.record.as_ref().and_then(|before| before.shared),
        };
        let new = UsageRecord::new(usage, shared, counted);
        let is_same = |before: &UsageRecord| {
            let is_counted_again = usage.shared.is_some() && before.shared.is_none();
            before.usage() == new.usage() && !is_counted_again
        };
        if before.record.as_ref().is_some_and(is_same) {
            return Ok(());
        }
        let write = WriteUsage {
            repository: repository.clone(),
            record: new,
            unchanged: before.unchanged,
        };
        let result = self.backend.transact(Durability::Deferred, write).await;
        self.usage_writes.fetch_add(1, Ordering::Relaxed);
        result
    }

    /// Returns how often this process wrote down what a repository has.
    pub(crate) fn usage_writes(&self) -> u64 {
        self.usage_writes.load(Ordering::Relaxed)
    }

    /// Forgets what a repository had.
    pub(in crate::store) async fn forget_usage(&self, repository: &RepositoryName) -> Result<(), Error> {
        let before = self.counted_before(repository).await?;
        self.forget_counted(repository, before).await
    }

    async fn forget_counted(&self, repository: &RepositoryName, before: CountedBefore) -> Result<(), Error> {
        if !before.is_visible {
            return Ok(());
        }
        let forget = ForgetUsage {
            repository: repository.clone(),
            unchanged: before.unchanged,
            now: self.clock.now(),
        };
        let result = self.backend.transact(Durability::Deferred, forget).await;
        self.usage_writes.fetch_add(1, Ordering::Relaxed);
        result
    }
}

/// Writes what a repository had, unless it is gone by then: another cycle may have removed the last of it since it was counted.
#[derive(Clone)]
struct WriteUsage {
    repository: RepositoryName,
    record: UsageRecord,
    unchanged: Condition,
}

impl Transaction for WriteUsage {
    type Output = ();

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        let key = Key::usage(&self.repository);
        let written = write(records, &key, &self.record, &[], self.unchanged).await?;
        let Some(version) = written else {
            return count_again(records, &self.repository, self.record.counted).await;
        };
        let all = Key::all_of_repository(&self.repository);
        if records.list(&all, None, 1).await?.is_empty() {
            let unchanged = Condition::Matches(version);
            forget(records, &self.repository, unchanged, self.record.counted).await?;
        }
        Ok(())
    }
}

#[derive(Clone)]
struct ForgetUsage {
    repository: RepositoryName,
    unchanged: Condition,
    now: Timestamp,
}

impl Transaction for ForgetUsage {
    type Output = ();

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        forget(records, &self.repository, self.unchanged, self.now).await
    }
}

async fn forget(
    records: &mut dyn RecordTransaction,
    repository: &RepositoryName,
    unchanged: Condition,
    now: Timestamp,
) -> Result<(), Error> {
    let key = Key::usage(repository);
    let dead = UsageRecord {
        state: State::Dead,
        ..UsageRecord::new(&RepositoryUsage::default(), None, now)
    };
    match write(records, &key, &dead, &[], unchanged).await? {
        Some(version) => records.purge_if(&key, &version).await.map(|_| ()),
        None => count_again(records, repository, now).await,
    }
}

/// Lets the next cycle count a repository that two counted at the same time: nobody knows who saw more, and the cycle that was
/// faster may have removed the mark.
async fn count_again(
    records: &mut dyn RecordTransaction,
    repository: &RepositoryName,
    now: Timestamp,
) -> Result<(), Error> {
    mark_changed(records, &Key::changed(repository), now).await
}
