//! The stand-in for traces without the feature `opentelemetry`: it only warns if the environment asks for traces.

use std::sync::Arc;
use std::time::Duration;

use registry_http::MeteredStorage;
use registry_http::RequestObserver;

use crate::failure::Failure;

pub(crate) struct Traces;

impl Traces {
    /// Without traces, no variable can be wrong.
    #[expect(clippy::unnecessary_wraps, reason = "with the feature it can fail")]
    pub(crate) const fn check() -> Result<(), Failure> {
        Ok(())
    }

    /// Warns if the variables of `OpenTelemetry` ask for traces, because there are none.
    #[expect(clippy::unnecessary_wraps, reason = "with the feature it can fail")]
    #[expect(
        clippy::disallowed_methods,
        reason = "the variables OTEL_* are read here, once"
    )]
    pub(crate) fn start() -> Result<Self, Failure> {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_wanted = match std::env::var_os("OTEL_TRACES_EXPORTER") {
            Some(exporter) if !exporter.is_empty() => exporter != "none",
            _ => is_set("OTEL_EXPORTER_OTLP_ENDPOINT") || is_set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        };
        if is_wanted {
            tracing::warn!(
                "requests are not traced: the program was built without the feature `opentelemetry`"
            );
        }
        Ok(Self)
    }

    pub(crate) const fn observer(&self) -> Option<Arc<dyn RequestObserver>> {
        None
    }

    pub(crate) const fn follow<S: ?Sized>(&self, storage: MeteredStorage<S>) -> MeteredStorage<S> {
        storage
    }

    pub(crate) async fn shutdown(&self, _: Duration) {}
}
