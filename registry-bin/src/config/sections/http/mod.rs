//! `http`: where the registry is reached.

mod limits;

use registry_http::{DebugService, Prefix, PublicUrl};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::limits::{Limits, Rate, RateLimit, Timeouts};
use super::tls::Tls;
use crate::config::problems::Problems;
use crate::config::values::{
    AddressRange, FileMode, GoDuration, HeaderFields, HostPort, Secret, UrlPath, is_url_path, no_path,
    plain_path, shown,
};

/// Where the registry is reached, and by whom how often.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Http {
    /// The address to listen on: `ADDRESS:PORT`, `:PORT` for all addresses, or a path if `net` is `unix`.
    pub(crate) addr: String,
    /// The kind of `addr`.
    pub(crate) net: Network,
    /// The file of the socket if `net` is `unix`.
    pub(crate) unix: UnixSocket,
    /// The URL at which clients reach the registry, for URLs in responses.
    pub(crate) host: Option<String>,
    /// The path below which everything is served, such as `/registry/`.
    pub(crate) prefix: Option<String>,
    /// The secret that hides repository names in catalog links from those who may not see them. By default it is random, and kept in the storage, where all replicas on one bucket share it.
    pub(crate) secret: Option<Secret>,
    /// URLs in responses are paths. By default they are whole if `host` is set; otherwise paths, except for pushes of ollama, curl and other tools that cannot send to a path.
    #[serde(rename = "relativeurls")]
    pub(crate) relative_urls: Option<bool>,
    /// How long the server still takes new connections after the first signal, while `/ready` is 503, so that load balancers look elsewhere before it ends.
    #[serde(rename = "draindelay")]
    pub(crate) drain_delay: GoDuration,
    /// How long running requests may take to finish after the first signal, and `draindelay`; 0 cuts them off.
    #[serde(rename = "draintimeout")]
    pub(crate) drain_timeout: GoDuration,
    /// Header fields of every response, such as `X-Content-Type-Options: [nosniff]`.
    pub(crate) headers: HeaderFields,
    /// Encryption.
    pub(crate) tls: Tls,
    /// A second listener, for operators.
    pub(crate) debug: Debug,
    /// HTTP/2 over TLS.
    pub(crate) http2: Http2,
    /// HTTP/2 without TLS.
    pub(crate) h2c: H2c,
    /// The proxies whose `proxyfields` are believed: addresses and ranges such as `10.0.0.0/8`; clients of a unix socket always are. By default those on this machine; none with `[]`.
    #[serde(rename = "trustedproxies")]
    pub(crate) trusted_proxies: Option<Vec<AddressRange>>,
    /// The header fields that the proxies write or remove; all others come from clients and are not believed. By default `x-forwarded-for`, `x-forwarded-proto` and `x-forwarded-host`.
    #[serde(rename = "proxyfields")]
    pub(crate) proxy_fields: Option<Vec<ProxyField>>,
    /// Limits on the rate of requests.
    #[serde(rename = "ratelimit")]
    pub(crate) rate_limit: RateLimit,
    /// Limits on what clients can make the server hold.
    pub(crate) limits: Limits,
    /// How long clients may be silent.
    pub(crate) timeouts: Timeouts,
}

/// Only this machine by default, because a registry without users and encryption does not belong on a network.
const DEFAULT_ADDRESS: &str = "127.0.0.1:5000";

impl Default for Http {
    fn default() -> Self {
        Self {
            addr: DEFAULT_ADDRESS.to_owned(),
            net: Network::default(),
            unix: UnixSocket::default(),
            host: None,
            prefix: None,
            secret: None,
            relative_urls: None,
            drain_delay: GoDuration::default(),
            drain_timeout: GoDuration::from_secs(30),
            headers: HeaderFields::default(),
            tls: Tls::default(),
            debug: Debug::default(),
            http2: Http2::default(),
            h2c: H2c::default(),
            trusted_proxies: None,
            proxy_fields: None,
            rate_limit: RateLimit::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        }
    }
}

