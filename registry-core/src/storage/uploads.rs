//! Uploads.

use alloc::boxed::Box;
use alloc::string::String;
use core::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;

use crate::digest::{Algorithm, Digest};
use crate::error::Error;
use crate::name::RepositoryName;
use crate::upload_id::UploadId;

/// The body of a request, borrowed: one chunk is in flight, and the next is requested once that was used.
pub type Body<'a> = Pin<&'a mut (dyn Stream<Item = Result<Bytes, Error>> + Send)>;

/// An upload session: its repository and owner. A session is found only under its own repository and principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadKey {
    /// The repository.
    pub repository: RepositoryName,
    /// The session.
    pub id: UploadId,
    /// The principal that started it; empty for the anonymous principal.
    pub principal: String,
}

/// Upload sessions: a facet of [`Storage`](super::Storage), whose promises apply here.
#[async_trait]
pub trait UploadStorage: Send + Sync + 'static {
    /// Starts an upload. `algorithm` is the expected algorithm of the digest; a commit may use another.
    async fn create_upload(
        &self,
        repository: &RepositoryName,
        principal: &str,
        algorithm: Algorithm,
    ) -> Result<UploadId, Error>;

    /// Appends `body` at `offset`, or at the end if it is `None`, and returns the new length.
    ///
    /// If the body ends with an error, or another append to the session begins, what arrived so far is kept and the error
    /// is returned. Appends to one session exclude each other; the newest goes on, the one before is stopped. If the newest
    /// names the offset at which the stopped one began, it sends the same bytes again: nothing of the stopped one is kept.
    ///
    /// # Errors
    /// [`BlobUploadUnknown`](crate::ErrorCode::BlobUploadUnknown); [`RangeInvalid`](crate::ErrorCode::RangeInvalid) if
    /// `offset` is not the length, in which case the body is not read; any error of the body.
    async fn append_upload(
        &self,
        upload: &UploadKey,
        offset: Option<u64>,
        body: Body<'_>,
    ) -> Result<u64, Error>;

    /// Returns how many bytes the session has.
    ///
    /// # Errors
    /// [`BlobUploadUnknown`](crate::ErrorCode::BlobUploadUnknown).
    async fn upload_status(&self, upload: &UploadKey) -> Result<u64, Error>;

    /// Makes the bytes of a session a blob of its repository, if they have `digest`.
    ///
    /// May be repeated: a session that was committed with this digest succeeds again while the blob exists.
    ///
    /// # Errors
    /// [`BlobUploadUnknown`](crate::ErrorCode::BlobUploadUnknown);
    /// [`DigestInvalid`](crate::ErrorCode::DigestInvalid) if the bytes have another digest, and the session continues;
    /// [`BlobUploadInvalid`](crate::ErrorCode::BlobUploadInvalid) if the bytes have to be sent again.
    async fn commit_upload(&self, upload: &UploadKey, digest: &Digest) -> Result<(), Error>;

    /// Appends `body` as [`append_upload`](Self::append_upload) does, makes all bytes a blob as
    /// [`commit_upload`](Self::commit_upload) does, and returns its size.
    ///
    /// If either fails or the future is dropped, the session has the bytes that it had before: a client repeats its
    /// last request unchanged.
    ///
    /// # Errors
    /// Those of both; [`BlobUploadInvalid`](crate::ErrorCode::BlobUploadInvalid) also if the session cannot be
    /// restored.
    async fn finish_upload(
        &self,
        upload: &UploadKey,
        digest: &Digest,
        offset: Option<u64>,
        body: Body<'_>,
    ) -> Result<u64, Error>;

    /// Ends a session without a blob.
    ///
    /// # Errors
    /// [`BlobUploadUnknown`](crate::ErrorCode::BlobUploadUnknown).
    async fn cancel_upload(&self, upload: &UploadKey) -> Result<(), Error>;
}
