//! Blobs: reading, mounting and deleting them.

use super::Registry;
use crate::digest::Digest;
use crate::error::Error;
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
        Ok(Response::blob(repository, digest, &blob, range, if_none_match))
    }

    pub(super) async fn head_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        if_none_match: Option<&EntityTags>,
    ) -> Result<Response, Error> {
        let size = self.storage.stat_blob(repository, digest).await?;
        Ok(Response::blob_head(repository, digest, size, if_none_match))
    }

    pub(super) async fn delete_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Response, Error> {
        self.check_delete("GET, HEAD")?;
        self.storage.delete_blob(repository, digest).await?;
        Ok(Response::deleted())
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
        let is_mounted = match from {
            Some(from) => {
                self.may_pull(principal, from, digest)
                    && self.storage.mount_blob(from, repository, digest).await?
            }
            None => self.mount_from_any(principal, repository, digest).await?,
        };
        if is_mounted {
            Ok(Response::blob_created(repository, digest))
        } else {
            self.start_upload(principal, repository, algorithm).await
        }
    }

    async fn mount_from_any(
        &self,
        principal: &Principal,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let page = PageRequest {
            last: None,
            limit: MOUNT_CANDIDATES,
        };
        let sources = self.storage.list_blob_repositories(digest, page).await?;
        for from in &sources.items {
            if self.may_pull(principal, from, digest)
                && self.storage.mount_blob(from, repository, digest).await?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