impl Http {
    /// Checks the values.
    pub(in crate::config) fn check(&self, problems: &mut Problems<'_>) {
        let is_unix = self.net == Network::Unix;
        let is_missing = !problems.tree().has("http.addr");
        problems.required(
            "http.addr",
            is_unix && is_missing,
            "name the path of the unix socket",
        );
        if !is_unix && self.unix != UnixSocket::default() {
            problems.add(
                "http.unix",
                "says who may connect to a unix socket; add `net: unix` and its path as `addr`, or remove the key",
            );
        }
        // Connecting to a socket needs the permission to write.
        if let Some(mode) = self.unix.mode.filter(|mode| mode.0 & 0o222 == 0) {
            problems.add(
                "http.unix.mode",
                format!("is {mode}, by which nobody can connect; write for example 0660"),
            );
        }
        if is_unix && !is_missing && no_path(&self.addr).is_some() {
            problems.add(
                "http.addr",
                "takes the path of a unix socket with `net: unix`, such as /run/registry.sock, and this is none",
            );
        }
        for (path, address) in [
            ("http.addr", Some(self.addr.as_str()).filter(|_| !is_unix)),
            ("http.debug.addr", self.debug.addr.as_deref()),
        ] {
            if let Some(Err(problem)) = address.map(HostPort::parse) {
                problems.add(path, problem);
            }
        }
        if let Some(Err(problem)) = self.host.as_deref().map(str::parse::<PublicUrl>) {
            problems.add("http.host", problem.to_string());
        }
        if let Some(Err(problem)) = self.prefix.as_deref().map(str::parse::<Prefix>) {
            problems.add("http.prefix", problem.to_string());
        }
        let fields = self.proxy_fields.as_deref().unwrap_or_default();
        if fields.contains(&ProxyField::Forwarded)
            && fields.iter().any(|field| *field != ProxyField::Forwarded)
        {
            problems.add(
                "http.proxyfields",
                "`forwarded` tells all that the others tell; keep what the proxy writes, because it passes the rest on as the client wrote it",
            );
        }
        self.rate_limit.check(problems);
        self.debug.prometheus.check(problems);
        self.timeouts.check(problems);
        self.limits.check(problems);
        self.tls.check(problems);
    }
}

/// The kind of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Network {
    /// An address and a port.
    #[default]
    #[serde(alias = "")]
    Tcp,
    /// The path of a socket.
    Unix,
}

/// The file of a unix socket, which says who may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct UnixSocket {
    /// Its permissions in octal, such as `0660`; by default those of a new file.
    pub(crate) mode: Option<FileMode>,
    /// The group that owns it, a name or a number; the server's user must be in it.
    pub(crate) group: Option<String>,
}

/// A header field in which a proxy reports the request that it received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ProxyField {
    /// The client's address.
    XForwardedFor,
    /// The scheme of the URL that it asked at.
    XForwardedProto,
    /// The host of that URL.
    XForwardedHost,
    /// The port of that URL, if its host comes without one.
    XForwardedPort,
    /// All of these, by RFC 7239.
    Forwarded,
}

/// A second listener, for operators.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Debug {
    /// The address for metrics and health; none by default.
    pub(crate) addr: Option<String>,
    /// Metrics.
    pub(crate) prometheus: Prometheus,
}

/// Metrics for Prometheus.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Prometheus {
    /// Serve metrics at the debug address.
    pub(crate) enabled: bool,
    /// The path of the metrics; not one of the health paths.
    pub(crate) path: UrlPath,
    /// How many repositories, the largest ones, the metrics name; at most 10000. 0 names none.
    pub(crate) repositories: usize,
}

/// The most repositories that metrics may name.
const MAXIMUM_REPOSITORIES: usize = 10_000;

impl Default for Prometheus {
    fn default() -> Self {
        Self {
            enabled: false,
            path: "/metrics".into(),
            repositories: 100,
        }
    }
}

impl Debug {
    /// Returns how many repositories the metrics name.
    pub(crate) const fn named_repositories(&self) -> usize {
        if self.addr.is_some() && self.prometheus.enabled {
            self.prometheus.repositories
        } else {
            0
        }
    }
}

impl Prometheus {
    fn check(&self, problems: &mut Problems<'_>) {
        let path = &self.path;
        if self.repositories > MAXIMUM_REPOSITORIES {
            problems.add(
                "http.debug.prometheus.repositories",
                format!(
                    "is {}, and may be {MAXIMUM_REPOSITORIES} at most",
                    self.repositories
                ),
            );
        }
        if !self.enabled {
            return;
        }
        if !is_url_path(path) {
            problems.add(
                "http.debug.prometheus.path",
                "takes a path without escapes that begins with a slash, such as /metrics",
            );
        } else if DebugService::has_health_at(&plain_path(path)) {
            problems.add(
                "http.debug.prometheus.path",
                format!(
                    "is {}, where the health is served; write for example /metrics",
                    shown(path)
                ),
            );
        }
    }
}

/// HTTP/2 over TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Http2 {
    /// Speak HTTP/1.1 only.
    pub(crate) disabled: bool,
}

/// HTTP/2 without TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct H2c {
    /// Speak HTTP/2 without TLS to clients that begin with it; on by default unless `http2.disabled`.
    pub(crate) enabled: Option<bool>,
}
