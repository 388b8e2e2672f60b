//! A blob on its way from the bucket into the cache, while clients read what has arrived.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use registry_core::hash::Hasher;
use registry_core::storage::ByteStream;
use registry_core::{Algorithm, Digest};
use tokio::sync::watch;
use tokio::time::timeout;

use super::blobs::BlobCache;
use super::folder::Unfinished;
use crate::background::Background;

/// How many chunks of an answer are written at once, if they have arrived.
const CHUNKS_AT_ONCE: usize = 64;

/// How long a client waits for more before it asks the bucket itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// What has arrived.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// `None` before anything is written.
    pub(super) file: Option<Arc<File>>,
    /// How many bytes can be read from the file.
    pub(super) written: u64,
    /// Nothing more comes; whoever needs more reads it from the bucket.
    pub(super) has_failed: bool,
}

/// A file that is being written. Those who read it hold this, and the write ends when the last of them goes away: nobody
/// makes the registry fetch gigabytes by beginning a pull.
#[derive(Debug)]
pub(super) struct Fill {
    cache: BlobCache,
    digest: Digest,
    progress: watch::Receiver<Progress>,
    _writing: Background,
}

impl Fill {
    /// Begins to write `content`, for which the cache reserved the room, after removing the files of `evicted`.
    pub(super) fn begin(cache: &BlobCache, blob: NewBlob) -> Self {
        let (sender, progress) = watch::channel(Progress::default());
        let (digest, writer) = (blob.digest.clone(), Writer::new(cache, sender));
        Self {
            cache: cache.clone(),
            digest,
            progress,
            _writing: Background::start(writer.write(blob)),
        }
    }

    pub(super) fn written(&self) -> u64 {
        self.progress.borrow().written
    }

    /// Waits until there is more than `offset` bytes. Returns how many, and the file; `None` if the rest has to come from
    /// the bucket.
    pub(super) async fn wait(&self, offset: u64) -> Option<(u64, Arc<File>)> {
        let mut progress = self.progress.clone();
        let reached = progress.wait_for(|progress| progress.has_failed || progress.written > offset);
        let reached = timeout(PATIENCE, reached).await.ok()?;
        let Progress { file, written, .. } = reached.ok()?.clone();
        if written <= offset {
            return None;
        }
        file.map(|file| (written, file))
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        self.cache.end_fill(&self.digest);
    }
}

/// A blob that is to be written.
pub(super) struct NewBlob {
    pub(super) digest: Digest,
    pub(super) algorithm: Algorithm,
    pub(super) content: ByteStream,
    pub(super) room: Room,
    pub(super) evicted: Vec<Digest>,
}

/// Bytes that are reserved in the cache. They are given back unless the file is kept.
pub(super) struct Room {
    cache: BlobCache,
    size: u64,
}

impl Room {
    pub(super) const fn new(cache: BlobCache, size: u64) -> Self {
        Self { cache, size }
    }

    /// Enters a file that is finished.
    fn keep(mut self, digest: &Digest) {
        self.cache.insert(digest, self.size);
        self.size = 0;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.cache.release(self.size);
    }
}

struct Writer {
    cache: BlobCache,
    progress: Arc<watch::Sender<Progress>>,
}

/// What goes from one write to the next.
struct Written {
    file: Unfinished,
    hasher: Hasher,
    room: Room,
    digest: Digest,
}

impl Writer {
    fn new(cache: &BlobCache, progress: watch::Sender<Progress>) -> Self {
        Self {
            cache: cache.clone(),
            progress: Arc::new(progress),
        }
    }

    async fn write(self, blob: NewBlob) {
        let size = blob.room.size;
        if let Err(error) = self.try_write(blob).await {
            self.cache.write_failed(size, &error).await;
        }
        self.progress.send_if_modified(|progress| {
            progress.has_failed = progress.written < size;
            progress.has_failed
        });
    }

    /// Returns the failures of the disk. If the bucket fails, whoever reads asks it again and gets its error.
    async fn try_write(&self, blob: NewBlob) -> io::Result<()> {
        let NewBlob {
            digest,
            algorithm,
            content,
            room,
            evicted,
        } = blob;
        let disk = self.cache.disk();
        let folder = self.cache.folder();
        let file = disk.write(move || {
            folder.remove(&evicted)?;
            folder.create()
        });
        let mut written = Written {
            file: file.await?,
            hasher: Hasher::new(algorithm),
            room,
            digest,
        };
        let mut content = content.ready_chunks(CHUNKS_AT_ONCE);
        while let Some(chunks) = content.next().await {
            let Ok(chunks) = chunks.into_iter().collect::<Result<Vec<Bytes>, _>>() else {
                return Ok(());
            };
            let progress = Arc::clone(&self.progress);
            let next = disk.write(move || written.append(&chunks, &progress)).await?;
            match next {
                Some(next) => written = next,
                None => return Ok(()),
            }
        }
        Ok(())
    }
}

impl Written {
    /// Appends chunks and tells those who wait. With the last one, the file gets its name in the same call, which nothing
    /// ends: whoever waited may go away then. Returns `None` after the last one.
    fn append(mut self, chunks: &[Bytes], progress: &watch::Sender<Progress>) -> io::Result<Option<Self>> {
        for chunk in chunks {
            self.file.file.write_all_at(chunk, self.hasher.length())?;
            self.hasher.update(chunk);
        }
        let written = self.hasher.length();
        progress.send_modify(|progress| {
            progress.file.get_or_insert_with(|| Arc::clone(&self.file.file));
            progress.written = written;
        });
        if written < self.room.size {
            return Ok(Some(self));
        }
        if self.hasher.finish() == self.digest {
            self.file.finish(&self.digest)?;
            self.room.cache.write_worked();
            self.room.keep(&self.digest);
        } else {
            tracing::error!(
                digest = %self.digest,
                "the content of a blob in the bucket is not what its digest says, and is not cached; `registry-bin check --content` finds such blobs"
            );
        }
        Ok(None)
    }
}
