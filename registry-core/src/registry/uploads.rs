//! Uploads of blobs.

use alloc::borrow::ToOwned as _;
use alloc::boxed::Box;
use core::pin::pin;

use super::Registry;
use super::body::{self, Chunk};
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, ErrorCode};
use crate::event::{EventAction, EventIntents, EventTarget};
use crate::name::RepositoryName;
use crate::operation::Principal;
use crate::range::ContentRange;
use crate::request::upload_location;
use crate::response::{Response, upload_range};
use crate::storage::{Body, Storage, UploadKey};
use crate::upload_id::UploadId;

/// What a request says about its chunk.
#[derive(Clone, Copy)]
pub(super) struct ChunkHeaders {
    /// Where it begins according to the URL.
    url_offset: Option<u64>,
    range: Option<ContentRange>,
    /// The size of the body in bytes.
    length: Option<u64>,
}

impl ChunkHeaders {
    pub(super) const fn new(
        url_offset: Option<u64>,
        range: Option<ContentRange>,
        length: Option<u64>,
    ) -> Self {
        Self {
            url_offset,
            range,
            length,
        }
    }

    /// Returns where the chunk begins, according to its range, otherwise to the URL.
    fn offset(self) -> Option<u64> {
        self.range.map(ContentRange::start).or(self.url_offset)
    }

    /// Drops a range that is not that of the body: some clients give the range of the whole blob when they close an
    /// upload.
    fn with_range_of_body(mut self) -> Self {
        if self.check_length().is_err() {
            self.range = None;
        }
        self
    }

    /// Returns the length of the chunk, if it is known before the bytes arrive.
    fn chunk(self) -> Option<u64> {
        self.range.map(ContentRange::length).or(self.length)
    }

    /// Refuses a chunk whose two lengths differ.
    fn check_length(self) -> Result<(), Error> {
        match (self.range.map(ContentRange::length), self.length) {
            (Some(range), Some(length)) if range != length => Err(Error::new(
                ErrorCode::SizeInvalid,
                "Content-Range and Content-Length say different lengths",
            )),
            _ => Ok(()),
        }
    }
}

impl<S: ?Sized + Storage> Registry<S> {
    pub(super) async fn start_upload(
        &self,
        principal: &Principal,
        repository: &RepositoryName,
        algorithm: Algorithm,
    ) -> Result<Response, Error> {
        let id = self
            .storage
            .create_upload(repository, principal.name(), algorithm)
            .await?;
        Ok(Response::upload_accepted(repository, id, 0))
    }

    /// Uploads a blob in one request. If that fails, the session is ended: the client does not know it.
    ///
    /// Without a body it starts a session, unless the blob is the empty one: ollama names the digest when it requests a
    /// session, and accepts only a 202 for that.
    pub(super) async fn upload_blob(
        &self,
        principal: &Principal,
        repository: &RepositoryName,
        digest: &Digest,
        mut body: Body<'_>,
        intents: Option<&dyn EventIntents>,
    ) -> Result<Response, Error> {
        let algorithm = digest.supported_algorithm()?;
        let first = body::next(&mut body).await?;
        if first.is_none() && *digest != Digest::of(algorithm, b"") {
            return self.start_upload(principal, repository, algorithm).await;
        }
        let body = pin!(Chunk::new(first, body));
        let id = self
            .storage
            .create_upload(repository, principal.name(), algorithm)
            .await?;
        let upload = key(principal, repository, id);
        let result = match self.storage.append_upload(&upload, Some(0), body).await {
            Ok(size) => {
                let target = || EventTarget::Blob {
                    digest: digest.clone(),
                    size: Some(size),
                };
                let event = self
                    .announce(intents, EventAction::Push, repository, target)
                    .await;
                let committed = self.storage.commit_upload(&upload, digest).await;
                committed.map(|()| event)
            }
            Err(error) => Err(error),
        };
        let event = match result {
            Ok(event) => event,
            Err(error) => {
                // The error that matters is the first one; a session that stays is ended for its age.
                drop(self.storage.cancel_upload(&upload).await);
                return Err(error);
            }
        };
        Ok(Response::blob_created(repository, digest).with_event(event))
    }

    pub(super) async fn append_upload(
        &self,
        upload: &UploadKey,
        headers: ChunkHeaders,
        body: Body<'_>,
    ) -> Result<Response, Error> {
        headers.check_length()?;
        let chunk = pin!(Chunk::new(None, body).limited(headers.range.map(ContentRange::length)));
        match self.storage.append_upload(upload, headers.offset(), chunk).await {
            Ok(length) => Ok(Response::upload_accepted(&upload.repository, upload.id, length)),
            Err(error) => Err(self.tell_offset(upload, error).await),
        }
    }

