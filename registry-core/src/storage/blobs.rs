//! Blobs.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;
use core::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;

use super::{Page, PageRequest, SignedUrl, TagFilter};
use crate::digest::Digest;
use crate::error::Error;
use crate::name::RepositoryName;

/// Content that is being read, in chunks.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// An opened blob.
#[derive(Clone, Debug)]
pub struct Blob {
    /// The size in bytes.
    pub size: u64,
    /// The content.
    pub content: Arc<dyn BlobContent>,
}

/// The content of an opened blob. It stays readable for as long as the handle lives; on a disk even after a delete.
#[async_trait]
pub trait BlobContent: fmt::Debug + Send + Sync {
    /// Reads the bytes of `range`, which must lie within the blob's size, in chunks of bounded size.
    ///
    /// Nothing is read before the stream is polled. Cancel safety: dropping the stream stops the reading.
    fn read(&self, range: Range<u64>) -> ByteStream;

    /// Returns a URL at which a client can read the content by itself; `None` if there is none, or not now, and the content has
    /// to be read here. A registry asks only if it may [redirect](crate::registry::Options::redirect_from_size). The default is `None`.
    ///
    /// Cancel safe.
    async fn signed_url(&self) -> Option<SignedUrl> {
        None
    }
}

/// Blobs, and which repositories may read them: a facet of [`Storage`](super::Storage), whose promises apply here.
#[async_trait]
pub trait BlobStorage: Send + Sync + 'static {
    /// Returns the size of a blob that this repository may read, and keeps the blob from collection for a grace period.
    ///
    /// # Errors
    /// [`BlobUnknown`](crate::ErrorCode::BlobUnknown).
    async fn stat_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<u64, Error>;

    /// Opens a blob that this repository may read.
    ///
    /// # Errors
    /// [`BlobUnknown`](crate::ErrorCode::BlobUnknown).
    async fn open_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Blob, Error>;

    /// Opens a blob for a client that pulls it, as [`open_blob`](Self::open_blob) does, which is the default.
    ///
    /// This and [`pull_manifest`](super::ManifestStorage::pull_manifest) are the only methods whose answer may be older than the last
    /// effect, if the storage is configured to keep answers or content for a while. So nothing else may follow from it than what the client is sent.
    ///
    /// # Errors
    /// Those of [`open_blob`](Self::open_blob).
    async fn pull_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Blob, Error> {
        self.open_blob(repository, digest).await
    }

    /// Lets `to` read a blob that `from` may read, without copying it; returns `false` if `from` does not have it.
    ///
    /// The caller has checked the right to read in `from`.
    async fn mount_blob(
        &self,
        from: &RepositoryName,
        to: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, Error>;

    /// Returns some of the repositories that may read a blob, in the order of their names, for a mount without `from`.
    async fn list_blob_repositories(
        &self,
        digest: &Digest,
        page: PageRequest,
    ) -> Result<Page<RepositoryName>, Error>;

    /// Removes a blob from a repository. Other repositories keep it; its bytes are deleted once none has it.
    ///
    /// What the tags that `immutable` selects reach stays: their manifests, the manifests of an index at any depth,
    /// layers and configurations. If such a tag is pushed at the same time, with a [`NewManifest`](super::NewManifest)
    /// whose `immutable_tags` name it, it reaches everything that it names, or its push is refused. The time that this
    /// takes grows with the number of immutable tags in the repository.
    ///
    /// # Errors
    /// [`BlobUnknown`](crate::ErrorCode::BlobUnknown); [`TagConflict`](crate::ErrorCode::TagConflict) if an immutable
    /// tag reaches the blob.
    async fn delete_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        immutable: Option<TagFilter>,
    ) -> Result<(), Error>;
}
