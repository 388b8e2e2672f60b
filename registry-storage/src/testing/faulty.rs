//! A backend that fails when a test requests it.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use registry_core::storage::BlobContent;
use registry_core::{Digest, Error, ErrorCode};

use crate::backend::{
    Again, Backend, BegunBytes, BytesWriter, Condition, Durability, Expect, MemoryPermit, Part, RecordEntry,
    RecordTransaction, StagedBytes, Stat, Transaction, Version, VersionedRecord, WriteGuard,
};
use crate::bytes_name::BytesName;
use crate::key::Key;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and has no effect.
    Fail,
    /// It has its effect, and fails.
    LoseAnswer,
    /// It lets other tasks run first, this many times. Not for a backend whose transactions cannot wait.
    Delay(u32),
}

/// Wraps a backend; each of its calls fails, is delayed or loses its answer according to a plan.
///
/// Calls are counted from 0. The count includes those that a transaction makes through [`RecordTransaction`], those of
/// a [`BytesWriter`], and a transaction as a whole, when it begins: its answer is lost after its last step. The writes of
/// records are counted by themselves too, because what goes wrong between a read and a write does so at a write, and so are
/// listings, because what a cycle or a sweep may miss depends on their order. Failures are
/// [`Unavailable`](ErrorCode::Unavailable).
#[derive(Debug)]
pub struct Faulty<B> {
    inner: B,
    plan: Arc<Plan>,
    /// The size of parts, if it is not that of the wrapped backend.
    part_size: Option<usize>,
}

#[derive(Debug, Default)]
struct Plan {
    calls: AtomicU64,
    writes: AtomicU64,
    listings: AtomicU64,
    faults: Mutex<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    at: BTreeMap<u64, Fault>,
    /// How many turns a write waits, besides what its call does.
    delays_of_writes: BTreeMap<u64, u32>,
    /// The same for listings.
    delays_of_listings: BTreeMap<u64, u32>,
    /// A seed, and how many of 1000 calls have a fault.
    random: Option<(u64, u64)>,
}

impl<B> Faulty<B> {
    /// Wraps `inner`, without faults.
    pub fn new(inner: B) -> Self {
        Self {
            inner,
            plan: Arc::default(),
            part_size: None,
        }
    }

    /// Sets the size of the parts of uploads in bytes, which is not zero: so small content has several.
    #[must_use]
    pub fn with_part_size(mut self, size: usize) -> Self {
        self.part_size = Some(size);
        self
    }

    /// Gives the call with this number a fault.
    pub fn fault_at(&self, call: u64, fault: Fault) {
        self.plan.change(|faults| faults.at.insert(call, fault));
    }

    /// Lets other tasks run `turns` times before the write of a record with this number. Not for a backend whose transactions
    /// cannot wait.
    pub fn delay_write(&self, write: u64, turns: u32) {
        self.plan
            .change(|faults| faults.delays_of_writes.insert(write, turns));
    }

    /// Lets other tasks run `turns` times before the listing of records or bytes with this number. The listings of a transaction
    /// that is one step cannot wait, and are not counted.
    pub fn delay_listing(&self, listing: u64, turns: u32) {
        self.plan
            .change(|faults| faults.delays_of_listings.insert(listing, turns));
    }

    /// Gives `of_1000` of 1000 calls a fault of any kind, the same ones for the same seed and order of calls.
    pub fn fault_randomly(&self, seed: u64, of_1000: u64) {
        self.plan.change(|faults| faults.random = Some((seed, of_1000)));
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.plan.change(|faults| *faults = Faults::default());
    }

    /// Returns how many calls there were.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.plan.calls.load(Ordering::SeqCst)
    }

    /// Returns how many writes of records there were.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.plan.writes.load(Ordering::SeqCst)
    }

    /// Returns how many listings of records or bytes there were.
    #[must_use]
    pub fn listings(&self) -> u64 {
        self.plan.listings.load(Ordering::SeqCst)
    }

    /// Returns the wrapped backend.
    #[must_use]
    pub const fn inner(&self) -> &B {
        &self.inner
    }
}

