//! Scopes: what is requested of a token and what it grants.

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::RepositoryName;
use crate::operation::{Action, Operation, Target};
use crate::request::Request;

/// The right to do some actions to one resource, for example `repository:team/app:pull,push` or `registry:catalog:*`.
///
/// As text it is a scope of the token protocol, in JSON an entry of a token's claim `access` (distribution's
/// "Token Scope Documentation" and "Token Authentication Implementation").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// The type of the resource: `repository` or `registry`. A registry ignores other types.
    #[serde(rename = "type")]
    pub resource_type: String,
    /// The class of the resource, in parentheses after the type, as in `repository(plugin)`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub class: String,
    /// The name of the resource: that of a repository, or `catalog`.
    pub name: String,
    /// The actions: `pull`, `push`, `delete`, or `*` for all of them.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub actions: BTreeSet<String>,
}

impl Scope {
    /// The maximum size in bytes of a text that is parsed as scopes.
    pub const MAXIMUM_BYTES: usize = 16 * 1024;

    /// Creates the scope of some actions on a repository.
    #[must_use]
    pub fn repository(name: &RepositoryName, actions: &[&str]) -> Self {
        Self {
            resource_type: "repository".to_owned(),
            class: String::new(),
            name: name.as_str().to_owned(),
            actions: actions.iter().map(|action| (*action).to_owned()).collect(),
        }
    }

    /// Creates the scope of the list of repositories.
    #[must_use]
    pub fn catalog() -> Self {
        Self {
            resource_type: "registry".to_owned(),
            class: String::new(),
            name: "catalog".to_owned(),
            actions: BTreeSet::from(["*".to_owned()]),
        }
    }

    /// Parses scopes that are separated by spaces.
    ///
    /// # Errors
    /// [`InvalidScope`], with the first malformed scope; also if there are more than [`Self::MAXIMUM_BYTES`] bytes.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, InvalidScope> {
        if text.len() > Self::MAXIMUM_BYTES {
            return Err(InvalidScope::TooLong);
        }
        text.split(' ')
            .filter(|scope| !scope.is_empty())
            .map(str::parse)
            .collect()
    }

    /// Joins scopes with spaces.
    #[must_use]
    pub fn join(scopes: &[Self]) -> String {
        let texts: Vec<String> = scopes.iter().map(ToString::to_string).collect();
        texts.join(" ")
    }

    /// Returns the scopes that a token needs for a request, as distribution requests them: reading needs `pull`,
    /// writing needs `pull,push`, and a mount also needs `pull` for its source.
    #[must_use]
    pub fn needed_by(request: &Request) -> Vec<Self> {
        let operation = Operation::of(request);
        let Some(repository) = operation.repository else {
            return match operation.target {
                Target::Catalog => alloc::vec![Self::catalog()],
                _ => Vec::new(),
            };
        };
        let actions: &[&str] = match operation.action {
            Action::Connect | Action::Pull | Action::List => &["pull"],
            Action::Push | Action::Overwrite => &["pull", "push"],
            Action::Delete => &["delete"],
        };
        let mut scopes = alloc::vec![Self::repository(repository, actions)];
        if let Request::MountBlob { from: Some(from), .. } = request
            && from != repository
        {
            scopes.push(Self::repository(from, &["pull"]));
        }
        scopes
    }

    /// Returns whether this scope grants an operation. A token with `push` may move tags, and `pull` lists the tags and
    /// referrers of the repository; the list of all repositories needs `registry:catalog:*`.
    #[must_use]
    pub fn grants(&self, operation: &Operation<'_>) -> bool {
        let has = |action: &str| self.actions.contains(action) || self.actions.contains("*");
        match (operation.target, operation.repository) {
            (Target::Catalog, _) => self.resource_type == "registry" && self.name == "catalog" && has("*"),
            (_, Some(repository)) => {
                self.resource_type == "repository"
                    && self.name == repository.as_str()
                    && match operation.action {
                        Action::Connect => true,
                        Action::Pull | Action::List => has("pull"),
                        Action::Push | Action::Overwrite => has("push"),
                        Action::Delete => has("delete"),
                    }
            }
            (_, None) => operation.action == Action::Connect,
        }
    }
}

/// A text that is not a scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidScope {
    /// It does not have the form of a scope.
    #[error("{0:?} is not a scope; one is TYPE:NAME:ACTION,ACTION such as repository:team/app:pull,push")]
    Malformed(String),
    /// It is too long.
    #[error("the scopes have more than 16384 bytes; ask for fewer at once")]
    TooLong,
}

impl FromStr for Scope {
    type Err = InvalidScope;

    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        parse(text).ok_or_else(|| InvalidScope::Malformed(text.chars().take(300).collect()))
    }
}

