//! The places that a configuration names, and those that a server has in its data folder.
//!
//! [`claims`] finds places with two uses, and [`writable`] those that a server could not write to.

pub(crate) mod claims;
pub(crate) mod writable;

use std::fs;
use std::path::{Path, PathBuf};

/// The key that names another file for the outbox.
pub(crate) const OUTBOX_PATH: &str = "notifications.outbox.path";

/// How many links in a row are followed if the last one leads to a missing file.
const LINK_LIMIT: usize = 16;

/// Returns the file of the outbox in a data folder.
pub(crate) fn outbox_file(root: &Path) -> PathBuf {
    root.join("notifications")
}

/// Returns the file of the keys that our own token server signs with, in a data folder.
pub(crate) fn signing_keys_file(root: &Path) -> PathBuf {
    root.join("auth").join("token-keys.json")
}

/// Returns the folder of our own certificate in a data folder.
pub(crate) fn certificates_folder(root: &Path) -> PathBuf {
    root.join("tls")
}

/// Follows links, even to files that do not exist yet.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    follow(path, LINK_LIMIT)
}

fn follow(path: &Path, links: usize) -> PathBuf {
    if let Ok(path) = fs::canonicalize(path) {
        return path;
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (Some(folder), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return absolute;
    };
    match fs::read_link(&absolute) {
        Ok(target) if links > 0 => follow(&folder.join(target), links - 1),
        _ => follow(folder, links).join(name),
    }
}
