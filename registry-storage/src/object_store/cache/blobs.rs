//! Blobs in a folder: each is fetched from the bucket once, however many clients read it.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use registry_core::Digest;
use registry_core::storage::ByteStream;
use tokio::task::spawn_blocking;

use super::disk::Disk;
use super::fill::{Fill, NewBlob, Room};
use super::folder::{BlobCacheError, Folder};
use super::index::{Found, Index};

/// A client that begins this many bytes after what has arrived does not wait for it.
const AHEAD_BYTES: u64 = 4 * 1024 * 1024;

/// A folder in which a registry on a bucket keeps the blobs that were read last, so that it need not fetch them again.
///
/// - A file is named by the digest of its content, is compared with it before it gets that name, and with the size of the
///   blob when it is opened. What a crash leaves is never read.
/// - The first client that reads a blob as a whole fetches it, and it is written while it arrives. Clients that come
///   meanwhile read what is written; nobody waits for the end. A range that lies ahead of it comes from the bucket, and so
///   does a range of a blob that nobody reads as a whole.
/// - If the folder cannot be read or written, content comes from the bucket for a minute, and the log says so once.
/// - Who may read a blob, and whether it was deleted, is decided before it is looked for here.
///
/// One process has a folder. Clones share it.
#[derive(Clone)]
pub struct BlobCache(Arc<Shared>);

struct Shared {
    folder: Arc<Folder>,
    disk: Disk,
    /// Never held over an await, nor while a [`Fill`] is dropped.
    index: Mutex<Index>,
}

/// From where a client reads.
pub(super) enum Place {
    /// The file of the blob.
    File(Arc<File>),
    /// The file while it is written.
    Growing(Arc<Fill>),
    Bucket,
}

impl BlobCache {
    /// Takes a folder, which is created if it is not there, for files of at most `size` bytes together. What an earlier process
    /// left there is used.
    ///
    /// # Errors
    /// If another process has it, or it cannot be written.
    pub async fn open(folder: &Path, size: u64) -> Result<Self, BlobCacheError> {
        let folder = folder.to_owned();
        let opening = spawn_blocking(move || {
            let (folder, found) = Folder::open(&folder)?;
            let mut index = Index::new(size);
            let mut evicted = Vec::new();
            for file in found {
                match index.reserve(file.size) {
                    Some(others) => {
                        index.insert(&file.digest, file.size);
                        evicted.extend(others);
                    }
                    None => evicted.push(file.digest),
                }
            }
            folder.remove(&evicted)?;
            Ok(Self(Arc::new(Shared {
                folder: Arc::new(folder),
                disk: Disk::new(),
                index: Mutex::new(index),
            })))
        });
        opening.await.map_err(io::Error::other)?
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
        content: impl FnOnce() -> ByteStream,
    ) -> Place {
        if self.disk().reads.is_resting() {
            return Place::Bucket;
        }
        let found = self.index().find(digest, size);
        match found {
            Some(Found::Open(file)) => return Place::File(file),
            Some(Found::Closed) => {
                if let Some(file) = self.open_blob(digest, size).await {
                    return Place::File(file);
                }
            }
            Some(Found::Other) => self.forget(digest).await,
            None => {}
        }
        // A fill that is dropped takes the index, so it is held on its own.
        let fill = self.index().fill(digest);
        match fill {
            Some(fill) if range.start <= fill.written().saturating_add(AHEAD_BYTES) => Place::Growing(fill),
            Some(_) => Place::Bucket,
            None if *range == (0..size) => self.begin_fill(digest, size, content),
            None => Place::Bucket,
        }
    }

    async fn open_blob(&self, digest: &Digest, size: u64) -> Option<Arc<File>> {
        let (folder, named) = (self.folder(), digest.clone());
        match self.disk().read(move || folder.open_blob(&named, size)).await {
            Ok(Some(file)) => {
                let file = Arc::new(file);
                self.index().opened(digest, &file);
                Some(file)
            }
            Ok(None) => {
                self.forget(digest).await;
                None
            }
            Err(error) => {
                self.disk().reads.failed(&self.0.folder.root, &error);
                None
            }
        }
    }

    /// Begins to fetch a blob, if there is room for it.
    fn begin_fill(&self, digest: &Digest, size: u64, content: impl FnOnce() -> ByteStream) -> Place {
        let Ok(algorithm) = digest.supported_algorithm() else {
            return Place::Bucket;
        };
        if self.disk().writes.is_resting() {
            return Place::Bucket;
        }
        let mut index = self.index();
        // Another client may have begun meanwhile.
        if let Some(fill) = index.fill(digest) {
            return Place::Growing(fill);
        }
        let Some(evicted) = index.reserve(size) else {
            return Place::Bucket;
        };
        let blob = NewBlob {
            digest: digest.clone(),
            algorithm,
            content: content(),
            room: Room::new(self.clone(), size),
            evicted,
        };
        let fill = Arc::new(Fill::begin(self, blob));
        index.begin_fill(digest, &fill);
        Place::Growing(fill)
    }

    /// Forgets a file that cannot be read as a whole, and leaves the disk alone for a while unless somebody cut the file.
    pub(super) async fn read_failed(&self, digest: &Digest, error: &io::Error) {
        if error.kind() != io::ErrorKind::UnexpectedEof {
            self.disk().reads.failed(&self.0.folder.root, error);
        }
        if error.kind() != io::ErrorKind::TimedOut {
            self.forget(digest).await;
        }
    }

    /// Removes a file that is not what it should be.
    async fn forget(&self, digest: &Digest) {
        self.index().forget(digest);
        self.remove(vec![digest.clone()]).await;
    }

    async fn remove(&self, digests: Vec<Digest>) {
        let folder = self.folder();
        if let Err(error) = self.disk().write(move || folder.remove(&digests)).await {
            tracing::debug!(%error, "files of the cache of blobs could not be removed");
        }
    }

    pub(super) fn read_worked(&self) {
        self.disk().reads.worked(&self.0.folder.root);
    }

    /// Leaves the disk alone for a while after a write that failed. If it is full, what was used least recently makes room for
    /// `size` bytes.
    pub(super) async fn write_failed(&self, size: u64, error: &io::Error) {
        self.disk().writes.failed(&self.0.folder.root, error);
        if matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            let evicted = self.index().evict_bytes(size);
            self.remove(evicted).await;
        }
    }

    pub(super) fn write_worked(&self) {
        self.disk().writes.worked(&self.0.folder.root);
    }

    pub(super) fn insert(&self, digest: &Digest, size: u64) {
        self.index().insert(digest, size);
    }

    pub(super) fn release(&self, size: u64) {
        self.index().release(size);
    }

    pub(super) fn end_fill(&self, digest: &Digest) {
        self.index().end_fill(digest);
    }

    pub(super) fn folder(&self) -> Arc<Folder> {
        Arc::clone(&self.0.folder)
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.0.disk
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.0.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for BlobCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobCache")
            .field("folder", &self.0.folder.root)
            .finish_non_exhaustive()
    }
}
