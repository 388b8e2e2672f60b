//! What is bounded: what the configuration says, and how many files may be open, because connections are files too.

use registry_http::{Limits, MemoryBudget};

use crate::config::sections::http;

/// Files that are open beside those of connections and blobs: records, logs, sockets that listen, and what is opened for a
/// moment only.
const OTHERS: u64 = 128;

/// The most files of blobs that are open at once. Requests are bounded too, so more are never asked for.
const BLOBS: usize = 16_384;

/// What the limit on open files leaves room for. Nothing of it is taken by another part, so clients that stall keep
/// nobody from connecting, from pushing or from the log.
#[derive(Debug)]
pub(super) struct OpenFiles {
    pub(super) limits: Limits,
    /// How many files of blobs may be open.
    pub(super) blobs: usize,
}

impl OpenFiles {
    /// Raises the limit of this process as far as it may go, as programs in Go do, and divides it.
    pub(super) fn divide(http: &http::Http) -> Self {
        let asked = &http.limits;
        let mut limits = Limits::default();
        limits.memory = MemoryBudget::new(asked.memory.get());
        limits.connections = asked.connections.get();
        limits.requests = asked.requests.get();
        limits.streams = asked.streams.get();
        limits.header = asked.header.get();
        let timeouts = &http.timeouts;
        limits.handshake = timeouts.handshake.0;
        limits.header_time = timeouts.header.0;
        limits.request_silence = timeouts.body.0;
        limits.response_silence = timeouts.answer.0;
        limits.idle = timeouts.idle.0;
        // Where the limit cannot be asked for, whoever forbids that has set it too.
        let files = rlimit::increase_nofile_limit(u64::MAX).or_else(|error| {
            tracing::debug!(%error, "the limit on open files stays as it is");
            rlimit::getrlimit(rlimit::Resource::NOFILE).map(|(soft, _)| soft)
        });
        let free = count(files.unwrap_or(1024).saturating_sub(OTHERS).max(2));
        limits.connections = limits.connections.min(free / 2);
        if limits.connections < asked.connections.get() {
            tracing::warn!(
                files = free,
                connections = limits.connections,
                "few files may be open (ulimit -n), so there are fewer connections at once"
            );
        }
        Self {
            blobs: free.saturating_sub(limits.connections).min(BLOBS),
            limits,
        }
    }
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
