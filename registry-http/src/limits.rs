//! The limits of a server and its service.

use std::time::Duration;

use crate::memory::MemoryBudget;

/// The limits of a server and its service. No request has a limit on its total time, only on silence.
///
/// ```
/// use std::time::Duration;
///
/// let mut limits = registry_http::Limits::default();
/// limits.requests = 64;
/// limits.request_body_timeout = Duration::from_secs(10);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Memory that clients can make the server and its service hold: connections, headers, requests, bodies of
    /// manifests and answers. When it runs out, the clients that hold most are refused first. What a storage buffers of
    /// blobs is not counted. Clones of these limits share the budget. 48 MiB by default.
    pub memory: MemoryBudget,
    /// Requests that one service works on at once; more wait. A request that waits for its client, to send more of its
    /// body or to take more of the answer, does not count. 384 by default: one address can have 288 of them, so that its
    /// writes do not make those of others wait long.
    pub requests: usize,
    /// Blobs that are pulled at once, each until its client took it: each may hold a file open. More wait, for at most
    /// [`permit_timeout`](Self::permit_timeout). One address may have three times as many as are free. Unlimited by
    /// default.
    pub downloads: usize,
    /// Requests at once that upload bytes of blobs: each may hold a file open. The rules of `downloads` apply.
    /// Unlimited by default.
    pub uploads: usize,
    /// How long a request waits while as many requests as may be are worked on, or transfer blobs, before it is answered
    /// 503 with `Retry-After`. 5 seconds by default.
    pub permit_timeout: Duration,
    /// Connections that a server has open at once. More wait until one ends, or until one that has been idle for a
    /// second is closed for them. One address may have three times as many as are free, plus eight. 4096 by default.
    pub connections: usize,
    /// Concurrent requests on one HTTP/2 connection. 128 by default.
    pub streams: u32,
    /// Fields in the header of a request; a request with more is answered 431. 100 by default.
    pub fields: usize,
    /// Bytes in the header of a request; a request with more is answered 431. For HTTP/1.1, less than 16 KiB acts as 16
    /// KiB. 64 KiB by default.
    pub header: u32,
    /// Bytes that a connection buffers in each direction, at least 8 KiB. It bounds what one read takes of an HTTP/1.1
    /// body, for a client that sends that fast and while there is memory, and how much of an answer waits for the
    /// socket. 256 KiB by default.
    pub buffer: usize,
    /// Bytes of request bodies that an HTTP/2 connection buffers: its flow control window, and that of each of its
    /// streams. At most 2 GiB - 1. 1 MiB by default.
    pub window: u32,
    /// How long a TLS handshake may take. 10 seconds by default.
    pub handshake_timeout: Duration,
    /// How long the header of an HTTP/1.1 request may take to arrive, from its first byte on, and how long a connection
    /// may wait for its first request. 60 seconds by default.
    pub header_timeout: Duration,
    /// How long a connection may have no requests before it is closed (over HTTP/2, before it is sent GOAWAY). It is
    /// longer than clients and proxies keep unused connections (60 seconds in nginx and Amazon's load balancers, 90 in
    /// Go programs, 2 minutes in Caddy), so that they close first: a request sent just as the server closes gets no
    /// answer. 3 minutes by default.
    pub idle_timeout: Duration,
    /// How long a request body may bring no byte before the request is answered 408. What has arrived is kept. 60
    /// seconds by default.
    pub request_body_timeout: Duration,
    /// How long a client may take nothing of an answer that is ready before its connection is cut, or, if it takes
    /// other answers, its HTTP/2 stream is reset. Pings do not count. 60 seconds by default.
    pub response_timeout: Duration,
    /// Bytes of a request body that are read and discarded when the request was refused early, so that the connection
    /// can be used again. If more is left, the connection is closed. 256 KiB by default.
    pub drain: usize,
    /// How long discarding may take, and how long a connection that is closed with an unread request body keeps reading
    /// it, so that a client that is still sending gets to read the answer. 2 seconds by default.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: MemoryBudget::new(48 << 20),
            requests: 384,
            downloads: usize::MAX,
            uploads: usize::MAX,
            permit_timeout: Duration::from_secs(5),
            connections: 4096,
            streams: 128,
            fields: 100,
            header: 64 * 1024,
            buffer: 256 * 1024,
            window: 1024 * 1024,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(180),
            request_body_timeout: Duration::from_secs(60),
            response_timeout: Duration::from_secs(60),
            drain: 256 * 1024,
            drain_timeout: Duration::from_secs(2),
        }
    }
}
