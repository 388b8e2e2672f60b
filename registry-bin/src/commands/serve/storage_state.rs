//! Metrics of whether the storage writes.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use registry_http::operations::Metrics;

use crate::storage::AnyStore;

/// Adds what a storage tells of itself, each time that somebody asks.
pub(super) fn add(metrics: &Metrics, store: AnyStore) {
    metrics.register(|registry| registry.register_collector(Box::new(StorageState(store))));
}

#[derive(Debug)]
struct StorageState(AnyStore);

impl Collector for StorageState {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let gauge = encoder.encode_descriptor(
            "registry_storage_writes_stopped",
            "1 while nothing is written after an error of the disk, else 0",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::from(self.0.is_stopped())).encode(gauge)?;
        let gauge = encoder.encode_descriptor(
            "registry_storage_full",
            "1 while pushes are refused because the disk is full, or hardly any space is left, else 0",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::from(self.0.lacks_space().is_some())).encode(gauge)
    }
}
