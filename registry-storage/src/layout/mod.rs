//! OCI image layouts (image-spec, "OCI Image Layout Specification"), as a folder or in an archive: exporting the
//! content of a storage, and importing theirs.
//!
//! Images are named with the annotation `org.opencontainers.image.ref.name` of the entries of `index.json`. In a layout
//! of one repository it is the tag, as skopeo, podman and containerd write it, and entries without it are referrers
//! that no tag leads to. In a layout of several repositories it is `REPOSITORY:TAG`, and `REPOSITORY@DIGEST` for a
//! referrer.

mod export;
mod import;
mod index;
mod observer;
mod plan;
mod sink;
mod source;

use std::io;
use std::path::{Path, PathBuf};

use registry_core::{Digest, Error, RepositoryName};
use tokio::task::spawn_blocking;

pub use self::export::export;
pub use self::import::import;
pub use self::observer::{LeftOut, Observer};

/// The largest manifest that is read, in bytes.
const MANIFEST_LIMIT: u64 = registry_core::manifest::DEFAULT_SIZE_LIMIT as u64;

/// The largest `index.json` that is read, in bytes.
const INDEX_LIMIT: u64 = 128 * 1024 * 1024;

/// The maximum number of entries written to the `index.json` of one layout. With the longest names it stays below
/// [`INDEX_LIMIT`].
const ENTRY_LIMIT: usize = 150_000;

/// What was written or stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayoutReport {
    /// Repositories.
    pub repositories: u64,
    /// Tags.
    pub tags: u64,
    /// Manifests, each once for each repository.
    pub manifests: u64,
    /// Blobs that were written or stored, not counting those that already existed.
    pub blobs: u64,
    /// The size of these blobs in bytes.
    pub size: u64,
    /// What was left out, each reported through [`Observer::left_out`].
    pub left_out: u64,
}

/// Why a layout, or a part of it, was not written or stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The file system returned an error.
    #[error("{}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// The error.
        #[source]
        cause: io::Error,
    },
    /// It is not an image layout, or cannot be written as one.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The folder or archive.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The content does not match its digest.
    #[error("what is kept as {digest} has the digest {found}")]
    OtherContent {
        /// The digest.
        digest: Digest,
        /// The digest of the content that was found.
        found: Digest,
    },
    /// A manifest names content that does not exist.
    #[error("{digest} is not there")]
    Missing {
        /// The digest.
        digest: Digest,
    },
    /// An index names what was left out.
    #[error("it names {digest}, which was left out")]
    Incomplete {
        /// The digest of what was left out.
        digest: Digest,
    },
    /// There are more tags and referrers than one layout may have.
    #[error("there are more than {limit} tags and referrers; name some of the repositories")]
    TooMany {
        /// The maximum number.
        limit: usize,
    },
    /// The storage refused or failed.
    #[error("{repository}: {what}")]
    Storage {
        /// The repository.
        repository: RepositoryName,
        /// The operation.
        what: String,
        /// The storage's error.
        #[source]
        cause: Error,
    },
    /// The storage failed.
    #[error(transparent)]
    Store(#[from] Error),
}

impl LayoutError {
    fn storage(repository: &RepositoryName, what: impl Into<String>) -> impl FnOnce(Error) -> Self {
        let (repository, what) = (repository.clone(), what.into());
        move |cause| Self::Storage {
            repository,
            what,
            cause,
        }
    }
}

fn disk(path: &Path) -> impl FnOnce(io::Error) -> LayoutError {
    move |cause| LayoutError::Disk {
        path: path.to_owned(),
        cause,
    }
}

/// Runs what blocks on a thread that may block.
async fn blocking<T: Send + 'static>(
    path: &Path,
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, LayoutError> {
    spawn_blocking(act)
        .await
        .unwrap_or_else(|cause| Err(io::Error::other(cause)))
        .map_err(disk(path))
}

/// The path of content in a layout.
fn blob_path(digest: &Digest) -> String {
    let (algorithm, encoded) = digest.parts();
    format!("blobs/{algorithm}/{encoded}")
}
