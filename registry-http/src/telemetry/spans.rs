//! One `OpenTelemetry` span per request.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, Method, Version};
use opentelemetry::global::BoxedTracer;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};

use super::observer::RequestObserver;
use super::record::RequestRecord;
use super::span::RequestSpan;
use crate::address::PeerAddress;

/// The longest text of the client in a span, in bytes. Spans are queued in memory until they are sent.
const TEXT_BYTES: usize = 1024;

/// The longest field with the caller's trace, in bytes. A longer one is ignored, as W3C Trace Context, section 3.3.1.5,
/// allows for `tracestate`.
const TRACE_FIELD_BYTES: usize = 512;

/// Creates a span for each request, with the attributes of `OpenTelemetry`'s conventions for HTTP servers, and
/// `registry.repository`, `registry.tag`, `registry.digest` and `registry.request.id`.
///
/// Its parent is the span that is current when the request arrives, or otherwise the one that the client sends, for
/// example in `traceparent`. While the request is worked on, its span is the current one of [`Context`], so that a
/// storage can create children, as [`MeteredStorage`] does.
///
/// A span contains neither the client's principal nor any secret that it sent.
///
/// [`MeteredStorage`]: crate::telemetry::MeteredStorage
#[derive(Debug)]
pub struct RequestSpans {
    tracer: BoxedTracer,
    propagator: Box<dyn TextMapPropagator + Send + Sync>,
}

impl RequestSpans {
    /// Creates spans with `tracer`, as parts of the traces of clients that `propagator` extracts.
    #[must_use]
    pub fn new(tracer: BoxedTracer, propagator: Box<dyn TextMapPropagator + Send + Sync>) -> Self {
        Self { tracer, propagator }
    }
}

impl RequestObserver for RequestSpans {
    fn began(&self, record: &mut RequestRecord, header: &HeaderMap) {
        let current = Context::current();
        let parent = if current.has_active_span() {
            current
        } else {
            self.propagator.extract_with_context(&current, &Fields(header))
        };
        let builder = SpanBuilder::from_name(method(record))
            .with_kind(SpanKind::Server)
            .with_start_time(record.time)
            .with_attributes(of_request(record));
        let span = self.tracer.build_with_context(builder, &parent);
        record.span = RequestSpan::of(parent.with_span(span));
    }

    fn finished(&self, record: &RequestRecord) {
        let Some(context) = record.span.context() else {
            return;
        };
        let span = context.span();
        if span.is_recording() {
            if let Some(route) = route(record.handler) {
                span.update_name(format!("{} {route}", method(record)));
                span.set_attribute(KeyValue::new("http.route", route));
            }
            span.set_attributes(of_outcome(record));
            if let Some(error) = record.error.as_ref().filter(|error| error.code().status() >= 500) {
                // The cause is in the log; it may contain more than readers of traces should know.
                span.set_status(Status::error(error.code().as_str()));
            }
        }
        span.end_with_timestamp(record.time + record.duration);
    }
}

/// Returns what is known when a request begins, which a sampler may use.
fn of_request(record: &RequestRecord) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("http.request.method", method(record)),
        KeyValue::new("url.path", shortened(&record.path)),
        KeyValue::new("url.scheme", if record.is_secure { "https" } else { "http" }),
        KeyValue::new("registry.request.id", record.id.to_string()),
    ];
    if method(record) == OTHER {
        attributes.push(KeyValue::new(
            "http.request.method_original",
            shortened(record.method.as_str()),
        ));
    }
    let optional = [
        ("url.query", record.query.as_deref().map(shortened)),
        ("server.address", record.host.as_ref().map(field)),
        ("user_agent.original", record.user_agent.as_ref().map(field)),
        (
            "client.address",
            record.client().map(|client: IpAddr| client.to_string()),
        ),
        (
            "network.peer.address",
            record
                .peer
                .and_then(|peer| peer.ip())
                .map(|peer| peer.to_string()),
        ),
        (
            "network.protocol.version",
            version(record.version).map(str::to_owned),
        ),
    ];
    for (name, value) in optional {
        attributes.extend(value.map(|value| KeyValue::new(name, value)));
    }
    if let Some(PeerAddress::Tcp(peer)) = record.peer {
        attributes.push(KeyValue::new("network.peer.port", i64::from(peer.port())));
    }
    attributes
}

/// Returns what is known when a request has ended.
fn of_outcome(record: &RequestRecord) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("http.request.body.size", integer(record.received)),
        KeyValue::new("http.response.body.size", integer(record.sent)),
    ];
    if let Some(status) = record.status {
        attributes.push(KeyValue::new("http.response.status_code", i64::from(status)));
    }
    let optional = [
        (
            "registry.repository",
            record.repository.as_ref().map(ToString::to_string),
        ),
        ("registry.tag", record.tag.as_ref().map(ToString::to_string)),
        ("registry.digest", record.digest.as_ref().map(ToString::to_string)),
        (
            "error.type",
            record
                .error
                .as_ref()
                .map(|error| error.code().as_str().to_owned()),
        ),
    ];
    for (name, value) in optional {
        attributes.extend(value.map(|value| KeyValue::new(name, value)));
    }
    attributes
}

/// The name of any method that is not known here.
const OTHER: &str = "_OTHER";

fn method(record: &RequestRecord) -> &'static str {
    match record.method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => OTHER,
    }
}

/// Returns the path of a kind of endpoint, with placeholders.
fn route(handler: &str) -> Option<&'static str> {
    Some(match handler {
        "base" => "/v2/",
        "catalog" => "/v2/_catalog",
        "tags" => "/v2/{name}/tags/list",
        "referrers" => "/v2/{name}/referrers/{digest}",
        "blob" => "/v2/{name}/blobs/{digest}",
        "blob_upload" => "/v2/{name}/blobs/uploads/",
        "blob_upload_chunk" => "/v2/{name}/blobs/uploads/{session}",
        "manifest" => "/v2/{name}/manifests/{reference}",
        _ => return None,
    })
}

const fn version(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        _ => None,
    }
}

fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn field(value: &HeaderValue) -> String {
    shortened(&String::from_utf8_lossy(value.as_bytes()))
}

fn shortened(text: &str) -> String {
    text.get(..text.floor_char_boundary(TEXT_BYTES))
        .unwrap_or_default()
        .to_owned()
}

/// The header fields that may describe a trace.
struct Fields<'a>(&'a HeaderMap);

impl Extractor for Fields<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let value = self.0.get(key).filter(|value| value.len() <= TRACE_FIELD_BYTES)?;
        value.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
