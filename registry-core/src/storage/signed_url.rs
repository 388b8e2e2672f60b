//! URLs at which content can be read without the registry.

use alloc::boxed::Box;
use core::fmt;
use core::time::Duration;

use crate::response::Location;

/// A URL at which whoever knows it can read content, whole or in ranges, until it expires. It answers `GET` only.
///
/// It is a secret: its query is a signature that takes the place of credentials. Neither form of formatting prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedUrl {
    url: Box<str>,
    /// How long it can be used from now on.
    lifetime: Duration,
}

impl SignedUrl {
    /// Takes a URL that expires in `lifetime`; `None` if it is no absolute URL of HTTP that can be sent as a
    /// [`Location`].
    #[must_use]
    pub fn new(url: &str, lifetime: Duration) -> Option<Self> {
        let location = Location::parse(url).filter(|location| location.as_str() == url)?;
        // An absolute URL is the same from wherever it is requested.
        let is_absolute = location.resolve("http://elsewhere/").as_deref() == Some(url);
        is_absolute.then(|| Self {
            url: url.into(),
            lifetime,
        })
    }

    /// Returns the URL, for the client.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.url
    }

    /// Returns how long it can be used.
    #[must_use]
    pub const fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Returns scheme, host and port, which are no secret.
    #[must_use]
    pub fn origin(&self) -> &str {
        let authority = self.url.find("://").map_or(0, |at| at.saturating_add(3));
        let rest = self.url.get(authority..).unwrap_or_default();
        let end = rest
            .find(['/', '?'])
            .map_or(self.url.len(), |at| authority.saturating_add(at));
        self.url.get(..end).unwrap_or_default()
    }
}

impl fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedUrl({}/********)", self.origin())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn only_what_a_client_can_follow_is_taken_and_its_signature_is_not_printed() {
        let new = |url| SignedUrl::new(url, Duration::from_secs(1));
        for (url, origin) in [
            (
                "https://bucket.example/a/b?X-Amz-Signature=canary",
                "https://bucket.example",
            ),
            ("http://[::1]:9000/canary?x", "http://[::1]:9000"),
        ] {
            let signed = new(url).unwrap();
            assert_eq!((signed.reveal(), signed.origin()), (url, origin));
            assert!(!format!("{signed:?}").contains("canary"), "{signed:?}");
        }
        for url in [
            "/a",
            "//host/a",
            "ftp://host/a",
            "http://host/a b",
            "http://host/a#b",
            "",
        ] {
            assert_eq!(new(url), None, "{url}");
        }
    }
}
