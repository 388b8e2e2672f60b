//! `OpenTelemetry` traces, if the environment asks for them.

mod environment;
mod exporter;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::global::BoxedTracer;
use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{InstrumentationScope, Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use registry_http::MeteredStorage;
use registry_http::{RequestObserver, RequestSpans};

use self::environment::TraceOptions;
use self::exporter::{Exporter, certificates};
use crate::failure::Failure;

const NAME: &str = env!("CARGO_PKG_NAME");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long the last spans may take. A collector that hangs must not delay the end of a server.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// The spans of requests on their way to a collector, if the environment asks for them.
pub(crate) struct Traces {
    started: Option<Started>,
}

struct Started {
    provider: SdkTracerProvider,
    joins_traces: bool,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the variables OTEL_* are read here, once"
)]
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

impl Traces {
    /// Checks the variables `OTEL_*`, and the certificates that they name.
    pub(crate) fn check() -> Result<(), Failure> {
        let options = TraceOptions::read(variables())?;
        let path = options.and_then(|options| options.certificates);
        path.map_or(Ok(()), |path| certificates(&path).map(drop))
    }

    /// Starts what the variables `OTEL_*` ask for. Must be called within a runtime.
    pub(crate) fn start() -> Result<Self, Failure> {
        let Some(options) = TraceOptions::read(variables())? else {
            return Ok(Self { started: None });
        };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(Exporter::new(&options)?)
            .with_resource(resource())
            .build();
        tracing::info!(endpoint = options.endpoint, "requests are traced");
        if !options.without_effect.is_empty() {
            tracing::info!(
                variables = options.without_effect.join(", "),
                "these variables of OpenTelemetry have no effect, because nothing here does what they are about"
            );
        }
        Ok(Self {
            started: Some(Started {
                provider,
                joins_traces: options.joins_traces,
            }),
        })
    }

    /// Returns the observer that creates a span for each request.
    pub(crate) fn observer(&self) -> Option<Arc<dyn RequestObserver>> {
        let started = self.started.as_ref()?;
        let propagator: Box<dyn TextMapPropagator + Send + Sync> = if started.joins_traces {
            Box::new(TraceContextPropagator::new())
        } else {
            Box::new(TextMapCompositePropagator::new(Vec::new()))
        };
        Some(Arc::new(RequestSpans::new(started.tracer(), propagator)))
    }

    /// Creates a span for each storage call too.
    pub(crate) fn follow<S: ?Sized + registry_core::Storage>(
        &self,
        storage: MeteredStorage<S>,
    ) -> MeteredStorage<S> {
        match &self.started {
            Some(started) => storage.with_tracer(started.tracer()),
            None => storage,
        }
    }

    /// Sends what is queued, for at most `limit`, and never longer than [`END_TIMEOUT`].
    pub(crate) async fn shutdown(&self, limit: Duration) {
        let Some(started) = &self.started else {
            return;
        };
        let provider = started.provider.clone();
        // This waits for the thread that exports.
        let end = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(limit.min(END_TIMEOUT)));
        if !matches!(end.await, Ok(Ok(()))) {
            tracing::warn!("the last spans were not sent in time");
        }
    }
}

impl Started {
    fn tracer(&self) -> BoxedTracer {
        let scope = InstrumentationScope::builder(NAME).with_version(VERSION).build();
        BoxedTracer::new(Box::new(self.provider.tracer_with_scope(scope)))
    }
}

/// Returns the resource attributes from the variables. The service is named after this program unless they name it.
fn resource() -> Resource {
    let resource = Resource::builder().build();
    let name = resource.get(&Key::new("service.name"));
    let is_unnamed = name.is_none_or(|name| name.as_str().starts_with("unknown_service"));
    let mut builder = Resource::builder();
    if is_unnamed {
        builder = builder.with_service_name(NAME);
    }
    if resource.get(&Key::new("service.version")).is_none() {
        builder = builder.with_attribute(KeyValue::new("service.version", VERSION));
    }
    builder.build()
}
