//! Metrics of notifications.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Notifier;
use crate::telemetry::Metrics;

impl Metrics {
    /// Adds metrics of notifications. Endpoints are labels, because there are few, and an operator names them.
    pub fn add_notifier(&self, notifier: Arc<Notifier>) {
        self.register(|registry| registry.register_collector(Box::new(NotificationMetrics(notifier))));
    }
}

#[derive(Debug)]
struct NotificationMetrics(Arc<Notifier>);

impl Collector for NotificationMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let statistics = self.0.statistics();
        let mut events = encoder.encode_descriptor(
            "registry_notifications_events",
            "Events to send, and what became of the tries to send them",
            None,
            MetricType::Counter,
        )?;
        for endpoint in &statistics {
            for (kind, count) in [
                ("Events", endpoint.events),
                ("Successes", endpoint.successes),
                ("Failures", endpoint.failures),
                ("Errors", endpoint.errors),
            ] {
                let labels = [("type", kind), ("endpoint", &endpoint.name)];
                ConstCounter::new(count).encode(events.encode_family(&labels)?)?;
            }
        }
        let mut pending = encoder.encode_descriptor(
            "registry_notifications_pending_total",
            "Events that wait in the outbox",
            None,
            MetricType::Gauge,
        )?;
        for endpoint in &statistics {
            let count = i64::try_from(endpoint.pending).unwrap_or(i64::MAX);
            let labels = [("endpoint", &*endpoint.name)];
            ConstGauge::new(count).encode(pending.encode_family(&labels)?)?;
        }
        let mut answers = encoder.encode_descriptor(
            "registry_notifications_status",
            "What endpoints answered",
            None,
            MetricType::Counter,
        )?;
        for endpoint in &statistics {
            for (code, count) in &endpoint.statuses {
                let code =
                    StatusCode::from_u16(*code).map_or_else(|_| code.to_string(), |code| code.to_string());
                let labels = [("code", &*code), ("endpoint", &endpoint.name)];
                ConstCounter::new(*count).encode(answers.encode_family(&labels)?)?;
            }
        }
        let lost = encoder.encode_descriptor(
            "registry_notifications_lost",
            "Events that were lost because the outbox was full or could not be written",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(self.0.lost()).encode(lost)
    }
}
