//! Blobs in a folder: each is fetched from the bucket once, however many clients read it.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use registry_core::Digest;
use registry_core::storage::ByteStream;
use tokio::task::spawn_blocking;

use super::disk::Disk;
use super::fill::{Fill, Reader, Room, Writer};
use super::folder::{BlobCacheError, Folder, FoundFile, Unfinished, require_own};
use super::index::{BlobCacheStatistics, Found, Index};
use crate::background::Background;

/// A client that begins this many bytes after what has arrived does not wait for it.
const AHEAD_BYTES: u64 = 4 * 1024 * 1024;

/// A folder in which a registry on a bucket keeps the blobs that were read last, so that it need not fetch them again.
///
/// - A file is named by the digest of its content, is compared with it before it gets that name, and with the size of the
///   blob when it is opened. What a crash leaves is never read.
/// - The first client that reads a blob as a whole fetches it, and it is written while it arrives. Clients that come
///   meanwhile read what is written; nobody waits for the end. A range that lies ahead of it comes from the bucket, and so
///   does a range of a blob that nobody reads as a whole.
/// - A fetch is at most 16 MiB ahead of those who read it, and ends with the last of them unless it is nearly done.
/// - Its files, those that are being written included, have at most the size that was given. Files make room as bytes
///   arrive, the one that was used least recently first, and none that a client reads.
/// - If the folder cannot be read or written, content comes from the bucket for a minute, and the log says so once.
/// - It is a folder of its own: one with other files is refused. If it is removed or unmounted, it is taken again when the next
///   blob is fetched: empty if it was removed, and once it is back if it was unmounted.
/// - Who may read a blob, and whether it was deleted, is decided before it is looked for here.
///
/// One process has a folder. Clones share it.
#[derive(Clone)]
pub struct BlobCache(Arc<Shared>);

struct Shared {
    root: PathBuf,
    folder: Mutex<Arc<Folder>>,
    /// A folder that went away is being taken again.
    is_being_taken: AtomicBool,
    /// It went away, and what the index says of it may be wrong.
    was_gone: AtomicBool,
    disk: Disk,
    /// Never held over an await, a call to the disk, nor while a [`Reader`] or what the index returned is dropped.
    index: Mutex<Index>,
}

/// From where a client reads.
pub(super) enum Place {
    /// The file of the blob.
    File(Arc<File>),
    /// The file while it is written.
    Growing(Reader),
    Bucket,
}

/// What is in the cache of a blob.
enum Looked {
    Found(Found),
    Elsewhere(Place),
}

impl BlobCache {
    /// Takes a folder, which is created if it is not there, for files of at most `size` bytes together. What an earlier process
    /// left there is used.
    ///
    /// # Errors
    /// If another process has it, if it has other files, or if it cannot be written.
    pub async fn open(folder: &Path, size: u64) -> Result<Self, BlobCacheError> {
        let folder = folder.to_owned();
        let opening = spawn_blocking(move || {
            let (opened, found) = Folder::open(&folder)?;
            let cache = Self(Arc::new(Shared {
                root: folder,
                folder: Mutex::new(Arc::new(opened)),
                is_being_taken: AtomicBool::new(false),
                was_gone: AtomicBool::new(false),
                disk: Disk::new(),
                index: Mutex::new(Index::new(size)),
            }));
            cache.replace_files(found)?;
            Ok(cache)
        });
        opening.await.map_err(io::Error::other)?
    }

    /// Checks that a folder can be taken: it is a cache, is empty, or is not there.
    ///
    /// # Errors
    /// [`Foreign`](BlobCacheError::Foreign) if it has other files, or if it cannot be read.
    pub fn check_folder(folder: &Path) -> Result<(), BlobCacheError> {
        require_own(folder)
    }

    /// Has the files of a folder, as far as there is room.
    fn replace_files(&self, found: Vec<FoundFile>) -> io::Result<()> {
        let (too_large, evicted) = {
            let mut index = self.index();
            (index.replace_files(found), index.evicted())
        };
        let folder = self.folder();
        folder.remove(&too_large)?;
        folder.remove_evicted(&evicted)?;
        self.index().removed(&evicted);
        Ok(())
    }

