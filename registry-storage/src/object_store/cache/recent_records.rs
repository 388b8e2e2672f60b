//! Records that were read a short while ago, for clients that may get answers of that age.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::time::Instant;

use crate::backend::VersionedRecord;
use crate::key::Key;

/// The memory for records, in bytes.
const CAPACITY_BYTES: u64 = 32 * 1024 * 1024;

/// Larger values are not kept.
const LARGEST_VALUE_BYTES: usize = 256 * 1024;

/// Roughly what an entry costs in bytes, besides key and value.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// How many counts of writes there are, so that a write to one key seldom drops a read of another.
const STRIPES: usize = 64;

/// Records with the time of their read. What this process writes is forgotten before and after the write, and so is what is
/// read meanwhile.
#[derive(Debug)]
pub(in crate::object_store) struct RecentRecords {
    most_age: Duration,
    records: Cache<Key, Kept, RecordWeight>,
    writes: Box<[Mutex<Writes>]>,
    hasher: RandomState,
}

#[derive(Clone, Debug)]
struct Kept {
    record: VersionedRecord,
    /// When its read began.
    read_at: Instant,
}

/// The writes to some keys.
#[derive(Clone, Copy, Debug, Default)]
struct Writes {
    running: u64,
    ended: u64,
}

/// A read that has begun.
#[derive(Clone, Copy, Debug)]
pub(in crate::object_store) struct ReadMark {
    began: Instant,
    writes: Writes,
}

/// A write that has begun. It ends when this is dropped.
#[derive(Debug)]
pub(in crate::object_store) struct WriteMark {
    records: Arc<RecentRecords>,
    key: Key,
}

#[derive(Clone, Debug)]
struct RecordWeight;

impl Weighter<Key, Kept> for RecordWeight {
    fn weight(&self, key: &Key, kept: &Kept) -> u64 {
        (ENTRY_OVERHEAD_BYTES + key.as_str().len() + kept.record.value.len()) as u64
    }
}

impl RecentRecords {
    /// Creates a memory of records that are forgotten `most_age` after their read began.
    pub(in crate::object_store) fn new(most_age: Duration) -> Self {
        let usual = usize::try_from(CAPACITY_BYTES / 1024).unwrap_or(usize::MAX);
        Self {
            most_age,
            records: Cache::with_weighter(usual, CAPACITY_BYTES, RecordWeight),
            writes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Returns a record that is not too old. That a record does not exist is not remembered, so that a push is seen at once.
    pub(in crate::object_store) fn get(&self, key: &Key) -> Option<VersionedRecord> {
        let kept = self.records.get(key)?;
        if kept.read_at.elapsed() < self.most_age {
            return Some(kept.record);
        }
        self.records.remove(key);
        None
    }

    pub(in crate::object_store) fn begin_read(&self, key: &Key) -> ReadMark {
        ReadMark {
            began: Instant::now(),
            writes: self.with_writes(key, |writes| *writes),
        }
    }

    /// Keeps what was read, unless this process wrote it since, or does now.
    pub(in crate::object_store) fn end_read(
        &self,
        mark: ReadMark,
        key: &Key,
        record: Option<&VersionedRecord>,
    ) {
        let Some(record) = record.filter(|record| record.value.len() <= LARGEST_VALUE_BYTES) else {
            self.records.remove(key);
            return;
        };
        self.with_writes(key, |writes| {
            if mark.writes.running == 0 && writes.running == 0 && writes.ended == mark.writes.ended {
                let kept = Kept {
                    record: record.clone(),
                    read_at: mark.began,
                };
                self.records.insert(key.clone(), kept);
            }
        });
    }

    pub(in crate::object_store) fn begin_write(self: &Arc<Self>, key: &Key) -> WriteMark {
        self.with_writes(key, |writes| writes.running += 1);
        self.records.remove(key);
        WriteMark {
            records: Arc::clone(self),
            key: key.clone(),
        }
    }

    fn with_writes<T: Default>(&self, key: &Key, act: impl FnOnce(&mut Writes) -> T) -> T {
        let stripe = usize::try_from(self.hasher.hash_one(key) % STRIPES as u64).unwrap_or_default();
        let writes = self.writes.get(stripe);
        writes
            .map(|writes| act(&mut writes.lock().unwrap_or_else(PoisonError::into_inner)))
            .unwrap_or_default()
    }
}

impl Drop for WriteMark {
    fn drop(&mut self) {
        self.records.with_writes(&self.key, |writes| {
            writes.running = writes.running.saturating_sub(1);
            writes.ended = writes.ended.wrapping_add(1);
        });
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::backend::Version;

    fn record(value: &'static str) -> VersionedRecord {
        VersionedRecord::new(Bytes::from(value), Version(value.into()))
    }

    fn records() -> (Arc<RecentRecords>, Key) {
        let records = Arc::new(RecentRecords::new(Duration::from_secs(10)));
        (records, Key::from_stored("tags/a"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_is_forgotten_once_it_is_as_old_as_it_may_be() {
        let (records, key) = records();
        let mark = records.begin_read(&key);
        // The answer took as long, and may be as old as the request.
        tokio::time::advance(Duration::from_secs(4)).await;
        records.end_read(mark, &key, Some(&record("a")));
        tokio::time::advance(Duration::from_millis(5999)).await;
        assert_eq!(records.get(&key), Some(record("a")));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(records.get(&key), None);
    }

    #[tokio::test]
    async fn what_this_process_writes_is_forgotten_at_once() {
        let (records, key) = records();
        let before = records.begin_read(&key);
        records.end_read(before, &key, Some(&record("old")));
        let writing = records.begin_write(&key);
        assert_eq!(records.get(&key), None);
        let during = records.begin_read(&key);
        for mark in [before, during] {
            records.end_read(mark, &key, Some(&record("old")));
            assert_eq!(records.get(&key), None, "it is being written");
        }
        drop(writing);
        for mark in [before, during] {
            records.end_read(mark, &key, Some(&record("old")));
            assert_eq!(records.get(&key), None, "it was written since");
        }
        let after = records.begin_read(&key);
        records.end_read(after, &key, Some(&record("new")));
        assert_eq!(records.get(&key), Some(record("new")));
        // An absence is not remembered, and what was is not there any more.
        records.end_read(records.begin_read(&key), &key, None);
        assert_eq!(records.get(&key), None);
    }

    #[tokio::test]
    async fn the_memory_is_bounded() {
        let records = RecentRecords::new(Duration::from_secs(10));
        let value = Bytes::from(vec![0; 100_000]);
        for number in 0..1000 {
            let key = Key::from_stored(&format!("tags/{number}"));
            let mark = records.begin_read(&key);
            let record = VersionedRecord::new(value.clone(), Version("1".into()));
            records.end_read(mark, &key, Some(&record));
        }
        assert!(records.records.weight() <= CAPACITY_BYTES);
        assert!(records.records.weight() > CAPACITY_BYTES / 2);
    }
}
