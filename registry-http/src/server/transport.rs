//! The watched socket of a connection.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Sleep, sleep};
use tokio_util::either::Either;

use super::activity::Activity;
#[cfg(feature = "tls")]
use crate::tls::TlsStream;

/// A byte stream that can carry a connection.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Makes the other end see an error when the stream is closed, if the transport supports it.
    fn reset_on_close(&self);

    /// Returns whether the system has received bytes that have not been read.
    fn has_unread(&self) -> bool;
}

/// The socket of a connection.
pub(super) type Socket = Either<TcpStream, UnixStream>;

impl Transport for Socket {
    fn reset_on_close(&self) {
        // A unix socket that is closed with unread data is reset; there is no other way.
        if let Self::Left(stream) = self
            && let Err(error) = stream.set_zero_linger()
        {
            tracing::debug!(%error, "the connection cannot be reset");
        }
    }

    fn has_unread(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let peeked = match self {
            Self::Left(stream) => SockRef::from(stream).peek(&mut byte),
            Self::Right(stream) => SockRef::from(stream).peek(&mut byte),
        };
        peeked.is_ok_and(|length| length > 0)
    }
}

/// The carrier of a connection: the socket itself, or TLS over it.
pub(super) trait Carrier: AsyncRead + AsyncWrite + Unpin {
    /// Returns whether the socket has received bytes that have not been read.
    fn has_unread(&self) -> bool;
}

impl<T: Transport> Carrier for Watched<T> {
    fn has_unread(&self) -> bool {
        self.inner.has_unread()
    }
}

// Without the feature `tls`, `TlsStream` is the socket itself.
#[cfg(feature = "tls")]
impl<T: Transport> Carrier for TlsStream<Watched<T>> {
    fn has_unread(&self) -> bool {
        self.get_ref().0.has_unread()
    }
}

impl<L: Carrier, R: Carrier> Carrier for Either<L, R> {
    fn has_unread(&self) -> bool {
        match self {
            Self::Left(carrier) => carrier.has_unread(),
            Self::Right(carrier) => carrier.has_unread(),
        }
    }
}

/// A transport that records what happens on it.
#[derive(Debug)]
pub(super) struct Watched<T: Transport> {
    inner: T,
    activity: Arc<Activity>,
    linger: Duration,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl<T: Transport> Watched<T> {
    pub(super) fn new(inner: T, activity: Arc<Activity>, linger: Duration) -> Self {
        Self {
            inner,
            activity,
            linger,
            lingering: None,
        }
    }

    /// Reads what still arrives, for a while. A socket that is closed with unread data is reset, and the client might
    /// lose an answer that it has not read yet.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let linger = self.linger;
        let end = self.lingering.get_or_insert_with(|| Box::pin(sleep(linger)));
        if end.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let mut scratch = [0_u8; 16 * 1024];
        // A client that sends faster than this reads must not starve other tasks.
        for _ in 0..16 {
            let mut scratch = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.inner).poll_read(context, &mut scratch)) {
                Ok(()) if !scratch.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn noted<R>(&self, result: Poll<R>) -> Poll<R> {
        self.activity.wrote(result.is_pending());
        result
    }
}

impl<T: Transport> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<T: Transport> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(context, buffer);
        self.noted(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(context, buffers);
        self.noted(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.inner).poll_shutdown(context))?;
            if !self.activity.is_unread() {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_linger(context).map(Ok)
    }
}

impl<T: Transport> Drop for Watched<T> {
    fn drop(&mut self) {
        if self.activity.is_reset() {
            self.inner.reset_on_close();
        }
    }
}