    /// Creates a file for a blob; returns `None` while the folder is being taken again.
    pub(super) fn create_file(&self, room: Room) -> io::Result<Option<Unfinished>> {
        let folder = self.present_folder()?;
        folder.map(|folder| folder.create(room)).transpose()
    }

    /// Returns the folder. If it went away, it is taken again; returns `None` while another call does that.
    fn present_folder(&self) -> io::Result<Option<Arc<Folder>>> {
        let folder = self.folder();
        if folder.is_there()? && !self.0.was_gone.load(Ordering::Acquire) {
            return Ok(Some(folder));
        }
        if self.0.is_being_taken.swap(true, Ordering::AcqRel) {
            return Ok(None);
        }
        let taken = self.take_again();
        self.0.is_being_taken.store(false, Ordering::Release);
        taken.map(Some)
    }

    fn take_again(&self) -> io::Result<Arc<Folder>> {
        let mut folder = self.folder();
        let found = if folder.is_there()? {
            if !self.0.was_gone.load(Ordering::Acquire) {
                // Another call did it.
                return Ok(folder);
            }
            folder.prepare()?
        } else {
            self.0.was_gone.store(true, Ordering::Release);
            let (taken, found) = match folder.open_again() {
                Ok(taken) => taken,
                Err(BlobCacheError::Io(error)) => return Err(error),
                Err(other) => return Err(io::Error::other(other)),
            };
            folder = Arc::new(taken);
            *self.0.folder.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&folder);
            found
        };
        let files = found.len();
        self.replace_files(found)?;
        self.0.was_gone.store(false, Ordering::Release);
        tracing::warn!(
            folder = %self.0.root.display(), files,
            "the cache of blobs was removed, replaced or unmounted, and is used again with what is there"
        );
        Ok(folder)
    }

    /// Returns what it has, and has done since it was opened.
    #[must_use]
    pub fn statistics(&self) -> BlobCacheStatistics {
        self.index().statistics()
    }

    /// Returns whether it has a blob.
    pub(in crate::object_store) fn has(&self, digest: &Digest, size: u64) -> bool {
        !self.disk().reads.is_resting() && self.index().has(digest, size)
    }

    /// Decides from where a range of a blob is read, of which `content` is the whole.
    pub(super) async fn place(
        &self,
        digest: &Digest,
        size: u64,
        range: &Range<u64>,
        content: impl Fn() -> ByteStream,
    ) -> Place {
        let place = self.find_place(digest, size, range, content).await;
        self.index().count(|reads| match &place {
            Place::File(_) => reads.from_files += 1,
            Place::Growing(reader) if !reader.is_first => reads.from_fetches += 1,
            Place::Growing(_) => {
                reads.from_bucket += 1;
                reads.fetches += 1;
            }
            Place::Bucket => reads.from_bucket += 1,
        });
        place
    }

    async fn find_place(
        &self,
        digest: &Digest,
        size: u64,
        range: &Range<u64>,
        content: impl Fn() -> ByteStream,
    ) -> Place {
        if self.disk().reads.is_resting() {
            return Place::Bucket;
        }
        // A file that is not what it should be is forgotten, and may be fetched.
        for _ in 0..2 {
            match self.look(digest, size, range, &content) {
                Looked::Elsewhere(place) => return place,
                Looked::Found(Found::Open(file)) => return Place::File(file),
                Looked::Found(Found::Closed) => match self.open_blob(digest, size).await {
                    Ok(Some(file)) => return Place::File(file),
                    Ok(None) => self.forget(digest).await,
                    Err(error) => {
                        self.disk().reads.failed(&self.0.root, &error);
                        return Place::Bucket;
                    }
                },
                Looked::Found(Found::Other) => self.forget(digest).await,
            }
        }
        Place::Bucket
    }

    /// Looks for a file and for a fetch, or begins one, in one step: a fetch that ends between two steps would be made twice.
    fn look(
        &self,
        digest: &Digest,
        size: u64,
        range: &Range<u64>,
        content: impl FnOnce() -> ByteStream,
    ) -> Looked {
        let mut index = self.index();
        if let Some(found) = index.find(digest, size) {
            return Looked::Found(found);
        }
        let fill = index.fill(digest).cloned();
        let is_begun = fill.is_some();
        let fill = match fill {
            Some(fill) if range.start <= fill.written().saturating_add(AHEAD_BYTES) => fill,
            None if *range == (0..size) && size <= index.capacity && !self.disk().writes.is_resting() => {
                let fill = Arc::new(Fill::new(digest.clone(), size));
                index.add_fill(&fill);
                fill
            }
            _ => return Looked::Elsewhere(Place::Bucket),
        };
        fill.add_reader();
        drop(index);
        let reader = Reader::new(self.clone(), Arc::clone(&fill), !is_begun);
        if !is_begun {
            // Not while the index is held: a runtime that ends drops the task at once, and that takes it.
            let writing = Background::start(Writer::new(self, &fill).write(content()));
            let ended = self.index().begin_fill(&fill, writing);
            drop(ended);
        }
        Looked::Elsewhere(Place::Growing(reader))
    }

    async fn open_blob(&self, digest: &Digest, size: u64) -> io::Result<Option<Arc<File>>> {
        let (cache, named) = (self.clone(), digest.clone());
        let opened = self.disk().read(move || {
            let opened = cache.folder().open_blob(&named, size)?;
            if opened.is_none() {
                // Either this file is missing, or all of them are.
                cache.present_folder()?;
            }
            Ok(opened)
        });
        Ok(opened.await?.map(|file| {
            let file = Arc::new(file);
            self.index().opened(digest, &file);
            file
        }))
    }

    /// Forgets a file that cannot be read as a whole, and leaves the disk alone for a while unless somebody cut the file.
    pub(super) async fn read_failed(&self, digest: &Digest, error: &io::Error) {
        if error.kind() != io::ErrorKind::UnexpectedEof {
            self.disk().reads.failed(&self.0.root, error);
        }
        if error.kind() != io::ErrorKind::TimedOut {
            self.forget(digest).await;
        }
    }

    /// Removes a file that is not what it should be.
    async fn forget(&self, digest: &Digest) {
        self.index().forget(digest);
        let (folder, digest) = (self.folder(), digest.clone());
        let removed = self.disk().write(move || folder.remove(&[digest])).await;
        log_not_removed(removed);
    }

    pub(super) fn read_worked(&self) {
        self.disk().reads.worked(&self.0.root);
    }

    /// Leaves the disk alone for a while after a write that failed. If it is full, what was used least recently makes room for
    /// `size` bytes.
    pub(super) async fn write_failed(&self, size: u64, error: &io::Error) {
        self.disk().writes.failed(&self.0.root, error);
        if matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            let (cache, folder) = (self.clone(), self.folder());
            let removed = self.disk().write(move || {
                let evicted = {
                    let mut index = cache.index();
                    index.evict_bytes(size);
                    index.evicted()
                };
                folder.remove_evicted(&evicted)?;
                cache.index().removed(&evicted);
                Ok(())
            });
            log_not_removed(removed.await);
        }
    }

    pub(super) fn write_worked(&self) {
        self.disk().writes.worked(&self.0.root);
    }

    /// Takes a client away from a fetch, which ends with the last one unless it has come far.
    pub(super) fn leave_fill(&self, fill: &Arc<Fill>) {
        let mut index = self.index();
        let ended = (!fill.remove_reader()).then(|| index.end_fill(fill));
        drop(index);
        drop(ended);
    }

    /// Takes out a fetch that has ended.
    pub(super) fn end_fill(&self, fill: &Arc<Fill>) {
        let ended = self.index().end_fill(fill);
        drop(ended);
    }

    pub(super) fn folder(&self) -> Arc<Folder> {
        Arc::clone(&self.0.folder.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.0.disk
    }

    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        self.0.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_not_removed(removed: io::Result<()>) {
    if let Err(error) = removed {
        tracing::debug!(%error, "files of the cache of blobs could not be removed");
    }
}

impl fmt::Debug for BlobCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobCache")
            .field("folder", &self.0.root)
            .finish_non_exhaustive()
    }
}
