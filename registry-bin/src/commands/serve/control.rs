//! The socket through which other commands reach the server that has the folder.

use crate::control::server::ControlServer;
use crate::storage::{OpenStorage, StorageLocation};

/// Listens for commands below a folder. If that fails, logs it; the server runs anyway.
pub(super) fn start(location: &StorageLocation, storage: &OpenStorage) -> Option<ControlServer> {
    let StorageLocation::Folder(root) = location else {
        // A command that can reach the bucket needs no server.
        return None;
    };
    if storage.store.is_read_only() {
        // What may be done with a read-only folder needs no server.
        return None;
    }
    ControlServer::start(root, storage.store.clone())
        .inspect_err(|error| {
            tracing::warn!(%error, "check, backup and other commands cannot work while this server runs");
        })
        .ok()
}
