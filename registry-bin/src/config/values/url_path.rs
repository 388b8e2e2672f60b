//! Request paths.

use std::borrow::Cow;
use std::ops::Deref;

use http::uri::PathAndQuery;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{MASK, is_secret};

/// The path of requests. What is not a path is kept for the caller, and not printed: it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UrlPath(String);

impl Deref for UrlPath {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for UrlPath {
    fn from(path: &str) -> Self {
        Self(path.to_owned())
    }
}

impl Serialize for UrlPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let is_shown = is_url_path(&self.0) && !is_secret(&self.0);
        serializer.serialize_str(if is_shown { &self.0 } else { MASK })
    }
}

impl<'de> Deserialize<'de> for UrlPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for UrlPath {
    fn schema_name() -> Cow<'static, str> {
        "UrlPath".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// Returns whether a text is a path that a request can have: it begins with a slash, and has no query and no characters
/// that are invalid in URLs. Escapes are not allowed, because they allow several notations of one path.
pub(crate) fn is_url_path(text: &str) -> bool {
    let parsed: Result<PathAndQuery, _> = text.parse();
    text.starts_with('/')
        && text.is_ascii()
        && !text.contains('%')
        && parsed.is_ok_and(|parsed| parsed.path() == text)
}

/// Returns a path in the normal form to which programs between client and server reduce it: without empty parts, `.`,
/// `..` and a trailing slash.
pub(crate) fn plain_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_plain_whatever_it_is_written_like() {
        for path in [
            "/debug/health",
            "/debug/health/",
            "//debug//health",
            "/debug/./health",
            "/a/../debug/health",
            "/../debug/health",
        ] {
            assert_eq!(plain_path(path), "/debug/health", "{path}");
        }
        assert_eq!(plain_path("//"), "/");
    }

    #[test]
    fn what_no_request_asks_for_is_no_path() {
        for path in ["/", "/metrics", "/a/b-c_d.e", "/auth/token/"] {
            assert!(is_url_path(path), "{path}");
        }
        for other in [
            "",
            "metrics",
            "/a?b",
            "/a#b",
            "/a b",
            "/%61",
            "http://a/b",
            "*",
            "/\u{e9}",
        ] {
            assert!(!is_url_path(other), "{other}");
        }
    }
}
