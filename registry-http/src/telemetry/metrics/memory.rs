//! Metrics of the memory that clients hold.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Metrics;
use crate::memory::{MemoryBudget, MemoryUse};

impl Metrics {
    /// Adds metrics of how much of a budget is used, and how often it refused.
    pub fn add_memory(&self, budget: MemoryBudget) {
        self.register(|registry| registry.register_collector(Box::new(MemoryMetrics(budget))));
    }
}

#[derive(Debug)]
struct MemoryMetrics(MemoryBudget);

impl Collector for MemoryMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let gauges = [
            (
                "registry_http_memory_bytes",
                "Bytes that clients hold",
                self.0.used(),
            ),
            (
                "registry_http_memory_limit_bytes",
                "Bytes that clients may hold",
                self.0.capacity(),
            ),
        ];
        for (name, help, bytes) in gauges {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX)).encode(gauge)?;
        }
        let mut refused = encoder.encode_descriptor(
            "registry_http_memory_refused",
            "What was refused to clients because they, or all together, hold too much",
            None,
            MetricType::Counter,
        )?;
        for wanted in MemoryUse::ALL {
            let labels = [("use", wanted.as_str())];
            ConstCounter::new(self.0.refused(wanted)).encode(refused.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
