//! The limits of a server: those of the configuration, and the number of open files, because connections are files too.

use registry_http::{Limits, MemoryBudget};

use crate::config::sections::http;
use crate::failure::Failure;

/// Files that are open besides those of connections and blobs: records, logs, listening sockets, and what is opened
/// only briefly. If few files may be open, it is half of them, but never fewer than a server with some clients needs.
const OTHERS: u64 = 128;
const FEWEST_OTHERS: u64 = 48;

/// With fewer files than this, hardly any are left for clients.
const FEWEST: u64 = 64;

/// The most files of blobs that are open at once.
const BLOBS: usize = 16_384;

/// The inverse of the part of the files for pulls that is kept for requests which check for a blob.
const LOOKS: usize = 8;

/// The division of the limit on open files. No part takes from another, so that stalled clients do not block
/// connections, pushes or the log; and no address gets all of a part.
#[derive(Debug)]
pub(super) struct OpenFiles {
    pub(super) limits: Limits,
    /// How many files of blobs may be open.
    pub(super) blobs: usize,
    /// How many files may be open in total.
    files: u64,
}

impl OpenFiles {
    /// Raises the limit of this process as far as possible, as Go programs do, and divides it. Logs a shortage.
    ///
    /// # Errors
    /// If so few files may be open that no client could be served.
    pub(super) fn divide(http: &http::Http) -> Result<Self, Failure> {
        let divided = Self::of(http)?;
        if divided.is_short(http) {
            tracing::warn!(
                files = divided.files,
                connections = divided.limits.connections,
                pulls = divided.limits.downloads,
                pushes = divided.limits.uploads,
                "few files may be open (ulimit -n), so there are fewer connections, pulls and pushes at once"
            );
        }
        Ok(divided)
    }

    fn is_short(&self, http: &http::Http) -> bool {
        self.limits.connections < http.limits.connections.get()
    }

    /// Describes by how much the configuration is not met, and why, if it is not.
    pub(super) fn shortage(&self, http: &http::Http) -> Option<String> {
        let limits = &self.limits;
        self.is_short(http).then(|| {
            format!(
                "few files may be open ({}, ulimit -n), so there are fewer connections, pulls and pushes at once: {}, {} and {}",
                self.files, limits.connections, limits.downloads, limits.uploads
            )
        })
    }

    /// Like [`divide`](Self::divide), without logging a shortage.
    pub(super) fn of(http: &http::Http) -> Result<Self, Failure> {
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
        // If the limit cannot be read, whatever forbids that has also set it.
        let files = rlimit::increase_nofile_limit(u64::MAX).or_else(|error| {
            tracing::debug!(%error, "the limit on open files stays as it is");
            rlimit::getrlimit(rlimit::Resource::NOFILE).map(|(soft, _)| soft)
        });
        let files = files.unwrap_or(1024);
        if files < FEWEST {
            return Err(Failure::new(format!(
                "only {files} files may be open at once (ulimit -n), and connections are files too; allow at least {FEWEST}, \
                 better 1024 or more"
            )));
        }
        let free = free(files);
        limits.connections = limits.connections.min(free / 2);
        let blobs = free.saturating_sub(limits.connections).min(BLOBS);
        // The same division as in the storage.
        limits.uploads = blobs / 4;
        let downloads = blobs - limits.uploads;
        limits.downloads = downloads - downloads / LOOKS;
        Ok(Self { blobs, limits, files })
    }
}

/// Returns how many files are left for clients.
fn free(files: u64) -> usize {
    let others = (files / 2).clamp(FEWEST_OTHERS, OTHERS);
    usize::try_from(files.saturating_sub(others)).unwrap_or(usize::MAX)
}
