//! Constraints on `access` and `tags.immutable`.

use registry_core::policy::Identity;

use super::Problems;
use crate::access;
use crate::config::Configuration;
use crate::config::problem::alternatives;
use crate::config::values::{is_secret, shown};

pub(super) fn check(configuration: &Configuration, problems: &mut Problems<'_>) {
    for (path, message) in [
        access::rules(configuration).err(),
        access::immutable_tags(configuration).err(),
    ]
    .into_iter()
    .flatten()
    {
        problems.add(&path, message);
    }
    let access = &configuration.access;
    let tokens_name_groups = configuration
        .auth
        .token
        .as_ref()
        .is_some_and(|token| token.builtin.is_none());
    for (name, members) in &access.groups {
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
    for (index, rule) in access.rules.iter().enumerate() {
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
            if let Some(group) = group.filter(|group| !access.groups.contains_key(*group)) {
                let groups = access.groups.keys();
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
    for (index, rule) in configuration.tags.immutable.iter().enumerate() {
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
