//! What clients see of a server: below which path it is, by which URL they reach it, and who they are behind a proxy.

mod fields;
mod origin;
mod prefix;
mod public_url;
mod response;
mod trusted;

use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::header::USER_AGENT;
use http::request::Parts;
use http::{Request, Response};
use hyper::service::Service;

pub use self::fields::{ProxyField, ProxyFields};
use self::origin::Origin;
pub(crate) use self::prefix::Mounted;
pub use self::prefix::{InvalidPrefix, Prefix};
pub use self::public_url::{InvalidPublicUrl, PublicUrl};
pub use self::trusted::TrustedProxies;
use crate::address::PeerAddress;
use crate::log_limit::LogLimit;

/// The client of a request, seen through trusted proxies: [`Proxied`] puts it into the extensions of the request. There
/// is none where the request came through a unix socket and no proxy told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// Returns the client's address as a [`Proxied`] found it, or where there is none, that of the peer.
    #[must_use]
    pub fn of(request: &Parts) -> Option<IpAddr> {
        let found = request.extensions.get::<Self>().map(|client| client.0);
        found.or_else(|| request.extensions.get::<PeerAddress>()?.ip())
    }
}

impl PublicUrl {
    /// Returns the URL that a client reached the server by, as a [`Proxied`] found it, or where there is none, as the
    /// request says.
    #[must_use]
    pub fn of(request: &Parts) -> Option<Self> {
        let found = request.extensions.get::<Self>().cloned();
        found.or_else(|| Origin::of(request, &TrustedProxies::none(), &ProxyFields::none()).url())
    }
}

/// What stands in `Location` (RFC 9110, section 10.2.2: a URL, or a reference that is relative to the request's).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Locations {
    /// A path, which is right also behind a proxy for TLS that does not tell of it; a whole URL for what the clients write
    /// that are known to take nothing else there.
    #[default]
    ByClient,
    /// A path.
    Paths,
    /// A whole URL.
    Urls,
}

/// What the field `User-Agent` of clients begins with that take a path for a URL without a host when they write: ollama up
/// to 0.17.4, at least, so pushes nothing. What it reads it resolves.
const URLS_ONLY: [&str; 1] = ["ollama/"];

impl Locations {
    fn are_urls(self, request: &Parts) -> bool {
        let takes_urls_only = || {
            let agent = request
                .headers
                .get(USER_AGENT)
                .and_then(|agent| agent.to_str().ok());
            agent.is_some_and(|agent| URLS_ONLY.iter().any(|prefix| agent.starts_with(prefix)))
        };
        match self {
            Self::ByClient => !request.method.is_safe() && takes_urls_only(),
            Self::Paths => false,
            Self::Urls => true,
        }
    }
}

/// How a [`Proxied`] shows a server; the default is a server at the root of its host, with paths for URLs.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ProxyOptions {
    /// The URL that clients reach the server by, where that is fixed. Else it is what trusted proxies tell, or what
    /// the request says.
    pub url: Option<PublicUrl>,
    /// The path that everything is below of.
    pub prefix: Prefix,
    /// What stands in `Location`.
    pub locations: Locations,
    /// Who is believed what it tells of a request's client.
    pub trusted_proxies: TrustedProxies,
    /// The fields that those write. Whatever stands in others may be what the client wrote.
    pub proxy_fields: ProxyFields,
}

/// A service as clients see it.
///
/// Each request gets its [`ClientAddress`] and [`PublicUrl`] as extensions, for the service within.
#[derive(Clone, Debug)]
pub struct Proxied<S> {
    inner: S,
    options: Arc<ProxyOptions>,
    disbelieved: Arc<LogLimit>,
}

impl<S> Proxied<S> {
    /// Shows `inner`.
    #[must_use]
    pub fn new(inner: S, options: ProxyOptions) -> Self {
        Self {
            inner,
            options: Arc::new(options),
            disbelieved: Arc::new(LogLimit::new()),
        }
    }

    /// Prepares a request. Returns the URL that the paths of its response are below of, where they are to be whole URLs.
    fn receive(&self, parts: &mut Parts) -> Option<PublicUrl> {
        let options = &self.options;
        let origin = Origin::of(parts, &options.trusted_proxies, &options.proxy_fields);
        if let Some(disbelieved) = origin.disbelieved
            && let Some(left_out) = self.disbelieved.take(origin.client)
        {
            tracing::warn!(
                client = origin.client.map(tracing::field::display),
                field = disbelieved.field,
                told = %disbelieved.client,
                left_out = (left_out > 0).then_some(left_out),
                "a trusted proxy passed on a field that tells of another client, and is not among the fields that it writes \
                 (`http.proxyfields`)"
            );
        }
        if let Some(client) = origin.client {
            parts.extensions.insert(ClientAddress(client));
        }
        let url = options.url.clone().or_else(|| origin.url());
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
