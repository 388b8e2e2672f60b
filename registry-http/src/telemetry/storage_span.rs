//! Spans of storage calls.

use opentelemetry::global::{BoxedSpan, BoxedTracer};
use opentelemetry::trace::{Span as _, SpanBuilder, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use registry_core::Error;

/// Creates spans of calls, if calls are traced.
#[derive(Debug, Default)]
pub(super) struct StorageSpans(Option<BoxedTracer>);

impl StorageSpans {
    pub(super) const fn by(tracer: BoxedTracer) -> Self {
        Self(Some(tracer))
    }

    /// Starts the span of a call, as a child of the current span; does nothing if that is not recorded.
    pub(super) fn start(&self, action: &'static str, driver: &'static str) -> StorageSpan {
        let Some(tracer) = &self.0 else {
            return StorageSpan(None);
        };
        StorageSpan(Context::map_current(|caller| {
            caller.span().is_recording().then(|| {
                let driver = KeyValue::new("registry.storage.driver", driver);
                let builder = SpanBuilder::from_name(action).with_attributes([driver]);
                tracer.build_with_context(builder, caller)
            })
        }))
    }
}

/// The span of a call in progress. Dropping it ends the span.
#[derive(Debug)]
pub(super) struct StorageSpan(Option<BoxedSpan>);

impl StorageSpan {
    pub(super) fn end(self, error: Option<&Error>) {
        let Some(mut span) = self.0 else {
            return;
        };
        if let Some(error) = error {
            span.set_attribute(KeyValue::new("error.type", error.code().as_str()));
            if error.code().status() >= 500 {
                span.set_status(Status::error(error.code().as_str()));
            }
        }
        span.end();
    }
}
