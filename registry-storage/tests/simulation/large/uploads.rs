//! Requests for blobs.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use registry_core::storage::{BlobStorage as _, UploadKey, UploadStorage as _};
use registry_core::{Algorithm, ErrorCode, RepositoryName};

use super::client::{Client, attempt};
use super::{Trouble, Work};

impl Client {
    pub(super) async fn push_blob(&mut self) {
        let (repository, at) = (self.repository(), self.blob());
        self.ensure_blob(&repository, at).await;
    }

    pub(super) async fn ensure_blob(&mut self, repository: &RepositoryName, at: usize) {
        let process = Arc::clone(self.process());
        let blobs = Arc::clone(&self.world.blobs);
        let blob = &blobs[at];
        loop {
            let upload = self.upload(repository, &blob.content).await;
            match self
                .request(|| process.commit_upload(&upload, &blob.digest))
                .await
            {
                Ok(()) => break,
                Err(error) => assert!(
                    // What another's request did to the blob meanwhile, or a lost answer.
                    matches!(
                        error.code(),
                        ErrorCode::BlobUploadInvalid | ErrorCode::BlobUploadUnknown
                    ) && (blob.is_deleted || self.is_collecting() || self.world.trouble != Trouble::None),
                    "{error:?}"
                ),
            }
        }
        if !(blob.is_deleted || self.is_collecting()) {
            let size = attempt(&self.world, || process.stat_blob(repository, &blob.digest)).await;
            assert_eq!(size.unwrap(), blob.content.len() as u64);
        }
    }

    /// Starts an upload and sends all of it, again if it was cancelled with its repository.
    pub(super) async fn upload(&mut self, repository: &RepositoryName, content: &Bytes) -> UploadKey {
        loop {
            if let Some(upload) = self.try_upload(repository, content).await {
                return upload;
            }
            assert_eq!(self.world.work, Work::Repository);
        }
    }

    pub(super) async fn try_upload(
        &mut self,
        repository: &RepositoryName,
        content: &Bytes,
    ) -> Option<UploadKey> {
        let process = Arc::clone(self.process());
        let id = self
            .request(|| process.create_upload(repository, "", Algorithm::Sha256))
            .await
            .unwrap();
        let upload = UploadKey {
            repository: repository.clone(),
            id,
            principal: String::new(),
        };
        loop {
            let at = match attempt(&self.world, || process.upload_status(&upload)).await {
                Err(error) if error.code() == ErrorCode::BlobUploadUnknown => return None,
                at => at.unwrap(),
            };
            let rest = content.slice(usize::try_from(at).unwrap()..);
            if rest.is_empty() {
                return Some(upload);
            }
            let append = self.request(|| async {
                let mut body = pin!(stream::iter([Ok(rest.clone())]));
                process.append_upload(&upload, Some(at), body.as_mut()).await
            });
            if let Err(error) = append.await {
                if error.code() == ErrorCode::BlobUploadUnknown {
                    return None;
                }
                if error.code() == ErrorCode::Unavailable && self.world.work == Work::Repository {
                    // A delete of the repository cancelled it meanwhile, as its status says now.
                    continue;
                }
                // The append before it was dropped or lost its answer, after it had its effect.
                assert_eq!(error.code(), ErrorCode::RangeInvalid, "{error:?}");
                assert_ne!(self.world.trouble, Trouble::None);
            }
        }
    }

    /// Commits twice, or commits and cancels, at once and from two processes.
    pub(super) async fn race_on_a_session(&mut self) {
        let (repository, at) = (self.repository(), self.blob());
        let blobs = Arc::clone(&self.world.blobs);
        let blob = &blobs[at];
        let upload = self.upload(&repository, &blob.content).await;
        let [one, two] = &self.world.processes;
        let cancels = self.random.below(2) == 0;
        let turns = self.random.below(100);
        let commit = one.commit_upload(&upload, &blob.digest);
        let other = async {
            crate::wait(turns).await;
            if cancels {
                two.cancel_upload(&upload).await
            } else {
                two.commit_upload(&upload, &blob.digest).await
            }
        };
        let (committed, other) = tokio::join!(commit, other);
        if cancels && self.world.trouble == Trouble::None {
            // A cancel is decided by the session alone.
            if let Err(error) = &other {
                assert_eq!(error.code(), ErrorCode::BlobUploadUnknown, "{error:?}");
            }
        }
        let is_committed = committed.is_ok() || !cancels && other.is_ok();
        for error in [committed.err(), other.err()].into_iter().flatten() {
            let known = [
                ErrorCode::BlobUploadUnknown,
                ErrorCode::BlobUploadInvalid,
                ErrorCode::Unavailable,
            ];
            assert!(known.contains(&error.code()), "{error:?}");
        }
        if is_committed && !(blob.is_deleted || self.is_collecting()) {
            attempt(&self.world, || one.stat_blob(&repository, &blob.digest))
                .await
                .unwrap();
        }
    }

    pub(super) async fn mount(&mut self) {
        let (from, to, at) = (self.repository(), self.repository(), self.blob());
        let process = Arc::clone(self.process());
        let blobs = Arc::clone(&self.world.blobs);
        let mounted = self
            .request(|| process.mount_blob(&from, &to, &blobs[at].digest))
            .await
            .unwrap();
        if mounted && !(blobs[at].is_deleted || self.is_collecting()) {
            attempt(&self.world, || process.stat_blob(&to, &blobs[at].digest))
                .await
                .unwrap();
        }
    }

    pub(super) async fn delete_blob(&mut self) {
        let (repository, at) = (self.repository(), 2 + self.random.below(2));
        let process = Arc::clone(self.process());
        let blobs = Arc::clone(&self.world.blobs);
        assert!(blobs[at].is_deleted);
        if let Err(error) = self
            .request(|| process.delete_blob(&repository, &blobs[at].digest, None))
            .await
        {
            assert_eq!(error.code(), ErrorCode::BlobUnknown, "{error:?}");
        }
    }
}
