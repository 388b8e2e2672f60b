//! Requests for blobs.

use std::pin::pin;
use std::sync::Arc;

use futures_util::stream;
use registry_core::storage::{BlobStorage as _, UploadKey, UploadStorage as _};
use registry_core::{Algorithm, Digest, Error, ErrorCode, RepositoryName};

use super::Client;

/// What other requests for the same upload, or the same blob, lead to; and that a quota refuses it.
const REFUSALS: [ErrorCode; 3] = [
    ErrorCode::BlobUploadInvalid,
    ErrorCode::BlobUploadUnknown,
    ErrorCode::Denied,
];

impl Client {
    pub(super) fn repository(&mut self) -> RepositoryName {
        let repositories = &self.world.repositories;
        repositories[self.random.below(repositories.len())].clone()
    }

    fn blob(&mut self) -> usize {
        self.random.below(self.world.blobs.len())
    }

    pub(super) async fn push_blob(&mut self) {
        let (repository, at) = (self.repository(), self.blob());
        self.ensure_blob(&repository, at).await;
    }

    /// Uploads a blob, once more if its bytes could not be used.
    pub(super) async fn ensure_blob(&self, repository: &RepositoryName, at: usize) {
        for _ in 0..4 {
            let Some(upload) = self.upload(repository, at).await else {
                return;
            };
            match self
                .process
                .commit_upload(&upload, &self.world.blobs[at].digest)
                .await
            {
                Ok(()) => return,
                Err(error) => assert!(REFUSALS.contains(&error.code()), "{error:?}"),
            }
        }
    }

    /// Starts an upload and sends all of it; returns `None` if a quota refuses that.
    async fn upload(&self, repository: &RepositoryName, at: usize) -> Option<UploadKey> {
        let id = self
            .process
            .create_upload(repository, "", Algorithm::Sha256)
            .await
            .unwrap();
        let upload = UploadKey {
            repository: repository.clone(),
            id,
            principal: String::new(),
        };
        let content = self.world.blobs[at].content.clone();
        let mut body = pin!(stream::iter([Ok(content)]));
        match self.process.append_upload(&upload, Some(0), body.as_mut()).await {
            Ok(_) => Some(upload),
            Err(error) => {
                assert_eq!(error.code(), ErrorCode::Denied, "{error:?}");
                None
            }
        }
    }

    /// The next process.
    fn other(&self) -> Arc<crate::Process> {
        let processes = &self.world.processes;
        Arc::clone(&processes[(self.number + 1) % processes.len()])
    }

    pub(super) async fn cancel_upload(&mut self) {
        let (repository, at, turns) = (self.repository(), self.blob(), self.random.below(60));
        let Some(upload) = self.upload(&repository, at).await else {
            return;
        };
        let other = self.other();
        let commit = self.process.commit_upload(&upload, &self.world.blobs[at].digest);
        let cancel = async {
            crate::wait(turns).await;
            other.cancel_upload(&upload).await
        };
        let (committed, cancelled) = tokio::join!(commit, cancel);
        assert_raced(committed);
        assert_raced(cancelled);
    }

    pub(super) async fn commit_twice(&mut self) {
        let (repository, at, polls) = (self.repository(), self.blob(), self.random.below(40));
        let Some(upload) = self.upload(&repository, at).await else {
            return;
        };
        let digest = &self.world.blobs[at].digest;
        if let Some(committed) = crate::poll_times(self.process.commit_upload(&upload, digest), polls).await {
            assert_raced(committed);
        }
        assert_raced(self.other().commit_upload(&upload, digest).await);
    }

    /// Begins the upload that all clients use.
    pub(super) async fn append(&mut self) {
        let repository = self.repository();
        let upload = self.upload(&repository, 0).await;
        *self.world.upload.lock().unwrap() = upload;
    }

    fn begun_upload(&self) -> Option<UploadKey> {
        self.world.upload.lock().unwrap().clone()
    }

    /// Commits that upload by the digest with this number.
    pub(super) async fn commit(&self, at: usize) {
        if let Some(upload) = self.begun_upload() {
            let digest = &self.world.blobs[at].digest;
            assert_raced(self.process.commit_upload(&upload, digest).await);
        }
    }

    /// Commits that upload by a digest that it does not have. Its bytes are complete then: the digest has an algorithm for
    /// which they are read once more.
    pub(super) async fn commit_wrongly(&self) {
        if let Some(upload) = self.begun_upload() {
            let wrong = Digest::of(Algorithm::Sha512, b"other content");
            let refused = self.process.commit_upload(&upload, &wrong).await.unwrap_err();
            if refused.code() != ErrorCode::DigestInvalid {
                assert_raced(Err(refused));
            }
        }
    }

    pub(super) async fn cancel(&self) {
        if let Some(upload) = self.begun_upload() {
            assert_raced(self.process.cancel_upload(&upload).await);
        }
    }

    pub(super) async fn mount(&mut self) {
        let (from, at) = (self.repository(), self.blob());
        let mut repositories = self.world.repositories.iter();
        let to = repositories.find(|to| **to != from).unwrap();
        let digest = &self.world.blobs[at].digest;
        match self.process.mount_blob(&from, to, digest).await {
            Ok(_) => {}
            Err(error) => assert_eq!(error.code(), ErrorCode::Denied, "{error:?}"),
        }
    }

    pub(super) async fn delete_blob(&mut self) {
        let (repository, at) = (self.repository(), self.blob());
        let digest = &self.world.blobs[at].digest;
        if let Err(error) = self.process.delete_blob(&repository, digest, None).await {
            assert_eq!(error.code(), ErrorCode::BlobUnknown, "{error:?}");
        }
    }
}

/// Another request had the session meanwhile, or its bytes went with it while they were hashed once more.
fn assert_raced(outcome: Result<(), Error>) {
    if let Err(error) = outcome {
        let also = [ErrorCode::Unavailable, ErrorCode::BlobUnknown];
        let is_known = REFUSALS.contains(&error.code()) || also.contains(&error.code());
        assert!(is_known, "{error:?}");
    }
}
