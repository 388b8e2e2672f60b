//! The content of an object while it is sent.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use object_store::path::Path;
use object_store::{GetOptions, GetRange};
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
use registry_core::storage::SignedUrl;
use registry_core::storage::{BlobContent, ByteStream};
use registry_core::{Error, ErrorCode};

use super::error::{convert, failure, is_absent, may_have_happened};
use super::records::wait;
use super::{ObjectStoreBackend, timed_out};
use crate::bytes_name::BytesName;

/// The maximum number of bytes in a chunk.
const CHUNK_BYTES: usize = 1024 * 1024;

/// How many failures in a row, without any progress, reading survives.
const FAILURES_IN_A_ROW: u32 = 3;

/// How long reading waits after the first of them, in milliseconds, and twice as long after each further one.
const FAILURE_PAUSE_MILLIS: u64 = 50;

/// An object that may be read in ranges.
#[derive(Debug)]
pub(super) struct ObjectContent {
    pub(super) backend: ObjectStoreBackend,
    pub(super) path: Path,
    pub(super) name: BytesName,
    /// What it must have, in bytes. It may have been lost since that was checked.
    pub(super) size: Option<u64>,
}

#[async_trait]
impl BlobContent for ObjectContent {
    fn read(&self, range: Range<u64>) -> ByteStream {
        let reading = Reading {
            backend: self.backend.clone(),
            path: self.path.clone(),
            name: self.name.clone(),
            size: self.size,
            left: range,
            body: None,
            chunk: Bytes::new(),
            failures: 0,
        };
        Box::pin(stream::try_unfold(reading, |mut reading| async move {
            Ok(reading.next().await?.map(|chunk| (chunk, reading)))
        }))
    }

    #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
    async fn signed_url(&self) -> Option<SignedUrl> {
        self.backend.signed_url(&self.path).await
    }
}

/// A range that is being read. The content never changes, so reading can continue after a broken connection; the store
/// closes the connection when a client reads slowly.
struct Reading {
    backend: ObjectStoreBackend,
    path: Path,
    name: BytesName,
    size: Option<u64>,
    left: Range<u64>,
    body: Option<BoxStream<'static, object_store::Result<Bytes>>>,
    chunk: Bytes,
    failures: u32,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while self.chunk.is_empty() {
            if self.left.is_empty() {
                return Ok(None);
            }
            match self.receive().await {
                Ok(Some(chunk)) => {
                    self.chunk = chunk;
                    self.failures = 0;
                }
                Ok(None) => {
                    self.note_lost(&OtherLength);
                    return Err(Error::internal(OtherLength));
                }
                Err(error) if is_absent(&error) => {
                    let cause = failure(&error);
                    self.note_lost(&cause);
                    return Err(Error::from(ErrorCode::BlobUnknown).with_cause(cause));
                }
                Err(error) if may_have_happened(&error) && self.failures < FAILURES_IN_A_ROW => {
                    tracing::debug!(error = %failure(&error), path = %self.path, "reading goes on after an error");
                    wait(FAILURE_PAUSE_MILLIS << self.failures).await;
                    self.failures += 1;
                    self.body = None;
                }
                Err(error) => {
                    // A range that begins behind the end is refused. The next request asks for the size.
                    self.backend.seen.remove(&self.name);
                    return Err(convert(error));
                }
            }
        }
        let chunk = self.chunk.split_to(CHUNK_BYTES.min(self.chunk.len()));
        self.left.start += chunk.len() as u64;
        Ok(Some(chunk))
    }

    /// Logs that the object was lost since its size was checked. The next request asks for the size, and so is 404.
    fn note_lost(&self, cause: &(dyn std::error::Error + 'static)) {
        self.backend.seen.remove(&self.name);
        if self.size.is_some() {
            tracing::error!(path = %self.path, cause, "the content of a blob was lost; a push of the blob heals it");
        }
    }

    /// Receives what comes next; `None` if the object ends before it should, or does not have its size.
    async fn receive(&mut self) -> object_store::Result<Option<Bytes>> {
        let body = match &mut self.body {
            Some(body) => body,
            body => {
                let options = GetOptions {
                    range: Some(GetRange::Bounded(self.left.clone())),
                    ..GetOptions::default()
                };
                let request = self.backend.store.get_opts(&self.path, options);
                let response = self.backend.run(0, request).await?;
                if self.size.is_some_and(|size| size != response.meta.size) {
                    return Ok(None);
                }
                body.insert(response.into_stream())
            }
        };
        let next = body.next();
        let next = match self.backend.patience {
            None => next.await,
            Some(patience) => tokio::time::timeout(patience, next)
                .await
                .unwrap_or_else(|elapsed| Some(Err(timed_out(elapsed)))),
        };
        next.transpose()
    }
}

/// An object that ends before, or after, the size in its record.
#[derive(Debug, thiserror::Error)]
#[error("the object does not have the size of its record")]
struct OtherLength;
