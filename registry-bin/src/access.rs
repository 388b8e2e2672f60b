//! The rules of `access` and `tags.immutable`, in the form the registry uses.

use std::str::FromStr;

use registry_core::policy::{ImmutableTagRule, Rule, Rules};

use crate::config::Configuration;
use crate::config::values::is_secret;

/// The key that is wrong, and what is wrong with it.
pub(crate) type Problem = (String, String);

/// Returns the rules that decide who may do what.
///
/// # Errors
/// The first key with an invalid value.
pub(crate) fn rules(configuration: &Configuration) -> Result<Rules, Problem> {
    let access = &configuration.access;
    let groups = access
        .groups
        .iter()
        .map(|(name, members)| (name.clone(), members.iter().cloned().collect()))
        .collect();
    let rule = |(index, rule): (usize, &crate::config::sections::access::AccessRule)| {
        let path = |key: &str| format!("access.rules[{index}].{key}");
        Ok(Rule {
            repositories: parse_all(&path("repositories"), &rule.repositories)?,
            identities: parse_all(&path("identities"), &rule.identities)?,
            actions: rule.actions.iter().copied().collect(),
        })
    };
    Ok(Rules {
        groups,
        rules: access
            .rules
            .iter()
            .enumerate()
            .map(rule)
            .collect::<Result<_, Problem>>()?,
    })
}

/// Returns the rules that decide which tags are immutable.
///
/// # Errors
/// The first key with an invalid value.
pub(crate) fn immutable_tags(configuration: &Configuration) -> Result<Vec<ImmutableTagRule>, Problem> {
    let rules = configuration.tags.immutable.iter().enumerate();
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

fn parse_all<T: FromStr<Err: std::fmt::Display>>(path: &str, texts: &[String]) -> Result<Vec<T>, Problem> {
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
            text.parse()
                .map_err(|error: T::Err| (format!("{path}[{index}]"), message(text, error)))
        })
        .collect()
}
