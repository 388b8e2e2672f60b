//! The watched requests and response bodies of a connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::service::Service;

use super::activity::Activity;
use super::metered::{ConnectionMemory, FULL};
use super::open_streams::Denied;
use super::stream::{BoxError, Stream, StreamTasks, WatchedData};
use crate::connection::Connection;
use crate::memory::{Charge, MemoryUse, Refused};
use crate::tasks::InterruptedRequests;

/// About what a request and its answer hold besides their header and bodies, in bytes: futures, tasks and the record.
const REQUEST_BYTES: usize = 8 * 1024;

/// What an HTTP/1.1 answer over TLS holds besides that while its client takes none of it: an encrypted record, and copies of what
/// follows. Uncharged, 1200 stalled pulls took 141 MiB.
const TLS_ANSWER_BYTES: usize = 32 * 1024;

/// The longest answer in bytes whose end is passed to HTTP/2 before it is sent. The end of a longer one is a frame of
/// its own, so that the stream can still be reset. If the client does not take a shorter one, its connection is cut.
const SMALL_ANSWER_BYTES: u64 = 16 * 1024;

/// Lets a handler reset the connection of its request. It is in the request's extensions.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(feature = "testing"),
    expect(dead_code, reason = "faults of tests use it")
)]
pub(crate) struct ConnectionReset(Arc<Activity>);

#[cfg(feature = "testing")]
impl ConnectionReset {
    /// Makes the client see a reset, not a normal end, when the connection is closed.
    pub(crate) fn arm(&self) {
        self.0.reset();
    }

    /// Returns whether bytes wait for the socket to accept them.
    pub(crate) fn is_writing(&self) -> bool {
        self.0.is_writing()
    }
}

/// The service of one connection.
#[derive(Clone, Debug)]
pub(super) struct WatchedService<S> {
    pub(super) service: S,
    pub(super) activity: Arc<Activity>,
    pub(super) memory: Arc<ConnectionMemory>,
    pub(super) streams: StreamTasks,
    pub(super) connection: Connection,
    pub(super) interrupted: InterruptedRequests,
}

impl<S, A, B> Service<Request<A>> for WatchedService<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
    A: Body + Send + 'static,
    B: Body,
{
    type Response = Response<WatchedBody<B>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn call(&self, mut request: Request<A>) -> Self::Future {
        let version = request.version();
        let charge = match self.charge(version) {
            Ok(charge) => charge,
            Err(refused) => {
                // What follows on an HTTP/1.1 connection is not read.
                self.activity.leave_unread();
                let is_put_out = self.activity.is_put_out();
                self.streams.refuse(is_put_out);
                // While hundreds of addresses leave little to others, what a client holds must be freed at once.
                if version == Version::HTTP_2
                    && !is_put_out
                    && !self.memory.account().is_scarce()
                    && !request.body().is_end_stream()
                    && let Some(refused) = self.memory.refuse_body()
                {
                    self.streams.keep_refused(request.into_body(), refused);
                }
                // What an HTTP/2 client has not taken yet may leave no room for a body; without one, the refusal
                // arrives intact.
                let has_body = version < Version::HTTP_2 || !self.activity.has_answers();
                return Box::pin(async move { Ok(refusal(refused, version, has_body)) });
            }
        };
        let stream = Arc::new(Stream::new(Arc::clone(&self.activity), charge));
        if version == Version::HTTP_2 {
            self.streams.begin(&stream);
            request.extensions_mut().insert(stream.unread().clone());
        }
        let body = (!request.body().is_end_stream()).then(|| self.memory.body_begins());
        self.memory.request_begins();
        let extensions = request.extensions_mut();
        extensions.insert(self.connection.clone());
        extensions.insert(self.interrupted.clone());
        extensions.insert(ConnectionReset(Arc::clone(&self.activity)));
        extensions.insert(Arc::clone(&self.memory));
        let running = Running::new(&self.activity);
        let response = self.service.call(request);
        Box::pin(async move {
            let mut response = response.await?;
            if let Some(body) = body.filter(|_| version == Version::HTTP_2) {
                stream.unread().keep_beside(body);
            }
            let activity = &running.0;
            if response.headers().contains_key(CONNECTION) {
                activity.leave_unread();
            } else if version < Version::HTTP_2 && activity.is_leaving() {
                // A client that is not told would send its next request into a connection that ends.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            Ok(response.map(|body| WatchedBody::new(body, stream, version)))
        })
    }
}

impl<S> WatchedService<S> {
    /// Charges a request that begins.
    fn charge(&self, version: Version) -> Result<Charge, Refused> {
        let account = self.memory.account();
        if version < Version::HTTP_2 {
            let size = if self.connection.tls().is_some() {
                REQUEST_BYTES + TLS_ANSWER_BYTES
            } else {
                REQUEST_BYTES
            };
            return account.charge(size, MemoryUse::Request);
        }
        let mut streams = self.memory.streams();
        let begun = streams.begin(account, self.activity.before(), self.streams.most());
        let charge = match begun {
            Ok(()) => account.charge(REQUEST_BYTES, MemoryUse::Request),
            Err(Denied::Refuse(refused)) => Err(refused),
            Err(Denied::Cut(refused)) => {
                let peer = self.connection.peer();
                tracing::debug!(%peer, "there is no memory for a stream; its connection is cut");
                self.activity.put_out();
                Err(refused)
            }
        };
        charge.inspect_err(|_| streams.refuse())
    }
}

/// The body of a 429 when one address holds most of the memory.
const GREEDY: &str = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"requests of this address hold too much of the server's memory; try again"}]}"#;

