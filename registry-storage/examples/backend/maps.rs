use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use registry_core::storage::{BlobContent, ByteStream};
use registry_core::{Error, ErrorCode};
use registry_storage::backend::{
    BytesWriter, Condition, Durability, Expect, MemoryPermit, Part, RecordEntry, RecordTransaction,
    StagedBytes, Stat, Transaction, Version, VersionedRecord, WriteGuard,
};
use registry_storage::{Backend, BytesName, Key};
use tokio::sync::Semaphore;

/// The bytes of a part.
const PART_SIZE: usize = 256 * 1024;

/// The bytes of all parts that wait to be written.
const MEMORY: usize = 64 << 20;

/// Keeps records and bytes in maps. Like a bucket, it runs the steps of a transaction one after the other.
#[derive(Debug)]
pub(crate) struct MapBackend {
    records: Mutex<BTreeMap<Key, VersionedRecord>>,
    versions: AtomicU64,
    bytes: Arc<Mutex<BytesByName>>,
    memory: Arc<Semaphore>,
}

type BytesByName = BTreeMap<BytesName, Arc<Vec<u8>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for MapBackend {
    fn default() -> Self {
        Self {
            records: Mutex::default(),
            versions: AtomicU64::default(),
            bytes: Arc::default(),
            memory: Arc::new(Semaphore::new(MEMORY)),
        }
    }
}

/// Records as the steps of a transaction see them.
struct Records<'a>(&'a MapBackend);

#[async_trait]
impl RecordTransaction for Records<'_> {
    async fn get(&mut self, key: &Key) -> Result<Option<VersionedRecord>, Error> {
        self.0.get(key).await
    }

    async fn stat(&mut self, key: &Key) -> Result<Option<Stat>, Error> {
        Ok(self.0.get(key).await?.map(|record| Stat {
            size: record.value.len() as u64,
            version: record.version,
        }))
    }

    async fn put(&mut self, key: &Key, value: Bytes, condition: Condition) -> Result<Option<Version>, Error> {
        // The comparison and the write are one step, so of several writers one wins.
        let mut records = lock(&self.0.records);
        let holds = match (&condition, records.get(key)) {
            (Condition::Any, _) | (Condition::Absent, None) => true,
            (Condition::Matches(version), Some(record)) => record.version == *version,
            _ => false,
        };
        if !holds {
            return Ok(None);
        }
        let number = self.0.versions.fetch_add(1, Ordering::Relaxed);
        let version = Version(number.to_string().into());
        records.insert(key.clone(), VersionedRecord::new(value, version.clone()));
        Ok(Some(version))
    }

    async fn purge_if(&mut self, key: &Key, version: &Version) -> Result<bool, Error> {
        let mut records = lock(&self.0.records);
        let is_other = records.get(key).is_some_and(|record| record.version != *version);
        if !is_other {
            records.remove(key);
        }
        Ok(!is_other)
    }

    async fn remove(&mut self, key: &Key) -> Result<(), Error> {
        lock(&self.0.records).remove(key);
        Ok(())
    }

    async fn list(
        &mut self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<RecordEntry>, Error> {
        self.0.list(prefix, after, limit).await
    }

    /// Does nothing: bytes can be read as soon as they are written.
    async fn complete_bytes(&mut self, _: &StagedBytes, _: &[Part], _: Bytes) -> Result<(), Error> {
        Ok(())
    }
}

/// Writes parts at their offsets.
struct Writer {
    name: BytesName,
    bytes: Arc<Mutex<BytesByName>>,
    _guard: WriteGuard,
}

