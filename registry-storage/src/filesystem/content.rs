//! The content of a file while it is sent.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use registry_core::Error;
use registry_core::storage::{BlobContent, ByteStream};

use super::chunk_memory::{ChunkMemory, Chunks};
use super::failure::file_error;
use super::opened::OpenedBytes;
use super::reads::{Reading, Reads};

/// An open file.
#[derive(Clone, Debug)]
pub(super) struct FileContent {
    pub(super) opened: Arc<OpenedBytes>,
    pub(super) reads: Arc<Reads>,
    pub(super) memory: ChunkMemory,
}

impl BlobContent for FileContent {
    fn read(&self, range: Range<u64>) -> ByteStream {
        Box::pin(FileStream {
            content: self.clone(),
            rest: range,
            reading: None,
            sent: [None, None],
            chunks: None,
        })
    }
}

/// Reads chunk by chunk, one of them ahead if there is memory: see [`Chunks`] for how many a client that stalls holds.
struct FileStream {
    content: FileContent,
    /// The range for which no read was begun.
    rest: Range<u64>,
    reading: Option<Reading<BytesMut>>,
    /// The chunks that were sent last: once the receiver has released one, its memory is reused for the next. The
    /// receiver asks for a chunk while it still sends the end of the previous one.
    sent: [Option<Bytes>; 2],
    chunks: Option<Chunks>,
}

impl FileStream {
    /// Begins to read the next chunk; returns `None` at the end.
    fn begin_read(&mut self, buffer: BytesMut) -> Option<Reading<BytesMut>> {
        if self.rest.is_empty() {
            return None;
        }
        let chunks = self.content.memory.renew(self.chunks.take());
        let most = chunks.size();
        self.chunks = Some(chunks);
        let start = self.rest.start;
        let end = self.rest.end.min(start.saturating_add(most as u64));
        let size = usize::try_from(end.checked_sub(start)?)
            .ok()
            .filter(|size| *size > 0)?;
        self.rest.start = end;
        let FileContent { opened, reads, .. } = self.content.clone();
        Some(reads.begin(&Arc::clone(&opened.path), move || {
            // A buffer of a larger chunk would keep holding its memory.
            let mut buffer = if buffer.capacity() > 2 * most {
                BytesMut::new()
            } else {
                buffer
            };
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
                let [before, last] = std::mem::take(&mut stream.sent);
                if stream.chunks.as_ref().is_some_and(Chunks::may_read_ahead) {
                    stream.sent = [last, Some(chunk.clone())];
                    let free = before.and_then(|sent| sent.try_into_mut().ok());
                    stream.reading = stream.begin_read(free.unwrap_or_default());
                }
                Poll::Ready(Some(Ok(chunk)))
            }
            Err(error) => {
                stream.rest.start = stream.rest.end;
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}
