//! The service of a debug listener.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;

use super::health::ServerHealth;
use super::metrics::Metrics;

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";
/// The format that `prometheus-client` writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves metrics and health. It has no authentication, so it belongs on an address that only operators can reach.
///
/// | path | answer |
/// |---|---|
/// | that of the metrics | the metrics, as `OpenMetrics` text |
/// | `/debug/health` | 200 with `{}`, or 503 with what fails, in the form of the distribution registry |
/// | `/live`, `/livez` | 200 as long as the process answers |
/// | `/ready`, `/readyz` | 200 if requests should be sent here, with [remarks](ServerHealth::add_remark); otherwise 503 |
/// | `/startup`, `/startupz` | 200 once the server has started; before, 503 with the current phase |
/// | `POST /debug/health/down`, `…/up` | takes the server out of service (`/ready` fails), and puts it back |
#[derive(Clone, Debug)]
pub struct DebugService {
    health: ServerHealth,
    metrics: Option<(String, Arc<Metrics>)>,
}

impl DebugService {
    /// Creates a service that serves only health.
    #[must_use]
    pub const fn new(health: ServerHealth) -> Self {
        Self {
            health,
            metrics: None,
        }
    }

    /// Serves metrics at `path`.
    #[must_use]
    pub fn with_metrics(mut self, path: impl Into<String>, metrics: Arc<Metrics>) -> Self {
        self.metrics = Some((path.into(), metrics));
        self
    }

    /// Returns whether `path` is taken by health, so that metrics cannot be served there.
    #[must_use]
    pub fn has_health_at(path: &str) -> bool {
        Page::at(path).is_some()
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if let Some((_, metrics)) = self.metrics.as_ref().filter(|(at, _)| at == path) {
            return respond(StatusCode::OK, OPEN_METRICS, metrics.encode());
        }
        let Some(page) = Page::at(path) else {
            return respond(StatusCode::NOT_FOUND, TEXT, "not found\n".into());
        };
        let is_allowed = match page {
            Page::Down | Page::Up => method == Method::POST,
            _ => matches!(*method, Method::GET | Method::HEAD),
        };
        if !is_allowed {
            return respond(
                StatusCode::METHOD_NOT_ALLOWED,
                TEXT,
                "method not allowed\n".into(),
            );
        }
        match page {
            Page::Health => {
                let failures = self.health.failures();
                let status = status(failures.is_empty());
                respond(status, JSON, serde_json::to_string(&failures).unwrap_or_default())
            }
            Page::Down | Page::Up => {
                self.health.set_down(page == Page::Down);
                respond(StatusCode::OK, TEXT, String::new())
            }
            Page::Live => respond(StatusCode::OK, TEXT, "ok\n".into()),
            Page::Startup => self.word(self.health.is_started()),
            Page::Ready => self.readiness(),
        }
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        if !self.health.is_ready() {
            return self.word(false);
        }
        let mut text = "ok\n".to_owned();
        for remark in self.health.remarks() {
            text.push_str(&remark);
            text.push('\n');
        }
        respond(StatusCode::OK, TEXT, text)
    }

    fn word(&self, is_well: bool) -> Response<Full<Bytes>> {
        let mut text = match self.health.phase() {
            _ if is_well => "ok".to_owned(),
            Some(phase) => phase,
            None => "not yet, or not any more".to_owned(),
        };
        text.push('\n');
        respond(status(is_well), TEXT, text)
    }
}

/// The pages besides the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Health,
    Down,
    Up,
    Live,
    Ready,
    Startup,
}

impl Page {
    pub(super) fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/debug/health" => Self::Health,
            "/debug/health/down" => Self::Down,
            "/debug/health/up" => Self::Up,
            "/live" | "/livez" => Self::Live,
            "/ready" | "/readyz" => Self::Ready,
            "/startup" | "/startupz" => Self::Startup,
            _ => return None,
        })
    }
}

pub(super) const fn status(is_well: bool) -> StatusCode {
    if is_well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

pub(super) fn respond(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let header = response.headers_mut();
    header.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    header.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl<B> hyper::service::Service<Request<B>> for DebugService {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<B>) -> Self::Future {
        ready(Ok(self.answer(request.method(), request.uri().path())))
    }
}
