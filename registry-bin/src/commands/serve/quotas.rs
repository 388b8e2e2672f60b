//! The quotas of a server.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use registry_core::policy::Glob;
use registry_core::quota::Quota;
use registry_storage::QuotaUsage;
use tokio::sync::watch;

use super::reload::{Change, Reloadable, gone};
use crate::config::sections::quotas::quotas;
use crate::config::{Configuration, Loaded};
use crate::failure::Failure;

/// The quotas that are in force. New limits take effect at once; a limit that is gone is protection that is gone.
#[derive(Debug)]
pub(super) struct AppliedQuotas(watch::Sender<Arc<[Quota]>>);

impl AppliedQuotas {
    /// Takes what the configuration says at the start.
    ///
    /// # Errors
    /// An invalid pattern.
    pub(super) fn of(configuration: &Configuration) -> Result<Self, Failure> {
        let quotas = quotas(&configuration.quotas)?;
        Ok(Self(watch::Sender::new(quotas.into())))
    }

    /// Returns what is in force, now and after each change.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<[Quota]>> {
        self.0.subscribe()
    }
}

impl Reloadable for AppliedQuotas {
    fn prepare(self: Arc<Self>, new: &Loaded) -> Result<Change, Failure> {
        let new: Arc<[Quota]> = quotas(&new.configuration.quotas)?.into();
        if let Some((pattern, what)) = lost(&self.0.borrow(), &new) {
            let consequence = format!("the {what} of repositories like {pattern} would not be limited");
            return Err(gone("quotas", &consequence));
        }
        Ok(Box::new(move || {
            self.0.send_if_modified(|quotas| {
                let is_new = *quotas != new;
                *quotas = new;
                is_new
            });
        }))
    }
}

/// One of the limits of a quota.
type Limit = fn(&Quota) -> Option<u64>;

/// Returns a pattern of repositories that had a limit and has none any more, and the limit.
fn lost<'a>(old: &'a [Quota], new: &[Quota]) -> Option<(&'a Glob, &'static str)> {
    let limits: [(Limit, &'static str); 3] = [
        (|quota| quota.bytes, "bytes"),
        (|quota| quota.manifests, "manifests"),
        (|quota| quota.tags, "tags"),
    ];
    limits.into_iter().find_map(|(limit, what)| {
        let mut limited = old
            .iter()
            .filter(|quota| limit(quota).is_some())
            .flat_map(|quota| &quota.repositories);
        let is_limited = |pattern: &Glob| {
            let mut others = new.iter().filter(|quota| limit(quota).is_some());
            others.any(|quota| quota.repositories.iter().any(|other| other.covers(pattern)))
        };
        limited
            .find(|pattern| !is_limited(pattern))
            .map(|pattern| (pattern, what))
    })
}

/// What is used of each quota, and its limits. The label has the patterns of the quota, so there are as many series as the
/// configuration has limits.
#[derive(Debug)]
pub(super) struct QuotaMetrics(pub(super) watch::Receiver<Arc<[QuotaUsage]>>);

/// A metric of quotas.
struct Measure {
    name: &'static str,
    help: &'static str,
    /// `None` if the quota does not limit it.
    value: fn(&QuotaUsage) -> Option<u64>,
}

const MEASURES: [Measure; 6] = [
    Measure {
        name: "registry_quota_used_bytes",
        help: "The bytes that the repositories of a quota have together",
        value: |usage| usage.quota.bytes.and(Some(usage.used.bytes)),
    },
    Measure {
        name: "registry_quota_limit_bytes",
        help: "The most bytes that they may have",
        value: |usage| usage.quota.bytes,
    },
    Measure {
        name: "registry_quota_used_manifests",
        help: "The number of manifests that the repositories of a quota have together",
        value: |usage| usage.quota.manifests.and(Some(usage.used.manifests)),
    },
    Measure {
        name: "registry_quota_limit_manifests",
        help: "The most manifests that they may have",
        value: |usage| usage.quota.manifests,
    },
    Measure {
        name: "registry_quota_used_tags",
        help: "The number of tags that the repositories of a quota have together",
        value: |usage| usage.quota.tags.and(Some(usage.used.tags)),
    },
    Measure {
        name: "registry_quota_limit_tags",
        help: "The most tags that they may have",
        value: |usage| usage.quota.tags,
    },
];

impl Collector for QuotaMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let usages = Arc::clone(&self.0.borrow());
        for Measure { name, help, value } in MEASURES {
            let values: Vec<_> = usages
                .iter()
                .filter_map(|usage| Some((usage, value(usage)?)))
                .collect();
            if values.is_empty() {
                continue;
            }
            let mut gauges = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (usage, value) in values {
                let patterns: Vec<&str> = usage.quota.repositories.iter().map(Glob::as_str).collect();
                let labels = [("repositories", patterns.join(","))];
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                ConstGauge::new(value).encode(gauges.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
