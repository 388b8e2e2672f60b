//! The body of a response on its way out.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use registry_core::Error;
use registry_core::storage::ByteStream;

use crate::telemetry::Exchange;

/// The body of a response: empty, bytes in memory, or a blob that is read as the client takes it.
///
/// Chunks of a storage are passed on as they are. A body that fails ends with an error, so that a server closes the
/// connection (HTTP/1.1) or resets the stream (HTTP/2): the client never mistakes a part for the whole.
pub struct ResponseBody {
    content: Content,
    /// Bytes that are still to come, if known.
    remaining: Option<u64>,
    exchange: Exchange,
}

enum Content {
    Bytes(Bytes),
    Stream(ByteStream),
    Ended,
}

impl ResponseBody {
    pub(super) fn new(body: registry_core::response::ResponseBody, mut exchange: Exchange) -> Self {
        use registry_core::response::ResponseBody as Core;
        let remaining = body.length();
        let content = match body {
            _ if remaining == Some(0) => Content::Ended,
            Core::Bytes(bytes) => Content::Bytes(bytes),
            body => Content::Stream(body.into_stream()),
        };
        if matches!(content, Content::Ended) {
            exchange.complete();
        }
        Self {
            content,
            remaining,
            exchange,
        }
    }

    /// Counts a chunk.
    fn passed(&mut self, chunk: Bytes) -> Result<Frame<Bytes>, Error> {
        let length = chunk.len() as u64;
        self.exchange.sent(length);
        if let Some(remaining) = &mut self.remaining {
            *remaining = remaining
                .checked_sub(length)
                .ok_or_else(|| Error::internal(WrongLength))?;
            if *remaining == 0 {
                self.end();
            }
        }
        Ok(Frame::data(chunk))
    }

    fn end(&mut self) {
        self.content = Content::Ended;
        self.exchange.complete();
    }

    fn fail(&mut self, error: Error) -> Error {
        self.content = Content::Ended;
        self.exchange.fail(error.clone());
        error
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let next = match &mut self.content {
            Content::Ended => return Poll::Ready(None),
            Content::Bytes(bytes) => Some(Ok(std::mem::take(bytes))),
            Content::Stream(stream) => loop {
                match stream.as_mut().poll_next(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(Ok(chunk))) if chunk.is_empty() => {}
                    Poll::Ready(next) => break next,
                }
            },
        };
        let frame = match next {
            Some(Ok(chunk)) => self.passed(chunk),
            Some(Err(error)) => Err(error),
            None if self.remaining.is_none() => {
                self.end();
                return Poll::Ready(None);
            }
            None => Err(Error::internal(WrongLength)),
        };
        Poll::Ready(Some(frame.map_err(|error| self.fail(error))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Ended) && !self.exchange.is_failed()
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("remaining", &self.remaining)
            .finish_non_exhaustive()
    }
}

/// A storage returned more or fewer bytes than the blob has.
#[derive(Debug, thiserror::Error)]
#[error("the content read does not have the length recorded for it")]
struct WrongLength;

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures_util::stream;
    use http_body_util::BodyExt as _;
    use registry_core::ErrorCode;
    use registry_core::response::ResponseBody as Core;
    use registry_core::storage::BlobContent;

    use super::*;
    use crate::telemetry::{RequestObserver, RequestRecord};

    /// Keeps the last record.
    #[derive(Clone, Debug, Default)]
    struct Last(Arc<Mutex<Option<RequestRecord>>>);

    impl RequestObserver for Last {
        fn finished(&self, record: &RequestRecord) {
            *self.0.lock().unwrap() = Some(record.clone());
        }
    }

    /// Content that yields as many bytes as the first field says, whatever range is read, and then fails if the second
    /// says so.
    #[derive(Debug)]
    struct Wrong(usize, bool);

    impl BlobContent for Wrong {
        fn read(&self, _: std::ops::Range<u64>) -> ByteStream {
            let bytes = Ok(Bytes::from(vec![0; self.0]));
            let failure = self.1.then_some(Err(ErrorCode::Internal.into()));
            Box::pin(stream::iter([bytes].into_iter().chain(failure)))
        }
    }

    /// Sends ten bytes of `content`. Returns how many were sent, whether the body ended well, and the record.
    fn send(content: Wrong) -> (usize, bool, RequestRecord) {
        let last = Last::default();
        let (parts, ()) = http::Request::new(()).into_parts();
        let exchange = Exchange::begin(&parts, Arc::new(last.clone()));
        let body = Core::Blob {
            content: Arc::new(content),
            range: 0..10,
        };
        let mut body = ResponseBody::new(body, exchange);
        assert_eq!(body.size_hint().exact(), Some(10));
        let mut sent = 0;
        let is_well = loop {
            match futures_util::FutureExt::now_or_never(body.frame()).unwrap() {
                Some(Ok(frame)) => sent += frame.into_data().unwrap().len(),
                Some(Err(_)) => break false,
                None => break true,
            }
        };
        assert_eq!(body.is_end_stream(), is_well);
        drop(body);
        let record = last.0.lock().unwrap().take().unwrap();
        (sent, is_well, record)
    }

    #[test]
    fn content_of_the_right_length_is_sent() {
        let (sent, is_well, record) = send(Wrong(10, false));
        assert!(is_well && sent == 10 && record.sent == 10);
        assert!(record.is_complete && record.error.is_none());
    }

    #[test]
    fn a_body_that_cannot_be_read_to_its_end_does_not_end_well() {
        for (content, sent) in [(Wrong(9, false), 9), (Wrong(9, true), 9), (Wrong(11, false), 0)] {
            let wrong = format!("{content:?}");
            let (taken, is_well, record) = send(content);
            assert!(!is_well && taken == sent, "{wrong}");
            assert!(!record.is_complete && record.error.is_some(), "{wrong}");
        }
    }
}
