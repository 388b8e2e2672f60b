//! The content of a blob, from the cache or the bucket.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt as _};
use registry_core::storage::{BlobContent, ByteStream, SignedUrl};
use registry_core::{Digest, Error};

use super::blobs::{BlobCache, Place};
use crate::backend::{Backend as _, Expect};
use crate::bytes_name::BytesName;
use crate::object_store::ObjectStoreBackend;

/// The size of a chunk from a file.
const CHUNK_BYTES: u64 = 128 * 1024;

/// A blob that may be in the cache.
#[derive(Clone, Debug)]
pub(in crate::object_store) struct CachedContent {
    pub(in crate::object_store) backend: ObjectStoreBackend,
    pub(in crate::object_store) cache: BlobCache,
    pub(in crate::object_store) digest: Digest,
    pub(in crate::object_store) name: BytesName,
    pub(in crate::object_store) size: u64,
    /// The content in the bucket.
    pub(in crate::object_store) stored: Arc<dyn BlobContent>,
}

#[async_trait]
impl BlobContent for CachedContent {
    fn read(&self, range: Range<u64>) -> ByteStream {
        let reading = Reading {
            content: self.clone(),
            place: None,
            left: range,
        };
        Box::pin(stream::try_unfold(reading, |mut reading| async move {
            Ok(reading.next().await?.map(|chunk| (chunk, reading)))
        }))
    }

    /// A client is not sent to the bucket for what is only in the cache.
    async fn signed_url(&self) -> Option<SignedUrl> {
        let opened = self.backend.open_bytes(&self.name, Expect::Size(self.size)).await;
        opened.ok().flatten()?.signed_url().await
    }
}

impl CachedContent {
    async fn place(&self, range: &Range<u64>) -> Place {
        let whole = || self.stored.read(0..self.size);
        self.cache.place(&self.digest, self.size, range, whole).await
    }
}

/// A range that is being read.
struct Reading {
    content: CachedContent,
    /// `None` until the first chunk is asked for.
    place: Option<Source>,
    left: Range<u64>,
}

enum Source {
    Cache(Place),
    Bucket(ByteStream),
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let place = match self.place.take() {
            Some(place) => place,
            None => Source::Cache(self.content.place(&self.left).await),
        };
        if let Source::Cache(place) = place {
            let readable = match &place {
                Place::File(file) => Some((self.content.size, Arc::clone(file))),
                Place::Growing(reader) => reader.wait(self.left.start).await,
                Place::Bucket => None,
            };
            if let Some((end, file)) = readable
                && let Some(chunk) = self.read_file(end, file).await
            {
                self.place = Some(Source::Cache(place));
                return Ok(Some(chunk));
            }
            self.place = None;
        } else {
            self.place = Some(place);
        }
        self.read_bucket().await
    }

    /// Reads the next chunk from a file that has `end` bytes; `None` if that fails.
    async fn read_file(&mut self, end: u64, file: Arc<File>) -> Option<Bytes> {
        let start = self.left.start;
        let end = end.min(self.left.end).min(start.saturating_add(CHUNK_BYTES));
        let size = usize::try_from(end.saturating_sub(start)).ok()?;
        let cache = &self.content.cache;
        let read = cache.disk().read(move || -> io::Result<BytesMut> {
            let mut buffer = BytesMut::zeroed(size);
            file.read_exact_at(&mut buffer, start)?;
            Ok(buffer)
        });
        match read.await {
            Ok(chunk) => {
                self.left.start = end;
                cache.read_worked();
                Some(chunk.freeze())
            }
            Err(error) => {
                cache.read_failed(&self.content.digest, &error).await;
                None
            }
        }
    }

    /// Reads the next chunk from the bucket, and all that follow.
    async fn read_bucket(&mut self) -> Result<Option<Bytes>, Error> {
        let mut stream = match self.place.take() {
            Some(Source::Bucket(stream)) => stream,
            _ => self.content.stored.read(self.left.clone()),
        };
        let chunk = stream.next().await.transpose()?;
        self.left.start += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        self.place = Some(Source::Bucket(stream));
        Ok(chunk)
    }
}
