//! The quotas of a store, and the backend that runs its transactions with them.

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use futures_core::Stream;
use registry_core::policy::Glob;
use registry_core::quota::{Amount, Quota};
use registry_core::storage::BlobContent;
use registry_core::{Algorithm, Digest, Error, RepositoryName};

use super::ledger::Ledger;
use crate::backend::{
    Again, Backend, BegunBytes, BytesWriter, Durability, Expect, MemoryPermit, RecordEntry,
    RecordTransaction, StagedBytes, Transaction, VersionedRecord, WriteGuard, WriteState,
};
use crate::bytes_name::BytesName;
use crate::clock::Clock;
use crate::key::Key;

/// The quotas for the same repositories, and where their count is.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) quotas: Vec<Quota>,
    pub(super) key: Key,
}

impl Account {
    pub(super) fn matches(&self, repository: &RepositoryName) -> bool {
        let first = self.quotas.first();
        first.is_some_and(|quota| quota.pattern_of(repository).is_some())
    }

    /// Refuses `more` than there is room for.
    pub(super) fn require_room(
        &self,
        repository: &RepositoryName,
        used: Amount,
        more: Amount,
    ) -> Result<(), Error> {
        let mut quotas = self.quotas.iter();
        quotas.try_for_each(|quota| quota.require_room(repository, used, more))
    }
}

/// Returns whether two quotas have the same count, because they have the same patterns.
pub(crate) fn have_one_count(one: &Quota, other: &Quota) -> bool {
    key_of(one) == key_of(other)
}

/// Returns where the count of a quota is: the order of its patterns does not matter.
pub(super) fn key_of(quota: &Quota) -> Key {
    let mut patterns: Vec<&str> = quota.repositories.iter().map(Glob::as_str).collect();
    patterns.sort_unstable();
    patterns.dedup();
    // No pattern contains a line break.
    Key::quota(&Digest::of(Algorithm::Sha256, patterns.join("\n").as_bytes()))
}

/// The quotas of a store.
#[derive(Debug)]
pub(super) struct Accounts {
    pub(super) all: Vec<Account>,
    pub(super) is_atomic: bool,
    pub(super) clock: Arc<dyn Clock>,
    /// Its only permit is held while an adoption is in progress, which no quota refuses: it adds what was there before.
    #[cfg(all(feature = "filesystem", unix))]
    pub(super) adopting: Arc<tokio::sync::Semaphore>,
}

impl Accounts {
    pub(super) fn new<B: Backend>(
        quotas: Vec<Quota>,
        backend: &B,
        clock: &Arc<dyn Clock>,
        #[cfg(all(feature = "filesystem", unix))] adopting: &Arc<tokio::sync::Semaphore>,
    ) -> Option<Self> {
        let mut all: Vec<Account> = Vec::with_capacity(quotas.len());
        for quota in quotas {
            let key = key_of(&quota);
            match all.iter_mut().find(|account| account.key == key) {
                Some(account) => account.quotas.push(quota),
                None => all.push(Account {
                    quotas: vec![quota],
                    key,
                }),
            }
        }
        (!all.is_empty()).then(|| Self {
            all,
            is_atomic: backend.is_atomic(),
            clock: Arc::clone(clock),
            #[cfg(all(feature = "filesystem", unix))]
            adopting: Arc::clone(adopting),
        })
    }

    /// Returns whether a quota matches a repository.
    pub(super) fn concern(&self, repository: &RepositoryName) -> bool {
        self.of(repository).next().is_some()
    }

    /// Returns the quotas that match a repository, with their numbers.
    pub(super) fn of<'a>(
        &'a self,
        repository: &'a RepositoryName,
    ) -> impl Iterator<Item = (usize, &'a Account)> {
        let all = self.all.iter().enumerate();
        all.filter(|(_, account)| account.matches(repository))
    }

    pub(super) fn may_refuse(&self) -> bool {
        #[cfg(all(feature = "filesystem", unix))]
        let is_adopting = self.adopting.available_permits() == 0;
        #[cfg(not(all(feature = "filesystem", unix)))]
        let is_adopting = false;
        !is_adopting
    }
}

/// A backend whose transactions keep the counts of quotas, and are refused by them. Without quotas it only passes calls on.
#[derive(Debug)]
pub(in crate::store) struct Accounted<B> {
    pub(in crate::store) inner: Arc<B>,
    accounts: RwLock<Option<Arc<Accounts>>>,
}

impl<B: Backend> Accounted<B> {
    pub(in crate::store) const fn new(inner: Arc<B>) -> Self {
        Self {
            inner,
            accounts: RwLock::new(None),
        }
    }

    pub(super) fn set(&self, accounts: Option<Accounts>) {
        *self.accounts.write().unwrap_or_else(PoisonError::into_inner) = accounts.map(Arc::new);
    }

    /// Returns the quotas, unless there are none.
    pub(super) fn accounts(&self) -> Option<Arc<Accounts>> {
        self.accounts
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// So that what only one backend has is found.
impl<B> std::ops::Deref for Accounted<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.inner
    }
}

/// A transaction whose changes are counted.
struct AccountedTransaction<S> {
    transaction: S,
    accounts: Option<Arc<Accounts>>,
}

impl<S: Transaction> Transaction for AccountedTransaction<S> {
    type Output = S::Output;

