//! Uploads of blobs.

use alloc::borrow::ToOwned as _;
use alloc::boxed::Box;
use core::pin::pin;

use super::Registry;
use super::body::{self, Chunk};
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, ErrorCode};
use crate::event::{Event, EventAction, EventIntents, EventTarget};
use crate::name::RepositoryName;
use crate::operation::Principal;
use crate::range::ContentRange;
use crate::response::Response;
use crate::storage::{Body, Storage, UploadKey};
use crate::upload_id::UploadId;

/// What the header says of a chunk: where it lies, and the bytes of the body.
type Said = (Option<ContentRange>, Option<u64>);

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

    /// Uploads a blob in one request. Where that fails, the session is ended: the client does not know of it.
    pub(super) async fn upload_blob(
        &self,
        principal: &Principal,
        repository: &RepositoryName,
        digest: &Digest,
        body: Body<'_>,
        intents: Option<&dyn EventIntents>,
    ) -> Result<Response, Error> {
        let algorithm = digest.supported_algorithm()?;
        let id = self
            .storage
            .create_upload(repository, principal.name(), algorithm)
            .await?;
        let upload = key(principal, repository, id);
        let result = match self.storage.append_upload(&upload, Some(0), body).await {
            Ok(size) => {
                let event = self.announce_upload(intents, &upload, digest, Some(size)).await;
                let committed = self.storage.commit_upload(&upload, digest).await;
                committed.map(|()| event)
            }
            Err(error) => Err(error),
        };
        let event = match result {
            Ok(event) => event,
            Err(error) => {
                // The error that matters is the first; a session that stays is ended for its age.
                drop(self.storage.cancel_upload(&upload).await);
                return Err(error);
            }
        };
        Ok(Response::blob_created(repository, digest).with_event(event))
    }

    /// Makes the event of a session that is about to become a blob.
    async fn announce_upload(
        &self,
        intents: Option<&dyn EventIntents>,
        upload: &UploadKey,
        digest: &Digest,
        size: Option<u64>,
    ) -> Option<Box<Event>> {
        let size = match size {
            None if self.has_events => match self.storage.upload_status(upload).await {
                Ok(size) => Some(size),
                // The session may have become the blob before, and the client did not get the answer.
                Err(_) => self.storage.stat_blob(&upload.repository, digest).await.ok(),
            },
            size => size,
        };
        let target = || EventTarget::Blob {
            digest: digest.clone(),
            size,
        };
        self.announce(intents, EventAction::Push, &upload.repository, target)
            .await
    }

    pub(super) async fn append_upload(
        &self,
        principal: &Principal,
        repository: &RepositoryName,
        id: UploadId,
        said: Said,
        body: Body<'_>,
    ) -> Result<Response, Error> {
        check_length(said)?;
        let upload = key(principal, repository, id);
        let length = self.append(&upload, said.0, Chunk::new(None, body)).await?;
        Ok(Response::upload_accepted(repository, id, length))
    }

    /// Appends the last chunk, if there is one, and makes the session a blob.
    ///
    /// Without a chunk nothing is appended, so that a client may repeat the request when it did not get the answer.
    pub(super) async fn finish_upload(
        &self,
        upload: &UploadKey,
        digest: &Digest,
        said: Said,
        mut body: Body<'_>,
        intents: Option<&dyn EventIntents>,
    ) -> Result<Response, Error> {
        digest.supported_algorithm()?;
        check_length(said)?;
        let (is_empty, first) = match said {
            (None, Some(0)) => (true, None),
            (None, None) => {
                let first = body::next(&mut body).await?;
                (first.is_none(), first)
            }
            _ => (false, None),
        };
        let mut size = None;
        if !is_empty {
            size = Some(self.append(upload, said.0, Chunk::new(first, body)).await?);
        }
        let event = self.announce_upload(intents, upload, digest, size).await;
        self.storage.commit_upload(upload, digest).await?;
        Ok(Response::blob_created(&upload.repository, digest).with_event(event))
    }

    /// Appends a chunk where it says that it lies, or else at the end, and returns the new length.
    async fn append(
        &self,
        upload: &UploadKey,
        range: Option<ContentRange>,
        chunk: Chunk<'_>,
    ) -> Result<u64, Error> {
        let chunk = pin!(chunk.limited(range.map(ContentRange::length)));
        let offset = range.map(ContentRange::start);
        self.storage.append_upload(upload, offset, chunk).await
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

/// Refuses a chunk whose two lengths differ.
fn check_length((range, length): Said) -> Result<(), Error> {
    match (range.map(ContentRange::length), length) {
        (Some(range), Some(length)) if range != length => Err(Error::new(
            ErrorCode::SizeInvalid,
            "Content-Range and Content-Length say different lengths",
        )),
        _ => Ok(()),
    }
}
