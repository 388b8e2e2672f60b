//! How clients see a server: the path it is below, the URL they reach it at, and their own addresses behind a proxy.

mod fields;
mod options;
mod prefix;
mod public_url;
mod reports;
mod response;
mod trusted;

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{Request, Response};
use hyper::service::Service;

pub use self::fields::{ProxyField, ProxyFields};
pub use self::options::{Locations, ProxyOptions};
pub(crate) use self::prefix::Mounted;
pub use self::prefix::{InvalidPrefix, Prefix};
pub use self::public_url::{InvalidPublicUrl, PublicUrl};
use self::reports::Reports;
pub use self::trusted::TrustedProxies;
use crate::connection::Connection;
use crate::log_limit::LogLimit;

/// Wraps a service to show it as clients see it.
///
/// The inner service finds what trusted proxies reported in the [`Connection`] of each request, and the URL that the client
/// used with [`PublicUrl::of`].
#[derive(Clone, Debug)]
pub struct Proxied<S> {
    inner: S,
    options: Arc<ProxyOptions>,
    disbelieved: Arc<LogLimit>,
}

impl<S> Proxied<S> {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: S, options: ProxyOptions) -> Self {
        Self {
            inner,
            options: Arc::new(options),
            disbelieved: Arc::new(LogLimit::new()),
        }
    }

    /// Prepares a request. Returns the URL to prefix to the paths of its response, if they should be full URLs.
    fn receive(&self, parts: &mut Parts) -> Option<PublicUrl> {
        let options = &self.options;
        let reports = Reports::of(parts, &options.trusted_proxies, &options.proxy_fields);
        if let Some(connection) = parts.extensions.get_mut::<Connection>() {
            if let Some(forwarded) = reports.forwarded {
                *connection = connection.clone().with_forwarded(forwarded);
            }
            let client = connection.client();
            if let Some(disbelieved) = reports.disbelieved
                && let Some(left_out) = self.disbelieved.take(client)
            {
                tracing::warn!(
                    client = client.map(tracing::field::display),
                    field = disbelieved.field,
                    told = %disbelieved.client,
                    left_out = (left_out > 0).then_some(left_out),
                    "a trusted proxy passed on a field that tells of another client, and is not among the fields that it \
                     writes (`http.proxyfields`)"
                );
            }
        }
        let url = options.url.clone().or_else(|| PublicUrl::requested(parts));
        let url = url.map(|url| url.below(&options.prefix));
        if let Some(url) = &url {
            parts.extensions.insert(url.clone());
        }
        options.prefix.strip(parts);
        url.filter(|_| options.locations.are_urls(parts))
    }
}

impl<S, A, B> Service<Request<A>> for Proxied<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<B>, S::Error>>;

    fn call(&self, request: Request<A>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let url = self.receive(&mut parts);
        let response = self.inner.call(Request::from_parts(parts, body));
        let options = Arc::clone(&self.options);
        Box::pin(async move {
            let mut response = response.await?;
            response::finish(response.headers_mut(), &options, url.as_ref());
            Ok(response)
        })
    }
}

impl<S, A, B> tower_service::Service<Request<A>> for Proxied<S>
where
    S: tower_service::Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<B>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let url = self.receive(&mut parts);
        let response = self.inner.call(Request::from_parts(parts, body));
        let options = Arc::clone(&self.options);
        Box::pin(async move {
            let mut response = response.await?;
            response::finish(response.headers_mut(), &options, url.as_ref());
            Ok(response)
        })
    }
}
