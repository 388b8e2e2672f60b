//! URLs in responses.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use crate::percent::Encoded;

/// A URL as it is in a response: the field `Location`, or that of a link.
///
/// It is absolute (`https://host/path`), or relative to the URL of the request (`/path`, `//host/path`, `name?query`):
/// [`Location::resolve`] returns the absolute one. It consists of visible ASCII characters, so that it can be sent as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location(Box<str>);

impl Location {
    /// The maximum length in bytes. Signed URLs of object stores have some thousand.
    pub const MAXIMUM_BYTES: usize = 16 << 10;

    /// Takes a URL, without its fragment; `None` if it is empty or longer than [`Location::MAXIMUM_BYTES`], or contains a
    /// character that no URL may contain.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_ascii();
        let text = text.split_once('#').map_or(text, |(url, _)| url);
        let is_valid = (1..=Self::MAXIMUM_BYTES).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"<>\"".contains(&byte));
        is_valid.then(|| Self(text.into()))
    }

    /// Returns the URL as it was sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the URL with a parameter added to its query, which is kept: the state of an upload may be in it.
    #[must_use]
    pub fn with_parameter(&self, key: &str, value: &str) -> String {
        let separator = match self.0.find('?') {
            None => "?",
            Some(at) if at.saturating_add(1) == self.0.len() || self.0.ends_with('&') => "",
            Some(_) => "&",
        };
        format!("{}{separator}{key}={}", self.0, Encoded(value))
    }

    /// Returns the path and query, which a request to the same host has as its target; `None` if the URL is relative to a
    /// path, or has a scheme other than HTTP.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        let target = match (Url::parse(&self.0), self.0.strip_prefix("//")) {
            (Some(url), _) => url.target,
            (None, Some(rest)) => split_authority(rest).1,
            (None, None) => return self.0.starts_with('/').then_some(&self.0),
        };
        match target {
            "" => Some("/"),
            _ => target.starts_with('/').then_some(target),
        }
    }

    /// Returns the absolute URL, given the absolute URL `base` of the request that was answered (RFC 3986, section 5.2);
    /// `None` if one of them is no URL of HTTP.
    ///
    /// ```
    /// use registry_core::response::Location;
    /// let base = "https://registry.example/v2/a/blobs/uploads/";
    /// let resolve = |text| Location::parse(text)?.resolve(base);
    /// assert_eq!(resolve("/v2/x?y").as_deref(), Some("https://registry.example/v2/x?y"));
    /// assert_eq!(resolve("1?y").as_deref(), Some("https://registry.example/v2/a/blobs/uploads/1?y"));
    /// assert_eq!(resolve("http://other/x").as_deref(), Some("http://other/x"));
    /// assert_eq!(resolve("ftp://other/x"), None);
    /// ```
    #[must_use]
    pub fn resolve(&self, base: &str) -> Option<String> {
        let base = Url::parse(base)?;
        if let Some(url) = Url::parse(&self.0) {
            return Some(url.to_string());
        }
        if has_scheme(&self.0) {
            return None;
        }
        if self.0.starts_with("//") {
            return Some(Url::parse(&format!("{}:{}", base.scheme, self.0))?.to_string());
        }
        let path = base.target.split('?').next().unwrap_or_default();
        let target = match self.0.as_bytes().first() {
            Some(b'/') => self.0.to_string(),
            Some(b'?') => format!("{path}{}", self.0),
            _ => {
                let folder = path.rfind('/').and_then(|slash| path.get(..=slash));
                format!("{}{}", folder.unwrap_or("/"), self.0)
            }
        };
        let url = Url {
            target: &without_dots(&target),
            ..base
        };
        Some(url.to_string())
    }

    /// Returns whether the URL leads to the host that the absolute URL `base` leads to, with the same scheme and port.
    /// Credentials for one host must not be sent to another.
    #[must_use]
    pub fn is_same_origin(&self, base: &str) -> bool {
        let resolved = self.resolve(base);
        match (resolved.as_deref().and_then(Url::parse), Url::parse(base)) {
            (Some(resolved), Some(base)) => resolved.has_origin_of(&base),
            _ => false,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An absolute URL of HTTP.
#[derive(Clone, Copy)]
struct Url<'a> {
    /// `http` or `https`.
    scheme: &'static str,
    /// The host, with a port if there is one.
    authority: &'a str,
    /// The path and query: empty, or it begins with `/` or `?`.
    target: &'a str,
}

impl<'a> Url<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = ["http", "https"]
            .into_iter()
            .find(|known| known.eq_ignore_ascii_case(scheme))?;
        let (authority, target) = split_authority(rest);
        (!authority.is_empty()).then_some(Self {
            scheme,
            authority,
            target,
        })
    }

    fn has_origin_of(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.host().eq_ignore_ascii_case(other.host())
    }

    /// Returns the host without the port that the scheme has by default. A login in it makes it another host.
    fn host(&self) -> &'a str {
        let port = if self.scheme == "http" { ":80" } else { ":443" };
        self.authority.strip_suffix(port).unwrap_or(self.authority)
    }
}

impl fmt::Display for Url<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.target.starts_with('/') { "" } else { "/" };
        write!(f, "{}://{}{slash}{}", self.scheme, self.authority, self.target)
    }
}

