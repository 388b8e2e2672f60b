//! What observers see of requests (logs, events, spans), and what operators look at (metrics, health).

mod access_log;
#[cfg(feature = "metrics")]
mod debug;
mod exchange;
#[cfg(feature = "metrics")]
mod health;
mod intents;
pub(crate) mod lines;
#[cfg(feature = "metrics")]
mod metered_storage;
#[cfg(feature = "metrics")]
mod metrics;
mod record;
mod refusals;
#[cfg_attr(not(feature = "opentelemetry"), path = "no_span.rs")]
mod span;
#[cfg(feature = "opentelemetry")]
mod spans;
#[cfg(feature = "metrics")]
#[cfg_attr(not(feature = "opentelemetry"), path = "no_storage_span.rs")]
mod storage_span;
#[cfg(test)]
#[cfg(feature = "metrics")]
mod tests;

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::HeaderMap;
use registry_core::Event;

pub use self::access_log::AccessLog;
#[cfg(feature = "metrics")]
pub use self::debug::DebugService;
pub(crate) use self::exchange::{Exchange, Intake};
#[cfg(feature = "metrics")]
pub use self::health::{CheckOptions, Health};
pub(crate) use self::intents::RequestIntents;
pub use self::lines::{AuditLevel, LineFormat, LineLog, LineSink};
#[cfg(feature = "metrics")]
pub use self::metered_storage::MeteredStorage;
#[cfg(feature = "metrics")]
pub use self::metrics::Metrics;
pub use self::record::RequestRecord;
pub use self::refusals::RefusalLog;
pub(crate) use self::span::RequestSpan;
#[cfg(feature = "opentelemetry")]
pub use self::spans::RequestSpans;

/// Is notified of each request once, when its response was sent or given up.
///
/// Its methods are called where responses are sent, so they must not block.
pub trait Observer: fmt::Debug + Send + Sync + 'static {
    /// A request with this header has begun. [`finished`](Self::finished) always follows.
    fn began(&self, _record: &mut RequestRecord, _header: &HeaderMap) {}

    /// A request has ended.
    fn finished(&self, record: &RequestRecord);
}

/// Notifies several observers, in their order.
impl Observer for Vec<Arc<dyn Observer>> {
    fn began(&self, record: &mut RequestRecord, header: &HeaderMap) {
        for observer in self {
            observer.began(record, header);
        }
    }

    fn finished(&self, record: &RequestRecord) {
        for observer in self {
            observer.finished(record);
        }
    }
}

/// Receives the events of a registry, for example to notify other services.
///
/// A process that is killed may have changed something without reporting it. A sink that must not miss that records the
/// intent: [`intend`](Self::intend) is followed by [`accept`](Self::accept) or [`abandon`](Self::abandon), unless the
/// process ends.
pub trait EventSink: fmt::Debug + Send + Sync + 'static {
    /// Records what a request is about to do. It is called before the storage is, and the request waits for it. If a
    /// request calls it several times, the last one counts. Pulls have no intent.
    fn intend<'a>(&'a self, _event: &'a Event, _request: &'a RequestRecord) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Records that a request was answered without having done what it intended. If the storage failed (`is_unclear`),
    /// it may have done it anyway.
    fn abandon<'a>(&'a self, _request: &'a RequestRecord, _is_unclear: bool) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Accepts an event after the storage has done what it describes, and before the client is answered. The client
    /// waits for the future: anything that must survive the end of the process must be durable when it completes, and
    /// it must complete soon. It cannot fail, because the event has already happened.
    ///
    /// `request` is the request that caused the event, as far as it is known by then.
    fn accept<'a>(&'a self, event: &'a Event, request: &'a RequestRecord) -> BoxFuture<'a, ()>;
}
