//! What a cache has: which blobs, how large, and which was used last.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::sync::{Arc, Weak};

use registry_core::Digest;

use super::fill::Fill;
use super::folder::FoundFile;
use crate::background::Background;

/// The most files of a cache: each takes some 300 bytes of memory.
const MOST_FILES: usize = 100_000;

/// The files of a cache, in the order of their last use, and those that are being written.
///
/// All of them together never have more than its capacity: whoever writes reserves the bytes before, and removes first the files that
/// make room for them. A file that is open is not removed for others, because it would keep its space.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) capacity: u64,
    /// The bytes of all finished files.
    kept: u64,
    /// The bytes of all files that are being written.
    reserved: u64,
    last_use: u64,
    files: HashMap<Digest, Entry>,
    by_use: BTreeMap<u64, Digest>,
    fills: HashMap<Digest, Running>,
    /// The files that make room, until they are removed.
    evicted: BTreeMap<u64, Digest>,
    last_evicted: u64,
    reads: Reads,
}

/// How often blobs were read, by where they were.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reads {
    pub(super) from_files: u64,
    pub(super) from_fetches: u64,
    pub(super) from_bucket: u64,
    pub(super) fetches: u64,
}

#[derive(Debug)]
struct Entry {
    size: u64,
    last_use: u64,
    /// The file, while somebody reads it.
    open: Weak<File>,
}

/// What a [`BlobCache`](super::BlobCache) has, and has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlobCacheStatistics {
    /// How many bytes its files may have.
    pub size: u64,
    /// How many bytes its files have, those that are being written included.
    pub bytes: u64,
    /// How many blobs it has as a whole.
    pub blobs: u64,
    /// How often a blob, or a range of one, was read from a file.
    pub from_files: u64,
    /// How often one was read while another client's read fetched it.
    pub from_fetches: u64,
    /// How often one was read from the bucket, fetches for the folder included.
    pub from_bucket: u64,
    /// How many fetches for the folder began.
    pub fetches: u64,
    /// How many blobs were removed for others.
    pub evicted: u64,
}

/// A blob that is being fetched, and the task that does it, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    fill: Arc<Fill>,
    /// `None` until it has begun.
    writing: Option<Background>,
}

