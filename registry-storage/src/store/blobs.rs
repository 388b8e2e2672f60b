//! Reading blobs.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use registry_core::chain::State;
use registry_core::storage::{Blob, BlobContent, ByteStream, Page, PageRequest};
use registry_core::{Digest, Error, ErrorCode, RepositoryName};

use super::Store;
use super::edge::{Rescue, peek};
use crate::backend::{Backend, Durability};
use crate::key::Key;
use crate::record::{BlobBytes, BlobRecord, GrantRecord};

impl<B: Backend> Store<B> {
    pub(super) async fn stat_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<u64, Error> {
        let key = Key::grant(digest, repository);
        let grant = peek::<GrantRecord>(&*self.backend, &key).await?;
        let grant = if grant.state() == State::Condemned {
            let rescue = Rescue {
                key,
                now: self.clock.now(),
                header: PhantomData,
            };
            self.backend.transact(Durability::Synced, rescue).await?
        } else {
            grant.visible()
        };
        let bytes = grant.and_then(|(grant, _): (GrantRecord, Bytes)| grant.blob);
        bytes
            .map(|bytes| bytes.size)
            .ok_or_else(|| ErrorCode::BlobUnknown.into())
    }

    pub(super) async fn open_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Blob, Error> {
        let key = Key::grant(digest, repository);
        // Between the read of the grant and that of the bytes a delete and a new push may change the name.
        for _ in 0..super::ATTEMPTS {
            let grant = peek::<GrantRecord>(&*self.backend, &key).await?;
            let Some(BlobBytes { size, bytes }) = grant.visible().and_then(|(grant, _)| grant.blob) else {
                return Err(ErrorCode::BlobUnknown.into());
            };
            let content: Option<Arc<dyn BlobContent>> = match &bytes {
                Some(name) => self.backend.open_bytes(name).await?,
                None => self.inline_content(digest).await?,
            };
            if let Some(content) = content {
                return Ok(Blob { size, content });
            }
            let again = peek::<GrantRecord>(&*self.backend, &key).await?;
            if again.visible().and_then(|(grant, _)| grant.blob) == Some(BlobBytes { size, bytes }) {
                tracing::error!(%repository, %digest, "the bytes of a blob that is in this repository are gone");
                return Err(ErrorCode::Internal.into());
            }
        }
        Err(super::edge::contended())
    }

    /// Returns where the content of a blob is that a repository may read.
    #[cfg(all(feature = "filesystem", unix))]
    pub(crate) async fn granted_bytes(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<BlobBytes>, Error> {
        let grant = peek::<GrantRecord>(&*self.backend, &Key::grant(digest, repository)).await?;
        Ok(grant.visible().and_then(|(grant, _)| grant.blob))
    }

    /// Reads a small blob from its record.
    async fn inline_content(&self, digest: &Digest) -> Result<Option<Arc<dyn BlobContent>>, Error> {
        let blob = peek::<BlobRecord>(&*self.backend, &Key::blob(digest)).await?;
        let inline = blob
            .visible()
            .filter(|(blob, _)| matches!(&blob.blob, Some(BlobBytes { bytes: None, .. })));
        Ok(inline.map(|(_, content)| Arc::new(InlineContent(content)) as _))
    }

    pub(super) async fn list_blob_repositories(
        &self,
        digest: &Digest,
        page: PageRequest,
    ) -> Result<Page<RepositoryName>, Error> {
        let after = match &page.last {
            Some(last) => Some(Key::grant(digest, &last.parse()?)),
            None => None,
        };
        self.list_names(&Key::grants(digest), after, page.limit).await
    }
}

/// The content of a small blob, which was read with its record.
#[derive(Debug)]
struct InlineContent(Bytes);

impl BlobContent for InlineContent {
    fn read(&self, range: Range<u64>) -> ByteStream {
        let length = self.0.len();
        let bound = |at: u64| usize::try_from(at).unwrap_or(length).min(length);
        let content = self
            .0
            .slice(bound(range.start)..bound(range.end).max(bound(range.start)));
        Box::pin(stream::iter((!content.is_empty()).then_some(Ok(content))))
    }
}
