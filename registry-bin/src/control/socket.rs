//! Where the socket of a root is.

use std::io;
use std::path::{Path, PathBuf};

/// The name of the socket in the root.
const NAME: &str = "registry.sock";

/// The longest path of a socket in bytes (unix(7): `sun_path` has 108, the last of which is 0).
pub(crate) const LIMIT: usize = 107;

/// Returns the path of the socket below a root.
///
/// # Errors
/// Where it is too long for a socket.
pub(super) fn path(root: &Path) -> io::Result<PathBuf> {
    let path = root.join(NAME);
    require_short(&path)?;
    Ok(path)
}

/// # Errors
/// Where the path is too long for a socket.
pub(super) fn require_short(path: &Path) -> io::Result<()> {
    let length = path.as_os_str().len();
    if length <= LIMIT {
        return Ok(());
    }
    let message = format!(
        "{} has {length} bytes, and the path of a socket has at most {LIMIT}; use a shorter path for the folder, a \
         relative one or a symbolic link, for example",
        path.display()
    );
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}
