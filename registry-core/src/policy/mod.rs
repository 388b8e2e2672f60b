//! Rules for who may do what.

mod claims;
mod glob;
mod immutable;
mod right;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

pub use self::claims::{Claims, TokenScopes};
pub use self::glob::{Glob, InvalidGlob};
pub use self::immutable::{ImmutableTagRule, ImmutableTags};
pub use self::right::{InvalidRight, Right};
use crate::operation::{Action, Authorizer, Operation, Principal, Target};
use crate::scope::Scope;
use crate::{Error, ErrorCode, RepositoryName};

/// Rules that allow: a request may be made if any rule allows it. No rule forbids, so their order only determines which
/// of several is reported as the reason.
///
/// Without any rule, every authenticated principal may do everything, and the anonymous principal nothing, as in the
/// distribution registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// The members of each group.
    #[serde(default)]
    pub groups: BTreeMap<String, BTreeSet<String>>,
    /// The rules.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// Allows some principals some actions on some repositories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The repositories; one of the patterns must match.
    pub repositories: Vec<Glob>,
    /// The identities; one of them must be the principal's.
    pub identities: Vec<Identity>,
    /// The actions that they may do.
    pub actions: BTreeSet<Right>,
}

/// The principals that a rule is for. As text: `anonymous`, `authenticated`, `group:NAME`, or the name of a user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// Principals without credentials. What they may do, every principal may do.
    Anonymous,
    /// Principals with valid credentials, whatever their name.
    Authenticated,
    /// The members of a group.
    Group(String),
    /// One user.
    User(String),
}

impl Rules {
    /// Returns the index, from 0, of the first rule that allows an operation.
    #[must_use]
    pub fn first_that_allows(&self, principal: &Principal, operation: &Operation<'_>) -> Option<usize> {
        let repository = operation.repository?;
        self.rules.iter().position(|rule| {
            rule.actions.iter().any(|right| right.allows(operation))
                && rule
                    .repositories
                    .iter()
                    .any(|glob| glob.matches(repository.as_str()))
                && rule
                    .identities
                    .iter()
                    .any(|identity| self.is(principal, identity))
        })
    }

    /// Returns whether a principal may do an operation on at least some repository.
    fn may_somewhere(&self, principal: &Principal, operation: &Operation<'_>) -> bool {
        self.rules.iter().any(|rule| {
            rule.actions.iter().any(|right| right.allows(operation))
                && rule
                    .identities
                    .iter()
                    .any(|identity| self.is(principal, identity))
        })
    }

    /// Returns the groups that rules name and that have no members here. Credentials may add members.
    #[must_use]
    pub fn unknown_groups(&self) -> BTreeSet<&str> {
        let identities = self.rules.iter().flat_map(|rule| &rule.identities);
        identities
            .filter_map(|identity| match identity {
                Identity::Group(group) if !self.groups.contains_key(group) => Some(group.as_str()),
                _ => None,
            })
            .collect()
    }

    fn is(&self, principal: &Principal, identity: &Identity) -> bool {
        match identity {
            Identity::Anonymous => true,
            Identity::Authenticated => !principal.is_anonymous(),
            Identity::User(name) => !principal.is_anonymous() && principal.name() == name,
            Identity::Group(group) => {
                let is_member = self
                    .groups
                    .get(group)
                    .is_some_and(|members| members.contains(principal.name()));
                let claims = principal.claims::<Claims>();
                !principal.is_anonymous()
                    && (is_member || claims.is_some_and(|claims| claims.groups.contains(group)))
            }
        }
    }
}

impl Authorizer for Rules {
    fn authorize(&self, principal: &Principal, operation: &Operation<'_>) -> Result<(), Error> {
        let is_allowed = match operation.repository {
            _ if operation.action == Action::Connect => true,
            _ if self.rules.is_empty() => !principal.is_anonymous(),
            // Each entry of the list is checked separately, so the list may be empty for an authenticated principal.
            None => !principal.is_anonymous() || self.may_somewhere(principal, operation),
            Some(_) => self.first_that_allows(principal, operation).is_some(),
        };
        if is_allowed {
            return Ok(());
        }
        let what = describe(operation);
        if principal.is_anonymous() {
            let message = format!("log in to {what}");
            return Err(Error::new(ErrorCode::Unauthorized, message));
        }
        let message = format!("{} may not {what}", principal.name());
        Err(Error::new(ErrorCode::Denied, message))
    }
}

/// Describes in words what an operation does.
fn describe(operation: &Operation<'_>) -> String {
    let action = match operation.action {
        Action::Connect => "connect",
        Action::Pull => "pull from",
        Action::Push => "push to",
        Action::Overwrite => "move tags of",
        Action::Delete => "delete from",
        Action::List => "list",
    };
    match operation.repository {
        Some(repository) => format!("{action} {repository}"),
        None if operation.action == Action::List => "list the repositories".to_string(),
        None => action.to_string(),
    }
}

/// A text that is not an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no identity: use anonymous, authenticated, group:NAME or the name of a user")]
pub struct InvalidIdentity(String);

impl Identity {
    /// Returns whether a rule can name a user called `name`, because no other identity is written like that. An
    /// authenticator must refuse all other names, so that no such user is taken for what the word means in a rule.
    #[must_use]
    pub fn is_name_of_user(name: &str) -> bool {
        matches!(name.parse(), Ok(Self::User(_)))
    }
}

impl FromStr for Identity {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, InvalidIdentity> {
        match (text, text.strip_prefix("group:")) {
            ("anonymous", _) => Ok(Self::Anonymous),
            ("authenticated", _) => Ok(Self::Authenticated),
            ("" | "*", _) | (_, Some("")) => Err(InvalidIdentity(text.to_string())),
            (_, Some(group)) => Ok(Self::Group(group.to_string())),
            (name, None) => Ok(Self::User(name.to_string())),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Authenticated => f.write_str("authenticated"),
            Self::Group(group) => write!(f, "group:{group}"),
            Self::User(name) => f.write_str(name),
        }
    }
}

crate::text::serde_as_text!(Identity);

/// Reduces a scope that was requested for a token to what `rules` allow. It may have no actions left.
#[must_use]
pub fn reduce(scope: &Scope, rules: &dyn Authorizer, principal: &Principal) -> Scope {
    let may = |operation: &Operation<'_>| rules.authorize(principal, operation).is_ok();
    let mut reduced = Scope {
        actions: BTreeSet::new(),
        ..scope.clone()
    };
    let is_asked = |action: &str| scope.actions.contains(action) || scope.actions.contains("*");
    if scope.resource_type == "registry" && scope.name == "catalog" {
        let list = Operation {
            repository: None,
            action: Action::List,
            target: Target::Catalog,
        };
        if is_asked("*") && may(&list) {
            reduced.actions.insert("*".to_string());
        }
    }
    let Some(repository) = repository_of(scope) else {
        return reduced;
    };
    // A token's `pull` also lists and its `push` also moves tags; the rules decide again later which of the two is
    // allowed.
    for (name, actions) in [
        ("pull", &[Action::Pull, Action::List][..]),
        ("push", &[Action::Push, Action::Overwrite]),
        ("delete", &[Action::Delete]),
    ] {
        let within = |action: &Action| Operation::within(&repository, *action, Target::Repository);
        if is_asked(name) && actions.iter().any(|action| may(&within(action))) {
            reduced.actions.insert(name.to_string());
        }
    }
    reduced
}

fn repository_of(scope: &Scope) -> Option<RepositoryName> {
    (scope.resource_type == "repository")
        .then(|| scope.name.parse().ok())
        .flatten()
}
