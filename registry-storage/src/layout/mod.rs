//! OCI image layouts (image-spec, "OCI Image Layout Specification"), as a folder or in an archive: writing what a storage
//! has, and storing what they have.
//!
//! One repository is one layout, and a tag is the annotation `org.opencontainers.image.ref.name` of an entry of its
//! `index.json`, as skopeo, podman and containerd have it. Entries without it are referrers, which no tag leads to.
//! Several repositories are one folder each, named as the repository with `+` for each `/`; content that they share is
//! there once, under several names (hard links, also in an archive).

mod export;
mod import;
mod index;
mod sink;
mod source;

use std::io;
use std::path::{Path, PathBuf};

use registry_core::{Digest, Error, RepositoryName};
use tokio::task::spawn_blocking;

pub use self::export::export;
pub use self::import::import;

/// The largest manifest that is read, in bytes.
const MANIFEST_LIMIT: u64 = registry_core::manifest::DEFAULT_SIZE_LIMIT as u64;

/// The largest `index.json` that is read, in bytes: some 200 000 tags.
const INDEX_LIMIT: u64 = 64 * 1024 * 1024;

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
    /// Blobs that were written or stored; those that were there already do not count.
    pub blobs: u64,
    /// The size of these blobs in bytes.
    pub size: u64,
    /// Content that manifests name and the storage does not have.
    pub missing: u64,
}

/// Why a layout was not written or stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The file system refused.
    #[error("{}: {cause}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        #[source]
        cause: io::Error,
    },
    /// It is no image layout.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The folder or archive.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The content is not what its digest says.
    #[error("the content that is kept as {digest} has the digest {found}")]
    OtherContent {
        /// The digest.
        digest: Digest,
        /// The digest of what is there.
        found: Digest,
    },
    /// The storage refused or failed.
    #[error("{repository}: {what}: {cause}")]
    Storage {
        /// The repository.
        repository: RepositoryName,
        /// What it was asked for.
        what: String,
        /// What it said.
        #[source]
        cause: Error,
    },
    /// The storage failed.
    #[error(transparent)]
    Store(#[from] Error),
}

fn disk(path: &Path) -> impl FnOnce(io::Error) -> LayoutError {
    move |cause| LayoutError::Disk {
        path: path.to_owned(),
        cause,
    }
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    path: &Path,
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, LayoutError> {
    spawn_blocking(act)
        .await
        .unwrap_or_else(|cause| Err(io::Error::other(cause)))
        .map_err(disk(path))
}

/// Tells whether a path is that of an archive.
fn is_archive(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tar")
}

/// The path of content in a layout.
fn blob_path(prefix: &str, digest: &Digest) -> String {
    let (algorithm, encoded) = digest.parts();
    format!("{prefix}blobs/{algorithm}/{encoded}")
}

/// The folder of a repository among others, with a slash behind it. `+` is in no name.
fn prefix_of(repository: &RepositoryName) -> String {
    format!("{}/", repository.as_str().replace('/', "+"))
}
