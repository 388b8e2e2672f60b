//! The log of requests, as part of the program's own log.

use std::fmt;

use registry_core::Error;
use registry_core::printable::{Printable, shortened, with_causes};

use super::observer::RequestObserver;
use super::record::RequestRecord;

/// The longest text, in bytes, of an error with its causes, which may quote what a client or another service sent.
const ERROR_BYTES: usize = 4096;

/// Logs one line per request to [`tracing`] with the target `registry_http::access`, and one line with the causes for
/// each failure of the registry itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct AccessLog;

impl AccessLog {
    /// Logs the causes of a failure of the registry itself. Does nothing for any other request.
    pub fn failed(record: &RequestRecord) {
        let Some(error) = record.error.as_ref().filter(|error| error.code().status() >= 500) else {
            return;
        };
        let causes = Causes(error);
        if error.code() == registry_core::ErrorCode::Unavailable {
            // These errors come in floods.
            tracing::warn!(request = %record.id, method = %record.method, path = %Printable(&record.path), "{causes}");
        } else {
            tracing::error!(request = %record.id, method = %record.method, path = %Printable(&record.path), "{causes}");
        }
    }
}

impl RequestObserver for AccessLog {
    fn finished(&self, record: &RequestRecord) {
        tracing::info!(
            target: "registry_http::access",
            method = %record.method,
            path = %Printable(&record.path),
            status = record.status,
            peer = record.peer.map(tracing::field::display),
            client = record.forwarded_for.map(tracing::field::display),
            principal = (!record.principal.is_empty()).then_some(&*record.principal),
            repository = record.repository.as_ref().map(tracing::field::display),
            received = record.received,
            sent = record.sent,
            milliseconds = u64::try_from(record.duration.as_millis()).unwrap_or(u64::MAX),
            complete = record.is_complete,
            id = %record.id,
            "request"
        );
        Self::failed(record);
    }
}

/// An error with all its causes, on one line whatever the texts contain.
pub(super) struct Causes<'a>(pub(super) &'a Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = with_causes(self.0.to_string(), std::error::Error::source(self.0));
        Printable(shortened(&text, ERROR_BYTES).as_ref()).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_stay_on_one_line() {
        let cause = std::io::Error::other("two\nlines\u{1b}[31m, \"quoted\" and ü");
        let shown = Causes(&Error::internal(cause)).to_string();
        let expected = ": two lines\\u{1b}[31m, \"quoted\" and ü";
        assert!(shown.ends_with(expected), "{shown}");
    }
}
