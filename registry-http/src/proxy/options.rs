//! How a server is shown to its clients.

use http::header::USER_AGENT;
use http::request::Parts;

use super::fields::ProxyFields;
use super::prefix::Prefix;
use super::public_url::PublicUrl;
use super::trusted::TrustedProxies;

/// The form of `Location` (RFC 9110, section 10.2.2: a URL, or a reference relative to that of the request).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Locations {
    /// A path, which is correct even behind a TLS proxy that does not report itself. For clients that cannot send to a
    /// path, a full URL.
    #[default]
    ByClient,
    /// A path.
    Paths,
    /// A full URL.
    Urls,
}

/// The beginning of the `User-Agent` of clients that take a path for a URL without a host: ollama (up to 0.17.4 at least),
/// and the tools of scripts, which send to the `Location` as it is. A container client may name such a tool later in the
/// field: docker adds `UpstreamClient(curl/8.5.0)`.
const URLS_ONLY: [&str; 8] = [
    "ollama/",
    "curl/",
    "Wget/",
    "python-requests/",
    "python-httpx/",
    "Python-urllib/",
    // aiohttp: `Python/3.12 aiohttp/3.9.1`.
    "Python/",
    "HTTPie/",
];

/// Returns whether a client with this `User-Agent` can send only to full URLs.
fn takes_urls_only(agent: &str) -> bool {
    // `Mozilla/5.0 (…) WindowsPowerShell/5.1.19041.1`, or `PowerShell/7.4.0`.
    let is_powershell = agent.starts_with("Mozilla/") && agent.contains("PowerShell/");
    is_powershell || URLS_ONLY.iter().any(|begin| agent.starts_with(begin))
}

impl Locations {
    pub(super) fn are_urls(self, request: &Parts) -> bool {
        match self {
            Self::ByClient => {
                let agent = request.headers.get(USER_AGENT);
                let agent = agent.and_then(|agent| agent.to_str().ok());
                is_for_sending(request) && agent.is_some_and(takes_urls_only)
            }
            Self::Paths => false,
            Self::Urls => true,
        }
    }
}

/// Returns whether the client may send something to the `Location` of the answer. It resolves the redirect of a read.
fn is_for_sending(request: &Parts) -> bool {
    !request.method.is_safe() || request.uri.path().contains("/blobs/uploads/")
}

/// How [`Proxied`](crate::Proxied) shows a server. By default, the server is at the root of its host, and locations are paths.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ProxyOptions {
    /// The URL at which clients reach the server, if it is fixed. Otherwise it is what trusted proxies report, or what
    /// the request says.
    pub url: Option<PublicUrl>,
    /// The path that everything is below.
    pub prefix: Prefix,
    /// The form of `Location`.
    pub locations: Locations,
    /// The proxies whose reports about the client of a request are trusted.
    pub trusted_proxies: TrustedProxies,
    /// The fields that those proxies set. Any other field may come from the client.
    pub proxy_fields: ProxyFields,
}
