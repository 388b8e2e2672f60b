//! What those who operate a server look at: metrics, health, and a service that shows them.

mod debug;
mod health;
mod memory;
mod metrics;
#[cfg(feature = "notifications")]
mod notifications;
mod storage;
#[cfg_attr(not(feature = "opentelemetry"), path = "no_storage_span.rs")]
mod storage_span;
#[cfg(test)]
mod tests;

pub use self::debug::DebugService;
pub use self::health::{CheckOptions, Health};
pub use self::metrics::Metrics;
pub use self::storage::MeteredStorage;
