//! A registry as a hyper and tower service.

mod charges;
mod finish_on_drop;
mod framing;
mod header;
mod request_body;
mod response_body;

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, Method, Request};
use http_body::Body;
use ipnet::IpNet;
use registry_core::challenge::ChallengeError;
use registry_core::policy::Claims;
use registry_core::request::{ResolvedRequest, allowed_methods, clean_target};
use registry_core::{Error, ErrorCode, Registry, Response, Scope, Storage};

use self::charges::{charge_answer, header_size};
use self::finish_on_drop::FinishOnDrop;
pub use self::header::HeaderFields;
pub(crate) use self::header::response_head;
use self::header::{add_fields, expects_continue};
use self::request_body::RequestBody;
pub use self::response_body::ResponseBody;
use crate::access::{AccessControl, ReplaceableAccess};
use crate::authenticate::{self, Anonymous, Authenticator};
use crate::connection::Connection;
use crate::limits::Limits;
use crate::memory::{Account, MemoryUse, PermitKind, Permits};
use crate::proxy::Mounted;
use crate::rate_limit::{Pace, RateLimits};
use crate::server::{BoxError, ConnectionMemory, UnreadRequest};
use crate::tasks::{InterruptedRequests, Tasks};
use crate::telemetry::{AccessLog, EventSink, Exchange, RequestIntents, RequestObserver};

/// A registry as a [hyper](hyper::service::Service) and a [tower](tower_service::Service) service, for any type of
/// request body.
///
/// It needs a tokio runtime with time enabled. Clones are the same service: they share the limit of requests. If a
/// client disconnects during a request that changes something, a task finishes the request. Those tasks end with the
/// [`Server`] that the request came from, or, with any other server, with the last clone.
///
/// [`Server`]: crate::Server
pub struct RegistryService<S: ?Sized + Storage> {
    shared: Arc<Shared<S>>,
    interrupted: Interrupted,
}

/// What all requests share.
struct Shared<S: ?Sized + Storage> {
    registry: Registry<S>,
    limits: Limits,
    access: Arc<ReplaceableAccess>,
    observer: Arc<dyn RequestObserver>,
    events: Option<Arc<dyn EventSink>>,
    rates: Option<Arc<RateLimits>>,
    /// The networks whose clients may be sent elsewhere for content; `None` for all.
    redirected: Option<Arc<[IpNet]>>,
    fields: Arc<HeaderMap>,
    permits: Permits,
    downloads: Permits,
    uploads: Permits,
}

/// Tasks that are aborted when the last clone of the service is dropped.
#[derive(Clone)]
struct Interrupted(Arc<AbortOnDrop>);

struct AbortOnDrop(Tasks);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<S: ?Sized + Storage> RegistryService<S> {
    /// Creates a service that treats every client as the anonymous principal and logs with [`AccessLog`].
    #[must_use]
    pub fn new(registry: Registry<S>, limits: Limits) -> Self {
        let permits = Permits::new(PermitKind::Work, limits.requests);
        let downloads = Permits::new(PermitKind::Download, limits.downloads);
        let uploads = Permits::new(PermitKind::Upload, limits.uploads);
        let access = AccessControl {
            authenticator: Arc::new(Anonymous),
            authorizer: Arc::clone(registry.authorizer()),
            endpoints: Vec::new(),
        };
        Self {
            shared: Arc::new(Shared {
                registry,
                limits,
                access: Arc::new(ReplaceableAccess::new(access)),
                observer: Arc::new(AccessLog),
                events: None,
                rates: None,
                redirected: None,
                fields: Arc::default(),
                permits,
                downloads,
                uploads,
            }),
            interrupted: Interrupted(Arc::new(AbortOnDrop(Tasks::default()))),
        }
    }

    /// Sets the authenticator. A [`ReplaceableAccess`] that was set before no longer has an effect.
    #[must_use]
    pub fn with_authenticator(self, authenticator: Arc<dyn Authenticator>) -> Self {
        let access = AccessControl {
            authenticator,
            ..self.shared.access.current().as_ref().clone()
        };
        self.with_access(Arc::new(ReplaceableAccess::new(access)))
    }

