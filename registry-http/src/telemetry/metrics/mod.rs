//! Metrics for Prometheus.

mod memory;

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use registry_core::operation::Action;

use super::observer::RequestObserver;
use super::record::RequestRecord;

/// The buckets of the histograms of durations, in seconds, as in distribution.
const SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The buckets of the histograms of sizes, in bytes.
const BYTES: [f64; 8] = [1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// Counts what a server does. It is a [`RequestObserver`].
///
/// The names are those of the distribution registry if it has the metric. No label contains a repository, a tag or a
/// user, so the number of series is bounded.
pub struct Metrics {
    registry: Mutex<Registry>,
    http: Http,
    storage: Family<Storage, Histogram, fn() -> Histogram>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

struct Http {
    in_flight: Gauge,
    requests: Family<Requests, Counter>,
    durations: Family<HandlerMethod, Histogram, fn() -> Histogram>,
    request_sizes: Family<Handler, Histogram, fn() -> Histogram>,
    response_sizes: Family<Handler, Histogram, fn() -> Histogram>,
    refusals: Family<Refusal, Counter>,
    incomplete: Counter,
    pushed: Counter,
    pulled: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Requests {
    code: u16,
    handler: &'static str,
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandlerMethod {
    handler: &'static str,
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Handler {
    handler: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refusal {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Storage {
    driver: &'static str,
    action: &'static str,
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

fn bytes() -> Histogram {
    Histogram::new(BYTES)
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Creates metrics without observations.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register(
            "registry_build",
            "The version of the server",
            prometheus_client::metrics::info::Info::new(version),
        );
        let http = Http::new(registry.sub_registry_with_prefix("registry_http"));
        registry.register(
            "registry_pushed_bytes",
            "Bytes of the bodies of pushes",
            http.pushed.clone(),
        );
        registry.register(
            "registry_pulled_bytes",
            "Bytes of content that were sent",
            http.pulled.clone(),
        );
        let storage = Family::new_with_constructor(seconds as fn() -> Histogram);
        registry.register(
            "registry_storage_action_seconds",
            "How long calls of the storage take",
            storage.clone(),
        );
        Self {
            registry: Mutex::new(registry),
            http,
            storage,
        }
    }

    /// Registers additional metrics of the embedding program.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Encodes all metrics as `OpenMetrics` text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if prometheus_client::encoding::text::encode(&mut text, &registry).is_err() {
            tracing::error!("the metrics cannot be written");
        }
        text
    }

    pub(super) fn observe_storage(&self, driver: &'static str, action: &'static str, time: Duration) {
        self.storage
            .get_or_create(&Storage { driver, action })
            .observe(time.as_secs_f64());
    }
}

impl Http {
    fn new(registry: &mut Registry) -> Self {
        let http = Self {
            in_flight: Gauge::default(),
            requests: Family::default(),
            durations: Family::new_with_constructor(seconds as fn() -> Histogram),
            request_sizes: Family::new_with_constructor(bytes as fn() -> Histogram),
            response_sizes: Family::new_with_constructor(bytes as fn() -> Histogram),
            refusals: Family::default(),
            incomplete: Counter::default(),
            pushed: Counter::default(),
            pulled: Counter::default(),
        };
        registry.register(
            "in_flight_requests",
            "Requests that are answered now",
            http.in_flight.clone(),
        );
        registry.register("requests", "Requests that were answered", http.requests.clone());
        registry.register(
            "request_duration_seconds",
            "The time from the header of a request to the end of its answer",
            http.durations.clone(),
        );
        registry.register(
            "request_size_bytes",
            "Bytes of the bodies of requests",
            http.request_sizes.clone(),
        );
        registry.register(
            "response_size_bytes",
            "Bytes of the bodies of responses",
            http.response_sizes.clone(),
        );
        registry.register(
            "refused_requests",
            "Requests that were refused: without rights, too often, or for a tag that may not move",
            http.refusals.clone(),
        );
        registry.register(
            "incomplete_responses",
            "Responses that were not sent to their end",
            http.incomplete.clone(),
        );
        http
    }
}

impl RequestObserver for Metrics {
    fn began(&self, _: &mut RequestRecord, _: &HeaderMap) {
        self.http.in_flight.inc();
    }

    fn finished(&self, record: &RequestRecord) {
        let http = &self.http;
        http.in_flight.dec();
        let (handler, method) = (record.handler, method(record));
        let code = record.status.unwrap_or(0);
        http.requests
            .get_or_create(&Requests {
                code,
                handler,
                method,
            })
            .inc();
        http.durations
            .get_or_create(&HandlerMethod { handler, method })
            .observe(record.duration.as_secs_f64());
        let handler = Handler { handler };
        http.request_sizes
            .get_or_create(&handler)
            .observe(as_float(record.received));
        http.response_sizes
            .get_or_create(&handler)
            .observe(as_float(record.sent));
        let reason = match code {
            401 => Some("unauthorized"),
            403 => Some("denied"),
            405 => Some("switched_off"),
            409 => Some("tag_conflict"),
            412 => Some("precondition"),
            429 => Some("too_many_requests"),
            _ => None,
        };
        if let Some(reason) = reason {
            http.refusals.get_or_create(&Refusal { reason }).inc();
        }
        if !record.is_complete {
            http.incomplete.inc();
        }
        match record.action {
            Some(Action::Push) => drop(http.pushed.inc_by(record.received)),
            Some(Action::Pull) => drop(http.pulled.inc_by(record.sent)),
            _ => {}
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a histogram needs no more digits")]
const fn as_float(bytes: u64) -> f64 {
    bytes as f64
}

/// Returns the method as distribution writes it. Unknown methods, which a client may choose freely, do not become
/// labels.
fn method(record: &RequestRecord) -> &'static str {
    match record.method.as_str() {
        "GET" => "get",
        "HEAD" => "head",
        "POST" => "post",
        "PATCH" => "patch",
        "PUT" => "put",
        "DELETE" => "delete",
        "OPTIONS" => "options",
        _ => "other",
    }
}
