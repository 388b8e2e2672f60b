//! What stands in for spans without the feature `opentelemetry`: there are none.

/// The span of a request, of which there is none.
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
