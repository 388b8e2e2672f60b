//! How many files may be open: connections are files too.

use registry_http::Limits;

/// Files that are open beside those of connections: of the storage, of logs, and sockets that listen.
const OTHERS: u64 = 64;

/// Raises the limit of this process as far as it may go, as programs in Go do, and returns the limits that fit it: each
/// connection may need a file of the storage beside its own.
pub(super) fn limits() -> Limits {
    let mut limits = Limits::default();
    // Where the limit cannot be asked for, whoever forbids that has set it too.
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(files) => {
            let connections = (files.saturating_sub(OTHERS) / 2).max(1);
            limits.connections = limits
                .connections
                .min(usize::try_from(connections).unwrap_or(usize::MAX));
            if limits.connections < Limits::default().connections {
                tracing::warn!(
                    files,
                    connections = limits.connections,
                    "few files may be open (ulimit -n), so there are fewer connections at once"
                );
            }
        }
        Err(error) => tracing::debug!(%error, "the limit on open files stays as it is"),
    }
    limits
}
