//! Blobs: reading, mounting and deleting them.

use super::Registry;
use crate::digest::Digest;
use crate::error::Error;
use crate::event::{EventAction, EventTarget};
use crate::name::RepositoryName;
use crate::operation::Principal;
use crate::range::RangeHeader;
use crate::request::EntityTags;
use crate::response::Response;
use crate::storage::{PageRequest, Storage};

/// How many repositories are tried for a mount that names no source. A client that gets none uploads instead.
const MOUNT_CANDIDATES: usize = 100;

impl<S: ?Sized + Storage> Registry<S> {
    pub(super) async fn get_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: Option<&RangeHeader>,
        if_none_match: Option<&EntityTags>,
    ) -> Result<Response, Error> {
        let blob = self.storage.open_blob(repository, digest).await?;
        let response = Response::blob(repository, digest, &blob, range, if_none_match);
        Ok(self.with_blob_event(response, EventAction::Pull, repository, digest, Some(blob.size)))
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
    ) -> Result<Response, Error> {
        self.check_delete("GET, HEAD")?;
        self.storage.delete_blob(repository, digest).await?;
        Ok(self.with_blob_event(Response::deleted(), EventAction::Delete, repository, digest, None))
    }

    pub(super) fn with_blob_event(
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

    /// Mounts a blob, or starts a session where that is not possible: a source that does not exist, lacks the blob or
    /// may not be read all look the same.
    pub(super) async fn mount_blob(
        &self,
        principal: &Principal,
        repository: &RepositoryName,
        digest: &Digest,
        from: Option<&RepositoryName>,
    ) -> Result<Response, Error> {
        let algorithm = digest.supported_algorithm()?;
        let source = match from {
            Some(from)
                if self.may_pull(principal, from, digest)
                    && self.storage.mount_blob(from, repository, digest).await? =>
            {
                Some(from.clone())
            }
            Some(_) => None,
            None => self.mount_from_any(principal, repository, digest).await?,
        };
        let Some(from) = source else {
            return self.start_upload(principal, repository, algorithm).await;
        };
        let size = self.size_for_event(repository, digest).await;
        let response = Response::blob_created(repository, digest);
        Ok(self.with_blob_event(response, EventAction::Mount { from }, repository, digest, size))
    }

    /// Mounts a blob from one of the repositories that the principal may read, and returns which it was.
    async fn mount_from_any(
        &self,
        principal: &Principal,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<RepositoryName>, Error> {
        let page = PageRequest {
            last: None,
            limit: MOUNT_CANDIDATES,
        };
        let sources = self.storage.list_blob_repositories(digest, page).await?;
        for from in sources.items {
            if self.may_pull(principal, &from, digest)
                && self.storage.mount_blob(&from, repository, digest).await?
            {
                return Ok(Some(from));
            }
        }
        Ok(None)
    }
}
