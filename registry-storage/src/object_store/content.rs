//! The content of an object while it is sent.

use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use object_store::path::Path;
use object_store::{Error as StoreError, GetOptions, GetRange};
use registry_core::storage::{BlobContent, ByteStream};
use registry_core::{Error, ErrorCode};

use super::error::{convert, may_have_happened};
use super::{ObjectStoreBackend, timed_out};
use crate::bytes_name::BytesName;

/// The maximum number of bytes in a chunk.
const CHUNK_BYTES: usize = 1024 * 1024;

/// How many failures in a row, without any progress, reading survives.
const FAILURES_IN_A_ROW: u32 = 3;

/// An object that may be read in ranges.
#[derive(Debug)]
pub(super) struct ObjectContent {
    backend: ObjectStoreBackend,
    path: Path,
    name: BytesName,
}

impl ObjectContent {
    pub(super) fn new(backend: ObjectStoreBackend, path: Path, name: BytesName) -> Self {
        Self { backend, path, name }
    }
}

impl BlobContent for ObjectContent {
    fn read(&self, range: Range<u64>) -> ByteStream {
        let reading = Reading {
            backend: self.backend.clone(),
            path: self.path.clone(),
            name: self.name.clone(),
            left: range,
            body: None,
            chunk: Bytes::new(),
            failures: 0,
        };
        Box::pin(stream::try_unfold(reading, |mut reading| async move {
            Ok(reading.next().await?.map(|chunk| (chunk, reading)))
        }))
    }
}

/// A range that is being read. The content never changes, so reading can continue after a broken connection; the store
/// closes the connection when a client reads slowly.
struct Reading {
    backend: ObjectStoreBackend,
    path: Path,
    name: BytesName,
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
                    self.backend.seen.remove(&self.name);
                    return Err(Error::internal(TooShort));
                }
                Err(error @ StoreError::NotFound { .. }) => {
                    self.backend.seen.remove(&self.name);
                    return Err(Error::from(ErrorCode::BlobUnknown).with_cause(error));
                }
                Err(error) if may_have_happened(&error) && self.failures < FAILURES_IN_A_ROW => {
                    tracing::debug!(%error, path = %self.path, "reading goes on after an error");
                    self.failures += 1;
                    self.body = None;
                }
                Err(error) => return Err(convert(error)),
            }
        }
        let chunk = self.chunk.split_to(CHUNK_BYTES.min(self.chunk.len()));
        self.left.start += chunk.len() as u64;
        Ok(Some(chunk))
    }

    async fn receive(&mut self) -> object_store::Result<Option<Bytes>> {
        let body = match &mut self.body {
            Some(body) => body,
            body => {
                let options = GetOptions {
                    range: Some(GetRange::Bounded(self.left.clone())),
                    ..GetOptions::default()
                };
                let request = self.backend.store.get_opts(&self.path, options);
                body.insert(self.backend.run(0, request).await?.into_stream())
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

/// An object that ends before the size in its record.
#[derive(Debug, thiserror::Error)]
#[error("stored bytes end before their size")]
struct TooShort;