    /// Uses `access` in place of the registry's own authorizer and of any authenticator set before.
    #[must_use]
    pub fn with_access(self, access: Arc<ReplaceableAccess>) -> Self {
        self.with(|shared| shared.access = access)
    }

    /// Notifies `observer` of each request in place of [`AccessLog`].
    #[must_use]
    pub fn with_observer(self, observer: Arc<dyn RequestObserver>) -> Self {
        self.with(|shared| shared.observer = observer)
    }

    /// Sends the events of the registry to `sink`.
    #[must_use]
    pub fn with_event_sink(self, sink: Arc<dyn EventSink>) -> Self {
        self.with(|shared| {
            shared.registry = shared.registry.clone().with_events();
            shared.events = Some(sink);
        })
    }

    /// Limits the rate of requests.
    #[must_use]
    pub fn with_rate_limits(self, limits: RateLimits) -> Self {
        self.with(|shared| shared.rates = Some(Arc::new(limits)))
    }

    /// Sends only clients of these networks elsewhere for content, if the registry
    /// [does that](registry_core::registry::Options::redirect_from_size), because others cannot reach that place. By default, all clients are.
    /// A client whose address is not [known](Connection::client) gets content from the registry.
    #[must_use]
    pub fn with_redirected_networks(self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        self.with(|shared| shared.redirected = Some(networks.into_iter().collect()))
    }

    /// Adds header fields, such as `X-Content-Type-Options`, to every response that has none of the same name.
    #[must_use]
    pub fn with_fields(self, fields: HeaderMap) -> Self {
        self.with(|shared| shared.fields = Arc::new(fields))
    }

    /// Returns the registry.
    #[must_use]
    pub fn registry(&self) -> &Registry<S> {
        &self.shared.registry
    }

    /// Waits for the requests whose client disconnected, for servers that are not of this crate. Cancel safe.
    pub async fn finish_interrupted(&self) {
        self.interrupted.0.0.finished().await;
    }

    /// Answers a request. If the future is dropped after its first poll, a request that changes something is finished by
    /// a task.
    pub fn answer<B>(
        &self,
        request: Request<B>,
    ) -> impl Future<Output = http::Response<ResponseBody>> + Send + use<S, B>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let shared = Arc::clone(&self.shared);
        let (parts, body) = request.into_parts();
        let tasks = match parts.extensions.get::<InterruptedRequests>() {
            Some(InterruptedRequests(tasks)) => tasks.clone(),
            None => self.interrupted.0.0.clone(),
        };
        shared.answer(parts, body, tasks)
    }

    fn with(self, change: impl FnOnce(&mut Shared<S>)) -> Self {
        let mut shared = Shared {
            registry: self.shared.registry.clone(),
            limits: self.shared.limits.clone(),
            access: Arc::clone(&self.shared.access),
            observer: Arc::clone(&self.shared.observer),
            events: self.shared.events.clone(),
            rates: self.shared.rates.clone(),
            redirected: self.shared.redirected.clone(),
            fields: Arc::clone(&self.shared.fields),
            permits: self.shared.permits.clone(),
            downloads: self.shared.downloads.clone(),
            uploads: self.shared.uploads.clone(),
        };
        change(&mut shared);
        Self {
            shared: Arc::new(shared),
            interrupted: self.interrupted,
        }
    }
}

