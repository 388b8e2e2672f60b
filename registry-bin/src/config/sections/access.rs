//! `access`: who may do what.

use std::collections::BTreeMap;

use registry_core::policy::Right;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

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
    #[schemars(schema_with = "actions")]
    pub(crate) actions: Vec<Right>,
}

/// Returns the schema of a list of rights.
fn actions(_: &mut SchemaGenerator) -> Schema {
    let words = Right::WORDS
        .iter()
        .map(|word| json!({ "type": "string", "const": word }));
    json_schema!({ "type": "array", "items": { "oneOf": words.collect::<Vec<_>>() } })
}
