//! Blobs: reading, mounting and deleting them.

use super::Registry;
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, ErrorCode};
use crate::event::{EventAction, EventIntents, EventTarget};
use crate::name::RepositoryName;
use crate::operation::Principal;
use crate::range::RangeHeader;
use crate::request::EntityTags;
use crate::response::{Response, ResponseBody};
use crate::storage::{Blob, PageRequest, SignedUrl, Storage};

/// How many repositories are tried for a mount without a source. If none fits, the client uploads instead.
const MOUNT_CANDIDATES: usize = 100;

impl<S: ?Sized + Storage> Registry<S> {
    pub(super) async fn get_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: Option<&RangeHeader>,
        if_none_match: Option<&EntityTags>,
    ) -> Result<Response, Error> {
        let blob = self.storage.pull_blob(repository, digest).await?;
        let response = Response::blob(repository, digest, &blob, range, if_none_match);
        // Not for several ranges: S3 and others ignore those, and send all of the blob.
        let sends_one_piece = matches!(response.body, ResponseBody::Blob { .. });
        let url = if sends_one_piece {
            self.signed_url(&blob).await
        } else {
            None
        };
        let response = match url {
            Some(url) => Response::blob_redirect(digest, &url),
            None => response,
        };
        Ok(self.with_blob_event(response, EventAction::Pull, repository, digest, Some(blob.size)))
    }

    /// Returns where a client can read a blob by itself, if clients are sent there.
    async fn signed_url(&self, blob: &Blob) -> Option<SignedUrl> {
        match self.options.redirect_from_size {
            Some(size) if blob.size >= size => blob.content.signed_url().await,
            _ => None,
        }
    }

    pub(super) async fn head_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        if_none_match: Option<&EntityTags>,
    ) -> Result<Response, Error> {
        let size = self.storage.stat_blob(repository, digest).await?;
        let response = Response::blob_head(repository, digest, size, if_none_match);
        Ok(self.with_blob_event(response, EventAction::Pull, repository, digest, Some(size)))
    }

    pub(super) async fn delete_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        intents: Option<&dyn EventIntents>,
    ) -> Result<Response, Error> {
        // Content that does not exist is not about to be deleted.
        if self.has_events {
            self.storage.stat_blob(repository, digest).await?;
        }
        let target = || EventTarget::Blob {
            digest: digest.clone(),
            size: None,
        };
        let event = self
            .announce(intents, EventAction::Delete, repository, target)
            .await;
        let immutable = self.authorizer.immutable_tags(repository);
        self.storage.delete_blob(repository, digest, immutable).await?;
        Ok(Response::deleted().with_event(event))
    }

    fn with_blob_event(
        &self,
        response: Response,
        action: EventAction,
        repository: &RepositoryName,
        digest: &Digest,
        size: Option<u64>,
    ) -> Response {
        self.with_event(response, action, repository, || EventTarget::Blob {
            digest: digest.clone(),
            size,
        })
    }

    /// Mounts a blob, or starts a session if that is not possible: a source that does not exist, lacks the blob or may
    /// not be read all look the same.
    pub(super) async fn mount_blob(
        &self,
        principal: &Principal,
        repository: &RepositoryName,
        digest: &Digest,
        from: Option<&RepositoryName>,
        intents: Option<&dyn EventIntents>,
    ) -> Result<Response, Error> {
        let Ok(algorithm) = digest.supported_algorithm() else {
            return self
                .start_upload(principal, repository, Algorithm::default())
                .await;
        };
        let mounted = match from {
            Some(from) if self.may_pull(principal, from, digest) => {
                self.mount_from(from, repository, digest, intents).await?
            }
            Some(_) => None,
            None => {
                self.mount_from_any(principal, repository, digest, intents)
                    .await?
            }
        };
        match mounted {
            Some(response) => Ok(response),
            None => self.start_upload(principal, repository, algorithm).await,
        }
    }

    /// Mounts a blob from a repository, if the repository has it.
    async fn mount_from(
        &self,
        from: &RepositoryName,
        repository: &RepositoryName,
        digest: &Digest,
        intents: Option<&dyn EventIntents>,
    ) -> Result<Option<Response>, Error> {
        let mut event = None;
        if self.has_events {
            let size = match self.storage.stat_blob(from, digest).await {
                Ok(size) => Some(size),
                Err(error) if error.code() == ErrorCode::BlobUnknown => return Ok(None),
                Err(error) => return Err(error),
            };
            let action = EventAction::Mount { from: from.clone() };
            let target = || EventTarget::Blob {
                digest: digest.clone(),
                size,
            };
            event = self.announce(intents, action, repository, target).await;
        }
        let is_mounted = self.storage.mount_blob(from, repository, digest).await?;
        Ok(is_mounted.then(|| Response::blob_created(repository, digest).with_event(event)))
    }

    /// Mounts a blob from one of the repositories that the principal may read.
    async fn mount_from_any(
        &self,
        principal: &Principal,
        repository: &RepositoryName,
        digest: &Digest,
        intents: Option<&dyn EventIntents>,
    ) -> Result<Option<Response>, Error> {
        let page = PageRequest {
            last: None,
            limit: MOUNT_CANDIDATES,
        };
        let sources = self.storage.list_blob_repositories(digest, page).await?;
        for from in sources.items {
            if self.may_pull(principal, &from, digest)
                && let Some(response) = self.mount_from(&from, repository, digest, intents).await?
            {
                return Ok(Some(response));
            }
        }
        Ok(None)
    }
}
