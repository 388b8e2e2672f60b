//! `backup`: backups that are made while the server runs.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::values::{FilePath, GoDuration};

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
