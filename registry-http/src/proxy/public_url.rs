//! The URL at which clients reach a server.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;

use super::prefix::Prefix;
use crate::connection::Connection;

/// The URL at which clients reach a server: scheme, host, and the path that everything is below. [`Proxied`] puts it
/// into the extensions of each request, for services that write full URLs.
///
/// [`Proxied`]: crate::Proxied
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    is_https: bool,
    authority: Authority,
    /// Begins with a slash and does not end with one, or is empty.
    path: String,
}

impl PublicUrl {
    /// Returns the URL at which the client reached the server, as [`Proxied`] found it, or otherwise according to the
    /// request and its [`Connection`].
    ///
    /// [`Proxied`]: crate::Proxied
    #[must_use]
    pub fn of(request: &Parts) -> Option<Self> {
        let found = request.extensions.get::<Self>().cloned();
        found.or_else(|| Self::requested(request))
    }

    /// Returns the URL that the client used, without a path: as trusted proxies reported, or otherwise according to the
    /// request.
    pub(super) fn requested(request: &Parts) -> Option<Self> {
        let connection = Connection::of(request);
        let forwarded = connection.and_then(Connection::forwarded);
        let own_host = || {
            let authority = request.uri.authority().map(Authority::as_str);
            authority.or_else(|| request.headers.get(HOST)?.to_str().ok())
        };
        let host = forwarded.and_then(|forwarded| forwarded.host.as_deref());
        let is_https = connection.is_some_and(Connection::is_https);
        let url = Self::of_host(is_https, host.or_else(own_host)?)?;
        // The port of a proxy that speaks HTTP behind one that speaks HTTPS means nothing.
        let port = forwarded.and_then(|forwarded| forwarded.port);
        Some(match port.filter(|port| !matches!(port, 80 | 443)) {
            Some(port) => url.with_port(port),
            None => url,
        })
    }

    /// Returns whether the scheme is `https`.
    #[must_use]
    pub const fn is_https(&self) -> bool {
        self.is_https
    }

    /// Returns the host, with its port if there is one.
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority.as_str()
    }

    /// Creates the URL of a host with an optional port.
    fn of_host(is_https: bool, host: &str) -> Option<Self> {
        let authority: Authority = host.parse().ok()?;
        is_host_and_port(&authority).then(|| Self {
            is_https,
            authority,
            path: String::new(),
        })
    }

    /// Adds a port if there is none.
    fn with_port(mut self, port: u16) -> Self {
        if self.authority.port().is_none()
            && port != 0
            && let Ok(authority) = format!("{}:{port}", self.authority).parse()
        {
            self.authority = authority;
        }
        self
    }

    pub(super) fn below(mut self, prefix: &Prefix) -> Self {
        self.path.push_str(prefix.as_str());
        self
    }
}

/// Returns whether it consists only of a host and an optional valid port, without a user.
fn is_host_and_port(authority: &Authority) -> bool {
    let port = authority.as_str().strip_prefix(authority.host());
    !authority.host().is_empty() && (port == Some("") || authority.port_u16().is_some() && port.is_some())
}

/// A text is not a valid [`PublicUrl`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a URL such as https://registry.example:5000 is expected")]
pub struct InvalidPublicUrl;

impl FromStr for PublicUrl {
    type Err = InvalidPublicUrl;

    fn from_str(text: &str) -> Result<Self, InvalidPublicUrl> {
        let uri: Uri = text.parse().map_err(|_| InvalidPublicUrl)?;
        let authority = uri.authority().filter(|authority| is_host_and_port(authority));
        let authority = authority.ok_or(InvalidPublicUrl)?.clone();
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(InvalidPublicUrl),
        };
        if uri.query().is_some() || text.contains('#') {
            return Err(InvalidPublicUrl);
        }
        Ok(Self {
            is_https,
            authority,
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

/// Writes the URL without a trailing slash.
impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_written() {
        for (text, written) in [
            ("https://registry.example", "https://registry.example"),
            ("http://127.0.0.1:5000/", "http://127.0.0.1:5000"),
            ("https://[::1]:5000/a/b/", "https://[::1]:5000/a/b"),
        ] {
            let url: PublicUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), written);
            assert_eq!(written.parse(), Ok(url));
        }
        for text in [
            "",
            "registry.example",
            "registry.example:5000",
            "/path",
            "ftp://registry.example",
            "https://",
            "https://user@registry.example",
            "https://registry.example:x",
            "https://registry.example:99999",
            "https://registry.example?a",
            "https://registry.example/#a",
        ] {
            assert_eq!(text.parse::<PublicUrl>(), Err(InvalidPublicUrl), "{text}");
        }
    }
}
