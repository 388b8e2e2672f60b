//! Bodies of requests.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;

use crate::error::{Error, ErrorCode};
use crate::storage::Body;

/// Returns the next bytes, which are never empty; `None` at the end.
pub(super) async fn next(body: &mut Body<'_>) -> Result<Option<Bytes>, Error> {
    loop {
        match poll_fn(|context| body.as_mut().poll_next(context)).await {
            Some(Ok(bytes)) if bytes.is_empty() => {}
            Some(result) => return result.map(Some),
            None => return Ok(None),
        }
    }
}

/// Collects a manifest of at most `limit` bytes; `length` is the announced length.
///
/// # Errors
/// [`ErrorCode::ManifestTooLarge`], after which nothing more is read, and those of the body.
pub(super) async fn collect(mut body: Body<'_>, length: Option<u64>, limit: usize) -> Result<Bytes, Error> {
    let too_large = || Error::from(ErrorCode::ManifestTooLarge);
    if length.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let Some(first) = next(&mut body).await? else {
        return Ok(Bytes::new());
    };
    if first.len() > limit {
        return Err(too_large());
    }
    let Some(second) = next(&mut body).await? else {
        return Ok(first);
    };
    // A chunk is a part of a buffer that may be much larger. Pieces of one size, unlike a growing buffer, leave no gaps
    // in memory when many clients stop in the middle.
    let mut left = limit - first.len();
    let mut pieces = Pieces::default();
    pieces.push(&first);
    drop(first);
    let mut chunk = Some(second);
    while let Some(bytes) = chunk {
        left = left.checked_sub(bytes.len()).ok_or_else(too_large)?;
        pieces.push(&bytes);
        drop(bytes);
        chunk = next(&mut body).await?;
    }
    Ok(pieces.join())
}

/// The size of a piece in bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// Collected bytes, in pieces that are all full except the last one.
#[derive(Default)]
struct Pieces(Vec<Vec<u8>>);

impl Pieces {
    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let last = match self.0.last_mut() {
                Some(last) if last.len() < PIECE_BYTES => last,
                _ => {
                    self.0.push(Vec::with_capacity(PIECE_BYTES));
                    continue;
                }
            };
            let (fitting, rest) = bytes.split_at(bytes.len().min(PIECE_BYTES - last.len()));
            last.extend_from_slice(fitting);
            bytes = rest;
        }
    }

    fn join(self) -> Bytes {
        self.0.concat().into()
    }
}

/// The body of a chunk: what was already read of it, then the rest. If its length is known, it ends with
/// [`ErrorCode::SizeInvalid`] before any byte beyond it, or if bytes are missing.
pub(super) struct Chunk<'a> {
    first: Option<Bytes>,
    rest: Body<'a>,
    remaining: Option<u64>,
    /// What runs once all bytes have arrived, before the end is returned.
    last: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
}

impl<'a> Chunk<'a> {
    pub(super) const fn new(first: Option<Bytes>, rest: Body<'a>) -> Self {
        Self {
            first,
            rest,
            remaining: None,
            last: None,
        }
    }

    /// Sets its length in bytes.
    pub(super) fn limited(mut self, length: Option<u64>) -> Self {
        self.remaining = length;
        self
    }

    /// Makes it end only after `last` has completed.
    pub(super) fn and_then(mut self, last: Pin<Box<dyn Future<Output = ()> + Send + 'a>>) -> Self {
        self.last = Some(last);
        self
    }
}

impl Stream for Chunk<'_> {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = match self.first.take() {
            Some(bytes) => Poll::Ready(Some(Ok(bytes))),
            None => self.rest.as_mut().poll_next(context),
        };
        let Some(remaining) = self.remaining else {
            return self.end_with(item, context);
        };
        let wrong = || {
            Poll::Ready(Some(Err(Error::new(
                ErrorCode::SizeInvalid,
                "the chunk does not have the length that Content-Range says",
            ))))
        };
        match item {
            Poll::Ready(Some(Ok(bytes))) => match remaining.checked_sub(bytes.len() as u64) {
                Some(remaining) => {
                    self.remaining = Some(remaining);
                    Poll::Ready(Some(Ok(bytes)))
                }
                None => wrong(),
            },
            Poll::Ready(None) if remaining > 0 => {
                self.remaining = None;
                wrong()
            }
            item => self.end_with(item, context),
        }
    }
}

impl Chunk<'_> {
    fn end_with<T>(&mut self, item: Poll<Option<T>>, context: &mut Context<'_>) -> Poll<Option<T>> {
        if let (Poll::Ready(None), Some(last)) = (&item, &mut self.last) {
            ready!(last.as_mut().poll(context));
            self.last = None;
        }
        item
    }
}
