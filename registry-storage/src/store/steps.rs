//! Sequences of any length, split into transactions that do not hold up other requests.
//!
//! On a disk one thread writes, so other pushes wait for the transaction in progress. A sequence whose length a client
//! chooses (the children of a manifest, the tags of a deleted manifest) therefore stops after some records and
//! continues in the next transaction, behind those that wait. The protocol allows that: each of its steps may be the
//! last one, and on a bucket each is on its own.

use async_trait::async_trait;
use bytes::Bytes;
use registry_core::quota::Amount;
use registry_core::{Error, RepositoryName};

use crate::backend::{
    Backend, Condition, Durability, Part, RecordEntry, RecordTransaction, StagedBytes, Stat, Transaction,
    Version, VersionedRecord,
};
use crate::key::Key;

/// Roughly how many calls one transaction makes: a disk answers that many in some milliseconds. A push with the most
/// tags that a request may have, and with as many layers as images have, is one transaction.
const CALLS_PER_TRANSACTION: usize = 512;

/// How many bytes of a value count as one more call.
const BYTES_PER_CALL: usize = 16 * 1024;

/// How many keys are listed at once: their records are read in the same transaction.
pub(super) const KEYS_PER_PAGE: usize = 64;

/// How a transaction of a long sequence ended.
pub(super) enum Step<S, T> {
    /// There is more to do, in another transaction.
    More(S),
    /// It is done.
    Done(T),
}

/// Records with a count of the calls made on them.
pub(super) struct Counted<'a> {
    records: &'a mut dyn RecordTransaction,
    calls: usize,
}

impl<'a> Counted<'a> {
    pub(super) fn new(records: &'a mut dyn RecordTransaction) -> Self {
        Self { records, calls: 0 }
    }

    /// Returns whether the transaction did enough.
    pub(super) const fn is_enough(&self) -> bool {
        self.calls >= CALLS_PER_TRANSACTION
    }

    fn count(&mut self, bytes: usize) {
        self.calls = self
            .calls
            .saturating_add(1)
            .saturating_add(bytes / BYTES_PER_CALL);
    }
}

#[async_trait]
impl RecordTransaction for Counted<'_> {
    async fn get(&mut self, key: &Key) -> Result<Option<VersionedRecord>, Error> {
        let found = self.records.get(key).await?;
        self.count(found.as_ref().map_or(0, |stored| stored.value.len()));
        Ok(found)
    }

    async fn stat(&mut self, key: &Key) -> Result<Option<Stat>, Error> {
        self.count(0);
        self.records.stat(key).await
    }

    async fn put(&mut self, key: &Key, value: Bytes, condition: Condition) -> Result<Option<Version>, Error> {
        self.count(value.len());
        self.records.put(key, value, condition).await
    }

    fn others_purge(&self) -> bool {
        self.records.others_purge()
    }

    fn purges(&self) -> bool {
        self.records.purges()
    }

    async fn purge_if(&mut self, key: &Key, version: &Version) -> Result<bool, Error> {
        self.count(0);
        self.records.purge_if(key, version).await
    }

    async fn remove(&mut self, key: &Key) -> Result<(), Error> {
        self.count(0);
        self.records.remove(key).await
    }

    async fn list(
        &mut self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<RecordEntry>, Error> {
        self.count(0);
        self.records.list(prefix, after, limit).await
    }

    async fn complete_bytes(
        &mut self,
        bytes: &StagedBytes,
        parts: &[Part],
        tail: Bytes,
    ) -> Result<(), Error> {
        self.count(0);
        self.records.complete_bytes(bytes, parts, tail).await
    }

    async fn set_aside(&mut self, repository: &RepositoryName, more: Amount) -> Result<bool, Error> {
        self.count(0);
        self.records.set_aside(repository, more).await
    }
}

/// Runs a sequence in as many transactions as it takes, each with the `durability` for what is left to do.
///
/// Cancel safety: a dropped future may leave the sequence after any of them.
pub(super) async fn transact_all<S, T>(
    backend: &impl Backend,
    durability: impl Fn(&S) -> Durability + Send,
    mut transaction: S,
) -> Result<T, Error>
where
    S: Transaction<Output = Step<S, T>>,
    T: Send + 'static,
{
    loop {
        match backend.transact(durability(&transaction), transaction).await? {
            Step::More(rest) => transaction = rest,
            Step::Done(result) => return Ok(result),
        }
    }
}
