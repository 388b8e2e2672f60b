//! The sockets that a server accepts connections at.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use socket2::SockRef;
use tokio::net::{TcpListener, ToSocketAddrs, UnixListener};
use tokio_util::either::Either;

use super::transport::Socket;
use super::unix::SocketFile;
use crate::address::{ListenAddress, PeerAddress};
use crate::tls::Tls;

/// How many connections wait to be accepted, as far as the system allows. Where there is no room, a client tries again
/// after a second, because somebody else connects a thousand times at once.
const BACKLOG: i32 = 4096;

/// A socket that listens, and what is spoken on its connections.
///
/// Without TLS, HTTP/2 is told from HTTP/1.1 by its first bytes (RFC 9113, section 3.3: "prior knowledge"); with TLS
/// it is negotiated (ALPN).
#[derive(Debug)]
pub struct Listener {
    socket: Either<TcpListener, UnixListener>,
    address: ListenAddress,
    tls: Option<Tls>,
    http2: bool,
    _file: Option<SocketFile>,
}

impl Listener {
    /// Listens at a host and port. Port 0 is any free port.
    ///
    /// # Errors
    /// Those of the socket, for example that the address is in use.
    pub async fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        SockRef::from(&socket).listen(BACKLOG)?;
        Self::tcp(socket)
    }

    /// Listens at a unix socket that is made at `path`, with the permissions `mode` and of the group with the number `group`,
    /// or with those that the process gives to new files. A socket that is there and at which nobody answers is replaced. The file is removed when
    /// the listener ends.
    ///
    /// # Errors
    /// Those of the socket and its file; [`AddrInUse`](io::ErrorKind::AddrInUse) where somebody answers at it, and
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists) where another kind of file is there.
    pub async fn bind_unix(
        path: impl AsRef<Path>,
        mode: Option<u32>,
        group: Option<u32>,
    ) -> io::Result<Self> {
        let (socket, file) = SocketFile::bind(path.as_ref(), mode, group).await?;
        let mut listener = Self::unix(socket)?;
        listener.address = ListenAddress::Unix(path.as_ref().to_owned());
        listener._file = Some(file);
        Ok(listener)
    }

    /// Takes a TCP socket that listens.
    ///
    /// # Errors
    /// Those of asking the socket for its address.
    pub fn tcp(socket: TcpListener) -> io::Result<Self> {
        let address = ListenAddress::Tcp(socket.local_addr()?);
        Ok(Self::new(Either::Left(socket), address))
    }

    /// Takes a unix socket that listens. Its file is left alone.
    ///
    /// # Errors
    /// Those of asking the socket for its address.
    pub fn unix(socket: UnixListener) -> io::Result<Self> {
        let path = socket.local_addr()?.as_pathname().map(Path::to_owned);
        let address = ListenAddress::Unix(path.unwrap_or_default());
        Ok(Self::new(Either::Right(socket), address))
    }

    const fn new(socket: Either<TcpListener, UnixListener>, address: ListenAddress) -> Self {
        Self {
            socket,
            address,
            tls: None,
            http2: true,
            _file: None,
        }
    }

    /// Makes every connection speak TLS.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Makes connections without TLS speak HTTP/1.1 only; those with it speak what it negotiates.
    #[must_use]
    pub const fn without_http2(mut self) -> Self {
        self.http2 = false;
        self
    }

    /// Returns where it listens.
    #[must_use]
    pub const fn address(&self) -> &ListenAddress {
        &self.address
    }

    pub(super) const fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    pub(super) const fn has_http2(&self) -> bool {
        self.http2
    }

    /// Bounds what the system holds of an answer beside what is on its way: it would take 4 MiB from each of a thousand
    /// clients that take nothing, and all the time of the processors meanwhile. Connections inherit it.
    #[cfg(any(target_os = "android", target_os = "linux"))]
    pub(super) fn limit_unsent(&self, bytes: usize) {
        if let Either::Left(socket) = &self.socket
            && let Err(error) =
                SockRef::from(socket).set_tcp_notsent_lowat(u32::try_from(bytes).unwrap_or(u32::MAX))
        {
            tracing::debug!(%error, "what the system holds of an answer cannot be bounded");
        }
    }

    #[cfg(not(any(target_os = "android", target_os = "linux")))]
    pub(super) const fn limit_unsent(&self, _: usize) {}

    pub(super) async fn accept(&self) -> io::Result<(Socket, PeerAddress)> {
        match &self.socket {
            Either::Left(socket) => {
                let (stream, peer): (_, SocketAddr) = socket.accept().await?;
                // Small answers are whole when they are written, and wait for nothing.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "the delay of small packets cannot be switched off");
                }
                Ok((Either::Left(stream), PeerAddress::Tcp(peer)))
            }
            Either::Right(socket) => {
                let (stream, _) = socket.accept().await?;
                Ok((Either::Right(stream), PeerAddress::Unix))
            }
        }
    }
}
