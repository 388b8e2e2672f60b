//! Where a server listens.

use std::net::{SocketAddr, ToSocketAddrs as _};

use tokio::net::TcpListener;

use crate::config::sections::http::Http;
use crate::failure::Failure;

const DEFAULT_ADDRESS: &str = "127.0.0.1:5000";

/// Takes the port.
pub(super) async fn listen(http: &Http) -> Result<TcpListener, Failure> {
    let address = resolve(http.addr.as_deref().unwrap_or(DEFAULT_ADDRESS))?;
    TcpListener::bind(address).await.map_err(|cause| {
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
