//! `scrub`: reading content to find what rotted.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::problems::Problems;
use crate::config::values::{ByteSize, GoDuration};

/// The shortest time between two rounds.
const SHORTEST_ROUND: Duration = Duration::from_secs(1);

/// Slowly reading all content and comparing it with its digest, while the server runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Scrub {
    /// Do it. By default for a folder, and not for a bucket, whose service verifies what it keeps and charges for each
    /// read.
    pub(crate) enabled: Option<bool>,
    /// The most bytes to read in a second, at least 1; each blob counts 16384 more than it has.
    pub(crate) rate: ByteSize,
    /// The time from the beginning of a round to that of the next one; at least a second. A round that takes longer is
    /// followed by the next one.
    pub(crate) every: GoDuration,
}

impl Default for Scrub {
    fn default() -> Self {
        Self {
            enabled: None,
            rate: ByteSize(10 * 1024 * 1024),
            every: GoDuration::from_secs(30 * 24 * 60 * 60),
        }
    }
}

impl Scrub {
    /// Checks the values.
    pub(in crate::config) fn check(&self, problems: &mut Problems<'_>) {
        if self.rate.0 == 0 {
            problems.add(
                "scrub.rate",
                "is 0, which never ends; write for example 10MiB, or `enabled: false`",
            );
        }
        if self.every.0 < SHORTEST_ROUND {
            problems.add(
                "scrub.every",
                format!(
                    "is {}, and must be at least 1s; write for example 720h",
                    self.every
                ),
            );
        }
    }
}
