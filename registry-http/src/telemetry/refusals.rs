//! Refused requests, as part of the program's own log.

use registry_core::printable::Printable;

use super::access_log::Causes;
use super::observer::RequestObserver;
use super::record::RequestRecord;
use crate::log_limit::LogLimit;

/// Logs a line to [`tracing`] for each refused request: who wanted what, and why it was refused.
///
/// The level is `INFO`, the target `registry_http::refusals`. In a flood, some lines are suppressed; the next line
/// reports how many.
///
/// A `GET /v2/` without credentials does not count as refused: with it, clients find out how to log in.
#[derive(Debug)]
pub struct RefusalLog(LogLimit);

impl RefusalLog {
    /// Creates the log.
    #[must_use]
    pub fn new() -> Self {
        Self(LogLimit::new())
    }
}

impl Default for RefusalLog {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestObserver for RefusalLog {
    fn finished(&self, record: &RequestRecord) {
        let is_base = matches!(&*record.path, "/v2/" | "/v2");
        let asks_how = record.status == Some(401) && is_base && !record.has_credentials;
        if !record.is_refused() || asks_how {
            return;
        }
        let Some(left_out) = self.0.take(record.client()) else {
            return;
        };
        tracing::info!(
            target: "registry_http::refusals",
            method = %record.method,
            path = %Printable(&record.path),
            status = record.status,
            reason = record.error.as_ref().map(|error| tracing::field::display(Causes(error))),
            client = record.shown_client(),
            principal = (!record.principal.is_empty()).then_some(&*record.principal),
            left_out = (left_out > 0).then_some(left_out),
            id = %record.id,
            "refused"
        );
    }
}
