//! `collector`: freeing what no manifest names any more.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::problems::Problems;
use crate::config::values::GoDuration;

/// The shortest time between two cycles.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Freeing what no manifest names any more, while the server runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Collector {
    /// Free it without being asked. The commands `collect` and `garbage-collect` work either way.
    pub(crate) enabled: bool,
    /// The time between two cycles; at least a second. By default an hour, and a day for a bucket, where listing costs money.
    pub(crate) interval: Option<GoDuration>,
    /// How long content stays at least after it was pushed, and again after a cycle found that no manifest names it. What a
    /// manifest names is safe with any value.
    pub(crate) grace: GoDuration,
}

impl Default for Collector {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: None,
            grace: GoDuration::from_secs(24 * 60 * 60),
        }
    }
}

impl Collector {
    /// Checks the values.
    pub(in crate::config) fn check(&self, problems: &mut Problems<'_>) {
        let interval = self.interval.unwrap_or_default();
        if interval != GoDuration::default() && interval.0 < SHORTEST_INTERVAL {
            problems.add(
                "collector.interval",
                format!("is {interval}, and must be at least 1s; write for example 1h"),
            );
        }
    }
}
