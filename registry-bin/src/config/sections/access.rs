//! `access`: who may do what.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use registry_core::policy::{Identity, Right, Rule, Rules};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::auth::Auth;
use crate::config::problem::alternatives;
use crate::config::problems::Problems;
use crate::config::values::{is_secret, shown};
use crate::failure::Failure;

/// Who may do what. Once there is any rule, what no rule allows is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Access {
    /// The users of each group.
    pub(crate) groups: BTreeMap<String, Vec<String>>,
    /// What is allowed, in order.
    pub(crate) rules: Vec<AccessRule>,
}

impl Access {
    /// Returns the rules in the form that the registry uses.
    ///
    /// # Errors
    /// The first key with an invalid value.
    pub(crate) fn rules(&self) -> Result<Rules, InvalidValue> {
        let groups = self
            .groups
            .iter()
            .map(|(name, members)| (name.clone(), members.iter().cloned().collect()))
            .collect();
        let rule = |(index, rule): (usize, &AccessRule)| {
            let path = |key: &str| format!("access.rules[{index}].{key}");
            Ok(Rule {
                repositories: parse_all(&path("repositories"), &rule.repositories)?,
                identities: parse_all(&path("identities"), &rule.identities)?,
                actions: rule.actions.iter().copied().collect(),
            })
        };
        Ok(Rules {
            groups,
            rules: self
                .rules
                .iter()
                .enumerate()
                .map(rule)
                .collect::<Result<_, InvalidValue>>()?,
        })
    }

    /// Checks the values.
    pub(in crate::config) fn check(&self, auth: &Auth, problems: &mut Problems<'_>) {
        if let Err(InvalidValue { path, message }) = self.rules() {
            problems.add(&path, message);
        }
        let tokens_name_groups = auth.token.as_ref().is_some_and(|token| token.builtin.is_none());
        for (name, members) in &self.groups {
            for (index, member) in members.iter().enumerate() {
                if !Identity::is_name_of_user(member) {
                    problems.add(
                        &format!("access.groups.{name}[{index}]"),
                        format!(
                            "takes the name of a user, and no user can be called {}",
                            shown(member)
                        ),
                    );
                }
            }
        }
        for (index, rule) in self.rules.iter().enumerate() {
            let path = format!("access.rules[{index}]");
            for (key, is_empty) in [
                ("repositories", rule.repositories.is_empty()),
                ("identities", rule.identities.is_empty()),
                ("actions", rule.actions.is_empty()),
            ] {
                problems.required(
                    &format!("{path}.{key}"),
                    is_empty,
                    "a rule without any matches nothing",
                );
            }
            for (position, identity) in rule.identities.iter().enumerate() {
                let group = identity.strip_prefix("group:").filter(|_| !tokens_name_groups);
                if let Some(group) = group.filter(|group| !self.groups.contains_key(*group)) {
                    let groups = self.groups.keys();
                    let groups: Vec<&String> = groups.filter(|name| !is_secret(name)).collect();
                    let known = if groups.is_empty() {
                        "add it to `access.groups`".to_owned()
                    } else {
                        format!("there is {}", alternatives(&groups))
                    };
                    problems.add(
                        &format!("{path}.identities[{position}]"),
                        format!("there is no group {}; {known}", shown(group)),
                    );
                }
            }
        }
    }
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

/// A value that is no pattern or name: its key, and what is wrong.
#[derive(Debug)]
pub(crate) struct InvalidValue {
    pub(super) path: String,
    pub(super) message: String,
}

impl From<InvalidValue> for Failure {
    fn from(invalid: InvalidValue) -> Self {
        Self::of(invalid.path, invalid.message)
    }
}

/// Parses the texts of a list.
///
/// # Errors
/// The first invalid one.
pub(super) fn parse_all<T: FromStr<Err: fmt::Display>>(
    path: &str,
    texts: &[String],
) -> Result<Vec<T>, InvalidValue> {
    // What is wrong is quoted, and a line of a file of users may stand there.
    let message = |text: &str, error: T::Err| {
        if text.contains(':') || is_secret(text) {
            "looks like a token or a password, and is not shown; write a pattern or a name".to_owned()
        } else {
            error.to_string()
        }
    };
    let texts = texts.iter().enumerate();
    texts
        .map(|(index, text)| {
            text.parse().map_err(|error: T::Err| InvalidValue {
                path: format!("{path}[{index}]"),
                message: message(text, error),
            })
        })
        .collect()
}