/// A file that makes room for others and is to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Evicted {
    number: u64,
    pub(super) digest: Digest,
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
            evicted: BTreeMap::new(),
            last_evicted: 0,
            reads: Reads::default(),
        }
    }

    pub(super) fn count(&mut self, count: impl FnOnce(&mut Reads)) {
        count(&mut self.reads);
    }

    pub(super) fn statistics(&self) -> BlobCacheStatistics {
        let Reads {
            from_files,
            from_fetches,
            from_bucket,
            fetches,
        } = self.reads;
        BlobCacheStatistics {
            size: self.capacity,
            bytes: self.kept + self.reserved,
            blobs: self.files.len() as u64,
            from_files,
            from_fetches,
            from_bucket,
            fetches,
            evicted: self.last_evicted,
        }
    }

    /// Begins anew with the files of a folder, in the order of their use. Returns those for which there is no room.
    pub(super) fn replace_files(&mut self, found: Vec<FoundFile>) -> Vec<Digest> {
        self.kept = 0;
        self.files.clear();
        self.by_use.clear();
        self.evicted.clear();
        let mut too_large = Vec::new();
        for file in found {
            match self.reserve(file.size) {
                true => self.insert(&file.digest, file.size, Weak::new()),
                false => too_large.push(file.digest),
            }
        }
        too_large
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
    pub(super) fn insert(&mut self, digest: &Digest, size: u64, open: Weak<File>) {
        self.forget(digest);
        self.release(size);
        self.kept += size;
        self.last_use += 1;
        let last_use = self.last_use;
        self.by_use.insert(last_use, digest.clone());
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

    /// Makes room for more bytes of a file that is being written. Before they are written, all that is [evicted](Self::evicted)
    /// has to be removed. Returns `false` if what is being written and read leaves no room.
    pub(super) fn reserve(&mut self, bytes: u64) -> bool {
        let reserved = self.reserved.saturating_add(bytes);
        let Some(room) = self.capacity.checked_sub(reserved) else {
            return false;
        };
        while self.kept > room || self.files.len() >= MOST_FILES {
            if !self.evict() {
                return false;
            }
        }
        self.reserved = reserved;
        true
    }

    /// Gives back what was reserved for a file that is removed.
    pub(super) fn release(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_sub(bytes);
    }

    /// Takes out the files that were used least recently, until they have `size` bytes.
    pub(super) fn evict_bytes(&mut self, size: u64) {
        let most = self.kept.saturating_sub(size);
        while self.kept > most && self.evict() {}
    }

    /// Takes out the file that was used least recently and is not open. Returns `false` if there is none.
    fn evict(&mut self) -> bool {
        let is_closed = |digest: &&Digest| {
            let entry = self.files.get(*digest);
            entry.is_none_or(|entry| entry.open.strong_count() == 0)
        };
        let Some(digest) = self.by_use.values().find(is_closed).cloned() else {
            return false;
        };
        self.forget(&digest);
        self.last_evicted += 1;
        self.evicted.insert(self.last_evicted, digest);
        true
    }

    /// Returns the files that make room and are not removed yet, whoever needed it.
    pub(super) fn evicted(&self) -> Vec<Evicted> {
        let evicted = self.evicted.iter();
        evicted
            .map(|(number, digest)| Evicted {
                number: *number,
                digest: digest.clone(),
            })
            .collect()
    }

    /// Notes that evicted files are removed.
    pub(super) fn removed(&mut self, removed: &[Evicted]) {
        for evicted in removed {
            self.evicted.remove(&evicted.number);
        }
    }

    /// Returns the fetch of a blob that is in progress, or whose file is about to get its name.
    pub(super) fn fill(&self, digest: &Digest) -> Option<&Arc<Fill>> {
        self.fills.get(digest).map(|running| &running.fill)
    }

    /// Lets others find a fetch that is about to begin.
    pub(super) fn add_fill(&mut self, fill: &Arc<Fill>) {
        let running = Running {
            fill: Arc::clone(fill),
            writing: None,
        };
        self.fills.insert(fill.digest.clone(), running);
    }

    /// Keeps the task of a fetch. Returns it if the fetch has ended already.
    pub(super) fn begin_fill(&mut self, fill: &Arc<Fill>, writing: Background) -> Option<Background> {
        match self.fills.get_mut(&fill.digest) {
            Some(running) if Arc::ptr_eq(&running.fill, fill) => running.writing.replace(writing),
            _ => Some(writing),
        }
    }

    /// Takes a fetch out, unless another one took its place.
    pub(super) fn end_fill(&mut self, fill: &Arc<Fill>) -> Option<Running> {
        let is_it = |running: &Running| Arc::ptr_eq(&running.fill, fill);
        if self.fills.get(&fill.digest).is_some_and(is_it) {
            return self.fills.remove(&fill.digest);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use registry_core::Algorithm;

    use super::*;

    fn digest(number: u8) -> Digest {
        Digest::of(Algorithm::Sha256, &[number])
    }

    fn remove_evicted(index: &mut Index) -> Vec<Digest> {
        let evicted = index.evicted();
        index.removed(&evicted);
        evicted.into_iter().map(|evicted| evicted.digest).collect()
    }

    /// Adds a file, and returns what makes room for it.
    fn add(index: &mut Index, number: u8, size: u64) -> Option<Vec<Digest>> {
        index.reserve(size).then(|| {
            index.insert(&digest(number), size, Weak::new());
            remove_evicted(index)
        })
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
        index.evict_bytes(1);
        assert_eq!(remove_evicted(&mut index), [digest(3)]);
        assert_eq!((index.kept, index.reserved), (45, 0));
    }

    #[test]
    fn what_is_being_written_is_never_more_than_the_cache() {
        let mut index = Index::new(100);
        assert_eq!(add(&mut index, 0, 50), Some(vec![]));
        assert!(index.reserve(60) && !index.reserve(41) && index.reserve(30));
        // Whoever writes next removes what the other one did not remove yet.
        assert_eq!(remove_evicted(&mut index), [digest(0)]);
        assert!(index.reserve(10) && !index.reserve(1));
        assert_eq!(remove_evicted(&mut index), []);
        index.release(60);
        assert_eq!((index.reserved, index.reserve(61)), (40, false));
    }

    #[test]
    fn a_file_that_is_read_makes_no_room() {
        let mut index = Index::new(100);
        for number in 0..2 {
            assert_eq!(add(&mut index, number, 50), Some(vec![]));
        }
        let open = Arc::new(tempfile::tempfile().unwrap());
        index.opened(&digest(0), &open);
        assert_eq!(add(&mut index, 2, 50), Some(vec![digest(1)]));
        index.opened(&digest(2), &open);
        assert_eq!(add(&mut index, 3, 50), None);
        assert_eq!((index.kept, index.reserved), (100, 0));
        drop(open);
        assert_eq!(add(&mut index, 3, 50), Some(vec![digest(0)]));
    }
}