/// Splits what follows `//` into the authority and the rest.
fn split_authority(text: &str) -> (&str, &str) {
    text.split_at(text.find(['/', '?']).unwrap_or(text.len()))
}

/// Returns whether a URL begins with a scheme (RFC 3986, section 3.1). A path of other URLs contains no colon before its
/// first slash.
fn has_scheme(text: &str) -> bool {
    let first = text.split(['/', '?']).next().unwrap_or_default();
    first.contains(':')
}

/// Returns a path and query without the segments `.` and `..` (RFC 3986, section 5.2.4).
fn without_dots(target: &str) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut segments: Vec<&str> = Vec::new();
    let mut rest = path.split('/').skip(1).peekable();
    while let Some(segment) = rest.next() {
        let is_last = rest.peek().is_none();
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
        if is_last && matches!(segment, "." | "..") {
            segments.push("");
        }
    }
    format!("/{}{query}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: &str = "https://Registry.example:5000/v2/a/blobs/uploads/1?_state=2";

    fn location(text: &str) -> Location {
        Location::parse(text).unwrap()
    }

    #[test]
    fn a_url_is_relative_to_the_request() {
        let origin = "https://Registry.example:5000";
        for (text, path) in [
            ("/v2/b?x=1", "/v2/b?x=1"),
            ("//registry.example:5000/v2/b", ""),
            ("2?_state=3", "/v2/a/blobs/uploads/2?_state=3"),
            ("?_state=3", "/v2/a/blobs/uploads/1?_state=3"),
            ("../../b", "/v2/a/b"),
            ("./2", "/v2/a/blobs/uploads/2"),
            ("/../../x/./y/..", "/x/"),
            ("/x#fragment", "/x"),
            ("/x?u=https://other/", "/x?u=https://other/"),
            ("x/y:z", "/v2/a/blobs/uploads/x/y:z"),
        ] {
            let found = location(text).resolve(BASE);
            let expected = if path.is_empty() {
                format!("https:{text}")
            } else {
                format!("{origin}{path}")
            };
            assert_eq!(found, Some(expected), "{text}");
            assert!(location(text).is_same_origin(BASE), "{text}");
        }
        assert_eq!(
            location("HTTPS://other").resolve(BASE).as_deref(),
            Some("https://other/")
        );
        assert_eq!(
            location("x").resolve("http://host").as_deref(),
            Some("http://host/x")
        );
        for text in ["ftp://other/x", "mailto:x", "http:///v2/", "data:,x"] {
            assert_eq!(location(text).resolve(BASE), None, "{text}");
        }
        assert_eq!(location("/x").resolve("/v2/"), None);
    }

    #[test]
    fn credentials_stay_at_their_host() {
        for (text, base, is_same) in [
            ("https://a/x", "https://a/", true),
            ("https://A:443/x", "https://a/", true),
            ("http://a:80", "http://a", true),
            ("http://a/x", "https://a/", false),
            ("https://a:5000/x", "https://a/", false),
            ("https://a.b/x", "https://a/", false),
            ("https://a@b/x", "https://a/", false),
            ("//b/x", "https://a/", false),
            ("ftp://a/x", "https://a/", false),
        ] {
            assert_eq!(location(text).is_same_origin(base), is_same, "{text} {base}");
        }
    }

    #[test]
    fn a_target_is_what_the_host_is_asked_for() {
        for (text, target) in [
            ("/v2/a?b", Some("/v2/a?b")),
            ("http://host:1/v2/a?b", Some("/v2/a?b")),
            ("//host/v2/a", Some("/v2/a")),
            ("https://host", Some("/")),
            ("https://host?x", None),
            ("uploads/1", None),
            ("ftp://host/", None),
        ] {
            assert_eq!(location(text).target(), target, "{text}");
        }
    }

    #[test]
    fn a_parameter_is_added_to_the_query() {
        for (text, expected) in [
            ("/x", "/x?digest=sha256:0"),
            ("/x?", "/x?digest=sha256:0"),
            ("/x?a=b%2B", "/x?a=b%2B&digest=sha256:0"),
            ("/x?a&", "/x?a&digest=sha256:0"),
        ] {
            assert_eq!(location(text).with_parameter("digest", "sha256:0"), expected);
        }
        assert_eq!(location("/x").with_parameter("a", "b&c+"), "/x?a=b%26c%2B");
    }

    #[test]
    fn what_cannot_be_sent_is_no_location() {
        for text in ["", " ", "#x", "/a b", "/a\r\nX: y", "/\u{e9}", "<x>"] {
            assert_eq!(Location::parse(text), None, "{text}");
        }
        let long = |length| Location::parse(&"x".repeat(length));
        assert!(long(Location::MAXIMUM_BYTES).is_some() && long(Location::MAXIMUM_BYTES + 1).is_none());
    }

    proptest! {
        #[test]
        fn what_is_resolved_is_absolute_and_resolves_to_itself(text in "(https?:)?/{0,2}[a-z./?:#=]{0,20}") {
            if let Some(location) = Location::parse(&text)
                && let Some(url) = location.resolve(BASE)
            {
                let absolute = Location::parse(&url).unwrap();
                prop_assert!(url.starts_with("http"));
                prop_assert!(!absolute.target().unwrap().is_empty());
                prop_assert_eq!(absolute.resolve("http://elsewhere/"), Some(url));
            }
        }
    }
}
