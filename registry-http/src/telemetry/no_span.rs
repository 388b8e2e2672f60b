//! The stand-in for spans without the feature `opentelemetry`: it does nothing.

/// The span of a request, which does nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestSpan {}

impl RequestSpan {
    pub(crate) const fn identifiers(&self) -> Option<(String, String)> {
        None
    }

    pub(crate) fn surround<F: Future>(self, future: F) -> F {
        future
    }
}
