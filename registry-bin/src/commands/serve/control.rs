//! The socket through which other commands reach the server that has the folder.

use crate::control::server::ControlServer;
use crate::storage::{OpenStorage, StorageLocation};

/// Listens for commands below a folder. A server that cannot serves all the same, and says so.
pub(super) fn start(location: &StorageLocation, storage: &OpenStorage) -> Option<ControlServer> {
    let StorageLocation::Folder(root) = location else {
        // Whoever can reach a bucket needs no server.
        return None;
    };
    if storage.store.is_read_only() {
        // What may be done there, each process may do beside the others.
        return None;
    }
    ControlServer::start(root, storage.store.clone())
        .inspect_err(|error| {
            tracing::warn!(%error, "check, backup and other commands cannot work while this server runs");
        })
        .ok()
}