impl Plan {
    fn change<T>(&self, change: impl FnOnce(&mut Faults) -> T) -> T {
        change(&mut self.faults.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts a call and runs it with its fault, if it has one.
    async fn call<T: Send>(&self, call: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        match self.change(|faults| faults.of(number)) {
            None => call.await,
            Some(Fault::Fail) => Err(unavailable(number)),
            Some(Fault::LoseAnswer) => {
                call.await?;
                Err(unavailable(number))
            }
            Some(Fault::Delay(times)) => {
                let_others_run(times).await;
                call.await
            }
        }
    }

    /// Counts the write of a record, and delays it.
    async fn before_write(&self) {
        let number = self.writes.fetch_add(1, Ordering::SeqCst);
        let turns = self.change(|faults| faults.delays_of_writes.get(&number).copied());
        let_others_run(turns.unwrap_or(0)).await;
    }

    /// Counts a listing, and delays it.
    async fn before_listing(&self) {
        let number = self.listings.fetch_add(1, Ordering::SeqCst);
        let turns = self.change(|faults| faults.delays_of_listings.get(&number).copied());
        let_others_run(turns.unwrap_or(0)).await;
    }
}

impl Faults {
    fn of(&self, number: u64) -> Option<Fault> {
        if let Some(fault) = self.at.get(&number) {
            return Some(*fault);
        }
        let (seed, of_1000) = self.random?;
        let random = mix(seed ^ mix(number));
        if random % 1000 >= of_1000 {
            return None;
        }
        Some(match (random >> 32) % 3 {
            0 => Fault::Fail,
            1 => Fault::LoseAnswer,
            _ => Fault::Delay(1 + u32::try_from((random >> 40) % 8).unwrap_or(0)),
        })
    }
}

/// Spreads a number over all values (the finalizer of splitmix64).
const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn unavailable(number: u64) -> Error {
    Error::new(ErrorCode::Unavailable, format!("call {number} was told to fail"))
}

async fn let_others_run(times: u32) {
    let mut left = times;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A transaction whose steps count as calls.
struct FaultyTransaction<S> {
    transaction: S,
    plan: Arc<Plan>,
    is_one_step: bool,
}

impl<S: Transaction> Transaction for FaultyTransaction<S> {
    type Output = S::Output;

    fn again(&self) -> Option<Again<Self>> {
        let again = self.transaction.again()?;
        Some(again.map(|transaction| Self {
            transaction,
            plan: Arc::clone(&self.plan),
            is_one_step: self.is_one_step,
        }))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<S::Output, Error> {
        let mut records = FaultyRecords {
            inner: records,
            plan: &self.plan,
            is_one_step: self.is_one_step,
        };
        self.transaction.run(&mut records).await
    }
}

struct FaultyRecords<'a> {
    inner: &'a mut dyn RecordTransaction,
    plan: &'a Plan,
    is_one_step: bool,
}

#[async_trait]
impl RecordTransaction for FaultyRecords<'_> {
    async fn get(&mut self, key: &Key) -> Result<Option<VersionedRecord>, Error> {
        self.plan.call(self.inner.get(key)).await
    }

    async fn stat(&mut self, key: &Key) -> Result<Option<Stat>, Error> {
        self.plan.call(self.inner.stat(key)).await
    }

    async fn put(&mut self, key: &Key, value: Bytes, condition: Condition) -> Result<Option<Version>, Error> {
        self.plan.before_write().await;
        self.plan.call(self.inner.put(key, value, condition)).await
    }

    fn others_purge(&self) -> bool {
        self.inner.others_purge()
    }

    fn purges(&self) -> bool {
        self.inner.purges()
    }

    async fn purge_if(&mut self, key: &Key, version: &Version) -> Result<bool, Error> {
        self.plan.call(self.inner.purge_if(key, version)).await
    }

    async fn remove(&mut self, key: &Key) -> Result<(), Error> {
        self.plan.call(self.inner.remove(key)).await
    }

    async fn list(
        &mut self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<RecordEntry>, Error> {
        if !self.is_one_step {
            self.plan.before_listing().await;
        }
        self.plan.call(self.inner.list(prefix, after, limit)).await
    }

    async fn complete_bytes(
        &mut self,
        bytes: &StagedBytes,
        parts: &[Part],
        tail: Bytes,
    ) -> Result<(), Error> {
        self.plan
            .call(self.inner.complete_bytes(bytes, parts, tail))
            .await
    }
}

struct FaultyWriter {
    inner: Box<dyn BytesWriter>,
    plan: Arc<Plan>,
}

#[async_trait]
impl BytesWriter for FaultyWriter {
    async fn write(&mut self, number: usize, offset: u64, content: Bytes) -> Result<Option<String>, Error> {
        self.plan.call(self.inner.write(number, offset, content)).await
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        self.plan.call(self.inner.close()).await
    }
}

impl<B: Backend> Backend for Faulty<B> {
    async fn get(&self, key: &Key) -> Result<Option<VersionedRecord>, Error> {
        self.plan.call(self.inner.get(key)).await
    }

    fn recall(&self, key: &Key) -> Option<VersionedRecord> {
        self.inner.recall(key)
    }

    async fn get_all(&self, keys: &[Key]) -> Result<Vec<Option<VersionedRecord>>, Error> {
        self.plan.call(self.inner.get_all(keys)).await
    }

    async fn sizes(&self, keys: &[Key]) -> Result<Vec<Option<u64>>, Error> {
        self.plan.call(self.inner.sizes(keys)).await
    }

    async fn list(&self, prefix: &Key, after: Option<&Key>, limit: usize) -> Result<Vec<RecordEntry>, Error> {
        self.plan.before_listing().await;
        self.plan.call(self.inner.list(prefix, after, limit)).await
    }

    async fn transact<S: Transaction>(
        &self,
        durability: Durability,
        transaction: S,
    ) -> Result<S::Output, Error> {
        let plan = Arc::clone(&self.plan);
        let transaction = FaultyTransaction {
            transaction,
            plan,
            is_one_step: self.is_atomic(),
        };
        self.plan.call(self.inner.transact(durability, transaction)).await
    }

    fn epoch(&self) -> Option<&str> {
        self.inner.epoch()
    }

    fn is_atomic(&self) -> bool {
        self.inner.is_atomic()
    }

    fn is_short_of_space(&self) -> bool {
        self.inner.is_short_of_space()
    }

    fn part_size(&self, offset: u64) -> usize {
        self.part_size.unwrap_or_else(|| self.inner.part_size(offset))
    }

    fn tail_limit(&self, offset: u64) -> usize {
        self.part_size
            .map_or_else(|| self.inner.tail_limit(offset), |size| size - 1)
    }

    fn must_record_parts(&self) -> bool {
        self.inner.must_record_parts()
    }

    fn can_read_staged_bytes(&self) -> bool {
        self.inner.can_read_staged_bytes()
    }

    /// As many parts as those of the wrapped backend.
    fn most_upload_bytes(&self) -> Option<u64> {
        let most = self.inner.most_upload_bytes()?;
        let parts = most / self.inner.part_size(0) as u64;
        Some(self.part_size.map_or(most, |size| parts * size as u64))
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
        self.plan.call(self.inner.begin_bytes(name)).await
    }

    async fn write_bytes(
        &self,
        bytes: &StagedBytes,
        guard: WriteGuard,
    ) -> Result<Box<dyn BytesWriter>, Error> {
        let inner = self.plan.call(self.inner.write_bytes(bytes, guard)).await?;
        let plan = Arc::clone(&self.plan);
        Ok(Box::new(FaultyWriter { inner, plan }))
    }

    async fn seal_bytes(&self, bytes: &StagedBytes, size: u64) -> Result<(), Error> {
        self.plan.call(self.inner.seal_bytes(bytes, size)).await
    }

    async fn open_bytes(
        &self,
        name: &BytesName,
        expect: Expect,
    ) -> Result<Option<Arc<dyn BlobContent>>, Error> {
        self.plan.call(self.inner.open_bytes(name, expect)).await
    }

    async fn open_blob(
        &self,
        digest: &Digest,
        name: &BytesName,
        size: u64,
    ) -> Result<Option<Arc<dyn BlobContent>>, Error> {
        self.plan.call(self.inner.open_blob(digest, name, size)).await
    }

    async fn bytes_size(&self, name: &BytesName) -> Result<Option<u64>, Error> {
        self.plan.call(self.inner.bytes_size(name)).await
    }

    fn has_near_bytes(&self) -> bool {
        self.inner.has_near_bytes()
    }

    async fn are_whole(&self, bytes: &[(BytesName, u64)]) -> Result<Vec<bool>, Error> {
        self.plan.call(self.inner.are_whole(bytes)).await
    }

    async fn shorten_bytes(&self, bytes: &StagedBytes, size: u64, guard: WriteGuard) -> Result<(), Error> {
        self.plan.call(self.inner.shorten_bytes(bytes, size, guard)).await
    }

    fn begun_bytes(&self) -> impl Stream<Item = Result<Vec<BegunBytes>, Error>> + Send {
        self.inner.begun_bytes()
    }

    async fn abort_bytes(&self, bytes: &StagedBytes) -> Result<(), Error> {
        self.plan.call(self.inner.abort_bytes(bytes)).await
    }

    async fn delete_bytes(&self, name: &BytesName) -> Result<(), Error> {
        self.plan.call(self.inner.delete_bytes(name)).await
    }

    async fn forget_cached(&self, name: &BytesName, range: Range<u64>) -> Result<(), Error> {
        self.plan.call(self.inner.forget_cached(name, range)).await
    }

    async fn list_bytes(&self, after: Option<&BytesName>, limit: usize) -> Result<Vec<BytesName>, Error> {
        self.plan.before_listing().await;
        self.plan.call(self.inner.list_bytes(after, limit)).await
    }

    async fn probe(&self) -> Result<(), Error> {
        self.plan.call(self.inner.probe()).await
    }

    async fn close(&self) -> Result<(), Error> {
        self.inner.close().await
    }
}