impl<S: ?Sized + Storage> Shared<S> {
    async fn answer<B>(self: Arc<Self>, parts: Parts, body: B, tasks: Tasks) -> http::Response<ResponseBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let exchange = Exchange::begin(&parts, Arc::clone(&self.observer));
        let body = RequestBody::new(
            body,
            self.limits.request_body_timeout,
            exchange.intake(),
            parts.extensions.get::<Arc<ConnectionMemory>>().cloned(),
            expects_continue(&parts.headers),
        );
        let (method, version) = (parts.method.clone(), parts.version);
        let fields = Arc::clone(&self.fields);
        let changes_nothing = matches!(method, Method::GET | Method::HEAD | Method::OPTIONS);
        let span = exchange.record().span.clone();
        let work = span.surround(self.work(parts, body, exchange));
        let (response, mut exchange, is_drained) = if changes_nothing {
            work.await
        } else {
            FinishOnDrop::new(work, tasks).await
        };
        exchange.end_turn();
        let response = if method == Method::HEAD {
            response.without_body()
        } else {
            response
        };
        exchange.answered(&response);
        let mut head = response_head(&response, version, !is_drained);
        add_fields(head.headers_mut(), &fields);
        head.map(|()| ResponseBody::new(response.body, exchange))
    }

    /// Creates the response. Also returns whether the body of the request was read to its end.
    async fn work<B>(
        self: Arc<Self>,
        parts: Parts,
        mut body: RequestBody<B>,
        mut exchange: Exchange,
    ) -> (Response, Exchange, bool)
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // If the framing is wrong, the end of the body is in doubt as much as its content: nothing that follows on the
        // connection is read.
        let (response, is_drained) = match framing::check(&parts) {
            Err(error) => (error.into(), false),
            Ok(()) => {
                let unread: Pin<&mut RequestBody<B>> = Pin::new(&mut body);
                let response = match self.respond(&parts, &mut exchange, unread).await {
                    Ok(response) => response,
                    Err(error) => error.into(),
                };
                let is_drained = body.drain(self.limits.drain, self.limits.drain_timeout).await;
                (response, is_drained)
            }
        };
        if let Some(unread) = parts.extensions.get::<UnreadRequest>().filter(|_| !is_drained) {
            unread.keep(body.into_inner());
        }
        (response, exchange, is_drained)
    }

    /// Answers a request whose framing is sound, within the limits of its client.
    async fn respond(
        &self,
        parts: &Parts,
        exchange: &mut Exchange,
        body: registry_core::storage::Body<'_>,
    ) -> Result<Response, Error> {
        let account = self.account(parts);
        exchange.hold_header(account.charge(header_size(parts), MemoryUse::Request)?);
        let pace = Pace::of(parts);
        if let Some(rates) = &self.rates {
            let client = Connection::of(parts).and_then(Connection::client);
            rates.check_address(client, pace).await?;
        }
        if parts
            .extensions
            .get::<Mounted>()
            .is_some_and(|mounted| mounted.is_outside)
        {
            return Err(ErrorCode::PathUnknown.into());
        }
        let access = self.access.current();
        let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
        let endpoint = access.endpoints.iter().find(|(path, _)| path == parts.uri.path());
        if let Some(answer) = without_identity(parts, target, endpoint.is_some()) {
            return answer;
        }
        if let Some((_, endpoint)) = endpoint {
            self.wait_for_turn(exchange, &account).await?;
            let (principal, response) = endpoint.answer(parts, body).await;
            exchange.set_principal(principal.name());
            return Ok(response);
        }
        let request =
            registry_core::Request::parse(parts.method.as_str(), target, &HeaderFields(&parts.headers));
        let request = request.map(|request| self.registry.resolve(request));
        let namespace = request
            .as_ref()
            .ok()
            .and_then(ResolvedRequest::namespace)
            .cloned();
        let answered = self
            .handle(parts, exchange, body, &access, &account, request)
            .await;
        match (answered, namespace) {
            // The registry adds the namespace to its own answers.
            (Err(error), Some(namespace)) => Ok(Response::from(error).with_namespace(&namespace)),
            (answered, _) => answered,
        }
    }

    /// Returns whether the client may be sent elsewhere for content.
    fn may_be_redirected(&self, parts: &Parts) -> bool {
        let Some(networks) = &self.redirected else {
            return true;
        };
        let client = Connection::of(parts).and_then(Connection::client);
        let client = client.map(|client| client.to_canonical());
        client.is_some_and(|client| networks.iter().any(|network| network.contains(&client)))
    }

    /// Authenticates a request to the registry, waits for a permit, and handles it.
    async fn handle(
        &self,
        parts: &Parts,
        exchange: &mut Exchange,
        body: registry_core::storage::Body<'_>,
        access: &AccessControl,
        account: &Arc<Account>,
        request: Result<ResolvedRequest, Error>,
    ) -> Result<Response, Error> {
        let pace = Pace::of(parts);
        let scopes = || {
            let request = request.as_ref().map(ResolvedRequest::request);
            request.map(Scope::needed_by).unwrap_or_default()
        };
        let refuse = |error: &Error, scopes, hint| {
            authenticate::challenged(error, &*access.authenticator, parts, scopes, hint)
        };
        // A client that may not ask does not learn what is wrong with its request.
        let principal = match access.authenticator.authenticate(parts).await {
            Ok(principal) => principal,
            Err(error) => return Err(refuse(&error, scopes(), Some(ChallengeError::InvalidToken))),
        };
        exchange.set_principal(principal.name());
        if let Some(rates) = &self.rates {
            rates.check_identity(principal.name(), pace).await?;
        }
        let scopes = scopes();
        let is_unknown = principal.is_anonymous() && principal.claims::<Claims>().is_none();
        let asks_version = |request: &ResolvedRequest| *request.request() == registry_core::Request::Version;
        if is_unknown && request.as_ref().is_ok_and(asks_version) {
            let refusal = refuse(&ErrorCode::Unauthorized.into(), Vec::new(), None);
            if refusal.code() == ErrorCode::Unauthorized {
                return Err(refusal);
            }
        }
        let request = request?;
        exchange.set_request(request.request());
        let pieces = self
            .charge_transfer(request.request(), parts, exchange, account)
            .await?;
        self.wait_for_turn(exchange, account).await?;
        let registry = self.registry.clone();
        let registry = registry.with_authorizer(Arc::clone(&access.authorizer));
        let registry = match self.may_be_redirected(parts) {
            true => registry,
            false => registry.without_redirects(),
        };
        let mut response = match &self.events {
            Some(events) => {
                let intents = RequestIntents::new(&**events, exchange.record());
                let handled = registry.handle_resolved(&principal, &request, body, Some(&intents));
                let response = handled.await;
                intents.settle(response.event.as_deref(), response.status).await;
                response
            }
            None => registry.handle_resolved(&principal, &request, body, None).await,
        };
        exchange.release_body();
        drop(pieces);
        charge_answer(&mut response.body, exchange, account)?;
        match &response.error {
            Some(error) if error.code() == ErrorCode::Unauthorized => {
                // Sent only if it is true: there is a token, but its scope is too small. Clients give up on it.
                let hint = (!principal.is_anonymous()).then_some(ChallengeError::InsufficientScope);
                Err(refuse(error, scopes, hint))
            }
            _ => Ok(response),
        }
    }
}

