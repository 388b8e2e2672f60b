//! The span of a request.

use futures_util::future::Either;
use opentelemetry::Context;
use opentelemetry::trace::{FutureExt as _, TraceContextExt as _};

/// The span of a request, if requests are traced.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestSpan(Option<Context>);

impl RequestSpan {
    pub(crate) const fn of(context: Context) -> Self {
        Self(Some(context))
    }

    pub(crate) const fn context(&self) -> Option<&Context> {
        self.0.as_ref()
    }

    /// Returns the identifiers of the trace and of the span, in hexadecimal.
    pub(crate) fn identifiers(&self) -> Option<(String, String)> {
        let span = self.0.as_ref()?.span();
        let names = span.span_context();
        names
            .is_valid()
            .then(|| (names.trace_id().to_string(), names.span_id().to_string()))
    }

    /// Makes the span the current one while `future` is polled.
    pub(crate) fn surround<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        match self.0 {
            Some(context) => Either::Left(future.with_context(context)),
            None => Either::Right(future),
        }
    }
}
