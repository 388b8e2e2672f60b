//! `catalog` and `tags`: lists, and tags that do not move.

use registry_core::policy::ImmutableTagRule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access::{InvalidValue, parse_all};
use crate::config::problems::Problems;

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

impl Tags {
    /// Returns the rules for immutable tags in the form that the registry uses.
    ///
    /// # Errors
    /// The first key with an invalid value.
    pub(crate) fn immutable_rules(&self) -> Result<Vec<ImmutableTagRule>, InvalidValue> {
        let rules = self.immutable.iter().enumerate();
        rules
            .map(|(index, rule)| {
                Ok(ImmutableTagRule {
                    repositories: parse_all(
                        &format!("tags.immutable[{index}].repositories"),
                        &rule.repositories,
                    )?,
                    tags: parse_all(&format!("tags.immutable[{index}].tags"), &rule.tags)?,
                })
            })
            .collect()
    }

    /// Checks the values.
    pub(in crate::config) fn check(&self, problems: &mut Problems<'_>) {
        if let Err(InvalidValue { path, message }) = self.immutable_rules() {
            problems.add(&path, message);
        }
        for (index, rule) in self.immutable.iter().enumerate() {
            let path = format!("tags.immutable[{index}]");
            problems.required(
                &format!("{path}.repositories"),
                rule.repositories.is_empty(),
                "write `[\"**\"]` for all",
            );
            problems.required(
                &format!("{path}.tags"),
                rule.tags.is_empty(),
                "write `[\"*\"]` for all",
            );
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