/// Answers what is the same for all clients, so that probes and browsers need not log in: redirects from unclean paths,
/// the root, and the methods of a path.
fn without_identity(parts: &Parts, target: &str, is_endpoint: bool) -> Option<Result<Response, Error>> {
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    let asks_methods = parts.method == Method::OPTIONS;
    if let Some(clean) = clean_target(target) {
        return Some(Ok(Response::moved(clean, !reads && !asks_methods)));
    }
    let path = parts.uri.path();
    if path != "/" && !asks_methods {
        return None;
    }
    let methods = match path {
        "/" => Some("GET, HEAD, OPTIONS"),
        // The server as a whole (RFC 9110, section 9.3.7).
        "*" => Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        _ if is_endpoint => Some("GET, HEAD, POST, OPTIONS"),
        _ => allowed_methods(target),
    };
    Some(match methods {
        Some(_) if reads => Ok(Response::root()),
        Some(methods) if asks_methods => Ok(Response::options(methods)),
        Some(methods) => Err(Error::from(ErrorCode::MethodNotAllowed).with_field("Allow", methods)),
        None => Err(ErrorCode::PathUnknown.into()),
    })
}

impl<S: ?Sized + Storage> Clone for RegistryService<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            interrupted: self.interrupted.clone(),
        }
    }
}

impl<S: ?Sized + Storage> fmt::Debug for RegistryService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryService")
            .field("registry", &self.shared.registry)
            .field("limits", &self.shared.limits)
            .field("access", &self.shared.access)
            .field("observer", &self.shared.observer)
            .finish_non_exhaustive()
    }
}

impl<S, B> hyper::service::Service<Request<B>> for RegistryService<S>
where
    S: ?Sized + Storage,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<ResponseBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<B>) -> Self::Future {
        let answer = self.answer(request);
        Box::pin(async move { Ok(answer.await) })
    }
}

impl<S, B> tower_service::Service<Request<B>> for RegistryService<S>
where
    S: ?Sized + Storage,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<ResponseBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        hyper::service::Service::call(self, request)
    }
}