/// Creates an answer that holds no memory: over HTTP/2 it is [sent at once](StreamTasks::refuse) or not at all.
fn refusal<B>(refused: Refused, version: Version, has_body: bool) -> Response<WatchedBody<B>> {
    let (status, body) = match refused {
        Refused::Greedy => (StatusCode::TOO_MANY_REQUESTS, GREEDY),
        Refused::Full => (StatusCode::SERVICE_UNAVAILABLE, FULL),
    };
    let body = if has_body { body } else { "" };
    let mut response = Response::new(WatchedBody::Refusal(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    let header = response.headers_mut();
    header.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    header.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    if has_body {
        header.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if version < Version::HTTP_2 {
        header.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A running handler.
struct Running(Arc<Activity>);

impl Running {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.request_began();
        Self(Arc::clone(activity))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

/// A response body that records when it is read, when it has nothing to give, and when the client has taken it.
#[derive(Debug)]
pub(super) enum WatchedBody<B> {
    Watched(Watched<B>),
    /// The rest of a refusal.
    Refusal(Bytes),
}

#[derive(Debug)]
pub(super) struct Watched<B> {
    inner: Pin<Box<B>>,
    stream: Arc<Stream>,
    is_waiting: bool,
    /// The end is reported only after the socket has accepted what comes before.
    ends_late: bool,
    is_read: bool,
    /// The length of the last chunk.
    last: usize,
}

impl<B: Body> WatchedBody<B> {
    fn new(inner: B, stream: Arc<Stream>, version: Version) -> Self {
        stream.body_began();
        let is_small = inner
            .size_hint()
            .upper()
            .is_some_and(|size| size <= SMALL_ANSWER_BYTES);
        Self::Watched(Watched {
            inner: Box::pin(inner),
            stream,
            is_waiting: false,
            ends_late: version == Version::HTTP_2 && !is_small,
            is_read: false,
            last: 0,
        })
    }
}

impl<B> Body for WatchedBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = WatchedData;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<WatchedData>, B::Error>>> {
        let body = match &mut *self {
            Self::Watched(body) => body,
            Self::Refusal(rest) if rest.is_empty() => return Poll::Ready(None),
            Self::Refusal(rest) => {
                let frame = Frame::data(WatchedData::of_nobody(std::mem::take(rest)));
                return Poll::Ready(Some(Ok(frame)));
            }
        };
        if !body.is_read {
            // Otherwise hyper would buffer 256 KiB of each stream for a client that takes nothing.
            if body.last > 0 && !body.inner.is_end_stream() {
                ready!(body.stream.poll_taken(context, body.last / 2));
            }
            let result = body.inner.as_mut().poll_frame(context);
            body.note(result.is_pending());
            match result {
                Poll::Ready(None) => body.is_read = true,
                result => {
                    let (stream, last) = (&body.stream, &mut body.last);
                    let watched = |data: Bytes| {
                        *last = data.len();
                        WatchedData::new(data, stream)
                    };
                    return result.map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(watched))));
                }
            }
        }
        if body.ends_late {
            body.stream.poll_taken(context, 0).map(|()| None)
        } else {
            Poll::Ready(None)
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Watched(body) => body.inner.is_end_stream() && (!body.ends_late || body.stream.is_taken()),
            Self::Refusal(rest) => rest.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Watched(body) => body.inner.size_hint(),
            Self::Refusal(rest) => SizeHint::with_exact(rest.len() as u64),
        }
    }
}

impl<B> Watched<B> {
    fn note(&mut self, is_waiting: bool) {
        match (is_waiting, self.is_waiting) {
            (true, false) => self.stream.waits(),
            (false, true) => self.stream.ready(),
            (true, true) | (false, false) => {}
        }
        self.is_waiting = is_waiting;
    }
}

impl<B> Drop for Watched<B> {
    fn drop(&mut self) {
        self.note(false);
    }
}
