//! Paths of requests.

use http::uri::PathAndQuery;

/// Tells whether a text is a path that a request can ask for: it begins with a slash, and has no query and nothing that stands
/// in no URL.
pub(crate) fn is_url_path(text: &str) -> bool {
    let parsed: Result<PathAndQuery, _> = text.parse();
    text.starts_with('/') && text.is_ascii() && parsed.is_ok_and(|parsed| parsed.path() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            "http://a/b",
            "*",
            "/\u{e9}",
        ] {
            assert!(!is_url_path(other), "{other}");
        }
    }
}
