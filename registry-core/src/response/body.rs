//! Bodies of responses.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::{IntoIter, Vec};
use core::fmt;
use core::ops::Range;
use core::pin::Pin;
use core::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;

use crate::error::Error;
use crate::storage::{BlobContent, ByteStream};

/// What the body of a response is.
pub enum ResponseBody {
    /// Nothing.
    Empty,
    /// Bytes that are in memory.
    Bytes(Bytes),
    /// The bytes `range` of a blob.
    Blob {
        /// The blob.
        content: Arc<dyn BlobContent>,
        /// The bytes, within the blob.
        range: Range<u64>,
    },
    /// Several parts of a blob with what stands between them.
    Multipart {
        /// The blob.
        content: Arc<dyn BlobContent>,
        /// The body, piece by piece; few.
        pieces: Vec<Piece>,
    },
    /// Bytes that are made while they are sent; their number is not known.
    Stream(ByteStream),
}

/// A piece of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// These bytes.
    Bytes(Bytes),
    /// These bytes of the blob.
    Content(Range<u64>),
}

impl Piece {
    /// Returns the number of bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Content(range) => range.end.saturating_sub(range.start),
        }
    }
}

impl ResponseBody {
    /// Returns the number of bytes, or nothing for a stream.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::Blob { range, .. } => Some(range.end.saturating_sub(range.start)),
            Self::Multipart { pieces, .. } => Some(
                pieces
                    .iter()
                    .fold(0_u64, |sum, piece| sum.saturating_add(piece.length())),
            ),
            Self::Stream(_) => None,
        }
    }

    /// Returns the body as a stream. Nothing is read before it is polled, and dropping it stops the reading.
    #[must_use]
    pub fn into_stream(self) -> ByteStream {
        match self {
            Self::Empty => Pieces::boxed(None, Vec::new()),
            Self::Bytes(bytes) => Pieces::boxed(None, vec![Piece::Bytes(bytes)]),
            Self::Blob { range, .. } if range.is_empty() => Pieces::boxed(None, Vec::new()),
            Self::Blob { content, range } => content.read(range),
            Self::Multipart { content, pieces } => Pieces::boxed(Some(content), pieces),
            Self::Stream(stream) => stream,
        }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Bytes(bytes) => f.debug_tuple("Bytes").field(bytes).finish(),
            Self::Blob { range, .. } => f.debug_tuple("Blob").field(range).finish(),
            Self::Multipart { pieces, .. } => f.debug_tuple("Multipart").field(pieces).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// The pieces of a body, one after the other; one is read at a time.
struct Pieces {
    content: Option<Arc<dyn BlobContent>>,
    rest: IntoIter<Piece>,
    reading: Option<ByteStream>,
}

impl Pieces {
    fn boxed(content: Option<Arc<dyn BlobContent>>, pieces: Vec<Piece>) -> ByteStream {
        Box::pin(Self {
            content,
            rest: pieces.into_iter(),
            reading: None,
        })
    }
}

impl Stream for Pieces {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(reading) = &mut self.reading {
                match reading.as_mut().poll_next(context) {
                    Poll::Ready(None) => self.reading = None,
                    ready_or_pending => return ready_or_pending,
                }
            }
            match (self.rest.next(), &self.content) {
                (Some(Piece::Bytes(bytes)), _) => return Poll::Ready(Some(Ok(bytes))),
                (Some(Piece::Content(range)), Some(content)) => {
                    let reading = content.read(range);
                    self.reading = Some(reading);
                }
                (Some(Piece::Content(_)), None) | (None, _) => return Poll::Ready(None),
            }
        }
    }
}
