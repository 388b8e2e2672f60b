//! `compatibility` and `reporting`, which only registry:2 has.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::values::{FilePath, Secret, SecretUrl};

/// What was before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Compatibility {
    /// The first form of manifests.
    pub(crate) schema1: Schema1,
}

/// The first form of manifests, which Docker has not written since 2016.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Schema1 {
    /// The file of a key that they are signed with.
    #[serde(rename = "signingkeyfile")]
    #[schemars(extend("x-variable" = "TRUSTKEY"))]
    pub(crate) signing_key_file: Option<FilePath>,
    /// They may be pushed.
    pub(crate) enabled: bool,
}

/// Services that failures are reported to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Reporting {
    /// Bugsnag.
    pub(crate) bugsnag: Bugsnag,
    /// New Relic.
    #[serde(rename = "newrelic")]
    pub(crate) new_relic: NewRelic,
}

/// Bugsnag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Bugsnag {
    /// The key.
    #[serde(rename = "apikey")]
    pub(crate) api_key: Option<Secret>,
    /// The stage.
    #[serde(rename = "releasestage")]
    pub(crate) release_stage: Option<String>,
    /// Where to send.
    pub(crate) endpoint: Option<SecretUrl>,
}

/// New Relic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NewRelic {
    /// The key.
    #[serde(rename = "licensekey")]
    pub(crate) license_key: Option<Secret>,
    /// The name of the registry.
    pub(crate) name: Option<String>,
    /// Log more.
    pub(crate) verbose: bool,
}
