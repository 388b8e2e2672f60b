//! Checking the blobs of a folder's tree. Everything here blocks.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use registry_core::{Algorithm, Digest, Hasher, RepositoryName};

use super::defect::Defect;
use super::tree::{Link, Tree, unreadable};
use crate::bytes_name::BytesName;
use crate::store::INLINE_BYTES;

/// How much of a file is hashed at once, in bytes.
const CHUNK_BYTES: usize = 256 * 1024;

/// The content of a blob that may be adopted.
#[derive(Clone, Debug)]
pub(super) enum BlobContent {
    /// Small enough to be kept in its record.
    Inline(Bytes),
    /// A file that gets a second name, and its size in bytes.
    File(PathBuf, u64),
    /// An object that is named where it is, and its size in bytes.
    InPlace(BytesName, u64),
    /// An object that is copied, because it has another digest there than here, and its size in bytes.
    Copied(BytesName, u64),
}

impl BlobContent {
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Inline(content) => content.len() as u64,
            Self::File(_, size) | Self::InPlace(_, size) | Self::Copied(_, size) => *size,
        }
    }
}

/// Examines the content of a blob.
///
/// Small content is always compared with its digest. A file is hashed if that is requested, if it is known by another
/// algorithm than the one it is stored under, or if its size differs from the size in a manifest: manifests may be
/// wrong, because that registry does not compare them with what was pushed. Hashed bytes are counted as they are read.
pub(super) fn check(
    tree: &Tree,
    repository: &RepositoryName,
    link: &Link,
    declared_size: Option<u64>,
    (verify, read): (bool, &AtomicU64),
) -> Result<BlobContent, Defect> {
    let path = tree.data(&link.target);
    let failed = |cause: io::Error| match cause.kind() {
        io::ErrorKind::NotFound => missing(repository, link),
        _ => unreadable(&path, cause),
    };
    // Opened in any case: content that cannot be read here could not be served there either.
    let mut file = tree.open(&path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let algorithm = link.digest.algorithm().unwrap_or_default();
    let corrupt = |found, size| corrupt(repository, link, found, size);
    if size <= INLINE_BYTES as u64 {
        let mut content = Vec::new();
        let limit = INLINE_BYTES as u64 + 1;
        file.take(limit).read_to_end(&mut content).map_err(failed)?;
        read.fetch_add(content.len() as u64, Ordering::Relaxed);
        let found = Digest::of(algorithm, &content);
        return if found == link.digest {
            Ok(BlobContent::Inline(content.into()))
        } else {
            Err(corrupt(found, content.len() as u64))
        };
    }
    let is_doubtful = declared_size.is_some_and(|declared| declared != size);
    if verify || is_doubtful || link.target != link.digest {
        let (found, size) = hash_file(&mut file, algorithm, read).map_err(failed)?;
        if found != link.digest {
            return Err(corrupt(found, size));
        }
    }
    Ok(BlobContent::File(path, size))
}

/// The defect of content that is not there.
pub(super) fn missing(repository: &RepositoryName, link: &Link) -> Defect {
    Defect::MissingContent {
        repository: repository.clone(),
        digest: link.digest.clone(),
    }
}

/// The defect of content that has another digest and this size.
pub(super) fn corrupt(repository: &RepositoryName, link: &Link, found: Digest, size: u64) -> Defect {
    Defect::CorruptContent {
        repository: repository.clone(),
        digest: link.digest.clone(),
        found,
        size,
    }
}

fn hash_file(file: &mut File, algorithm: Algorithm, progress: &AtomicU64) -> io::Result<(Digest, u64)> {
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) else {
            break;
        };
        hasher.update(chunk);
        progress.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    }
    let size = hasher.length();
    Ok((hasher.finish(), size))
}
