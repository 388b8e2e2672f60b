//! Bodies of responses.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::{IntoIter, Vec};
use core::fmt;
use core::ops::Range;
use core::pin::Pin;
use core::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;

use crate::digest::Digest;
use crate::error::Error;
use crate::media_type::MediaType;
use crate::storage::{BlobContent, ByteStream};

/// The body of a response.
pub enum ResponseBody {
    /// No body.
    Empty,
    /// Bytes that are in memory.
    Bytes(Bytes),
    /// Bytes that are in memory, in pieces.
    Pieces(Vec<Bytes>),
    /// The bytes `range` of a blob.
    Blob {
        /// The blob.
        content: Arc<dyn BlobContent>,
        /// The bytes, within the blob.
        range: Range<u64>,
    },
    /// Several parts of a blob, with delimiters and headers in between.
    Multipart {
        /// The blob.
        content: Arc<dyn BlobContent>,
        /// The parts.
        parts: Multipart,
    },
    /// Bytes that are produced while they are sent; their number is not known.
    Stream(ByteStream),
}

/// Parts of a blob as `multipart/byteranges` (RFC 9110, section 14.6). What is between the parts is written while it is
/// sent, so that a thousand parts take little memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multipart {
    parts: Vec<Range<u64>>,
    /// The size of the whole blob in bytes.
    size: u64,
    boundary: String,
}

/// A piece of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// These bytes.
    Bytes(Bytes),
    /// These bytes of the blob.
    Content(Range<u64>),
}

impl Piece {
    fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Content(range) => range.end.saturating_sub(range.start),
        }
    }
}

impl Multipart {
    pub(super) fn new(parts: Vec<Range<u64>>, size: u64, digest: &Digest) -> Self {
        Self {
            parts,
            size,
            // At most 70 characters (RFC 2046). It must not occur in the content, and no content is known to contain
            // its own digest.
            boundary: digest.encoded().chars().take(64).collect(),
        }
    }

    /// Returns the parts, within the blob.
    #[must_use]
    pub fn parts(&self) -> &[Range<u64>] {
        &self.parts
    }

    /// Returns the value of the field `Content-Type`.
    #[must_use]
    pub fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary=\"{}\"", self.boundary)
    }

    /// Returns the number of bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        let pieces = (0..).map_while(|number| self.piece(number));
        pieces.fold(0_u64, |sum, piece| sum.saturating_add(piece.length()))
    }

    /// Returns the piece with this number: two for each part, then the end.
    fn piece(&self, number: usize) -> Option<Piece> {
        let Some(part) = self.parts.get(number / 2) else {
            let end = || Bytes::from(format!("\r\n--{}--\r\n", self.boundary));
            return (number == self.parts.len().saturating_mul(2)).then(|| Piece::Bytes(end()));
        };
        if number % 2 == 1 {
            return Some(Piece::Content(part.clone()));
        }
        let before = if number == 0 { "" } else { "\r\n" };
        let head = format!(
            "{before}--{}\r\nContent-Type: {}\r\nContent-Range: {}\r\n\r\n",
            self.boundary,
            MediaType::OCTET_STREAM,
            content_range(part, self.size)
        );
        Some(Piece::Bytes(Bytes::from(head)))
    }
}

/// Returns the field `Content-Range` of a part of content of `size` bytes.
pub(super) fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1))
}

impl ResponseBody {
    /// Returns the number of bytes; `None` for a stream.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::Pieces(pieces) => Some(pieces.iter().map(|piece| piece.len() as u64).sum()),
            Self::Blob { range, .. } => Some(range.end.saturating_sub(range.start)),
            Self::Multipart { parts, .. } => Some(parts.length()),
            Self::Stream(_) => None,
        }
    }

    /// Returns the body as a stream. Nothing is read before it is polled. Cancel safety: dropping it stops the reading.
    #[must_use]
    pub fn into_stream(self) -> ByteStream {
        match self {
            Self::Empty => InMemory::boxed(Vec::new()),
            Self::Bytes(bytes) => InMemory::boxed(vec![bytes]),
            Self::Pieces(pieces) => InMemory::boxed(pieces),
            Self::Blob { range, .. } if range.is_empty() => InMemory::boxed(Vec::new()),
            Self::Blob { content, range } => content.read(range),
            Self::Multipart { content, parts } => Box::pin(Pieces {
                content,
                parts,
                next: 0,
                reading: None,
            }),
            Self::Stream(stream) => stream,
        }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Bytes(bytes) => f.debug_tuple("Bytes").field(bytes).finish(),
            Self::Pieces(pieces) => f.debug_tuple("Pieces").field(pieces).finish(),
            Self::Blob { range, .. } => f.debug_tuple("Blob").field(range).finish(),
            Self::Multipart { parts, .. } => f.debug_tuple("Multipart").field(parts).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// Bytes that are in memory, piece by piece.
struct InMemory(IntoIter<Bytes>);

impl InMemory {
    fn boxed(pieces: Vec<Bytes>) -> ByteStream {
        Box::pin(Self(pieces.into_iter()))
    }
}

impl Stream for InMemory {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.next().map(Ok))
    }
}

/// The pieces of several parts in order; one is read at a time.
struct Pieces {
    content: Arc<dyn BlobContent>,
    parts: Multipart,
    next: usize,
    reading: Option<ByteStream>,
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
            let piece = self.parts.piece(self.next);
            self.next = self.next.saturating_add(1);
            match piece {
                Some(Piece::Bytes(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                Some(Piece::Content(range)) => self.reading = Some(self.content.read(range)),
                None => return Poll::Ready(None),
            }
        }
    }
}
