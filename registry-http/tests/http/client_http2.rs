//! An HTTP/2 client.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The smallest window that HTTP/2 begins with.
pub(crate) const WINDOW: u32 = 65_535;

/// A body that a test sends piece by piece; dropping the sender ends it.
#[derive(Debug)]
pub(crate) struct Pieces(mpsc::Receiver<Bytes>);

impl Pieces {
    pub(crate) fn new() -> (mpsc::Sender<Bytes>, Self) {
        let (sender, receiver) = mpsc::channel(1);
        (sender, Self(receiver))
    }

    pub(crate) fn empty() -> Self {
        Self::new().1
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(context)
            .map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// Connects by HTTP/2 without an upgrade. The task is the connection; aborting it cuts it.
pub(crate) async fn connect(address: SocketAddr) -> (SendRequest<Pieces>, JoinHandle<()>) {
    connect_with(address, WINDOW).await
}

/// Connects with so large a window for each stream.
pub(crate) async fn connect_with(address: SocketAddr, window: u32) -> (SendRequest<Pieces>, JoinHandle<()>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window)
        .initial_connection_window_size(WINDOW)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let task = tokio::spawn(async move {
        connection.await.unwrap_or_default();
    });
    (sender, task)
}

pub(crate) fn request(method: &str, target: &str, body: Pieces) -> Request<Pieces> {
    Request::builder()
        .method(method)
        .uri(format!("http://registry{target}"))
        .body(body)
        .unwrap()
}
