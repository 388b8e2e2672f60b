//! The exact cache of records.
//!
//! Small values are kept while there is room. Large ones are kept while they are in use, so that a thousand clients
//! that read one value share one copy of it.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use crate::backend::{Checked, Version, VersionedRecord};
use crate::key::Key;

/// The largest value in bytes that is kept although it is not in use.
pub(super) const KEPT_VALUE_BYTES: usize = 64 * 1024;
/// Roughly what an entry costs in bytes, besides key and value.
const ENTRY_OVERHEAD_BYTES: u64 = 256;
/// How many generations there are, so that a write to one key seldom drops the fill of another.
const GENERATIONS: usize = 64;
/// A power of two that leaves each shard room for several values of [`KEPT_VALUE_BYTES`].
const SHARDS: usize = 8;

/// What was read and written last, as long as it fits.
///
/// A read never returns a value older than the last commit that ended before the read began. For that, a write removes
/// its keys before it commits and inserts the new values after. In between, and if a write occurred since a read began,
/// what was read is not kept. There is one writer.
#[derive(Debug)]
pub(super) struct RecordCache {
    entries: Cache<Key, Option<VersionedRecord>, EntryWeight>,
    /// The large values that are in use.
    large: Mutex<HashMap<Key, LargeValue>>,
    /// Odd while a key of this generation is being written.
    generations: Box<[Mutex<u64>]>,
    hasher: RandomState,
}

#[derive(Debug)]
struct LargeValue {
    value: Weak<Bytes>,
    version: Version,
    checked: Checked,
}

/// The owner of a value that is in use.
struct InUse(Arc<Bytes>);

impl AsRef<[u8]> for InUse {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl LargeValue {
    fn get(&self) -> Option<VersionedRecord> {
        let value = self.value.upgrade()?;
        Some(VersionedRecord {
            value: Bytes::from_owner(InUse(value)),
            version: self.version.clone(),
            checked: self.checked.clone(),
        })
    }
}

/// What a fill must present: the generation of its key when the read began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket(u64);

/// A write that has begun: the generations that it made odd.
#[derive(Debug)]
pub(super) struct WriteMark(BTreeSet<usize>);

#[derive(Clone, Debug)]
struct EntryWeight;

impl Weighter<Key, Option<VersionedRecord>> for EntryWeight {
    fn weight(&self, key: &Key, value: &Option<VersionedRecord>) -> u64 {
        let value = value.as_ref().map_or(0, |stored| stored.value.len());
        let bytes = key.as_str().len().saturating_add(value);
        ENTRY_OVERHEAD_BYTES.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX))
    }
}

impl RecordCache {
    /// Creates a cache that holds about `capacity` bytes at most.
    pub(super) fn new(capacity: u64) -> Self {
        let items = usize::try_from(capacity / 1024).unwrap_or(usize::MAX);
        let mut options = OptionsBuilder::new();
        options
            .shards(SHARDS)
            .estimated_items_capacity(items)
            .weight_capacity(capacity);
        let hasher = DefaultHashBuilder::default();
        let entries = match options.build() {
            Ok(options) => Cache::with_options(options, EntryWeight, hasher, DefaultLifecycle::default()),
            Err(_) => Cache::with_weighter(items, capacity, EntryWeight),
        };
        let generations = (0..GENERATIONS).map(|_| Mutex::default()).collect();
        Self {
            entries,
            large: Mutex::default(),
            generations,
            hasher: RandomState::new(),
        }
    }

    /// Returns what is known of a key: a record, or that it does not exist.
    pub(super) fn get(&self, key: &Key) -> Option<Option<VersionedRecord>> {
        let kept = self.entries.get(key);
        kept.or_else(|| self.large().get(key)?.get().map(Some))
    }

    /// Begins a read of a key from the store.
    pub(super) fn begin_read(&self, key: &Key) -> Ticket {
        Ticket(self.with_generation(self.generation_of(key), |generation| *generation))
    }

