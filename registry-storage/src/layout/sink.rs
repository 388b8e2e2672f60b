//! Where a layout is written: files in a folder, or an archive.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use registry_core::storage::Blob;
use registry_core::{Digest, Hasher};
use tar::{EntryType, Header};

use super::{LayoutError, blocking, disk, is_archive};
use crate::store::hash;

/// What is behind the name of a file that is not whole yet.
const UNFINISHED: &str = ".unfinished";

/// A block of an archive in bytes.
const BLOCK: u64 = 512;

/// A layout that is written.
#[derive(Debug)]
pub(super) struct Sink {
    target: PathBuf,
    archive: Option<Archive>,
    /// Where content is that was written: about 100 bytes of memory for each blob and manifest.
    written: BTreeMap<Digest, Box<str>>,
}

#[derive(Debug)]
struct Archive {
    file: Arc<File>,
    position: u64,
}

/// A file that is written.
struct Output {
    file: Arc<File>,
    path: PathBuf,
    position: u64,
}

impl Sink {
    /// Begins a layout. A folder may have a layout already: what is there is taken for good, and the rest is added.
    pub(super) async fn create(target: &Path) -> Result<Self, LayoutError> {
        let archive = if is_archive(target) {
            let path = unfinished(target);
            let file = blocking(&path.clone(), move || File::create(path)).await?;
            Some(Archive {
                file: Arc::new(file),
                position: 0,
            })
        } else {
            let path = target.to_owned();
            blocking(target, move || fs::create_dir_all(path)).await?;
            None
        };
        Ok(Self {
            target: target.to_owned(),
            archive,
            written: BTreeMap::new(),
        })
    }

    /// Writes a small file.
    pub(super) async fn write(&mut self, path: &str, content: Bytes) -> Result<(), LayoutError> {
        let mut output = self.begin(path, content.len() as u64).await?;
        output.append(content).await?;
        self.end(path, output).await
    }

    /// Gives content that was written another name; `false` where it was not, or this is its name.
    async fn link(&mut self, path: &str, digest: &Digest) -> Result<bool, LayoutError> {
        let Some(first) = self.written.get(digest).cloned() else {
            return Ok(false);
        };
        if *first == *path {
            return Ok(true);
        }
        if self.archive.is_some() {
            let mut header = header(EntryType::Link, 0);
            let mut builder = tar::Builder::new(Vec::new());
            builder
                .append_link(&mut header, path, &*first)
                .map_err(disk(&self.target))?;
            // Not what ends an archive, which comes last.
            self.append_to_archive(std::mem::take(builder.get_mut())).await?;
            return Ok(true);
        }
        let (from, to) = (self.target.join(&*first), self.target.join(path));
        blocking(&to.clone(), move || {
            make_parent(&to)?;
            match fs::hard_link(&from, &to) {
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                // No file system has to know links.
                Err(_) => fs::copy(&from, &to).map(drop),
                Ok(()) => Ok(()),
            }
        })
        .await?;
        Ok(true)
    }

    /// Writes a manifest; `false` where it was there.
    pub(super) async fn manifest(
        &mut self,
        path: &str,
        digest: &Digest,
        content: Bytes,
    ) -> Result<bool, LayoutError> {
        if self.link(path, digest).await? || self.is_there(path, content.len() as u64).await? {
            self.written.entry(digest.clone()).or_insert_with(|| path.into());
            return Ok(false);
        }
        self.write(path, content).await?;
        self.written.insert(digest.clone(), path.into());
        Ok(true)
    }

    /// Writes a blob and compares its digest; `false` where it was there.
    pub(super) async fn blob(
        &mut self,
        path: &str,
        digest: &Digest,
        blob: &Blob,
    ) -> Result<bool, LayoutError> {
        if self.link(path, digest).await? || self.is_there(path, blob.size).await? {
            self.written.entry(digest.clone()).or_insert_with(|| path.into());
            return Ok(false);
        }
        let mut output = self.begin(path, blob.size).await?;
        let mut hasher = digest.algorithm().map(Hasher::new);
        let mut content = blob.content.read(0..blob.size);
        while let Some(chunk) = content.next().await {
            let chunk = chunk?;
            if let Some(state) = hasher.take() {
                hasher = Some(hash(state, chunk.clone()).await?);
            }
            output.append(chunk).await?;
        }
        if let Some(found) = hasher.map(Hasher::finish).filter(|found| found != digest) {
            let digest = digest.clone();
            return Err(LayoutError::OtherContent { digest, found });
        }
        self.end(path, output).await?;
        self.written.insert(digest.clone(), path.into());
        Ok(true)
    }

    /// Tells whether a folder has a whole file of this size already.
    async fn is_there(&self, path: &str, size: u64) -> Result<bool, LayoutError> {
        if self.archive.is_some() {
            return Ok(false);
        }
        let path = self.target.join(path);
        let length = blocking(&path.clone(), move || match fs::metadata(path) {
            Ok(found) => Ok(Some(found.len())),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(cause),
        })
        .await?;
        Ok(length == Some(size))
    }

    async fn begin(&mut self, path: &str, size: u64) -> Result<Output, LayoutError> {
        if self.archive.is_some() {
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = header(EntryType::Regular, size);
            builder
                .append_data(&mut header, path, io::empty())
                .map_err(disk(&self.target))?;
            // Only the header, and what a long name needs before it: the content comes after it.
            self.append_to_archive(std::mem::take(builder.get_mut())).await?;
        }
        if let Some(archive) = &self.archive {
            return Ok(Output {
                file: Arc::clone(&archive.file),
                path: self.target.clone(),
                position: archive.position,
            });
        }
        let path = unfinished(&self.target.join(path));
        let file = blocking(&path, {
            let path = path.clone();
            move || {
                make_parent(&path)?;
                File::create(path)
            }
        })
        .await?;
        Ok(Output {
            file: Arc::new(file),
            path,
            position: 0,
        })
    }

    async fn end(&mut self, path: &str, output: Output) -> Result<(), LayoutError> {
        if let Some(archive) = &mut self.archive {
            archive.position = output.position;
            let padding = (BLOCK - output.position % BLOCK) % BLOCK;
            return self
                .append_to_archive(vec![0; usize::try_from(padding).unwrap_or(0)])
                .await;
        }
        let path = self.target.join(path);
        blocking(&path.clone(), move || fs::rename(output.path, path)).await
    }

    async fn append_to_archive(&mut self, content: Vec<u8>) -> Result<(), LayoutError> {
        let Some(archive) = &mut self.archive else {
            return Ok(());
        };
        let mut output = Output {
            file: Arc::clone(&archive.file),
            path: self.target.clone(),
            position: archive.position,
        };
        output.append(content.into()).await?;
        archive.position = output.position;
        Ok(())
    }

    /// Ends an archive and gives it its name.
    pub(super) async fn finish(mut self) -> Result<(), LayoutError> {
        if self.archive.is_none() {
            return Ok(());
        }
        self.append_to_archive(vec![0; 1024]).await?;
        let target = self.target.clone();
        blocking(&self.target, move || fs::rename(unfinished(&target), target)).await
    }
}

impl Output {
    async fn append(&mut self, content: Bytes) -> Result<(), LayoutError> {
        let (file, position) = (Arc::clone(&self.file), self.position);
        self.position += content.len() as u64;
        blocking(&self.path, move || file.write_all_at(&content, position)).await
    }
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    name.into()
}
