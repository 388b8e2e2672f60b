//! Metrics of the storage: whether it writes, how much space it has, and how much is in it.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use registry_http::Metrics;

use crate::storage::AnyStore;

/// Adds what a storage reports about itself at the time of each scrape.
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
        ConstGauge::new(i64::from(self.0.lacks_space().is_some())).encode(gauge)?;
        let mut gauges = Vec::new();
        if let Some(space) = self.0.space() {
            gauges.push((
                "registry_storage_free_bytes",
                "What the disk still takes, beside what is kept for deletes, when its health was checked last",
                space.free,
            ));
            gauges.push((
                "registry_storage_size_bytes",
                "How large the disk is, whoever uses it",
                space.size,
            ));
        }
        if let Some((contents, swept)) = self.0.swept_contents() {
            gauges.push((
                "registry_storage_blobs",
                "Blobs at the last sweep, each counted once, whatever number of repositories has it",
                contents.blobs,
            ));
            gauges.push((
                "registry_storage_blob_bytes",
                "The size of these blobs",
                contents.bytes,
            ));
            gauges.push((
                "registry_storage_swept_timestamp_seconds",
                "When the last sweep ended, in seconds since 1970",
                swept.0 / 1000,
            ));
        }
        for (name, help, value) in gauges {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(gauge)?;
        }
        Ok(())
    }
}
