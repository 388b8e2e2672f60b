//! The two ends of a connection.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// The remote end of a connection. Behind a proxy, it is the proxy's address; see
/// [`Connection::client`](crate::Connection::client).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerAddress {
    /// A host and port.
    Tcp(SocketAddr),
    /// A process on this machine, through a unix socket. The peer's end has no name.
    Unix,
}

impl PeerAddress {
    /// Returns the IP address of the peer, or `None` for a unix socket. An IPv4-mapped IPv6 address is returned as
    /// IPv4.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip().to_canonical()),
            Self::Unix => None,
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => SocketAddr::new(address.ip().to_canonical(), address.port()).fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// On a host and port.
    Tcp(SocketAddr),
    /// On a unix socket; the path is empty if the socket has none.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Returns the host and port of a TCP socket.
    #[must_use]
    pub const fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Returns the path of a unix socket that has one.
    #[must_use]
    pub fn unix_path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) if !path.as_os_str().is_empty() => Some(path),
            _ => None,
        }
    }
}

/// `127.0.0.1:5000`, or `unix:` and the path.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
