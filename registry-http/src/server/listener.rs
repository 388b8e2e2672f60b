//! The sockets that a server accepts connections on.

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

/// How many connections may wait to be accepted, as far as the system allows. When the queue is full, a client retries
/// after a second, merely because another client opens a thousand connections at once.
const BACKLOG: i32 = 4096;

/// A listening socket, and the protocols of its connections.
///
/// Without TLS, the first bytes tell HTTP/2 from HTTP/1.1 (RFC 9113, section 3.3: "prior knowledge"); with TLS, the
/// version is negotiated (ALPN).
#[derive(Debug)]
pub struct Listener {
    socket: Either<TcpListener, UnixListener>,
    address: ListenAddress,
    tls: Option<Tls>,
    http2: bool,
    _file: Option<SocketFile>,
}

impl Listener {
    /// Listens on a host and port. Port 0 selects any free port. Cancel safe: a future that is dropped leaves no socket.
    ///
    /// # Errors
    /// Errors of the socket, for example if the address is in use.
    pub async fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        SockRef::from(&socket).listen(BACKLOG)?;
        Self::tcp(socket)
    }

    /// Listens on a unix socket created at `path`, with the permissions `mode` and the group ID `group`, or, without
    /// them, with those that the process gives to new files. An existing socket that no process listens on is replaced.
    /// The file is removed when the listener is dropped. Cancel safe: a future that is dropped leaves no file.
    ///
    /// # Errors
    /// Errors of the socket and its file: [`AddrInUse`](io::ErrorKind::AddrInUse) if another process listens on it, and
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if a file of another kind is there.
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

    /// Uses a TCP socket that is already listening.
    ///
    /// # Errors
    /// If the address of the socket cannot be read.
    pub fn tcp(socket: TcpListener) -> io::Result<Self> {
        let address = ListenAddress::Tcp(socket.local_addr()?);
        Ok(Self::new(Either::Left(socket), address))
    }

    /// Uses a unix socket that is already listening. Its file is not removed.
    ///
    /// # Errors
    /// If the address of the socket cannot be read.
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

    /// Requires TLS on every connection.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Accepts only HTTP/1.1 on connections without TLS. With TLS, the negotiated version is used.
    #[must_use]
    pub const fn without_http2(mut self) -> Self {
        self.http2 = false;
        self
    }

    /// Returns the address it listens on.
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

    /// Bounds how much of an answer the system buffers besides what is in flight. Otherwise it would buffer 4 MiB for
    /// each of a thousand clients that take nothing, and keep the processors busy meanwhile. Connections inherit the
    /// bound.
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
                // Small answers are written as a whole, and should not wait for more.
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
