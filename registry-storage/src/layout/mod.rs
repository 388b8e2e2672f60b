//! OCI image layouts (image-spec, "OCI Image Layout Specification"), as a folder or in an archive: exporting the
//! content of a storage, and importing theirs.
//!
//! Images are named with the annotation `org.opencontainers.image.ref.name` of the entries of `index.json`. In a layout
//! of one repository it is the tag, as skopeo, podman and containerd write it, and entries without it are referrers
//! that no tag leads to. In a layout of several repositories it is `REPOSITORY:TAG`, and `REPOSITORY@DIGEST` for a
//! referrer.

mod copied;
mod error;
mod export;
mod import;
mod index;
mod left_out;
mod plan;
mod sink;
mod source;

use std::io;
use std::path::Path;

use registry_core::Digest;
use tokio::task::spawn_blocking;

pub use self::error::LayoutError;
use self::error::disk;
pub use self::export::export;
pub use self::import::import;
pub use self::left_out::LeftOut;

/// The largest manifest that is read, in bytes.
const MANIFEST_BYTES: u64 = registry_core::manifest::DEFAULT_SIZE_LIMIT as u64;

/// The largest `index.json` that is read, in bytes.
const INDEX_BYTES: u64 = 128 * 1024 * 1024;

/// The maximum number of entries written to the `index.json` of one layout. With the longest names it stays below
/// [`INDEX_BYTES`].
const MAXIMUM_ENTRIES: usize = 150_000;

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
    /// What was left out, each reported through [`Finding::LeftOut`](crate::Finding::LeftOut).
    pub left_out: u64,
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
