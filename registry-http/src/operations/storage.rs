//! A storage whose calls are timed.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use registry_core::storage::{
    Blob, Body, Manifest, NewManifest, Page, PageRequest, ReferrersRequest, TagFilter, UploadKey,
};
use registry_core::{
    Algorithm, Descriptor, Digest, Error, Reference, RepositoryName, Storage, Tag, UploadId,
};

use super::Metrics;
use super::storage_span::StorageSpans;

/// A storage whose calls are timed, by their names. How long a body takes to arrive is part of the time.
#[derive(Debug)]
pub struct MeteredStorage<S: ?Sized> {
    metrics: Arc<Metrics>,
    driver: &'static str,
    spans: StorageSpans,
    inner: Arc<S>,
}

impl<S: ?Sized + Storage> MeteredStorage<S> {
    /// Times the calls of `inner`, which the metrics call `driver`.
    #[must_use]
    pub fn new(inner: Arc<S>, driver: &'static str, metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            driver,
            spans: StorageSpans::default(),
            inner,
        }
    }

    /// Makes a span of each call whose caller is in a span, such as a request of
    /// [`RequestSpans`](crate::RequestSpans).
    #[cfg(feature = "opentelemetry")]
    #[must_use]
    pub fn with_tracer(mut self, tracer: opentelemetry::global::BoxedTracer) -> Self {
        self.spans = StorageSpans::by(tracer);
        self
    }
}

/// Calls the inner storage and notes how long that took.
macro_rules! timed {
    ($self:ident.$method:ident($($argument:expr),*)) => {{
        let span = $self.spans.start(stringify!($method), $self.driver);
        let begin = Instant::now();
        let result = $self.inner.$method($($argument),*).await;
        $self.metrics.observe_storage($self.driver, stringify!($method), begin.elapsed());
        span.end(result.as_ref().err());
        result
    }};
}

#[async_trait]
impl<S: ?Sized + Storage> Storage for MeteredStorage<S> {
    async fn stat_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<u64, Error> {
        timed!(self.stat_blob(repository, digest))
    }

    async fn open_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Blob, Error> {
        timed!(self.open_blob(repository, digest))
    }

    async fn mount_blob(
        &self,
        from: &RepositoryName,
        to: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, Error> {
        timed!(self.mount_blob(from, to, digest))
    }

    async fn list_blob_repositories(
        &self,
        digest: &Digest,
        page: PageRequest,
    ) -> Result<Page<RepositoryName>, Error> {
        timed!(self.list_blob_repositories(digest, page))
    }

    async fn delete_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        immutable: Option<TagFilter>,
    ) -> Result<(), Error> {
        timed!(self.delete_blob(repository, digest, immutable))
    }

    async fn create_upload(
        &self,
        repository: &RepositoryName,
        principal: &str,
        algorithm: Algorithm,
    ) -> Result<UploadId, Error> {
        timed!(self.create_upload(repository, principal, algorithm))
    }

    async fn append_upload(
        &self,
        upload: &UploadKey,
        offset: Option<u64>,
        body: Body<'_>,
    ) -> Result<u64, Error> {
        timed!(self.append_upload(upload, offset, body))
    }

    async fn upload_status(&self, upload: &UploadKey) -> Result<u64, Error> {
        timed!(self.upload_status(upload))
    }

    async fn commit_upload(&self, upload: &UploadKey, digest: &Digest) -> Result<(), Error> {
        timed!(self.commit_upload(upload, digest))
    }

    async fn finish_upload(
        &self,
        upload: &UploadKey,
        digest: &Digest,
        offset: Option<u64>,
        body: Body<'_>,
    ) -> Result<u64, Error> {
        timed!(self.finish_upload(upload, digest, offset, body))
    }

    async fn cancel_upload(&self, upload: &UploadKey) -> Result<(), Error> {
        timed!(self.cancel_upload(upload))
    }

    async fn get_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Manifest, Error> {
        timed!(self.get_manifest(repository, reference))
    }

    async fn stat_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Manifest, Error> {
        timed!(self.stat_manifest(repository, reference))
    }

    async fn put_manifest(&self, repository: &RepositoryName, manifest: NewManifest) -> Result<(), Error> {
        timed!(self.put_manifest(repository, manifest))
    }

    async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        may_delete: Option<TagFilter>,
        immutable: Option<TagFilter>,
    ) -> Result<(), Error> {
        timed!(self.delete_manifest(repository, digest, may_delete, immutable))
    }

    async fn delete_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<(), Error> {
        timed!(self.delete_tag(repository, tag))
    }

    async fn list_tags(&self, repository: &RepositoryName, page: PageRequest) -> Result<Page<Tag>, Error> {
        timed!(self.list_tags(repository, page))
    }

    async fn list_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        request: ReferrersRequest,
    ) -> Result<Page<Descriptor>, Error> {
        timed!(self.list_referrers(repository, subject, request))
    }

    async fn list_repositories(&self, page: PageRequest) -> Result<Page<RepositoryName>, Error> {
        timed!(self.list_repositories(page))
    }
}
