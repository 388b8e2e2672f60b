//! The path that a server is below.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use http::request::Parts;
use http::uri::PathAndQuery;

/// The path that everything is below, for a host that serves more than a registry. Empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefix(String);

/// The target of a request before the prefix was removed.
#[derive(Clone, Debug)]
pub(crate) struct Mounted {
    /// The path as it was sent.
    pub(crate) path: String,
    /// It is not below the prefix, so nothing is found there.
    pub(crate) is_outside: bool,
}

impl Prefix {
    /// Returns the path with a leading and no trailing slash, or the empty string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Removes the prefix from the path of a request. A path that is not below it is marked, except the root, which
    /// load balancers probe, and `*`, the server as a whole.
    pub(super) fn strip(&self, parts: &mut Parts) {
        if self.0.is_empty() {
            return;
        }
        let path = parts.uri.path();
        if matches!(path, "/" | "*") {
            return;
        }
        let inner = self.inner(&parts.uri);
        parts.extensions.insert(Mounted {
            path: path.to_owned(),
            is_outside: inner.is_none(),
        });
        if let Some(inner) = inner {
            parts.uri = inner;
        }
    }

    /// Returns the URI without the prefix.
    fn inner(&self, uri: &Uri) -> Option<Uri> {
        let rest = uri.path_and_query()?.as_str().strip_prefix(&self.0)?;
        let inner = match rest.as_bytes().first() {
            Some(b'/') => PathAndQuery::try_from(rest),
            None | Some(b'?') => PathAndQuery::try_from(format!("/{rest}")),
            Some(_) => return None,
        };
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(inner.ok()?);
        Uri::from_parts(parts).ok()
    }
}

/// A text is not a valid [`Prefix`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a path such as /registry/ is expected")]
pub struct InvalidPrefix;

impl FromStr for Prefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        let path = text.trim_end_matches('/');
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let is_segment =
            |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(is_allowed);
        let is_path = path
            .strip_prefix('/')
            .is_some_and(|path| path.split('/').all(is_segment));
        if is_path || path.is_empty() {
            Ok(Self(path.to_owned()))
        } else {
            Err(InvalidPrefix)
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.0)
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    /// Returns the inner target, and whether the path is outside.
    fn strip(prefix: &str, target: &str) -> (String, bool) {
        let prefix: Prefix = prefix.parse().unwrap();
        let (mut parts, ()) = Request::builder().uri(target).body(()).unwrap().into_parts();
        prefix.strip(&mut parts);
        let mounted = parts.extensions.get::<Mounted>();
        (
            parts.uri.to_string(),
            mounted.is_some_and(|mounted| mounted.is_outside),
        )
    }

    #[test]
    fn what_is_below_it_is_within() {
        for (target, inner) in [
            ("/a/b/v2/", "/v2/"),
            ("/a/b/v2/x/tags/list?n=1", "/v2/x/tags/list?n=1"),
            ("/a/b", "/"),
            ("/a/b?x", "/?x"),
            ("/", "/"),
            ("*", "*"),
        ] {
            assert_eq!(strip("/a/b/", target), (inner.to_owned(), false), "{target}");
        }
        assert_eq!(strip("/a", "http://host/a/v2/").0, "http://host/v2/");
        assert_eq!(strip("", "/v2/"), ("/v2/".to_owned(), false));
    }

    #[test]
    fn what_is_not_is_outside() {
        for target in [
            "/v2/",
            "/a/v2/",
            "/a/bc/v2/",
            "/A/b/v2/",
            "/a//b/v2/",
            "/x/a/b/v2/",
        ] {
            assert_eq!(strip("/a/b", target), (target.to_owned(), true), "{target}");
        }
    }

    #[test]
    fn a_prefix_is_a_path() {
        for (text, written) in [("", "/"), ("/", "/"), ("/a", "/a/"), ("/a/b-c.d/", "/a/b-c.d/")] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), written);
        }
        for text in ["a", "a/", "/a//b", "/a b", "/a?b", "/a/../b", "/%61", "/a#b"] {
            assert_eq!(text.parse::<Prefix>(), Err(InvalidPrefix), "{text}");
        }
    }
}
