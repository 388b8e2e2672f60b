//! `backup`: backups that are made while the server runs.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::problems::Problems;
use crate::config::values::{FilePath, GoDuration};

/// The shortest time between two backups.
const SHORTEST_INTERVAL: Duration = Duration::from_mins(1);

/// Backups that are made while the server runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Backup {
    /// The folder for backups, and for nothing else; it may be inside the `rootdirectory`. Without it there are no backups.
    pub(crate) folder: Option<FilePath>,
    /// The time between two backups; at least a minute.
    pub(crate) every: GoDuration,
    /// The number of complete backups to keep; older ones are removed.
    pub(crate) keep: NonZeroU32,
}

impl Default for Backup {
    fn default() -> Self {
        Self {
            folder: None,
            every: GoDuration::from_secs(24 * 60 * 60),
            keep: NonZeroU32::MIN.saturating_add(6),
        }
    }
}

impl Backup {
    /// Checks the values. `has_folder` is whether the storage is a folder.
    pub(in crate::config) fn check(&self, has_folder: bool, problems: &mut Problems<'_>) {
        if self.every.0 < SHORTEST_INTERVAL {
            problems.add("backup.every", "must be a minute at least; write for example 24h");
        }
        let Some(folder) = &self.folder else { return };
        problems.required("backup.folder", folder.as_os_str().is_empty(), "name a folder");
        if !has_folder {
            problems.add(
                "backup.folder",
                "a backup is made of a folder; for a bucket, turn on its versioning or replication",
            );
        }
    }
}