/// A name may contain colons, in the port of a host, so the type is everything before the first and the actions are
/// everything after the last.
fn parse(text: &str) -> Option<Scope> {
    let (resource, rest) = text.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let (resource_type, class) = match resource.strip_suffix(')') {
        Some(resource) => {
            let (resource_type, class) = resource.split_once('(')?;
            (resource_type, is_word(class).then_some(class)?)
        }
        None => (resource, ""),
    };
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    let is_action = |action: &str| action == "*" || is_word(action);
    if !is_word(resource_type) || !is_name || !actions.split(',').all(is_action) {
        return None;
    }
    Some(Scope {
        resource_type: resource_type.to_owned(),
        class: class.to_owned(),
        name: name.to_owned(),
        actions: actions.split(',').map(str::to_owned).collect(),
    })
}

/// `[a-z0-9]+`
fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource_type)?;
        if !self.class.is_empty() {
            write!(f, "({})", self.class)?;
        }
        write!(f, ":{}:", self.name)?;
        for (number, action) in self.actions.iter().enumerate() {
            if number > 0 {
                f.write_str(",")?;
            }
            f.write_str(action)?;
        }
        Ok(())
    }
}

/// Go writes an empty list as `null`.
fn null_as_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use proptest::prelude::*;

    const NO_FIELDS: &[(&str, &str)] = &[];

    fn parsed(text: &str) -> Scope {
        text.parse().unwrap()
    }

    #[test]
    fn what_clients_send_is_read() {
        let scope = parsed("repository:team/app:pull,push");
        assert_eq!(
            (scope.resource_type.as_str(), scope.name.as_str()),
            ("repository", "team/app")
        );
        assert_eq!(scope.actions.iter().collect::<Vec<_>>(), ["pull", "push"]);
        assert_eq!(parsed("registry:catalog:*"), Scope::catalog());
        assert_eq!(
            parsed("repository(plugin):host:5000/app:pull").name,
            "host:5000/app"
        );
        assert_eq!(
            Scope::parse_list("repository:a:pull  repository:b:pull,push")
                .unwrap()
                .len(),
            2
        );
    }

    #[test]
    fn what_is_no_scope_is_refused_with_its_text() {
        for text in [
            "",
            "repository",
            "repository:a",
            "repository::pull",
            ":a:pull",
            "repository:a:",
            "repository:a:pull,",
            "Repository:a:pull",
            "repository(:a:pull",
            "repository():a:pull",
            "repository:\"a\":pull",
            "repository:a\u{e9}:pull",
        ] {
            assert_eq!(
                text.parse::<Scope>(),
                Err(InvalidScope::Malformed(text.to_string())),
                "{text}"
            );
        }
        assert_eq!(Scope::parse_list(&"x".repeat(20_000)), Err(InvalidScope::TooLong));
    }

    #[test]
    fn a_claim_is_read_as_other_servers_write_it() {
        let scope: Scope =
            serde_json::from_str(r#"{"type":"repository","class":"","name":"a","actions":["push","pull"]}"#)
                .unwrap();
        assert_eq!(scope, parsed("repository:a:pull,push"));
        let scope: Scope =
            serde_json::from_str(r#"{"type":"repository","name":"a","actions":null}"#).unwrap();
        assert!(scope.actions.is_empty());
    }

    #[test]
    fn a_request_needs_the_scopes_that_distribution_asks_for() {
        let digest = "sha256:".to_string() + &"0".repeat(64);
        for (method, target, scopes) in [
            ("GET", "/v2/".to_string(), ""),
            ("GET", "/v2/_catalog".into(), "registry:catalog:*"),
            ("GET", "/v2/a/b/tags/list".into(), "repository:a/b:pull"),
            ("HEAD", "/v2/a/b/manifests/v1".into(), "repository:a/b:pull"),
            ("PUT", "/v2/a/b/manifests/v1".into(), "repository:a/b:pull,push"),
            ("DELETE", "/v2/a/b/manifests/v1".into(), "repository:a/b:delete"),
            (
                "POST",
                format!("/v2/a/b/blobs/uploads/?mount={digest}&from=c"),
                "repository:a/b:pull,push repository:c:pull",
            ),
        ] {
            let request = Request::parse(method, &target, NO_FIELDS).unwrap();
            assert_eq!(
                Scope::join(&Scope::needed_by(&request)),
                scopes,
                "{method} {target}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_as_itself(
            resource_type in "[a-z0-9]{1,9}",
            class in "[a-z0-9]{0,9}",
            name in "[!#-~]{1,40}",
            actions in proptest::collection::btree_set("[a-z0-9]{1,6}|\\*", 1..4),
        ) {
            let scope = Scope { resource_type, class, name, actions };
            prop_assert_eq!(scope.to_string().parse::<Scope>(), Ok(scope.clone()));
            let list = [scope.clone(), scope.clone()];
            prop_assert_eq!(Scope::parse_list(&Scope::join(&list)).unwrap(), list);
            let json = serde_json::to_string(&scope).unwrap();
            prop_assert_eq!(serde_json::from_str::<Scope>(&json).unwrap(), scope);
        }

        #[test]
        fn what_reads_is_written_so_that_it_reads_the_same(text in "[a-z0-9():,*/ .]{0,30}") {
            if let Ok(scope) = text.parse::<Scope>() {
                prop_assert_eq!(scope.to_string().parse::<Scope>(), Ok(scope));
            }
        }
    }
}
