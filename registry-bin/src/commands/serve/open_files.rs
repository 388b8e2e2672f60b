//! What is bounded: what the configuration says, and how many files may be open, because connections are files too.

use registry_http::{Limits, MemoryBudget};

use crate::config::sections::http;
use crate::failure::Failure;

/// Files that are open beside those of connections and blobs: records, logs, sockets that listen, and what is opened for a
/// moment only. Where few may be open it is half of them, and never fewer than a server with some clients has.
const OTHERS: u64 = 128;
const FEWEST_OTHERS: u64 = 48;

/// With fewer files than this nothing is left for clients to speak of.
const FEWEST: u64 = 64;

/// The most files of blobs that are open at once.
const BLOBS: usize = 16_384;

/// Which part of the files for pulls stays for those who ask whether a blob is there.
const LOOKS: usize = 8;

/// What the limit on open files leaves room for. Nothing of it is taken by another part, so clients that stall keep
/// nobody from connecting, from pushing or from the log; and of each part no address has all.
#[derive(Debug)]
pub(super) struct OpenFiles {
    pub(super) limits: Limits,
    /// How many files of blobs may be open.
    pub(super) blobs: usize,
    /// How many files may be open at all.
    files: u64,
}

impl OpenFiles {
    /// Raises the limit of this process as far as it may go, as programs in Go do, and divides it.
    ///
    /// # Errors
    /// Where so few files may be open that nobody could be served.
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

    /// Returns what fewer there is than the configuration asks for, and why.
    pub(super) fn shortage(&self, http: &http::Http) -> Option<String> {
        let limits = &self.limits;
        self.is_short(http).then(|| {
            format!(
                "few files may be open ({}, ulimit -n), so there are fewer connections, pulls and pushes at once: {}, {} and {}",
                self.files, limits.connections, limits.downloads, limits.uploads
            )
        })
    }

    /// The same, telling nobody.
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
        // Where the limit cannot be asked for, whoever forbids that has set it too.
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
        // As the storage divides them.
        limits.uploads = blobs / 4;
        let downloads = blobs - limits.uploads;
        limits.downloads = downloads - downloads / LOOKS;
        Ok(Self { blobs, limits, files })
    }
}

/// Returns how many files are for clients.
fn free(files: u64) -> usize {
    let others = (files / 2).clamp(FEWEST_OTHERS, OTHERS);
    usize::try_from(files.saturating_sub(others)).unwrap_or(usize::MAX)
}
