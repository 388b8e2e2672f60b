//! URLs that may contain credentials.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::content::is_content;

/// A URL whose user, password and query are neither printed nor logged. Neither is the content of a key in its place.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct SecretUrl(String);

impl SecretUrl {
    /// Returns the whole URL, for connecting to it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns whether a request can be sent to the URL.
    pub(crate) fn is_http(&self) -> bool {
        let url = reqwest::Url::parse(&self.0);
        url.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
    }
}

impl From<String> for SecretUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

/// Writes the URL without parts that may be secret.
impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An IPv6 address begins with a bracket, as a document does.
        if is_content(self.0.trim_start_matches('[')) {
            return f.write_str("********");
        }
        let (before_query, query) = match self.0.split_once(['?', '#']) {
            Some((before, _)) => (before, "?********"),
            None => (&*self.0, ""),
        };
        let (scheme, rest) = before_query.split_once("://").unwrap_or(("", before_query));
        let separator = if scheme.is_empty() { "" } else { "://" };
        // The last `@`, because a password may contain one, and even a slash.
        match rest.rsplit_once('@') {
            Some((_, host)) => write!(f, "{scheme}{separator}********@{host}{query}"),
            None => write!(f, "{before_query}{query}"),
        }
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SecretUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for SecretUrl {
    fn schema_name() -> Cow<'static, str> {
        "SecretUrl".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_queries_are_not_shown() {
        for (url, shown) in [
            ("http://a:1/b", "http://a:1/b"),
            ("http://u:canary@a/b", "http://********@a/b"),
            ("https://u:can/ary@@a/b", "https://********@a/b"),
            ("https://a/b?token=canary", "https://a/b?********"),
            ("canary@a", "********@a"),
            ("[::1]:9000", "[::1]:9000"),
            ("", ""),
            ("-----BEGIN PRIVATE KEY-----\nMIG", "********"),
            (
                "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCk1JR0hBZ0VBTUJNR0J5",
                "********",
            ),
        ] {
            let url = SecretUrl(url.to_owned());
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("\"{shown}\""));
            assert_eq!(serde_json::to_value(&url).unwrap(), shown);
        }
    }
}