    /// Keeps what was read, unless the key may have been written since, and returns it.
    pub(super) fn end_read(
        &self,
        ticket: Ticket,
        key: &Key,
        value: Option<VersionedRecord>,
    ) -> Option<VersionedRecord> {
        if ticket.0 % 2 == 1 {
            return value;
        }
        let mut value = value;
        self.with_generation(self.generation_of(key), |generation| {
            if *generation == ticket.0 {
                value = self.keep(key, value.take());
            }
        });
        value
    }

    fn keep(&self, key: &Key, value: Option<VersionedRecord>) -> Option<VersionedRecord> {
        match value {
            Some(stored) if !fits(Some(&stored)) => Some(self.share(key, stored)),
            value => {
                self.entries.insert(key.clone(), value.clone());
                value
            }
        }
    }

    /// Shares a large value with other readers for as long as the result exists.
    fn share(&self, key: &Key, stored: VersionedRecord) -> VersionedRecord {
        let mut large = self.large();
        // Another reader read it at the same time.
        if let Some(known) = large.get(key).and_then(LargeValue::get) {
            return known;
        }
        large.retain(|_, unused| unused.value.strong_count() > 0);
        let value = Arc::new(stored.value);
        let weak = LargeValue {
            value: Arc::downgrade(&value),
            version: stored.version.clone(),
            checked: stored.checked.clone(),
        };
        large.insert(key.clone(), weak);
        VersionedRecord {
            value: Bytes::from_owner(InUse(value)),
            version: stored.version,
            checked: stored.checked,
        }
    }

    /// Removes keys before they are committed.
    pub(super) fn begin_write(&self, changes: &[(Key, Option<VersionedRecord>)]) -> WriteMark {
        let touched: BTreeSet<usize> = changes.iter().map(|(key, _)| self.generation_of(key)).collect();
        for at in &touched {
            self.with_generation(*at, |generation| *generation = generation.wrapping_add(1));
        }
        for (key, _) in changes {
            self.entries.remove(key);
            self.large().remove(key);
        }
        WriteMark(touched)
    }

    /// Inserts the committed values, one for each key.
    pub(super) fn end_write(&self, mark: WriteMark, committed: Vec<(Key, Option<VersionedRecord>)>) {
        for (key, value) in committed {
            if fits(value.as_ref()) {
                self.entries.insert(key, value.map(detached));
            } else {
                self.entries.remove(&key);
            }
        }
        for at in mark.0 {
            self.with_generation(at, |generation| *generation = generation.wrapping_add(1));
        }
    }

    /// Forgets everything, including what is being read. Only the writer may call it, and not during a write.
    pub(super) fn clear(&self) {
        for at in 0..GENERATIONS {
            self.with_generation(at, |generation| *generation = generation.wrapping_add(2));
        }
        self.entries.clear();
        self.large().clear();
    }

    fn large(&self) -> MutexGuard<'_, HashMap<Key, LargeValue>> {
        self.large.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn generation_of(&self, key: &Key) -> usize {
        let hash = self.hasher.hash_one(key) % GENERATIONS as u64;
        usize::try_from(hash).unwrap_or_default()
    }

    /// Gives access to the generation that [`generation_of`](Self::generation_of) numbered.
    fn with_generation<T: Default>(&self, at: usize, act: impl FnOnce(&mut u64) -> T) -> T {
        let generation = self.generations.get(at);
        generation
            .map(|generation| act(&mut generation.lock().unwrap_or_else(PoisonError::into_inner)))
            .unwrap_or_default()
    }
}

fn fits(value: Option<&VersionedRecord>) -> bool {
    value.is_none_or(|stored| stored.value.len() <= KEPT_VALUE_BYTES)
}

