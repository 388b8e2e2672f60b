//! The stand-in for TLS without the feature `tls`: its types cannot be created.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::TlsSession;

/// A server's side of TLS, which has no values.
#[derive(Clone, Debug)]
pub(crate) enum Tls {}

pub(crate) type TlsStream<IO> = IO;

impl Tls {
    pub(crate) async fn accept<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        _: IO,
    ) -> io::Result<(TlsStream<IO>, TlsSession)> {
        match *self {}
    }
}

pub(crate) const fn speaks_http2<IO>(_: &TlsStream<IO>) -> bool {
    false
}

pub(crate) fn handshake_failure(error: &io::Error) -> String {
    error.to_string()
}
