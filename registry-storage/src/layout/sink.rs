//! Where a layout is written: files in a folder, or an archive.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use registry_core::storage::Blob;
use registry_core::{Digest, Hasher};
use rustix::fs::OFlags;
use tar::{EntryType, Header};

use super::index::LAYOUT_FILE;
use super::{LayoutError, blob_path, blocking, disk};
use crate::store::hash;

/// The suffix of the name of an unfinished file.
const UNFINISHED: &str = ".unfinished";

/// A block of an archive in bytes.
const BLOCK_BYTES: u64 = 512;

/// A layout that is being written.
#[derive(Debug)]
pub(super) struct Sink {
    target: PathBuf,
    archive: Option<Archive>,
    /// The folder, or the archive, locked: only one export writes there at a time.
    _lock: Arc<File>,
}

/// An archive, under another name until it is finished. If it is dropped before that, it is removed.
#[derive(Debug)]
struct Archive {
    file: Arc<File>,
    position: u64,
    /// The digests in it: about 100 bytes of memory for each blob and manifest.
    written: BTreeSet<Digest>,
    unfinished: Option<PathBuf>,
}

/// A file that is being written, or a part of the archive.
struct Output {
    file: Arc<File>,
    path: PathBuf,
    position: u64,
    /// The position of the archive before it.
    start: u64,
}

impl Sink {
    /// Begins a layout. A folder must be empty or contain a layout already: existing content is taken as correct, and
    /// the rest is added.
    pub(super) async fn create(target: &Path) -> Result<Self, LayoutError> {
        let path = target.to_owned();
        let begun = blocking(target, move || {
            if is_archive(&path) {
                let archive = Archive::create(&path)?;
                return Ok((Arc::clone(&archive.file), Some(archive)));
            }
            fs::create_dir_all(&path)?;
            let folder = File::open(&path)?;
            lock(&folder)?;
            if fs::read_dir(&path)?.next().is_none() || path.join(LAYOUT_FILE).is_file() {
                return Ok((Arc::new(folder), None));
            }
            Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the folder has something else in it; name another one, or an image layout to add to",
            ))
        });
        let (lock, archive) = begun.await?;
        Ok(Self {
            target: target.to_owned(),
            archive,
            _lock: lock,
        })
    }

    /// Writes a small file.
    pub(super) async fn write(&mut self, path: &str, content: Bytes) -> Result<(), LayoutError> {
        let mut output = self.begin(path, content.len() as u64).await?;
        output.append(content).await?;
        self.end(path, output).await
    }

    /// Writes a manifest and compares its digest.
    pub(super) async fn manifest(&mut self, digest: &Digest, content: Bytes) -> Result<(), LayoutError> {
        if let Some(algorithm) = digest.algorithm() {
            same(digest, Digest::of(algorithm, &content))?;
        }
        if self.has(digest, content.len() as u64).await? {
            return Ok(());
        }
        self.write(&blob_path(digest), content).await?;
        self.remember(digest);
        Ok(())
    }

    /// Writes a blob and compares its digest; returns `false` if it existed.
    pub(super) async fn blob(
        &mut self,
        digest: &Digest,
        blob: &Blob,
        tell: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<bool, LayoutError> {
        if self.has(digest, blob.size).await? {
            return Ok(false);
        }
        let path = blob_path(digest);
        let mut output = self.begin(&path, blob.size).await?;
        match copy(digest, blob, &mut output, tell).await {
            Ok(()) => self.end(&path, output).await?,
            Err(error) => {
                self.undo(output).await?;
                return Err(error);
            }
        }
        self.remember(digest);
        Ok(true)
    }

    fn remember(&mut self, digest: &Digest) {
        if let Some(archive) = &mut self.archive {
            archive.written.insert(digest.clone());
        }
    }

    /// Returns whether content exists already; in a folder, whether a finished file has this size.
    async fn has(&self, digest: &Digest, size: u64) -> Result<bool, LayoutError> {
        if let Some(archive) = &self.archive {
            return Ok(archive.written.contains(digest));
        }
        let path = self.target.join(blob_path(digest));
        let length = blocking(&path.clone(), move || match fs::symlink_metadata(path) {
            Ok(found) => Ok(found.is_file().then_some(found.len())),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(cause),
        })
        .await?;
        Ok(length == Some(size))
    }

    async fn begin(&self, path: &str, size: u64) -> Result<Output, LayoutError> {
        if let Some(archive) = &self.archive {
            let start = archive.position;
            let mut builder = tar::Builder::new(Vec::new());
            builder
                .append_data(&mut header(size), path, io::empty())
                .map_err(disk(&self.target))?;
            let mut output = Output {
                file: Arc::clone(&archive.file),
                path: self.target.clone(),
                position: start,
                start,
            };
            // Only the header, without the end marker of an archive: the content comes after it.
            output.append(std::mem::take(builder.get_mut()).into()).await?;
            return Ok(output);
        }
        let path = unfinished(&self.target.join(path));
        let file = blocking(&path, {
            let path = path.clone();
            move || {
                path.parent().map_or(Ok(()), fs::create_dir_all)?;
                create(&path)
            }
        })
        .await?;
        Ok(Output {
            file: Arc::new(file),
            path,
            position: 0,
            start: 0,
        })
    }

    async fn end(&mut self, path: &str, mut output: Output) -> Result<(), LayoutError> {
        if let Some(archive) = &mut self.archive {
            let padding = (BLOCK_BYTES - output.position % BLOCK_BYTES) % BLOCK_BYTES;
            output
                .append(vec![0; usize::try_from(padding).unwrap_or(0)].into())
                .await?;
            archive.position = output.position;
            return Ok(());
        }
        let path = self.target.join(path);
        blocking(&path.clone(), move || fs::rename(output.path, path)).await
    }

    /// Undoes what was written of a file.
    async fn undo(&self, output: Output) -> Result<(), LayoutError> {
        let is_archive = self.archive.is_some();
        blocking(&output.path.clone(), move || {
            if is_archive {
                output.file.set_len(output.start)
            } else {
                fs::remove_file(output.path)
            }
        })
        .await
    }

    /// Ends an archive, makes it durable and gives it its name.
    pub(super) async fn finish(mut self) -> Result<(), LayoutError> {
        let Some(mut archive) = self.archive.take() else {
            return Ok(());
        };
        let target = self.target.clone();
        blocking(&self.target, move || {
            let end = [0; 2 * BLOCK_BYTES as usize];
            archive.file.write_all_at(&end, archive.position)?;
            archive.file.sync_all()?;
            fs::rename(unfinished(&target), target)?;
            drop(archive.unfinished.take());
            Ok(())
        })
        .await
    }
}

