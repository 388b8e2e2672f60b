//! The probes of load balancers, on the port of clients.

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use http::{Method, Request, Response};
use http_body_util::{Either, Full};
use hyper::service::Service;

use super::debug::{Page, TEXT, respond, status};
use super::health::ServerHealth;

/// Answers the probes of load balancers, which see only the port of clients, in front of another service.
///
/// | path | answer to GET and HEAD |
/// |---|---|
/// | `/ready`, `/readyz` | 200 if requests should be sent here ([`ServerHealth::is_ready`]), else 503 |
/// | `/live`, `/livez` | 200 |
///
/// The answers say no more than that, as any client may ask. They come from what is known already, without authentication,
/// are not logged, and count for no limit of requests. All else is for the other service.
#[derive(Clone, Debug)]
pub struct Probed<S> {
    inner: S,
    health: ServerHealth,
}

impl<S> Probed<S> {
    /// Wraps `inner`.
    #[must_use]
    pub const fn new(inner: S, health: ServerHealth) -> Self {
        Self { inner, health }
    }

    fn answer(&self, method: &Method, path: &str) -> Option<Response<Full<Bytes>>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        let is_well = match Page::at(path)? {
            Page::Live => true,
            Page::Ready => self.health.is_ready(),
            Page::Health | Page::Down | Page::Up | Page::Startup => return None,
        };
        let text = if is_well { "ok\n" } else { "not ready\n" };
        Some(respond(status(is_well), TEXT, text.into()))
    }
}

impl Probed<()> {
    /// Returns whether probes are answered at `path`, so that nothing else can be served there.
    #[must_use]
    pub fn answers_at(path: &str) -> bool {
        matches!(Page::at(path), Some(Page::Live | Page::Ready))
    }
}

impl<S, A, B> Service<Request<A>> for Probed<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<Either<Full<Bytes>, B>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn call(&self, request: Request<A>) -> Self::Future {
        if let Some(answer) = self.answer(request.method(), request.uri().path()) {
            return std::future::ready(Ok(answer.map(Either::Left))).boxed();
        }
        let response = self.inner.call(request);
        async move { Ok(response.await?.map(Either::Right)) }.boxed()
    }
}
