//! A storage with timed calls.

use std::sync::Arc;
use std::time::Instant;

use registry_core::{Storage, forward_storage};

use super::metrics::Metrics;
use super::storage_span::StorageSpans;

/// A storage that times the calls by name. The time includes waiting for a body to arrive.
#[derive(Debug)]
pub struct MeteredStorage<S: ?Sized> {
    metrics: Arc<Metrics>,
    driver: &'static str,
    spans: StorageSpans,
    inner: Arc<S>,
}

impl<S: ?Sized + Storage> MeteredStorage<S> {
    /// Times the calls of `inner`, with `driver` as its name in the metrics.
    #[must_use]
    pub fn new(inner: Arc<S>, driver: &'static str, metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            driver,
            spans: StorageSpans::default(),
            inner,
        }
    }

    /// Creates a span for each call whose caller is in a span, such as a request of
    /// [`RequestSpans`](crate::RequestSpans).
    #[cfg(feature = "opentelemetry")]
    #[must_use]
    pub fn with_tracer(mut self, tracer: opentelemetry::global::BoxedTracer) -> Self {
        self.spans = StorageSpans::by(tracer);
        self
    }
}

/// Calls the inner storage and records how long that took.
macro_rules! timed {
    ($self:ident.$method:ident($($argument:expr),*)) => {{
        let span = $self.spans.start(stringify!($method), $self.driver);
        let begin = Instant::now();
        let result = $self.inner.$method($($argument),*).await;
        $self.metrics.observe_storage($self.driver, stringify!($method), begin.elapsed());
        span.end(result.as_ref().err());
        result
    }};
}

forward_storage!(
    BlobStorage, UploadStorage, ManifestStorage, ListStorage for [S: ?Sized + Storage] MeteredStorage<S> => timed
);
