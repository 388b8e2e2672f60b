//! Constraints on `backup`.

use std::time::Duration;

use super::Problems;
use crate::config::Configuration;

/// The shortest time between two backups.
const SHORTEST: Duration = Duration::from_mins(1);

pub(super) fn check(configuration: &Configuration, problems: &mut Problems<'_>) {
    let backup = &configuration.backup;
    if backup.every.0 < SHORTEST {
        problems.add("backup.every", "must be a minute at least; write for example 24h");
    }
    let Some(folder) = &backup.folder else { return };
    problems.required("backup.folder", folder.as_os_str().is_empty(), "name a folder");
    if configuration.storage.filesystem.is_none() {
        problems.add(
            "backup.folder",
            "a backup is made of a folder; for a bucket, turn on its versioning or replication",
        );
    }
}
