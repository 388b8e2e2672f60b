//! The content of a file on its way out.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use registry_core::Error;
use registry_core::storage::{BlobContent, ByteStream};

use super::failure::file_error;
use super::opened::OpenedBytes;
use super::reads::{Reading, Reads};

/// The size of a chunk in bytes. With half of it one client pulled 1.9 instead of 2.2 GiB a second; twice of it would take
/// more memory than clients that stall should have.
const CHUNK: u64 = 512 * 1024;

/// An open file.
#[derive(Clone, Debug)]
pub(super) struct FileContent {
    pub(super) opened: Arc<OpenedBytes>,
    pub(super) reads: Arc<Reads>,
}

impl BlobContent for FileContent {
    fn read(&self, range: Range<u64>) -> ByteStream {
        Box::pin(FileStream {
            content: self.clone(),
            rest: range,
            reading: None,
            sent: None,
        })
    }
}

/// Reads chunk by chunk, one of them ahead, so that a client that stalls holds two.
struct FileStream {
    content: FileContent,
    /// What no read was begun for.
    rest: Range<u64>,
    reading: Option<Reading<BytesMut>>,
    /// The chunk that was sent last: once the receiver is done with it, its memory takes the next one.
    sent: Option<Bytes>,
}

impl FileStream {
    /// Begins to read the next chunk; nothing at the end.
    fn begin_read(&mut self, buffer: BytesMut) -> Option<Reading<BytesMut>> {
        let start = self.rest.start;
        let end = self.rest.end.min(start.saturating_add(CHUNK));
        let size = usize::try_from(end.checked_sub(start)?)
            .ok()
            .filter(|size| *size > 0)?;
        self.rest.start = end;
        let FileContent { opened, reads } = self.content.clone();
        Some(reads.begin(&Arc::clone(&opened.path), move || {
            let mut buffer = buffer;
            buffer.resize(size, 0);
            let read = opened.file.read_at(&mut buffer, start);
            read.map_err(|cause| file_error("read", &opened.path, cause))?;
            Ok(buffer)
        }))
    }
}

impl Stream for FileStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let stream = self.get_mut();
        let begun = stream
            .reading
            .take()
            .or_else(|| stream.begin_read(BytesMut::new()));
        let Some(reading) = begun else {
            return Poll::Ready(None);
        };
        let result = ready!(stream.reading.insert(reading).as_mut().poll(context));
        stream.reading = None;
        match result {
            Ok(buffer) => {
                let chunk = buffer.freeze();
                let sent = stream.sent.replace(chunk.clone());
                let free = sent.and_then(|sent| sent.try_into_mut().ok()).unwrap_or_default();
                stream.reading = stream.begin_read(free);
                Poll::Ready(Some(Ok(chunk)))
            }
            Err(error) => {
                stream.rest.start = stream.rest.end;
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}
