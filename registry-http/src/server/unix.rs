//! The file of a unix socket.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};
use tokio::task::spawn_blocking;

/// The file of a socket. It is removed on drop, unless another socket has replaced it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

/// Device and inode.
type Identity = (u64, u64);

impl SocketFile {
    /// Creates a socket at `path`.
    pub(super) async fn bind(
        path: &Path,
        mode: Option<u32>,
        group: Option<u32>,
    ) -> io::Result<(UnixListener, Self)> {
        remove_stale(path).await?;
        let owned = path.to_owned();
        let bind = move || {
            let socket = std::os::unix::net::UnixListener::bind(&owned)?;
            let file = Self {
                identity: identity(&owned)?,
                path: owned,
            };
            // The group is set before the mode, because the mode may grant access to the group.
            if group.is_some() {
                chown(&file.path, None, group)?;
            }
            if let Some(mode) = mode {
                fs::set_permissions(&file.path, Permissions::from_mode(mode))?;
            }
            socket.set_nonblocking(true)?;
            io::Result::Ok((socket, file))
        };
        let (socket, file) = spawn_blocking(bind).await.map_err(io::Error::other)??;
        Ok((UnixListener::from_std(socket)?, file))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!(%error, path = %self.path.display(), "the file of a socket cannot be removed");
        }
    }
}

/// Removes a socket left behind by a server that did not shut down properly.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(
            ErrorKind::AlreadyExists,
            "there is a file that is not a socket",
        ));
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(io::Error::new(
            ErrorKind::AddrInUse,
            "another process listens at this socket",
        )),
        // No process listens. Any other error, such as one of permissions, is inconclusive.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}
