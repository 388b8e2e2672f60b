//! What is bounded, and how much.

use std::time::Duration;

use crate::memory::MemoryBudget;

/// The bounds of a server and its service. No request has a limit on its whole time, only on silence.
///
/// ```
/// use std::time::Duration;
///
/// let mut limits = registry_http::Limits::default();
/// limits.requests = 64;
/// limits.request_silence = Duration::from_secs(10);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// What clients can make the server and its service hold, of connections, headers, requests, bodies of manifests and
    /// answers; with more, who holds most is refused. What a storage buffers of blobs is its own. Clones of these limits
    /// share it. 48 MiB.
    pub memory: MemoryBudget,
    /// Requests that are worked on at once, by one service; more wait. A request that waits for its client, to send more
    /// of its body or to take more of the answer, does not count. 1024.
    pub requests: usize,
    /// Blobs that are pulled at once, until their clients took them: each may be a file that is open. More wait as for a
    /// turn. One address may have three times as many as are free. Without a bound.
    pub downloads: usize,
    /// Requests at once that bring bytes of blobs, each of which may have a file open; otherwise the same.
    pub uploads: usize,
    /// How long a request waits for its turn before it is answered 503 with `Retry-After`. 5 seconds.
    pub turn: Duration,
    /// Connections that a server has open at once. More wait until one ends, or one on which nothing happened for a
    /// second is closed for them. One address may have three times as many as are free, and eight. 4096.
    pub connections: usize,
    /// Requests of one HTTP/2 connection at once. 128.
    pub streams: u32,
    /// Fields in the header of a request; one with more is answered 431. 100.
    pub fields: usize,
    /// Bytes in the header of a request; one with more is answered 431. At least 16 KiB for HTTP/1.1. 64 KiB.
    pub header: u32,
    /// Bytes that a connection buffers in each direction, at least 8 KiB: the most that one read brings of a body of
    /// HTTP/1.1, to who sends so fast and while there is memory, and the most of an answer that waits for the socket.
    /// 256 KiB.
    pub buffer: usize,
    /// Bytes of request bodies that an HTTP/2 connection buffers: its flow control window, and that of each of its
    /// streams, at most 2 GiB - 1. 1 MiB.
    pub window: u32,
    /// How long a TLS handshake may take. 10 seconds.
    pub handshake: Duration,
    /// How long the header of an HTTP/1.1 request may take to arrive from its first byte on, and how long a connection may
    /// wait for its first request. 60 seconds.
    pub header_time: Duration,
    /// How long a connection may be without requests before it is closed, of HTTP/2 before it is told to go away. Longer
    /// than clients and proxies keep one that they do not use (60 seconds at nginx and Amazon's load balancers, 90 in
    /// programs of Go, 2 minutes at Caddy), so that it is they who close: a request that is sent just when the server
    /// closes has no answer. 3 minutes.
    pub idle: Duration,
    /// How long no byte of a request body may arrive before the request is answered 408. What arrived is kept. 60
    /// seconds.
    pub request_silence: Duration,
    /// How long a client may take nothing of an answer that is ready before its connection is cut, or its HTTP/2 stream
    /// reset where it takes others. Pings do not count. 60 seconds.
    pub response_silence: Duration,
    /// Bytes of a request body that are read and thrown away when the request was refused early, so that the
    /// connection can be used again; with more left it is closed. 256 KiB.
    pub drain: usize,
    /// How long that may take, and how long a connection that is closed with a request body unread goes on taking
    /// it, so that a client that is still sending gets to read the answer. 2 seconds.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: MemoryBudget::new(48 << 20),
            requests: 1024,
            downloads: usize::MAX,
            uploads: usize::MAX,
            turn: Duration::from_secs(5),
            connections: 4096,
            streams: 128,
            fields: 100,
            header: 64 * 1024,
            buffer: 256 * 1024,
            window: 1024 * 1024,
            handshake: Duration::from_secs(10),
            header_time: Duration::from_secs(60),
            idle: Duration::from_secs(180),
            request_silence: Duration::from_secs(60),
            response_silence: Duration::from_secs(60),
            drain: 256 * 1024,
            drain_time: Duration::from_secs(2),
        }
    }
}
