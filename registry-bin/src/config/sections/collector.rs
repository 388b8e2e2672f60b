//! `collector`: freeing what no manifest names any more.

use std::time::Duration;

use registry_storage::CollectOptions;
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
    /// The time between two cycles; at least a second. By default an hour.
    pub(crate) interval: Option<GoDuration>,
    /// How long content stays at least after it was pushed, and again after a cycle found that no manifest names it. What a
    /// manifest names is safe with any value.
    pub(crate) grace: GoDuration,
    /// How long what was moved or deleted can be restored with `tags restore`. Only after that, what nothing else needs is freed
    /// within `grace`; `collect --now` does not wait. 0 keeps nothing.
    #[serde(rename = "keepdeleted")]
    pub(crate) keep_deleted: GoDuration,
    /// What becomes of a repository without any manifest, blob and upload in progress: `keep` leaves it in the catalog, as
    /// registry:2 does; `remove` takes it out.
    #[serde(rename = "emptyrepositories")]
    pub(crate) empty_repositories: EmptyRepositories,
}

/// What becomes of empty repositories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EmptyRepositories {
    /// They stay in the catalog.
    #[default]
    Keep,
    /// They leave the catalog with the next cycle.
    Remove,
}

impl Default for Collector {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: None,
            grace: GoDuration::from_secs(24 * 60 * 60),
            keep_deleted: GoDuration::from_secs(7 * 24 * 60 * 60),
            empty_repositories: EmptyRepositories::default(),
        }
    }
}

impl Collector {
    /// Returns how a cycle works.
    pub(crate) fn options(&self) -> CollectOptions {
        CollectOptions::new()
            .grace(self.grace.0)
            .remove_empty_repositories(self.empty_repositories == EmptyRepositories::Remove)
    }

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
