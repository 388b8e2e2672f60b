//! Streams that are produced step by step.

use alloc::boxed::Box;
use core::pin::Pin;
use core::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;

use crate::error::Error;
use crate::storage::ByteStream;

/// A step in progress: it yields the next bytes and, unless they are the last, what the next step starts from.
pub(super) type Step<T> = Pin<Box<dyn Future<Output = Result<(Bytes, Option<T>), Error>> + Send>>;

/// Returns a stream of the bytes that `step` yields, from `start` on. No item is empty; an error is the last item.
pub(super) fn unfold<T, F>(start: T, step: F) -> ByteStream
where
    T: Send + 'static,
    F: Fn(T) -> Step<T> + Send + Unpin + 'static,
{
    let current = Some(step(start));
    Box::pin(Unfold { current, step })
}

struct Unfold<T, F> {
    current: Option<Step<T>>,
    step: F,
}

impl<T, F: Fn(T) -> Step<T> + Unpin> Stream for Unfold<T, F> {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(current) = &mut self.current else {
                return Poll::Ready(None);
            };
            let Poll::Ready(result) = current.as_mut().poll(context) else {
                return Poll::Pending;
            };
            match result {
                Ok((bytes, next)) => {
                    self.current = next.map(|next| (self.step)(next));
                    if !bytes.is_empty() {
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                }
                Err(error) => {
                    self.current = None;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}