impl Archive {
    fn create(target: &Path) -> io::Result<Self> {
        let path = unfinished(target);
        Ok(Self {
            file: Arc::new(create_locked(&path)?),
            position: 0,
            written: BTreeSet::new(),
            unfinished: Some(path),
        })
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        if let Some(path) = &self.unfinished
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "an archive that was begun was not removed");
        }
    }
}

impl Output {
    async fn append(&mut self, content: Bytes) -> Result<(), LayoutError> {
        let (file, position) = (Arc::clone(&self.file), self.position);
        self.position += content.len() as u64;
        blocking(&self.path, move || file.write_all_at(&content, position)).await
    }
}

/// Locks a file or folder for as long as it is open.
fn lock(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "another export writes there",
        )),
        // Some network file systems have no locks.
        _ => Ok(()),
    }
}

/// Creates a file that no other process writes to, or takes one that was left behind.
fn create_locked(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(flags);
    let file = options.open(path)?;
    lock(&file)?;
    // It may have been finished in between, and no longer be what the path names.
    if fs::symlink_metadata(path)?.ino() != file.metadata()?.ino() {
        return Err(io::Error::from(io::ErrorKind::ResourceBusy));
    }
    file.set_len(0)?;
    Ok(file)
}

/// Creates a file, replacing one that was left behind. A link at its path is not followed.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => File::create_new(path),
    }
}

/// Writes the content of a blob, and reports the size of each chunk.
async fn copy(
    digest: &Digest,
    blob: &Blob,
    output: &mut Output,
    tell: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), LayoutError> {
    let mut hasher = digest.algorithm().map(Hasher::new);
    let mut content = blob.content.read(0..blob.size);
    while let Some(chunk) = content.next().await {
        let chunk = chunk?;
        if let Some(state) = hasher.take() {
            hasher = Some(hash(state, chunk.clone()).await?);
        }
        let length = chunk.len() as u64;
        output.append(chunk).await?;
        tell(length);
    }
    hasher.map_or(Ok(()), |hasher| same(digest, hasher.finish()))
}

fn same(digest: &Digest, found: Digest) -> Result<(), LayoutError> {
    if *digest == found {
        return Ok(());
    }
    let digest = digest.clone();
    Err(LayoutError::OtherContent { digest, found })
}

/// Returns whether a path is to be an archive.
fn is_archive(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tar") && !path.is_dir()
}

fn header(size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    name.into()
}
