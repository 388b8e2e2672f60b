//! `http`: where the registry is reached.

use std::num::{NonZeroU32, NonZeroUsize};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tls::Tls;
use crate::config::values::{AddressRange, FileMode, GoDuration, HeaderFields, Secret, UrlPath};

/// Where the registry is reached, and by whom how often.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Http {
    /// The address to listen on: `ADDRESS:PORT`, `:PORT` for all addresses, or a path if `net` is `unix`.
    pub(crate) addr: String,
    /// The kind of `addr`.
    pub(crate) net: Network,
    /// The file of the socket where `net` is `unix`.
    pub(crate) unix: UnixSocket,
    /// The URL at which clients reach the registry, for URLs in responses.
    pub(crate) host: Option<String>,
    /// The path below which everything is served, such as `/registry/`.
    pub(crate) prefix: Option<String>,
    /// The secret that hides repository names in catalog links from those who may not see them; random by default. Replicas on one bucket need the same.
    pub(crate) secret: Option<Secret>,
    /// URLs in responses are paths. By default they are whole if `host` is set; otherwise paths, except for pushes of ollama, curl and other tools that cannot send to a path.
    #[serde(rename = "relativeurls")]
    pub(crate) relative_urls: Option<bool>,
    /// How long running requests may take to finish after the first signal; 0 cuts them off.
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
    /// Its permissions in octal, such as `0660`; by default those of a new file.
    pub(crate) mode: Option<FileMode>,
    /// The group that owns it, a name or a number; the server's user must be in it.
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
    /// The requests allowed per `per`.
    pub(crate) requests: NonZeroU32,
    /// The period in which requests are counted.
    #[serde(default = "one_second")]
    pub(crate) per: GoDuration,
    /// The most requests at once after a pause; by default `requests`.
    pub(crate) burst: Option<NonZeroU32>,
}

fn one_second() -> GoDuration {
    GoDuration::from_secs(1)
}

/// Limits on what clients can make the server hold.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// Bytes that all clients together may hold in connections, headers, requests, manifest bodies and answers. One address may hold three times as much as is free.
    pub(crate) memory: NonZeroUsize,
    /// The most connections at once. One address may have three times as many as are free.
    pub(crate) connections: NonZeroUsize,
    /// The most requests worked on at once; more wait for up to 5 s. Requests that wait for their client do not count.
    pub(crate) requests: NonZeroUsize,
    /// The most concurrent requests on one HTTP/2 connection.
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
    /// How long the header of an HTTP/1.1 request may take from its first byte on, and how long a new connection may wait with its first request.
    pub(crate) header: GoDuration,
    /// How long a request's body may pause before the answer is 408.
    pub(crate) body: GoDuration,
    /// How long a client may take nothing of an answer before it is cut off.
    pub(crate) answer: GoDuration,
    /// How long a connection may be idle. Keep it longer than proxies in front do, so that they close first: a request sent just as the server closes gets no answer.
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
