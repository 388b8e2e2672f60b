//! A blob on its way from the bucket into the cache, while clients read what has arrived.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use registry_core::Digest;
use registry_core::hash::Hasher;
use registry_core::storage::ByteStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::blobs::BlobCache;
use super::folder::Unfinished;

/// How many chunks of an answer are written at once, if they have arrived.
const CHUNKS_AT_ONCE: usize = 16;

/// How long a client waits for more before it asks the bucket itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most bytes that are fetched although no client has come so far: before those that a client reads, and after the last
/// client went away. Most layers are smaller. Without it, whoever opens large blobs and reads none has the registry fetch
/// gigabytes, and empties the cache.
const UNASKED_BYTES: u64 = 16 * 1024 * 1024;

/// What has arrived.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// `None` before anything is written.
    file: Option<Arc<File>>,
    /// How many bytes can be read from the file.
    written: u64,
    /// The file has its name.
    is_kept: bool,
    /// Nothing more comes; whoever needs more reads it from the bucket.
    has_ended: bool,
}

/// Those who read what arrives.
#[derive(Clone, Copy, Debug, Default)]
struct Readers {
    count: usize,
    /// The last byte that one of them waited for.
    furthest: u64,
}

/// A blob that is being fetched.
#[derive(Debug)]
pub(super) struct Fill {
    pub(super) digest: Digest,
    pub(super) size: u64,
    progress: watch::Sender<Progress>,
    readers: watch::Sender<Readers>,
}

impl Fill {
    pub(super) fn new(digest: Digest, size: u64) -> Self {
        Self {
            digest,
            size,
            progress: watch::Sender::default(),
            readers: watch::Sender::default(),
        }
    }

    pub(super) fn written(&self) -> u64 {
        self.progress.borrow().written
    }

    pub(super) fn add_reader(&self) {
        self.readers.send_modify(|readers| readers.count += 1);
    }

    /// Takes a reader away. Returns whether the fetch goes on: others read it, or it has come so far that it is cheap to end it,
    /// and whoever went away soon comes back for it. A client that goes away after its last byte leaves nothing to fetch, and a file without
    /// a name yet.
    pub(super) fn remove_reader(&self) -> bool {
        self.readers.send_modify(|readers| readers.count -= 1);
        let (written, is_read) = (self.written(), self.readers.borrow().count > 0);
        let left = self.size.saturating_sub(written);
        is_read || left <= written.min(UNASKED_BYTES)
    }

    /// Waits until more is to be fetched: a client that reads slowly makes the bucket wait, as it does without a cache.
    async fn is_asked_for(&self) {
        let written = self.written();
        let mut readers = self.readers.subscribe();
        let asked = |readers: &Readers| {
            readers.count == 0 || written < readers.furthest.saturating_add(UNASKED_BYTES)
        };
        // This has the sender, so it never fails.
        drop(readers.wait_for(asked).await);
    }
}

/// Reads a blob while it is fetched. The fetch ends with the last one of them, unless it has come far.
#[derive(Debug)]
pub(super) struct Reader {
    cache: BlobCache,
    fill: Arc<Fill>,
    /// It began the fetch.
    pub(super) is_first: bool,
}

impl Reader {
    /// Creates a reader for a fill that counts it already.
    pub(super) const fn new(cache: BlobCache, fill: Arc<Fill>, is_first: bool) -> Self {
        Self {
            cache,
            fill,
            is_first,
        }
    }

    /// Waits until there is more than `offset` bytes. Returns how many, and the file; `None` if the rest has to come from
    /// the bucket.
    pub(super) async fn wait(&self, offset: u64) -> Option<(u64, Arc<File>)> {
        self.fill.readers.send_if_modified(|readers| {
            let is_first = offset > readers.furthest;
            readers.furthest = readers.furthest.max(offset);
            is_first
        });
        let mut progress = self.fill.progress.subscribe();
        let reached = progress.wait_for(|progress| progress.has_ended || progress.written > offset);
        let reached = timeout(PATIENCE, reached).await.ok()?;
        let Progress { file, written, .. } = reached.ok()?.clone();
        if written <= offset {
            return None;
        }
        file.map(|file| (written, file))
    }
}

#[cfg(test)]
impl Reader {
    pub(super) fn written(&self) -> u64 {
        self.fill.written()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.cache.leave_fill(&self.fill);
    }
}

/// The bytes that an unfinished file has in the cache. They are given back once it is removed.
#[derive(Debug)]
pub(super) struct Room {
    cache: BlobCache,
    bytes: u64,
}

