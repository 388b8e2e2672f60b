//! `access`: who may do what.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who may do what. Once there is any rule, what no rule allows is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Access {
    /// The users of each group.
    pub(crate) groups: BTreeMap<String, Vec<String>>,
    /// What is allowed, in order.
    pub(crate) rules: Vec<AccessRule>,
}

/// What some may do with some repositories.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccessRule {
    /// Patterns of repositories: `*` is any text without a slash, `**` any text.
    pub(crate) repositories: Vec<String>,
    /// Users, `group:NAME`, `anonymous` for clients without credentials, `authenticated` for all others.
    pub(crate) identities: Vec<String>,
    /// The allowed actions.
    pub(crate) actions: Vec<AccessAction>,
}

/// What may be done with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AccessAction {
    /// Read blobs, manifests and referrers.
    Pull,
    /// Write blobs and manifests, and new tags.
    Push,
    /// Delete blobs, manifests and tags.
    Delete,
    /// List tags, and see the repository in the catalog.
    List,
    /// Move a tag that is there.
    Overwrite,
    /// All of these.
    #[serde(rename = "*")]
    All,
}
