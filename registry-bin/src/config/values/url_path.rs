//! Paths of requests.

use http::uri::PathAndQuery;

/// Tells whether a text is a path that a request can ask for: it begins with a slash, and has no query and nothing that stands
/// in no URL. Escapes it has none: with them one path is written in several ways.
pub(crate) fn is_url_path(text: &str) -> bool {
    let parsed: Result<PathAndQuery, _> = text.parse();
    text.starts_with('/')
        && text.is_ascii()
        && !text.contains('%')
        && parsed.is_ok_and(|parsed| parsed.path() == text)
}

/// Returns a path as programs between a client and a server make it plain: without empty parts, `.`, `..` and a slash at its
/// end.
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