impl Room {
    pub(super) const fn new(cache: BlobCache) -> Self {
        Self { cache, bytes: 0 }
    }

    /// Removes files that were used least recently, as far as `bytes` more need their room. Returns `false` if what is being
    /// read or written leaves none.
    pub(super) fn grow(&mut self, bytes: u64) -> io::Result<bool> {
        let evicted = {
            let mut index = self.cache.index();
            if !index.reserve(bytes) {
                return Ok(false);
            }
            self.bytes += bytes;
            index.evicted()
        };
        self.cache.folder().remove_evicted(&evicted)?;
        self.cache.index().removed(&evicted);
        Ok(true)
    }

    /// Enters the finished file.
    pub(super) fn keep(mut self, digest: &Digest, file: &Arc<File>) {
        self.cache
            .index()
            .insert(digest, self.bytes, Arc::downgrade(file));
        self.bytes = 0;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.cache.index().release(self.bytes);
        }
    }
}

/// Writes a blob. When this goes away, those who read it know, and nobody comes any more.
pub(super) struct Writer {
    cache: BlobCache,
    fill: Arc<Fill>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.fill.progress.send_modify(|progress| {
            // Nobody goes on reading a file that is removed, which would keep its space.
            if !progress.is_kept {
                *progress = Progress::default();
            }
            progress.has_ended = true;
        });
        self.cache.end_fill(&self.fill);
    }
}

/// What goes from one write to the next.
struct Written {
    file: Unfinished,
    hasher: Hasher,
    fill: Arc<Fill>,
}

impl Writer {
    pub(super) fn new(cache: &BlobCache, fill: &Arc<Fill>) -> Self {
        Self {
            cache: cache.clone(),
            fill: Arc::clone(fill),
        }
    }

    pub(super) async fn write(self, content: ByteStream) {
        if let Err(error) = self.try_write(content).await {
            self.cache.write_failed(self.fill.size, &error).await;
        }
    }

    /// Returns the failures of the disk. If the bucket fails, whoever reads asks it again and gets its error.
    async fn try_write(&self, content: ByteStream) -> io::Result<()> {
        let Ok(algorithm) = self.fill.digest.supported_algorithm() else {
            return Ok(());
        };
        let (disk, cache) = (self.cache.disk(), self.cache.clone());
        let created = disk.write(move || cache.create_file(Room::new(cache.clone())));
        let Some(file) = created.await? else {
            return Ok(());
        };
        let mut written = Written {
            file,
            hasher: Hasher::new(algorithm),
            fill: Arc::clone(&self.fill),
        };
        let mut content = content.ready_chunks(CHUNKS_AT_ONCE);
        loop {
            self.fill.is_asked_for().await;
            let Some(chunks) = content.next().await else {
                return Ok(());
            };
            let Ok(chunks) = chunks.into_iter().collect::<Result<Vec<Bytes>, _>>() else {
                return Ok(());
            };
            let cache = self.cache.clone();
            let Some(next) = disk.write(move || written.append(&chunks, &cache)).await? else {
                return Ok(());
            };
            written = next;
        }
    }
}

impl Written {
    /// Appends chunks and tells those who wait. With the last one, the file gets its name in the same call, which nothing
    /// ends: whoever waited may go away then. Returns `None` after the last one, and if there is no room.
    fn append(mut self, chunks: &[Bytes], cache: &BlobCache) -> io::Result<Option<Self>> {
        let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        if !self.file.grow(bytes)? {
            // At once, for those who need room next.
            self.file.discard();
            return Ok(None);
        }
        for chunk in chunks {
            self.file.file.write_all_at(chunk, self.hasher.length())?;
            self.hasher.update(chunk);
        }
        let Fill {
            digest,
            size,
            progress,
            ..
        } = &*self.fill;
        let written = self.hasher.length();
        progress.send_modify(|progress| {
            progress.file.get_or_insert_with(|| Arc::clone(&self.file.file));
            progress.written = written;
        });
        if written < *size {
            return Ok(Some(self));
        }
        if self.hasher.finish() == *digest {
            self.file.finish(digest)?;
            progress.send_modify(|progress| progress.is_kept = true);
            cache.write_worked();
        } else {
            tracing::error!(
                %digest,
                "the content of a blob in the bucket is not what its digest says, and is not cached; `registry-bin check --content` finds such blobs"
            );
        }
        Ok(None)
    }
}