    fn again(&self) -> Option<Again<Self>> {
        let again = self.transaction.again()?;
        Some(again.map(|transaction| Self {
            transaction,
            accounts: self.accounts.clone(),
        }))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<S::Output, Error> {
        let Some(accounts) = self.accounts else {
            return self.transaction.run(records).await;
        };
        let mut ledger = Ledger::new(records, &accounts);
        match self.transaction.run(&mut ledger).await {
            Ok(output) => {
                ledger.close().await?;
                Ok(output)
            }
            Err(error) => {
                ledger.abandon().await;
                Err(error)
            }
        }
    }
}

impl<B: Backend> Backend for Accounted<B> {
    async fn transact<S: Transaction>(
        &self,
        durability: Durability,
        transaction: S,
    ) -> Result<S::Output, Error> {
        let accounts = self.accounts();
        let transaction = AccountedTransaction {
            transaction,
            accounts,
        };
        self.inner.transact(durability, transaction).await
    }

    async fn get(&self, key: &Key) -> Result<Option<VersionedRecord>, Error> {
        self.inner.get(key).await
    }

    fn recall(&self, key: &Key) -> Option<VersionedRecord> {
        self.inner.recall(key)
    }

    async fn get_all(&self, keys: &[Key]) -> Result<Vec<Option<VersionedRecord>>, Error> {
        self.inner.get_all(keys).await
    }

    async fn sizes(&self, keys: &[Key]) -> Result<Vec<Option<u64>>, Error> {
        self.inner.sizes(keys).await
    }

    async fn list(&self, prefix: &Key, after: Option<&Key>, limit: usize) -> Result<Vec<RecordEntry>, Error> {
        self.inner.list(prefix, after, limit).await
    }

    fn epoch(&self) -> Option<&str> {
        self.inner.epoch()
    }

    fn is_read_only(&self) -> bool {
        self.inner.is_read_only()
    }

    fn is_atomic(&self) -> bool {
        self.inner.is_atomic()
    }

    fn is_short_of_space(&self) -> bool {
        self.inner.is_short_of_space()
    }

    fn write_state(&self) -> WriteState {
        self.inner.write_state()
    }

    fn part_size(&self, offset: u64) -> usize {
        self.inner.part_size(offset)
    }

    fn tail_limit(&self, offset: u64) -> usize {
        self.inner.tail_limit(offset)
    }

    fn must_record_parts(&self) -> bool {
        self.inner.must_record_parts()
    }

    fn can_read_staged_bytes(&self) -> bool {
        self.inner.can_read_staged_bytes()
    }

    fn most_upload_bytes(&self) -> Option<u64> {
        self.inner.most_upload_bytes()
    }

    fn parts_at_once(&self, size: usize) -> usize {
        self.inner.parts_at_once(size)
    }

    fn memory_at_once(&self, size: usize) -> Option<MemoryPermit> {
        self.inner.memory_at_once(size)
    }

    async fn reserve_memory(&self, size: usize) -> MemoryPermit {
        self.inner.reserve_memory(size).await
    }

    async fn begin_bytes(&self, name: &BytesName) -> Result<Option<String>, Error> {
        self.inner.begin_bytes(name).await
    }

    async fn write_bytes(
        &self,
        bytes: &StagedBytes,
        guard: WriteGuard,
    ) -> Result<Box<dyn BytesWriter>, Error> {
        self.inner.write_bytes(bytes, guard).await
    }

    async fn seal_bytes(&self, bytes: &StagedBytes, size: u64) -> Result<(), Error> {
        self.inner.seal_bytes(bytes, size).await
    }

    async fn shorten_bytes(&self, bytes: &StagedBytes, size: u64, guard: WriteGuard) -> Result<(), Error> {
        self.inner.shorten_bytes(bytes, size, guard).await
    }

    async fn open_bytes(
        &self,
        name: &BytesName,
        expect: Expect,
    ) -> Result<Option<Arc<dyn BlobContent>>, Error> {
        self.inner.open_bytes(name, expect).await
    }

    async fn open_blob(
        &self,
        digest: &Digest,
        name: &BytesName,
        size: u64,
    ) -> Result<Option<Arc<dyn BlobContent>>, Error> {
        self.inner.open_blob(digest, name, size).await
    }

    async fn bytes_size(&self, name: &BytesName) -> Result<Option<u64>, Error> {
        self.inner.bytes_size(name).await
    }

    fn has_near_bytes(&self) -> bool {
        self.inner.has_near_bytes()
    }

    async fn are_whole(&self, bytes: &[(BytesName, u64)]) -> Result<Vec<bool>, Error> {
        self.inner.are_whole(bytes).await
    }

    async fn forget_cached(&self, name: &BytesName, range: Range<u64>) -> Result<(), Error> {
        self.inner.forget_cached(name, range).await
    }

    fn begun_bytes(&self) -> impl Stream<Item = Result<Vec<BegunBytes>, Error>> + Send {
        self.inner.begun_bytes()
    }

    async fn abort_bytes(&self, bytes: &StagedBytes) -> Result<(), Error> {
        self.inner.abort_bytes(bytes).await
    }

    async fn delete_bytes(&self, name: &BytesName) -> Result<(), Error> {
        self.inner.delete_bytes(name).await
    }

    async fn list_bytes(&self, after: Option<&BytesName>, limit: usize) -> Result<Vec<BytesName>, Error> {
        self.inner.list_bytes(after, limit).await
    }

    async fn probe(&self) -> Result<(), Error> {
        self.inner.probe().await
    }

    async fn close(&self) -> Result<(), Error> {
        self.inner.close().await
    }
}
