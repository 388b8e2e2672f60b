//! `catalog` and `tags`: lists, and tags that do not move.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The list of repositories.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Catalog {
    /// The most repositories on a page, up to 100 000; a request for more gets this many and a `Link` to the rest. 0 or less means 1000. A request without a number gets 10 000, or this many if it is more.
    #[serde(rename = "maxentries")]
    pub(crate) most_entries: i64,
}

impl Default for Catalog {
    fn default() -> Self {
        Self { most_entries: 1000 }
    }
}

/// The list of tags, and tags that do not move.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tags {
    /// The most tags on a page, up to 100 000; a request for more gets this many and a `Link` to the rest. 0 means 1000. A request without a number gets all tags.
    #[serde(rename = "maxtags")]
    pub(crate) most_tags: u32,
    /// Tags that never move once written.
    pub(crate) immutable: Vec<ImmutableTags>,
}

impl Default for Tags {
    fn default() -> Self {
        Self {
            most_tags: 1000,
            immutable: Vec::new(),
        }
    }
}

/// Tags that never move.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImmutableTags {
    /// Patterns of repositories: `*` is any text without a slash, `**` any text.
    pub(crate) repositories: Vec<String>,
    /// Patterns of tags.
    pub(crate) tags: Vec<String>,
}
