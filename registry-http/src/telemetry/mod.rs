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
mod observer;
#[cfg(feature = "metrics")]
mod probes;
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

pub use self::access_log::AccessLog;
#[cfg(feature = "metrics")]
pub use self::debug::DebugService;
pub(crate) use self::exchange::{Exchange, Intake};
#[cfg(feature = "metrics")]
pub use self::health::{CheckOptions, ServerHealth};
pub(crate) use self::intents::RequestIntents;
pub use self::lines::{AuditLevel, LineFormat, LineLog, LineSink};
#[cfg(feature = "metrics")]
pub use self::metered_storage::MeteredStorage;
#[cfg(feature = "metrics")]
pub use self::metrics::Metrics;
pub use self::observer::{EventSink, RequestObserver};
#[cfg(feature = "metrics")]
pub use self::probes::Probed;
pub use self::record::RequestRecord;
pub use self::refusals::RefusalLog;
#[cfg(feature = "opentelemetry")]
pub use self::spans::RequestSpans;