/// Copies the value out of the buffer that it was read into, which may be larger.
fn detached(stored: VersionedRecord) -> VersionedRecord {
    VersionedRecord {
        value: Bytes::copy_from_slice(&stored.value),
        ..stored
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn stored(value: &str) -> Option<VersionedRecord> {
        let (value, version) = (
            Bytes::copy_from_slice(value.as_bytes()),
            Version(Arc::from(value)),
        );
        Some(VersionedRecord::new(value, version))
    }

    #[test]
    fn a_read_is_kept_unless_a_write_passed() {
        let (cache, key) = (RecordCache::new(1 << 20), Key::from_stored("a"));
        let before = cache.begin_read(&key);
        assert_eq!(cache.end_read(before, &key, stored("old")), stored("old"));
        assert_eq!(cache.get(&key), Some(stored("old")));

        let change = vec![(key.clone(), stored("new"))];
        let mark = cache.begin_write(&change);
        assert_eq!(cache.get(&key), None, "it may be either while it is committed");
        let during = cache.begin_read(&key);
        cache.end_read(during, &key, stored("old"));
        assert_eq!(cache.get(&key), None);
        cache.end_write(mark, change);
        for late in [before, during] {
            cache.end_read(late, &key, stored("old"));
            assert_eq!(cache.get(&key), Some(stored("new")));
        }

        let change = vec![(key.clone(), None)];
        cache.end_write(cache.begin_write(&change), change);
        assert_eq!(cache.get(&key), Some(None));
    }

    #[test]
    fn a_commit_that_failed_leaves_nothing() {
        let (cache, key) = (RecordCache::new(1 << 20), Key::from_stored("a"));
        let mark = cache.begin_write(&[(key.clone(), stored("lost"))]);
        cache.end_write(mark, Vec::new());
        assert_eq!(cache.get(&key), None);
        cache.end_read(cache.begin_read(&key), &key, stored("kept"));
        assert_eq!(cache.get(&key), Some(stored("kept")));
    }

    #[test]
    fn a_large_value_is_there_once_while_it_is_used_and_no_longer() {
        let (cache, key) = (RecordCache::new(1 << 20), Key::from_stored("a"));
        let large = |filler: &str| stored(&filler.repeat(KEPT_VALUE_BYTES + 1));
        let ticket = cache.begin_read(&key);
        let first = cache.end_read(ticket, &key, large("x")).unwrap();
        // One that read at the same time, and one that reads later.
        let second = cache.end_read(ticket, &key, large("x")).unwrap();
        let third = cache.get(&key).flatten().unwrap();
        assert_eq!(first, large("x").unwrap());
        for other in [&second, &third] {
            assert_eq!(other.value.as_ptr(), first.value.as_ptr());
        }
        // A slice of it is a use, too.
        let part = first.value.slice(1..2);
        drop((first, second, third));
        assert!(cache.get(&key).is_some());
        drop(part);
        assert_eq!(cache.get(&key), None);

        let old = cache.end_read(cache.begin_read(&key), &key, large("x"));
        let change = vec![(key.clone(), large("y"))];
        let mark = cache.begin_write(&change);
        assert_eq!(cache.get(&key), None, "it may be either while it is committed");
        cache.end_read(ticket, &key, large("x"));
        cache.end_write(mark, change);
        assert_eq!(cache.get(&key), None);
        assert_eq!(
            cache.end_read(ticket, &key, large("x")),
            old,
            "who read before gets what it read"
        );
        assert_eq!(cache.get(&key), None);
        let new = cache.end_read(cache.begin_read(&key), &key, large("y"));
        assert_eq!(cache.get(&key), Some(new));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let cache = RecordCache::new(1 << 20);
        let changes: Vec<_> = (0..10_000)
            .map(|number| (Key::from_stored(&number.to_string()), stored(&"x".repeat(1000))))
            .collect();
        cache.end_write(cache.begin_write(&changes), changes);
        assert!(cache.entries.weight() <= 1 << 20 && cache.entries.weight() > 1 << 19);
        let large = vec![(
            Key::from_stored("large"),
            stored(&"x".repeat(KEPT_VALUE_BYTES + 1)),
        )];
        cache.end_write(cache.begin_write(&large), large);
        assert_eq!(cache.get(&Key::from_stored("large")), None);
    }
}
