//! `http.ratelimit`, `http.limits` and `http.timeouts`: how much clients may take, and how long.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::problems::Problems;
use crate::config::values::GoDuration;

/// The least memory that the largest manifest fits into, because one client may hold three times what is free.
const LEAST_MEMORY_BYTES: usize = 8 << 20;

/// The shortest timeout; less is too short for a distant client.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(100);

/// How many of the largest headers must fit into the memory.
const HEADERS_IN_MEMORY: usize = 4;

/// The size of the buffer for a header.
const LEAST_HEADER_BYTES: u32 = 16 << 10;

/// How many requests are answered; the others get 429.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RateLimit {
    /// For each address of a client.
    pub(crate) address: Option<Rate>,
    /// For each identity.
    pub(crate) identity: Option<Rate>,
}

impl RateLimit {
    pub(super) fn check(&self, problems: &mut Problems<'_>) {
        for (kind, rate) in [("address", &self.address), ("identity", &self.identity)] {
            let Some(rate) = rate else { continue };
            let path = format!("http.ratelimit.{kind}");
            if rate.per.0.is_zero() {
                problems.add(
                    &format!("{path}.per"),
                    "must be more than 0; write for example 1s",
                );
            } else if rate.per.0.as_nanos() < rate.requests.get().into() {
                problems.add(
                    &path,
                    format!(
                        "{} requests in {} are more than one in a nanosecond, which limits nothing; write for example `per: 1s`",
                        rate.requests, rate.per
                    ),
                );
            }
        }
    }
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

impl Limits {
    pub(super) fn check(&self, problems: &mut Problems<'_>) {
        if self.memory.get() < LEAST_MEMORY_BYTES {
            problems.add(
                "http.limits.memory",
                format!(
                    "is in bytes, at least {LEAST_MEMORY_BYTES}, which is 8 MiB: a manifest may have 4 MiB"
                ),
            );
        }
        if self.header.get() < LEAST_HEADER_BYTES {
            problems.add(
                "http.limits.header",
                format!("is in bytes, at least {LEAST_HEADER_BYTES}: tokens are long"),
            );
        }
        let most_header = self.memory.get() / HEADERS_IN_MEMORY;
        if usize::try_from(self.header.get()).is_ok_and(|header| header > most_header) {
            problems.add(
                "http.limits.header",
                format!(
                    "is {}, and must be at most a quarter of `http.limits.memory`, which is {most_header}: it is held in that \
                     memory",
                    self.header
                ),
            );
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
            handshake: GoDuration(ours.handshake_timeout),
            header: GoDuration(ours.header_timeout),
            body: GoDuration(ours.request_body_timeout),
            answer: GoDuration(ours.response_timeout),
            idle: GoDuration(ours.idle_timeout),
        }
    }
}

impl Timeouts {
    pub(super) fn check(&self, problems: &mut Problems<'_>) {
        for (key, time) in [
            ("handshake", self.handshake),
            ("header", self.header),
            ("body", self.body),
            ("answer", self.answer),
            ("idle", self.idle),
        ] {
            // A number without a unit is nanoseconds.
            if time.0 < SHORTEST_TIMEOUT {
                problems.add(
                    &format!("http.timeouts.{key}"),
                    format!("is {time}, and must be at least 100ms; write for example 90s"),
                );
            }
        }
    }
}
