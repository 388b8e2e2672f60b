//! The location of the socket of a root.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use registry_storage::filesystem::require_usable;

/// The name of the socket in the root.
const NAME: &str = "registry.sock";

/// The name of the folder in which the socket is created.
const PRIVATE: &str = ".sock";

/// The longest path of a socket in bytes (unix(7): `sun_path` has 108, the last of which is 0).
pub(crate) const PATH_BYTES: usize = 107;

/// Returns what a server creates for the socket below a root.
pub(crate) fn places(root: &Path) -> [PathBuf; 2] {
    [root.join(NAME), private(root)]
}

/// Returns the folder in which the socket is created.
pub(super) fn private(root: &Path) -> PathBuf {
    root.join(PRIVATE)
}

/// Checks that a server could create its socket below a root.
///
/// # Errors
/// If the path is too long, or another kind of file is in its place.
pub(crate) fn check(root: &Path) -> io::Result<()> {
    require_socket(&path(root)?)?;
    require_usable(&private(root), true)
}

/// Checks that a path is a socket or does not exist.
pub(super) fn require_socket(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => Ok(()),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("{} is in the way; it is not a socket", path.display()),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Returns the path of the socket below a root.
///
/// # Errors
/// If it is too long for a socket.
pub(super) fn path(root: &Path) -> io::Result<PathBuf> {
    let path = root.join(NAME);
    require_short(&path)?;
    Ok(path)
}

/// # Errors
/// If the path is too long for a socket.
pub(super) fn require_short(path: &Path) -> io::Result<()> {
    let length = path.as_os_str().len();
    if length <= PATH_BYTES {
        return Ok(());
    }
    let message = format!(
        "{} has {length} bytes, and the path of a socket has at most {PATH_BYTES}; use a shorter path for the folder, a \
         relative one or a symbolic link, for example",
        path.display()
    );
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}
