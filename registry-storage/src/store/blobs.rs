//! The facet of blobs, and reading them.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use crate::chain::State;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use registry_core::storage::{Blob, BlobContent, BlobStorage, ByteStream, Page, PageRequest, TagFilter};
use registry_core::{Digest, Error, ErrorCode, RepositoryName};

use super::Store;
use super::edge::{Found, Rescue, read_cached, recall};
use super::looks::is_content_of;
use crate::backend::{Backend, Durability, Expect};
use crate::key::Key;
use crate::record::{BlobBytes, BlobRecord, GrantRecord};

/// Why a blob is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To report that it exists.
    Stat,
    /// To read it.
    Open,
    /// To send it to a client, from wherever that is cheapest.
    Pull,
}

#[async_trait]
impl<B: Backend> BlobStorage for Store<B> {
    /// Returns the size of a blob whose content exists: a client that is told so does not send it, and so would never
    /// heal what was lost.
    async fn stat_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<u64, Error> {
        let blob = self.find_blob(repository, digest, Purpose::Stat).await?;
        Ok(blob.size)
    }

    async fn open_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Blob, Error> {
        self.find_blob(repository, digest, Purpose::Open).await
    }

    async fn pull_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Blob, Error> {
        if let Some(blob) = self.recall_blob(repository, digest).await? {
            return Ok(blob);
        }
        self.find_blob(repository, digest, Purpose::Pull).await
    }

    async fn mount_blob(
        &self,
        from: &RepositoryName,
        to: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, Error> {
        self.note_room(self.mount(from, to, digest).await)
    }

    async fn list_blob_repositories(
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

    async fn delete_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        immutable: Option<TagFilter>,
    ) -> Result<(), Error> {
        self.note_room(self.delete_grant(repository, digest, immutable).await)
    }
}

impl<B: Backend> Store<B> {
    /// Opens a blob whose grant is in memory. What is not found is looked for in the records.
    async fn recall_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<Blob>, Error> {
        let grant = recall::<GrantRecord>(&*self.backend, &Key::grant(digest, repository))?;
        let granted = grant.and_then(Found::visible).and_then(|(grant, _)| grant.blob);
        let Some(granted) = granted else {
            return Ok(None);
        };
        if granted.bytes.is_some() {
            return self.open_content(digest, &granted, Purpose::Pull).await;
        }
        let Some(blob) = recall::<BlobRecord>(&*self.backend, &Key::blob(digest))? else {
            return Ok(None);
        };
        let content = inline_content_of(digest, blob).await?;
        Ok(content.map(|content| Blob {
            size: granted.size,
            content,
        }))
    }

    async fn find_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        purpose: Purpose,
    ) -> Result<Blob, Error> {
        let key = Key::grant(digest, repository);
        // Between the reads of the grant and of the bytes, a delete and a new push may change the name.
        for _ in 0..super::TRANSACTION_ATTEMPTS {
            let Some(granted) = self.granted(&key, purpose).await? else {
                return Err(ErrorCode::BlobUnknown.into());
            };
            if let Some(blob) = self.open_content(digest, &granted, purpose).await? {
                return Ok(blob);
            }
            // The push that healed the blob may have been to another repository.
            let blob = read_cached::<BlobRecord>(&*self.backend, &Key::blob(digest)).await?;
            let named = blob.visible().and_then(|(blob, _)| blob.blob);
            if let Some(named) = named.filter(|named| *named != granted)
                && let Some(blob) = self.open_content(digest, &named, purpose).await?
            {
                return Ok(blob);
            }
            if self.granted(&key, purpose).await? == Some(granted) {
                self.lost_blobs.report(repository, digest, self.clock.now());
                return Err(ErrorCode::BlobUnknown.into());
            }
        }
        Err(super::edge::contended())
    }

    /// Returns what a visible grant names. A grant that was requested without being read is kept from collection.
    async fn granted(&self, key: &Key, purpose: Purpose) -> Result<Option<BlobBytes>, Error> {
        let grant = read_cached::<GrantRecord>(&*self.backend, key).await?;
        let is_kept = purpose == Purpose::Stat && !self.only_reads();
        let grant = if is_kept && grant.state() == State::Condemned {
            let rescue = Rescue {
                key: key.clone(),
                now: self.clock.now(),
                header: PhantomData,
            };
            self.backend.transact(Durability::Synced, rescue).await?
        } else {
            grant.visible()
        };
        Ok(grant.and_then(|(grant, _): (GrantRecord, Bytes)| grant.blob))
    }

    /// Opens content; returns `None` if it does not exist or is not whole.
    async fn open_content(
        &self,
        digest: &Digest,
        bytes: &BlobBytes,
        purpose: Purpose,
    ) -> Result<Option<Blob>, Error> {
        let size = bytes.size;
        let content = match (&bytes.bytes, purpose) {
            (Some(name), Purpose::Stat) => self.backend.open_bytes(name, Expect::SizeNow(size)).await?,
            (Some(name), Purpose::Open) => self.backend.open_bytes(name, Expect::Size(size)).await?,
            (Some(name), Purpose::Pull) => self.backend.open_blob(digest, name, size).await?,
            (None, _) => self.inline_content(digest).await?,
        };
        Ok(content.map(|content| Blob { size, content }))
    }

    /// Returns where the content of a blob is, if a repository may read the blob.
    #[cfg(all(feature = "filesystem", unix))]
    pub(crate) async fn granted_bytes(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<BlobBytes>, Error> {
        let grant = read_cached::<GrantRecord>(&*self.backend, &Key::grant(digest, repository)).await?;
        let Some(granted) = grant.visible().and_then(|(grant, _)| grant.blob) else {
            return Ok(None);
        };
        // If the blob was healed, the grant may still name the lost bytes.
        let named = self.named_bytes(digest).await?;
        Ok(Some(named.unwrap_or(granted)))
    }

    /// Returns where the content of a blob is, if there is such a blob.
    #[cfg(all(feature = "filesystem", unix))]
    pub(crate) async fn named_bytes(&self, digest: &Digest) -> Result<Option<BlobBytes>, Error> {
        let blob = read_cached::<BlobRecord>(&*self.backend, &Key::blob(digest)).await?;
        Ok(blob.visible().and_then(|(blob, _)| blob.blob))
    }

    /// Reads a small blob from its record; returns `None` if it does not exist, or does not match its digest.
    pub(super) async fn inline_content(
        &self,
        digest: &Digest,
    ) -> Result<Option<Arc<dyn BlobContent>>, Error> {
        let blob = read_cached::<BlobRecord>(&*self.backend, &Key::blob(digest)).await?;
        inline_content_of(digest, blob).await
    }
}

/// Returns the content that a record has; `None` if it has none, or does not match its digest.
async fn inline_content_of(
    digest: &Digest,
    blob: Found<BlobRecord>,
) -> Result<Option<Arc<dyn BlobContent>>, Error> {
    if !is_content_of(digest, &blob).await? {
        return Ok(None);
    }
    let inline = blob
        .visible()
        .filter(|(blob, _)| matches!(&blob.blob, Some(BlobBytes { bytes: None, .. })));
    Ok(inline.map(|(_, content)| Arc::new(InlineContent(content)) as _))
}

/// The content of a small blob, read with its record.
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
