//! `validation` and `policy`: what may be pushed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a manifest must be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Validation {
    /// The old form of `disabled`; `true` takes precedence over it.
    pub(crate) enabled: bool,
    /// Turn off the rules for indexes and URLs: an index may name missing manifests; other manifests may not.
    pub(crate) disabled: bool,
    /// Let any manifest name content that the repository does not have.
    #[serde(rename = "allowmissingcontent")]
    pub(crate) allow_missing_content: bool,
    /// Rules for manifests.
    pub(crate) manifests: ValidationManifests,
}

impl Validation {
    /// Returns whether an index may name manifests that are not there.
    pub(crate) fn allows_sparse_indexes(&self) -> bool {
        // As in distribution, the old key `enabled` takes precedence over `disabled`.
        let is_validated = self.enabled || !self.disabled;
        !is_validated || self.manifests.indexes.platforms == Platforms::None
    }
}

/// Rules for manifests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ValidationManifests {
    /// The most contents that a manifest may name, each counted once; also if `disabled`. 0 means 10000.
    #[serde(rename = "maxdescriptors")]
    pub(crate) most_descriptors: u32,
    /// Rules for the URLs of layers that are elsewhere.
    pub(crate) urls: ValidationUrls,
    /// Rules for indexes.
    pub(crate) indexes: ValidationIndexes,
}

impl Default for ValidationManifests {
    fn default() -> Self {
        Self {
            most_descriptors: 10_000,
            urls: ValidationUrls::default(),
            indexes: ValidationIndexes::default(),
        }
    }
}

/// Rules for the URLs of layers that are elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ValidationUrls {
    /// Regular expressions, one of which a URL must match.
    pub(crate) allow: Vec<String>,
    /// Regular expressions, none of which a URL may match.
    pub(crate) deny: Vec<String>,
}

/// Rules for indexes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ValidationIndexes {
    /// Which of an index's manifests must be there.
    pub(crate) platforms: Platforms,
    /// Those that must be there, if `platforms` is `list`.
    #[serde(rename = "platformlist")]
    pub(crate) list: Vec<Platform>,
}

/// Which of an index's manifests must be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Platforms {
    /// All.
    #[default]
    All,
    /// None.
    None,
    /// Those of some platforms.
    List,
}

/// A platform.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Platform {
    /// Such as `amd64`.
    pub(crate) architecture: String,
    /// Such as `linux`.
    pub(crate) os: String,
}

/// What may be pushed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Policy {
    /// Rules for repositories.
    pub(crate) repository: RepositoryPolicy,
}

/// Rules for repositories.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RepositoryPolicy {
    /// The allowed kinds of content, such as `image` and `plugin`.
    pub(crate) classes: Vec<String>,
}
