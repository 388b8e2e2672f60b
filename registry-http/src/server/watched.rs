//! The requests and response bodies of a connection, watched.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::CONNECTION;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::service::Service;

use super::activity::Activity;
use crate::address::PeerAddress;
use crate::service::{BoxError, InterruptedRequests, OverTls};

/// Lets a handler reset the connection of its request, which it finds in the request's extensions.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(feature = "testing"),
    expect(dead_code, reason = "faults of tests use it")
)]
pub(crate) struct ConnectionReset(Arc<Activity>);

#[cfg(feature = "testing")]
impl ConnectionReset {
    /// Makes the client see a reset, not an end, when the connection is closed.
    pub(crate) fn arm(&self) {
        self.0.reset();
    }

    /// Tells whether bytes wait for the socket to take them.
    pub(crate) fn is_writing(&self) -> bool {
        self.0.is_writing()
    }
}

/// The service of one connection.
#[derive(Clone, Debug)]
pub(super) struct WatchedService<S> {
    pub(super) service: S,
    pub(super) activity: Arc<Activity>,
    pub(super) peer: PeerAddress,
    pub(super) is_secure: bool,
    pub(super) interrupted: InterruptedRequests,
}

impl<S, A, B> Service<Request<A>> for WatchedService<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<WatchedBody<B>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn call(&self, mut request: Request<A>) -> Self::Future {
        let extensions = request.extensions_mut();
        extensions.insert(self.peer);
        if self.is_secure {
            extensions.insert(OverTls);
        }
        extensions.insert(self.interrupted.clone());
        extensions.insert(ConnectionReset(Arc::clone(&self.activity)));
        let running = Running::new(&self.activity);
        let response = self.service.call(request);
        Box::pin(async move {
            let response = response.await?;
            let activity = &running.0;
            if response.headers().contains_key(CONNECTION) {
                activity.leave_unread();
            }
            let body = |body| WatchedBody::new(body, Arc::clone(activity));
            Ok(response.map(body))
        })
    }
}

/// A handler that runs.
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

/// A response body that notes when it is read, and when it has nothing to give.
#[derive(Debug)]
pub(super) struct WatchedBody<B> {
    inner: Pin<Box<B>>,
    activity: Arc<Activity>,
    is_waiting: bool,
}

impl<B> WatchedBody<B> {
    fn new(inner: B, activity: Arc<Activity>) -> Self {
        activity.body_began();
        Self {
            inner: Box::pin(inner),
            activity,
            is_waiting: false,
        }
    }
}

impl<B> Body for WatchedBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let result = self.inner.as_mut().poll_frame(context);
        match (result.is_pending(), self.is_waiting) {
            (true, false) => self.activity.waits(),
            (false, true) => self.activity.ready(),
            (true, true) | (false, false) => {}
        }
        self.is_waiting = result.is_pending();
        result
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> Drop for WatchedBody<B> {
    fn drop(&mut self) {
        if self.is_waiting {
            self.activity.ready();
        }
        self.activity.body_ended();
    }
}