    /// Appends the last chunk, if there is one, and makes the session a blob.
    ///
    /// A client may repeat the request unchanged: if it failed, the chunk is not stored, and if it succeeded, the
    /// session is still known. The digest shows whether everything arrived, so a range that does not fit the body is no
    /// reason to refuse it.
    pub(super) async fn finish_upload(
        &self,
        upload: &UploadKey,
        digest: &Digest,
        headers: ChunkHeaders,
        mut body: Body<'_>,
        intents: Option<&dyn EventIntents>,
    ) -> Result<Response, Error> {
        digest.supported_algorithm()?;
        let headers = headers.with_range_of_body();
        let (is_empty, first) = match headers.length {
            Some(length) => (length == 0, None),
            None => {
                let first = body::next(&mut body).await?;
                (first.is_none(), first)
            }
        };
        let size = self
            .size_of(upload, digest, if is_empty { Some(0) } else { headers.chunk() })
            .await;
        let target = || EventTarget::Blob {
            digest: digest.clone(),
            size,
        };
        let mut event = self.event(EventAction::Push, &upload.repository, target);
        let intend = async {
            if let (Some(intents), Some(event)) = (intents, &event) {
                intents.intend(event).await;
            }
        };
        if is_empty {
            intend.await;
            self.storage.commit_upload(upload, digest).await?;
            return Ok(Response::blob_created(&upload.repository, digest).with_event(event));
        }
        let chunk = Chunk::new(first, body).limited(headers.range.map(ContentRange::length));
        let finished = {
            // A body that is cut off has no effect.
            let chunk = pin!(chunk.and_then(Box::pin(intend)));
            self.storage
                .finish_upload(upload, digest, headers.offset(), chunk)
                .await
        };
        match finished {
            Ok(finished) => {
                if let Some(EventTarget::Blob { size, .. }) = event.as_mut().map(|event| &mut event.target) {
                    *size = Some(finished);
                }
                Ok(Response::blob_created(&upload.repository, digest).with_event(event))
            }
            // The session may have become the blob before, and the client repeats the chunk.
            Err(error) if error.code() == ErrorCode::BlobUploadUnknown => {
                let committed = self.storage.commit_upload(upload, digest).await;
                committed.map_err(|_| error)?;
                Ok(Response::blob_created(&upload.repository, digest))
            }
            Err(error) => Err(self.tell_offset(upload, error).await),
        }
    }

    /// Returns the size that a session will have with a chunk, for an event.
    async fn size_of(&self, upload: &UploadKey, digest: &Digest, chunk: Option<u64>) -> Option<u64> {
        if !self.has_events {
            return None;
        }
        match self.storage.upload_status(upload).await {
            Ok(length) => length.checked_add(chunk?),
            // The session may have become the blob before, and the client did not get the answer.
            Err(_) => self.storage.stat_blob(&upload.repository, digest).await.ok(),
        }
    }

    /// If a session is not at the offset where a chunk begins, adds the session's offset to the error, so that the
    /// client can continue.
    async fn tell_offset(&self, upload: &UploadKey, error: Error) -> Error {
        if error.code() != ErrorCode::RangeInvalid {
            return error;
        }
        match self.storage.upload_status(upload).await {
            Ok(length) => {
                let location = upload_location(&upload.repository, upload.id, length);
                let error = error.with_field("Location", location);
                error.with_field("Range", upload_range(length))
            }
            Err(error) => error,
        }
    }

    pub(super) async fn upload_status(
        &self,
        principal: &Principal,
        repository: &RepositoryName,
        id: UploadId,
    ) -> Result<Response, Error> {
        let upload = key(principal, repository, id);
        let length = self.storage.upload_status(&upload).await?;
        Ok(Response::upload_status(repository, id, length))
    }

    pub(super) async fn cancel_upload(
        &self,
        principal: &Principal,
        repository: &RepositoryName,
        id: UploadId,
    ) -> Result<Response, Error> {
        let upload = key(principal, repository, id);
        self.storage.cancel_upload(&upload).await?;
        Ok(Response::upload_cancelled())
    }
}

pub(super) fn key(principal: &Principal, repository: &RepositoryName, id: UploadId) -> UploadKey {
    UploadKey {
        repository: repository.clone(),
        id,
        principal: principal.name().to_owned(),
    }
}