#[async_trait]
impl BytesWriter for Writer {
    async fn write(&mut self, _: usize, offset: u64, content: Bytes) -> Result<Option<String>, Error> {
        let begin = usize::try_from(offset).map_err(Error::internal)?;
        let end = begin + content.len();
        let mut bytes = lock(&self.bytes);
        let whole = Arc::make_mut(bytes.entry(self.name.clone()).or_default());
        whole.resize(end.max(whole.len()), 0);
        whole[begin..end].copy_from_slice(&content);
        Ok(None)
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

/// Bytes that were opened. They stay readable after a delete.
#[derive(Debug)]
struct Opened(Arc<Vec<u8>>);

impl BlobContent for Opened {
    fn read(&self, range: Range<u64>) -> ByteStream {
        let whole = Arc::clone(&self.0);
        let chunks = range.clone().step_by(PART_SIZE).map(move |begin| {
            let end = range.end.min(begin + PART_SIZE as u64);
            let chunk = usize::try_from(begin).ok().zip(usize::try_from(end).ok());
            let chunk = chunk.and_then(|(begin, end)| whole.get(begin..end));
            chunk
                .map(Bytes::copy_from_slice)
                .ok_or_else(|| ErrorCode::BlobUnknown.into())
        });
        Box::pin(futures_util::stream::iter(chunks))
    }
}

impl Backend for MapBackend {
    async fn get(&self, key: &Key) -> Result<Option<VersionedRecord>, Error> {
        Ok(lock(&self.records).get(key).cloned())
    }

    async fn get_all(&self, keys: &[Key]) -> Result<Vec<Option<VersionedRecord>>, Error> {
        let records = lock(&self.records);
        Ok(keys.iter().map(|key| records.get(key).cloned()).collect())
    }

    async fn sizes(&self, keys: &[Key]) -> Result<Vec<Option<u64>>, Error> {
        let records = lock(&self.records);
        let size = |key| records.get(key).map(|record| record.value.len() as u64);
        Ok(keys.iter().map(size).collect())
    }

    async fn list(&self, prefix: &Key, after: Option<&Key>, limit: usize) -> Result<Vec<RecordEntry>, Error> {
        let begin = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let records = lock(&self.records);
        let entries = records.range((begin, Bound::Unbounded));
        let entries = entries.take_while(|(key, _)| key.as_str().starts_with(prefix.as_str()));
        let entries = entries.take(limit).map(|(key, record)| RecordEntry {
            key: key.clone(),
            size: record.value.len() as u64,
        });
        Ok(entries.collect())
    }

    async fn transact<T: Transaction>(&self, _: Durability, transaction: T) -> Result<T::Output, Error> {
        transaction.run(&mut Records(self)).await
    }

    fn epoch(&self) -> Option<&str> {
        // What was written stays, for as long as there is anything.
        Some("memory")
    }

    fn part_size(&self, _: u64) -> usize {
        PART_SIZE
    }

    fn tail_limit(&self, _: u64) -> usize {
        0
    }

    fn must_record_parts(&self) -> bool {
        false
    }

    fn can_read_staged_bytes(&self) -> bool {
        true
    }

    async fn reserve_memory(&self, size: usize) -> MemoryPermit {
        let size = size.min(PART_SIZE);
        let permits = u32::try_from(size).unwrap_or(u32::MAX);
        let held = Arc::clone(&self.memory).acquire_many_owned(permits).await;
        MemoryPermit::new(size, held.ok())
    }

    async fn begin_bytes(&self, _: &BytesName) -> Result<Option<String>, Error> {
        Ok(None)
    }

    async fn write_bytes(
        &self,
        bytes: &StagedBytes,
        guard: WriteGuard,
    ) -> Result<Box<dyn BytesWriter>, Error> {
        Ok(Box::new(Writer {
            name: bytes.name.clone(),
            bytes: Arc::clone(&self.bytes),
            _guard: guard,
        }))
    }

    async fn seal_bytes(&self, bytes: &StagedBytes, size: u64) -> Result<(), Error> {
        let size = usize::try_from(size).map_err(Error::internal)?;
        let mut all = lock(&self.bytes);
        if all.get(&bytes.name).map_or(0, |whole| whole.len()) < size {
            return Err(ErrorCode::BlobUploadUnknown.into());
        }
        Arc::make_mut(all.entry(bytes.name.clone()).or_default()).truncate(size);
        Ok(())
    }

    async fn shorten_bytes(&self, bytes: &StagedBytes, size: u64, _: WriteGuard) -> Result<(), Error> {
        let size = usize::try_from(size).map_err(Error::internal)?;
        if let Some(whole) = lock(&self.bytes).get_mut(&bytes.name) {
            Arc::make_mut(whole).truncate(size);
        }
        Ok(())
    }

    async fn open_bytes(
        &self,
        name: &BytesName,
        expect: Expect,
    ) -> Result<Option<Arc<dyn BlobContent>>, Error> {
        let whole = lock(&self.bytes).get(name).cloned();
        let whole = whole.filter(|whole| match expect {
            Expect::Nothing => true,
            Expect::Size(size) | Expect::SizeNow(size) => whole.len() as u64 == size,
        });
        Ok(whole.map(|whole| Arc::new(Opened(whole)) as _))
    }

    async fn bytes_size(&self, name: &BytesName) -> Result<Option<u64>, Error> {
        Ok(lock(&self.bytes).get(name).map(|whole| whole.len() as u64))
    }

    /// Does nothing: the maps are the medium.
    async fn forget_cached(&self, _name: &BytesName, _range: Range<u64>) -> Result<(), Error> {
        Ok(())
    }

    /// Does nothing: unfinished bytes are listed, so the sweeper deletes them.
    async fn abort_bytes(&self, _: &StagedBytes) -> Result<(), Error> {
        Ok(())
    }

    async fn delete_bytes(&self, name: &BytesName) -> Result<(), Error> {
        lock(&self.bytes).remove(name);
        Ok(())
    }

    async fn list_bytes(&self, after: Option<&BytesName>, limit: usize) -> Result<Vec<BytesName>, Error> {
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        let all = lock(&self.bytes);
        let names = all
            .range::<BytesName, _>((begin, Bound::Unbounded))
            .map(|(name, _)| name);
        Ok(names.take(limit).cloned().collect())
    }

    async fn probe(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}
