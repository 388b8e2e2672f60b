//! The metrics of repositories.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use registry_storage::{LargestRepositories, RepositoryUsage};
use tokio::sync::watch;

/// The label of all repositories that are not named: no repository has this name.
const OTHERS: &str = "*";

/// What the largest repositories have, and all others together, as the collector counted it.
#[derive(Debug)]
pub(super) struct RepositoryMetrics(pub(super) watch::Receiver<Arc<LargestRepositories>>);

impl Collector for RepositoryMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let found = Arc::clone(&self.0.borrow());
        let named = |value: fn(&RepositoryUsage) -> Option<u64>| {
            let named = found.largest.iter();
            named.filter_map(move |(repository, usage)| Some((repository.as_str(), value(usage)?)))
        };
        let others = (found.others > 0).then_some(found.other_bytes);
        let bytes = named(|usage| Some(usage.amount().bytes));
        encode(
            &mut encoder,
            "registry_repository_bytes",
            "The bytes of the blobs and manifests that a repository had when the collector counted it",
            &with_others(bytes, others),
        )?;
        let others = found.other_own_bytes.filter(|_| found.others > 0);
        encode(
            &mut encoder,
            "registry_repository_own_bytes",
            "Those of them that no other repository had when that was counted",
            &with_others(named(RepositoryUsage::own_bytes), others),
        )
    }
}

fn with_others<'a>(named: impl Iterator<Item = (&'a str, u64)>, others: Option<u64>) -> Vec<(&'a str, u64)> {
    named.chain(others.map(|others| (OTHERS, others))).collect()
}

/// Encodes a gauge with the label `repository`, if it has a value.
fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: &[(&str, u64)],
) -> Result<(), fmt::Error> {
    if values.is_empty() {
        return Ok(());
    }
    let mut gauges = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (repository, value) in values {
        let value = i64::try_from(*value).unwrap_or(i64::MAX);
        ConstGauge::new(value).encode(gauges.encode_family(&[("repository", *repository)])?)?;
    }
    Ok(())
}
