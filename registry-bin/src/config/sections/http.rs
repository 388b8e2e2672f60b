//! `http`: where the registry is reached.

use std::num::{NonZeroU32, NonZeroUsize};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tls::Tls;
use crate::config::values::{AddressRange, FileMode, GoDuration, HeaderFields, Secret};

/// Where the registry is reached, and by whom how often.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Http {
    /// Where to listen: `ADDRESS:PORT`, `:PORT` for all addresses, or a path where `net` is `unix`.
    pub(crate) addr: String,
    /// The kind of `addr`.
    pub(crate) net: Network,
    /// The file of the socket where `net` is `unix`.
    pub(crate) unix: UnixSocket,
    /// The URL that clients reach the registry by, for the URLs in its responses.
    pub(crate) host: Option<String>,
    /// The path that the registry is below of, such as `/registry/`.
    pub(crate) prefix: Option<String>,
    /// What hides names of repositories in links of the catalog from those who may not see them; random unless given.
    /// Servers of one bucket need the same.
    pub(crate) secret: Option<Secret>,
    /// URLs in responses are paths. Unless given, they are whole with `host`, and without it paths for all but what
    /// ollama pushes, which takes no path there.
    #[serde(rename = "relativeurls")]
    pub(crate) relative_urls: Option<bool>,
    /// How long running requests may go on after the first signal; 0 cuts them.
    #[serde(rename = "draintimeout")]
    pub(crate) drain_timeout: GoDuration,
    /// Header fields of every response, such as `X-Content-Type-Options: [nosniff]`.
    pub(crate) headers: HeaderFields,
    /// Encryption.
    pub(crate) tls: Tls,
    /// A second listener for whoever watches the server.
    pub(crate) debug: Debug,
    /// HTTP/2 over TLS.
    pub(crate) http2: Http2,
    /// HTTP/2 without TLS.
    pub(crate) h2c: H2c,
    /// The proxies whose `proxyfields` are believed: addresses and ranges such as `10.0.0.0/8`, and whoever comes through
    /// a unix socket. Those on the same machine unless given; nobody with `[]`.
    #[serde(rename = "trustedproxies")]
    pub(crate) trusted_proxies: Option<Vec<AddressRange>>,
    /// The header fields that the proxies write or remove; others are the client's own words, and not believed.
    /// `x-forwarded-for`, `x-forwarded-proto` and `x-forwarded-host` unless given.
    #[serde(rename = "proxyfields")]
    pub(crate) proxy_fields: Option<Vec<ProxyField>>,
    /// How many requests are answered.
    #[serde(rename = "ratelimit")]
    pub(crate) rate_limit: RateLimit,
    /// What clients can make the server hold.
    pub(crate) limits: Limits,
    /// How long clients may be silent.
    pub(crate) timeouts: Timeouts,
}

/// Only for this machine: a registry without users and without encryption is not for a network.
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
    /// Its permissions in octal digits, such as `0660`; those of a new file unless given.
    pub(crate) mode: Option<FileMode>,
    /// The group that it belongs to, a name or a number; the server's user has to be in it.
    pub(crate) group: Option<String>,
}

/// A header field by which a proxy tells of the request that it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ProxyField {
    /// The client's address.
    XForwardedFor,
    /// The scheme of the URL that it asked at.
    XForwardedProto,
    /// The host of that URL.
    XForwardedHost,
    /// The port of that URL, where its host comes without one.
    XForwardedPort,
    /// All of these, by RFC 7239.
    Forwarded,
}

/// A second listener for whoever watches the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Debug {
    /// Where metrics and health are served; nowhere unless given.
    pub(crate) addr: Option<String>,
    /// Metrics.
    pub(crate) prometheus: Prometheus,
}

/// Metrics for Prometheus.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Prometheus {
    /// Metrics are served at the debug address.
    pub(crate) enabled: bool,
    /// The path of the metrics, none of those of the health.
    pub(crate) path: String,
}

impl Default for Prometheus {
    fn default() -> Self {
        Self {
            enabled: false,
            path: "/metrics".into(),
        }
    }
}

/// HTTP/2 over TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Http2 {
    /// Only HTTP/1.1 is spoken.
    pub(crate) disabled: bool,
}

/// HTTP/2 without TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct H2c {
    /// HTTP/2 is spoken without TLS, to clients that know beforehand; so it is unless `http2.disabled` or this says
    /// otherwise.
    pub(crate) enabled: Option<bool>,
}

/// How many requests are answered; the others get 429.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RateLimit {
    /// For each address of a client.
    pub(crate) address: Option<Rate>,
    /// For each identity.
    pub(crate) identity: Option<Rate>,
}

/// So many in so long.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rate {
    /// How many requests are answered in `per`.
    pub(crate) requests: NonZeroU32,
    /// The time that requests are counted in.
    #[serde(default = "one_second")]
    pub(crate) per: GoDuration,
    /// How many may come at once after a rest; as many as `requests` unless given.
    pub(crate) burst: Option<NonZeroU32>,
}

fn one_second() -> GoDuration {
    GoDuration::from_secs(1)
}

/// What clients can make the server hold.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// Bytes for connections, headers, requests, bodies of manifests and answers, of all clients together. One address
    /// may hold three times as much as is free.
    pub(crate) memory: NonZeroUsize,
    /// Connections at once. One address may have three times as many as are free.
    pub(crate) connections: NonZeroUsize,
    /// Requests that are worked on at once; more wait for at most 5 s. Who is waited for does not count.
    pub(crate) requests: NonZeroUsize,
    /// Requests of one HTTP/2 connection at once.
    pub(crate) streams: NonZeroU32,
    /// Bytes in the header of a request, at least 16384 and at most a quarter of `memory`.
    pub(crate) header: NonZeroU32,
}

impl Default for Limits {
    fn default() -> Self {
        let ours = registry_http::Limits::default();
        let least = NonZeroUsize::MIN;
        Self {
            memory: NonZeroUsize::new(ours.memory.capacity()).unwrap_or(least),
            connections: NonZeroUsize::new(ours.connections).unwrap_or(least),
            requests: NonZeroUsize::new(ours.requests).unwrap_or(least),
            streams: NonZeroU32::new(ours.streams).unwrap_or(NonZeroU32::MIN),
            header: NonZeroU32::new(ours.header).unwrap_or(NonZeroU32::MIN),
        }
    }
}

/// How long clients may be silent. No request has a limit on its whole time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Timeouts {
    /// How long a TLS handshake may take.
    pub(crate) handshake: GoDuration,
    /// How long the header of an HTTP/1.1 request may take from its first byte on, and how long a new connection may be without a request.
    pub(crate) header: GoDuration,
    /// How long no byte of a request's body may come before it is answered 408.
    pub(crate) body: GoDuration,
    /// How long a client may take nothing of an answer before it is cut off.
    pub(crate) answer: GoDuration,
    /// How long a connection may be without requests. Longer than proxies in front keep one, so that it is they who close: a request that is sent just when the server closes has no answer.
    pub(crate) idle: GoDuration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let ours = registry_http::Limits::default();
        Self {
            handshake: GoDuration(ours.handshake),
            header: GoDuration(ours.header_time),
            body: GoDuration(ours.request_silence),
            answer: GoDuration(ours.response_silence),
            idle: GoDuration(ours.idle),
        }
    }
}
