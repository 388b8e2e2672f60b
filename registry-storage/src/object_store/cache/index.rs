//! What a cache has: which blobs, how large, and which was used last.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::sync::{Arc, Weak};

use registry_core::Digest;

use super::fill::Fill;

/// The most files of a cache: each takes some 300 bytes of memory.
const MOST_FILES: usize = 100_000;

/// The files of a cache, in the order of their last use, and those that are being written.
#[derive(Debug)]
pub(super) struct Index {
    capacity: u64,
    /// The bytes of all files.
    kept: u64,
    /// The bytes that are reserved for files that are being written.
    reserved: u64,
    last_use: u64,
    files: HashMap<Digest, Entry>,
    by_use: BTreeMap<u64, Digest>,
    fills: HashMap<Digest, Weak<Fill>>,
}

#[derive(Debug)]
struct Entry {
    size: u64,
    last_use: u64,
    /// The file, while somebody reads it.
    open: Weak<File>,
}

/// A file that the cache has.
#[derive(Debug)]
pub(super) enum Found {
    Open(Arc<File>),
    Closed,
    /// It has another size than the blob.
    Other,
}

impl Index {
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            capacity,
            kept: 0,
            reserved: 0,
            last_use: 0,
            files: HashMap::new(),
            by_use: BTreeMap::new(),
            fills: HashMap::new(),
        }
    }

    pub(super) fn has(&self, digest: &Digest, size: u64) -> bool {
        self.files.get(digest).is_some_and(|entry| entry.size == size)
    }

    /// Returns the file of a blob, which counts as used.
    pub(super) fn find(&mut self, digest: &Digest, size: u64) -> Option<Found> {
        let entry = self.files.get_mut(digest)?;
        if entry.size != size {
            return Some(Found::Other);
        }
        self.last_use += 1;
        if let Some(digest) = self.by_use.remove(&entry.last_use) {
            self.by_use.insert(self.last_use, digest);
        }
        entry.last_use = self.last_use;
        Some(entry.open.upgrade().map_or(Found::Closed, Found::Open))
    }

    /// Lets others read a file that was opened.
    pub(super) fn opened(&mut self, digest: &Digest, file: &Arc<File>) {
        if let Some(entry) = self.files.get_mut(digest) {
            entry.open = Arc::downgrade(file);
        }
    }

    /// Adds a file whose bytes were reserved, as the one that was used last.
    pub(super) fn insert(&mut self, digest: &Digest, size: u64) {
        self.forget(digest);
        self.release(size);
        self.kept += size;
        self.last_use += 1;
        let last_use = self.last_use;
        self.by_use.insert(last_use, digest.clone());
        let open = Weak::new();
        let entry = Entry { size, last_use, open };
        self.files.insert(digest.clone(), entry);
    }

    /// Takes a file out.
    pub(super) fn forget(&mut self, digest: &Digest) {
        if let Some(entry) = self.files.remove(digest) {
            self.by_use.remove(&entry.last_use);
            self.kept = self.kept.saturating_sub(entry.size);
        }
    }

    /// Makes room for a file, and returns those that have to go for it; `None` if what is being written leaves no room.
    pub(super) fn reserve(&mut self, size: u64) -> Option<Vec<Digest>> {
        let reserved = self.reserved.saturating_add(size);
        let room = self.capacity.checked_sub(reserved)?;
        let mut evicted = Vec::new();
        while self.kept > room || self.files.len() >= MOST_FILES {
            evicted.push(self.evict()?);
        }
        self.reserved = reserved;
        Some(evicted)
    }

    /// Gives back what was reserved for a file that is not kept.
    pub(super) fn release(&mut self, size: u64) {
        self.reserved = self.reserved.saturating_sub(size);
    }

    /// Takes out the files that were used least recently, until they have `size` bytes.
    pub(super) fn evict_bytes(&mut self, size: u64) -> Vec<Digest> {
        let most = self.kept.saturating_sub(size);
        let mut evicted = Vec::new();
        while self.kept > most {
            let Some(digest) = self.evict() else { break };
            evicted.push(digest);
        }
        evicted
    }

    fn evict(&mut self) -> Option<Digest> {
        let (_, digest) = self.by_use.first_key_value()?;
        let digest = digest.clone();
        self.forget(&digest);
        Some(digest)
    }

    /// Returns the write of a file that is in progress.
    pub(super) fn fill(&self, digest: &Digest) -> Option<Arc<Fill>> {
        self.fills.get(digest)?.upgrade()
    }

    pub(super) fn begin_fill(&mut self, digest: &Digest, fill: &Arc<Fill>) {
        self.fills.insert(digest.clone(), Arc::downgrade(fill));
    }

    /// Removes a write that nobody waits for any more, unless another one took its place.
    pub(super) fn end_fill(&mut self, digest: &Digest) {
        if self
            .fills
            .get(digest)
            .is_some_and(|fill| fill.strong_count() == 0)
        {
            self.fills.remove(digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use registry_core::Algorithm;

    use super::*;

    fn digest(number: u8) -> Digest {
        Digest::of(Algorithm::Sha256, &[number])
    }

    fn add(index: &mut Index, number: u8, size: u64) -> Option<Vec<Digest>> {
        let evicted = index.reserve(size)?;
        index.insert(&digest(number), size);
        Some(evicted)
    }

    #[test]
    fn what_was_used_least_recently_goes_first() {
        let mut index = Index::new(100);
        for number in 0..4 {
            assert_eq!(add(&mut index, number, 25), Some(vec![]));
        }
        assert!(matches!(index.find(&digest(0), 25), Some(Found::Closed)));
        assert!(matches!(index.find(&digest(1), 24), Some(Found::Other)));
        assert_eq!(add(&mut index, 4, 30), Some(vec![digest(1), digest(2)]));
        assert!(index.has(&digest(0), 25) && index.has(&digest(3), 25) && !index.has(&digest(1), 25));
        // The same blob once more counts once.
        assert_eq!(add(&mut index, 4, 20), Some(vec![]));
        assert_eq!(index.kept, 70);
        assert_eq!(index.evict_bytes(1), [digest(3)]);
        assert_eq!((index.kept, index.reserved), (45, 0));
    }

    #[test]
    fn what_is_being_written_is_never_more_than_the_cache() {
        let mut index = Index::new(100);
        assert_eq!(add(&mut index, 0, 50), Some(vec![]));
        assert_eq!(index.reserve(60), Some(vec![digest(0)]));
        assert_eq!(index.reserve(41), None);
        assert_eq!(index.reserve(40), Some(vec![]));
        index.release(60);
        assert_eq!((index.reserved, index.reserve(101)), (40, None));
    }
}
