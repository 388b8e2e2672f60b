//! `backup`: backups that are made while the server runs.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::values::{FilePath, GoDuration};

/// Backups that are made while the server runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Backup {
    /// The folder of the backups, which has nothing else and may be in the `rootdirectory`; without one none is made.
    pub(crate) folder: Option<FilePath>,
    /// How long after a backup the next one is made; a minute at least.
    pub(crate) every: GoDuration,
    /// How many whole backups are kept; the oldest ones are removed.
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
