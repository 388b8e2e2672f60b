//! Request paths.

use http::uri::PathAndQuery;

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
