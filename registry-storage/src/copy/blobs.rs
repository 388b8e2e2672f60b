//! Copying blobs.

use std::pin::pin;
use std::sync::{Mutex, PoisonError};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use registry_core::manifest::ManifestView;
use registry_core::storage::{Blob, ChildKind, PageRequest, UploadKey};
use registry_core::{Digest, Error, ErrorCode};

use super::error::{in_source, in_target};
use super::known::Repository;
use super::{Copy, CopyError, NotCopiedReason, PARALLEL_BLOBS, is_unknown};

/// How many repositories of the target that have a blob are tried for a mount. One suffices unless it is being deleted.
const MOUNTS_TRIED: usize = 3;

/// What it means that the source does not have a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfMissing {
    /// Nobody can pull what names it.
    Fault,
    /// An index may name manifests that are not there.
    Allowed,
    /// It is usual: others distribute it.
    Usual,
}

impl Copy<'_> {
    /// Copies the blobs of a manifest. Returns whether the target has all that it should.
    pub(super) async fn blobs_of(
        &self,
        repository: &Repository,
        view: &ManifestView,
    ) -> Result<bool, CopyError> {
        let needed = view
            .children()
            .iter()
            .filter(|child| child.kind == ChildKind::Blob);
        let needed = needed.map(|child| (&child.digest, IfMissing::Fault));
        let optional = view.optional_children().iter();
        let optional = optional.map(|child| (&child.digest, IfMissing::Usual));
        let copies: Vec<_> = needed
            .chain(optional)
            .map(|(digest, if_missing)| self.blob(repository, digest, if_missing))
            .collect();
        let copies = stream::iter(copies).buffer_unordered(PARALLEL_BLOBS);
        copies.try_fold(true, async |all, one| Ok(all && one)).await
    }

    /// Copies a blob, unless the target has it. Returns whether the target has all that it should.
    pub(super) async fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        if_missing: IfMissing,
    ) -> Result<bool, CopyError> {
        let known = || repository.known().blob(digest);
        if let Some(is_there) = known() {
            return Ok(is_there);
        }
        let _turn = self.turn(digest).await;
        if let Some(is_there) = known() {
            return Ok(is_there);
        }
        let is_there = self.copy_blob(repository, digest, if_missing).await?;
        repository.known().add_blob(digest, is_there);
        Ok(is_there)
    }

    async fn copy_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        if_missing: IfMissing,
    ) -> Result<bool, CopyError> {
        match self.target.stat_blob(&repository.name, digest).await {
            Ok(size) => {
                self.progress.add(size);
                self.count(|report| {
                    report.blobs_there += 1;
                    report.bytes_there = report.bytes_there.saturating_add(size);
                });
                return Ok(true);
            }
            Err(error) if is_unknown(&error) => {}
            Err(error) => return Err(in_target(format!("asking for {digest} of {repository}"))(error)),
        }
        // Nobody closes it.
        let _sending = self.sending.acquire().await.ok();
        // Before a mount, too: a repository gets only what it has in the source.
        let blob = match self.source.open_blob(&repository.name, digest).await {
            Ok(blob) => blob,
            Err(error) if is_unknown(&error) => {
                return Ok(self.missing(repository, digest, if_missing).await);
            }
            Err(error) => return self.unreadable(repository, digest, error).await,
        };
        if self.mount(repository, digest).await? {
            self.progress.add(blob.size);
            self.count(|report| {
                report.blobs_mounted += 1;
                report.bytes_mounted = report.bytes_mounted.saturating_add(blob.size);
            });
            return Ok(true);
        }
        self.send(repository, digest, &blob).await
    }

    async fn missing(&self, repository: &Repository, digest: &Digest, if_missing: IfMissing) -> bool {
        match if_missing {
            IfMissing::Fault => self.fault(repository, digest, NotCopiedReason::Missing).await,
            IfMissing::Allowed => {
                self.count(|report| report.missing += 1);
                self.found(repository, digest, NotCopiedReason::Missing).await;
            }
            IfMissing::Usual => return true,
        }
        false
    }

    /// Reports that a blob cannot be read. A source that is unavailable ends the copy.
    async fn unreadable(
        &self,
        repository: &Repository,
        digest: &Digest,
        error: Error,
    ) -> Result<bool, CopyError> {
        if error.code() != ErrorCode::Internal {
            return Err(in_source(format!("reading {digest} of {repository}"))(error));
        }
        self.fault(repository, digest, NotCopiedReason::Unreadable(error))
            .await;
        Ok(false)
    }

    /// Mounts a blob from a repository of the target that has it; returns `false` if there is none.
    async fn mount(&self, repository: &Repository, digest: &Digest) -> Result<bool, CopyError> {
        let failed = || in_target(format!("mounting {digest} in {repository}"));
        let page = PageRequest {
            last: None,
            limit: MOUNTS_TRIED,
        };
        let others = self.target.list_blob_repositories(digest, page).await;
        for other in others.map_err(failed())?.items {
            match self.target.mount_blob(&other, &repository.name, digest).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                // A quota: the upload says so with its numbers.
                Err(error) if error.code() == ErrorCode::Denied => return Ok(false),
                Err(error) => return Err(failed()(error)),
            }
        }
        Ok(false)
    }

    async fn send(&self, repository: &Repository, digest: &Digest, blob: &Blob) -> Result<bool, CopyError> {
        let failed = || in_target(format!("storing {digest} in {repository}"));
        let algorithm = digest
            .supported_algorithm()
            .map_err(in_source(format!("reading {digest} of {repository}")))?;
        let created = self.target.create_upload(&repository.name, "", algorithm).await;
        let upload = UploadKey {
            repository: repository.name.clone(),
            id: created.map_err(failed())?,
            principal: String::new(),
        };
        let unread: Mutex<Option<Error>> = Mutex::default();
        let content = blob.content.read(0..blob.size);
        let content = content
            .inspect_ok(|chunk| self.progress.add(chunk.len() as u64))
            .inspect_err(|error| {
                *unread.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
            });
        let mut content = pin!(content);
        let finished = self
            .target
            .finish_upload(&upload, digest, None, content.as_mut())
            .await;
        let Err(error) = finished else {
            self.count(|report| {
                report.blobs_sent += 1;
                report.bytes_sent = report.bytes_sent.saturating_add(blob.size);
            });
            return Ok(true);
        };
        // The upload is not continued, so it need not wait for the sweeper.
        drop(self.target.cancel_upload(&upload).await);
        let unread = unread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(cause) = unread {
            return self.unreadable(repository, digest, cause).await;
        }
        if error.code() == ErrorCode::DigestInvalid {
            self.fault(repository, digest, NotCopiedReason::Damaged).await;
        } else {
            self.refused(repository, digest, error).await?;
        }
        Ok(false)
    }
}
