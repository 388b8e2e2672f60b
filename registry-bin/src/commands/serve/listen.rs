//! Where a server listens.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::unix::net as unix;

use listenfd::ListenFd;
use registry_http::Listener;
use tokio::net::{TcpListener, UnixListener};

use super::tls::Encryption;
use crate::config::sections::http::{Http, Network};
use crate::failure::Failure;

const DEFAULT_ADDRESS: &str = "127.0.0.1:5000";

/// A socket that the service manager listens at for this process (systemd.socket(5)).
pub(super) enum Inherited {
    Tcp(std::net::TcpListener),
    Unix(unix::UnixListener),
}

/// Takes the sockets that `LISTEN_FDS` counts, and the variable away. No other thread may run yet.
pub(super) fn inherited() -> Result<Vec<Inherited>, Failure> {
    let mut sockets = ListenFd::from_env();
    (0..sockets.len())
        .map(|place| {
            if let Ok(Some(socket)) = sockets.take_tcp_listener(place) {
                return Ok(Inherited::Tcp(socket));
            }
            match sockets.take_unix_listener(place) {
                Ok(Some(socket)) => Ok(Inherited::Unix(socket)),
                Ok(None) => Err(Failure::new("a socket of LISTEN_FDS is named twice")),
                Err(cause) => Err(Failure::new(format!(
                    "socket {place} of LISTEN_FDS is neither a TCP nor a unix stream socket"
                ))
                .because(cause)),
            }
        })
        .collect()
}

/// Takes the port, or what the service manager took.
pub(super) async fn listen(
    http: &Http,
    inherited: Vec<Inherited>,
    encryption: Option<&Encryption>,
) -> Result<Vec<Listener>, Failure> {
    let mut listeners = Vec::new();
    for socket in inherited {
        let listener = socket.listener();
        listeners.push(listener.map_err(|cause| Failure::new("a socket of LISTEN_FDS").because(cause))?);
    }
    if listeners.is_empty() {
        listeners.push(bind(http).await?);
    } else if let Some(address) = &http.addr {
        tracing::info!(
            address,
            "sockets of the service manager are used in place of http.addr"
        );
    }
    // Without TLS no switch of distribution's turns HTTP/2 off; `h2c.enabled: false` does here.
    let has_http2 = http.h2c.enabled.unwrap_or(!http.http2.disabled);
    let listeners = listeners.into_iter().map(|listener| match encryption {
        Some(encryption) => listener.with_tls(encryption.tls()),
        None if has_http2 => listener,
        None => listener.without_http2(),
    });
    Ok(listeners.collect())
}

impl Inherited {
    fn listener(self) -> io::Result<Listener> {
        match self {
            Self::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                Listener::tcp(TcpListener::from_std(socket)?)
            }
            Self::Unix(socket) => {
                socket.set_nonblocking(true)?;
                Listener::unix(UnixListener::from_std(socket)?)
            }
        }
    }
}

async fn bind(http: &Http) -> Result<Listener, Failure> {
    if http.net == Some(Network::Unix) {
        let path = http.addr.as_deref().filter(|path| !path.is_empty());
        let path =
            path.ok_or_else(|| Failure::new("http.addr is missing; name the path of the unix socket"))?;
        return Listener::bind_unix(path, None).await.map_err(|cause| {
            Failure::new(format!(
                "cannot listen at the unix socket {path}; name another in http.addr"
            ))
            .because(cause)
        });
    }
    let address = resolve(http.addr.as_deref().unwrap_or(DEFAULT_ADDRESS))?;
    Listener::bind(address).await.map_err(|cause| {
        Failure::new(format!(
            "cannot listen on {address}; take another address with --listen or http.addr"
        ))
        .because(cause)
    })
}

/// Finds the address to listen on. As in Go, no host means all addresses.
pub(super) fn resolve(text: &str) -> Result<SocketAddr, Failure> {
    let failed = || {
        Failure::new(format!(
            "cannot listen on {text:?}; say ADDRESS:PORT, for example {DEFAULT_ADDRESS}"
        ))
    };
    let full = if text.starts_with(':') {
        format!("[::]{text}")
    } else {
        text.to_owned()
    };
    let mut addresses = full.to_socket_addrs().map_err(|cause| failed().because(cause))?;
    addresses.next().ok_or_else(failed)
}
