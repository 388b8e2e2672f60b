//! What observers learn of requests (logs, events, spans), and what operators look at (metrics, health).

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

/// Is told of each request once, when its response was sent or given up.
///
/// It is called where responses are sent, so it must not block.
pub trait Observer: fmt::Debug + Send + Sync + 'static {
    /// A request with this header has begun; [`finished`](Self::finished) follows, whatever becomes of it.
    fn began(&self, _record: &mut RequestRecord, _header: &HeaderMap) {}

    /// A request is over.
    fn finished(&self, record: &RequestRecord);
}

/// Tells several observers, in their order.
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

/// Takes what happened in a registry, for example to notify others.
///
/// A process that is killed may have done something and told nobody. Whoever must not miss that notes it before:
/// [`intend`](Self::intend) is followed by [`accept`](Self::accept) or [`abandon`](Self::abandon), unless the process
/// ends.
pub trait EventSink: fmt::Debug + Send + Sync + 'static {
    /// Notes what a request is about to do, before the storage is asked for it and while it waits. Of several of one
    /// request, the last one counts. There is none of a pull.
    fn intend<'a>(&'a self, _event: &'a Event, _request: &'a RequestRecord) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Takes notice that a request was answered without having done what it intended; where the storage failed
    /// (`is_unclear`) it may have done it nevertheless.
    fn abandon<'a>(&'a self, _request: &'a RequestRecord, _is_unclear: bool) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Takes an event after the storage did what it tells of, and before the client is answered, who waits for the
    /// future: what must not get lost when the process ends has to be safe when it is ready, and it has to be ready
    /// soon. It cannot fail, because what happened did.
    ///
    /// `request` is the request that did it, as far as it is known by then.
    fn accept<'a>(&'a self, event: &'a Event, request: &'a RequestRecord) -> BoxFuture<'a, ()>;
}
