//! The bytes that arrive on a connection, and the memory that they take until they are used.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::activity::Activity;
use super::open_streams::OpenStreams;
use super::transport::Carrier;
use crate::limits::Limits;
use crate::memory::{Account, Charge, MemoryUse};

/// About what an idle connection holds, in bytes: its task and a buffer of 8 KiB in each direction; and what TLS keeps.
const CONNECTION_BYTES: usize = 16 * 1024;
const TLS_BYTES: usize = 16 * 1024;

/// How many bytes of a header are not charged.
const SMALL_HEADER_BYTES: usize = 16 * 1024;

/// How much one read takes of a body until the client has shown that it sends fast. hyper doubles a buffer of 8 KiB that
/// was filled: with twice as much, each of 600 uploads took 106 KiB.
const SMALL_READ_BYTES: usize = 8 * 1024 - 1;

/// How many copies there are of one read of a body: in the buffer for the next read, and on its way to the storage.
const COPIES_OF_A_READ: usize = 2;

/// The steps in which unread HTTP/2 bodies are charged.
const CHARGE_STEP_BYTES: usize = 64 * 1024;

/// How long a connection is not read if there is no memory for what it would bring.
const READ_PAUSE: Duration = Duration::from_millis(20);

/// What an HTTP/2 client sends first (RFC 9113, section 3.4), up to where it could still be an HTTP/1.1 request.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// The body of a 503 when there is no memory for a request. crane retries because of its code.
pub(super) const FULL: &str = r#"{"errors":[{"code":"UNAVAILABLE","message":"the server has no memory left for this request; try again"}]}"#;

const TOO_LARGE: &str =
    "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
/// Returns the answer if there is no memory for a header.
fn unavailable() -> String {
    let length = FULL.len();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Retry-After: 1\r\nConnection: close\r\n\r\n{FULL}"
    )
}

/// What the requests of a connection report about the memory that they use. Handlers find it in the extensions.
#[derive(Debug)]
pub(crate) struct ConnectionMemory {
    account: Arc<Account>,
    /// Requests since the connection began.
    requests: AtomicUsize,
    /// Requests whose bodies may be unread.
    bodies: AtomicUsize,
    /// Bytes of bodies that were used since there have been unread ones.
    used: AtomicUsize,
    /// Whether the body of a refused request is held.
    has_refused: AtomicBool,
    streams: Mutex<OpenStreams>,
}

/// A request body that may be unread until this is dropped.
pub(super) struct UnreadBody(Arc<ConnectionMemory>);

/// The body of a refused HTTP/2 request. The connection is not read until this is dropped, so that the body takes no
/// memory.
pub(super) struct RefusedBody(Arc<ConnectionMemory>);

impl ConnectionMemory {
    pub(super) fn new(account: Arc<Account>) -> Self {
        Self {
            account,
            requests: AtomicUsize::new(0),
            bodies: AtomicUsize::new(0),
            used: AtomicUsize::new(0),
            has_refused: AtomicBool::new(false),
            streams: Mutex::default(),
        }
    }

    /// Returns the account that pays: that of the other end of the connection.
    pub(crate) const fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Records that bytes of a body were taken out of the connection.
    pub(crate) fn body_used(&self, length: usize) {
        self.used.fetch_add(length, Ordering::Relaxed);
    }

    pub(super) fn request_begins(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the HTTP/2 streams that may be open.
    pub(super) fn streams(&self) -> MutexGuard<'_, OpenStreams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn body_begins(self: &Arc<Self>) -> UnreadBody {
        if self.bodies.fetch_add(1, Ordering::Relaxed) == 0 {
            self.used.store(0, Ordering::Relaxed);
        }
        UnreadBody(Arc::clone(self))
    }

    /// Stops reading the connection until the result is dropped. Returns `None` if the body of another refused request
    /// is held.
    pub(super) fn refuse_body(self: &Arc<Self>) -> Option<RefusedBody> {
        let had_refused = self.has_refused.swap(true, Ordering::Relaxed);
        (!had_refused).then(|| RefusedBody(Arc::clone(self)))
    }
}

impl Drop for RefusedBody {
    fn drop(&mut self) {
        self.0.has_refused.store(false, Ordering::Relaxed);
    }
}

impl Drop for UnreadBody {
    fn drop(&mut self) {
        self.0.bodies.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Charges a connection for its initial memory, or returns `None` if there is none.
pub(super) fn charge_connection(account: &Arc<Account>, has_tls: bool) -> Option<Charge> {
    let size = if has_tls {
        CONNECTION_BYTES + TLS_BYTES
    } else {
        CONNECTION_BYTES
    };
    account.charge(size, MemoryUse::Connection).ok()
}

/// A stream of decrypted bytes that charges what arrives.
#[derive(Debug)]
pub(super) struct Metered<T> {
    inner: T,
    memory: Arc<ConnectionMemory>,
    activity: Arc<Activity>,
    charge: Charge,
    /// The initial charge of the connection.
    base: usize,
    header_limit: usize,
    read_limit: usize,
    window: usize,
    protocol: Protocol,
    pause: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum Protocol {
    /// This many bytes of the preface have arrived.
    Unknown(usize),
    Http1(Http1),
    Http2 {
        /// Bytes received since there have been unread bodies.
        received: usize,
    },
}

#[derive(Debug, Default)]
struct Http1 {
    /// Requests so far.
    requests: usize,
    /// Bytes of a header, or of what may be one.
    header: usize,
    /// How much one read of a body may take beyond [`SMALL_READ_BYTES`]. Buffers do not shrink again.
    fast: usize,
}

impl<T> Metered<T> {
    pub(super) fn new(
        inner: T,
        memory: Arc<ConnectionMemory>,
        activity: Arc<Activity>,
        charge: Charge,
        limits: &Limits,
    ) -> Self {
        Self {
            inner,
            memory,
            activity,
            base: charge.bytes(),
            charge,
            header_limit: limits.header as usize,
            read_limit: limits.buffer,
            window: limits.window as usize,
            protocol: Protocol::Unknown(0),
            pause: None,
        }
    }
}

impl<T: Carrier> Metered<T> {
    fn poll_http1(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Protocol::Http1(state) = &mut self.protocol else {
            return Pin::new(&mut self.inner).poll_read(context, buffer);
        };
        let requests = self.memory.requests.load(Ordering::Relaxed);
        if requests != state.requests {
            state.requests = requests;
            state.header = 0;
            self.charge.shrink(self.base + COPIES_OF_A_READ * state.fast);
        }
        let is_body = self.memory.bodies.load(Ordering::Relaxed) > 0;
        // A header arrives with the beginning of the body, which does not show how long the header is.
        let most = if is_body {
            SMALL_READ_BYTES + state.fast
        } else {
            SMALL_READ_BYTES
        };
        let read = ready!(poll_read_some(&mut self.inner, context, buffer, most))?;
        if is_body {
            // A client that fills this limit sends faster than this reads.
            if read == most && 2 * most <= self.read_limit && self.charge.try_grow(COPIES_OF_A_READ * most) {
                state.fast += most;
            }
            return Poll::Ready(Ok(()));
        }
        state.header += read;
        self.activity.header_came();
        let refusal = if self.activity.idle_since().is_none() {
            // The next header arrives before the previous answer was taken.
            return Poll::Ready(Ok(()));
        } else if state.header > self.header_limit.max(SMALL_HEADER_BYTES) {
            TOO_LARGE.into()
        } else if state.header > SMALL_HEADER_BYTES && self.charge.grow(2 * read, MemoryUse::Header).is_err()
        {
            unavailable()
        } else {
            return Poll::Ready(Ok(()));
        };
        // The parser sees a client that disconnected. What else the client sends is read, so that it gets to read this
        // answer.
        self.activity.leave_unread();
        buffer.set_filled(buffer.filled().len() - read);
        drop(Pin::new(&mut self.inner).poll_write(context, refusal.as_bytes()));
        Poll::Ready(Ok(()))
    }

    fn poll_http2(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Protocol::Http2 { received } = &mut self.protocol else {
            return Pin::new(&mut self.inner).poll_read(context, buffer);
        };
        if self.memory.has_refused.load(Ordering::Relaxed) {
            let pause = self.pause.insert(Box::pin(sleep(READ_PAUSE)));
            return pause.as_mut().poll(context).map(Ok);
        }
        if self.memory.bodies.load(Ordering::Relaxed) == 0 {
            *received = 0;
            self.charge.shrink(self.base);
        } else {
            let unread = received.saturating_sub(self.memory.used.load(Ordering::Relaxed));
            // Bytes beyond the window do not belong to bodies.
            let wanted = unread.min(self.window).next_multiple_of(CHARGE_STEP_BYTES);
            let held = self.charge.bytes() - self.base;
            if wanted + CHARGE_STEP_BYTES < held {
                self.charge.shrink(self.base + wanted);
            } else if wanted > held && self.charge.grow(wanted - held, MemoryUse::Request).is_err() {
                // Reading continues when handlers have used what is there.
                let pause = self.pause.insert(Box::pin(sleep(READ_PAUSE)));
                return pause.as_mut().poll(context).map(Ok);
            }
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(context, buffer);
        if result.is_pending() {
            self.memory.streams().all_is_read();
        }
        ready!(result)?;
        *received += buffer.filled().len() - before;
        Poll::Ready(Ok(()))
    }

    /// Reads the first bytes, which show the protocol.
    fn poll_unknown(
        &mut self,
        matched: usize,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(poll_read_some(&mut self.inner, context, buffer, SMALL_READ_BYTES))?;
        self.activity.header_came();
        let new = buffer.filled().get(before..).unwrap_or_default();
        let expected = PREFACE.get(matched..).unwrap_or_default();
        let compared = new.len().min(expected.len());
        self.protocol = if new.get(..compared) != expected.get(..compared) {
            Protocol::Http1(Http1 {
                header: matched + read,
                ..Http1::default()
            })
        } else if compared == expected.len() {
            self.activity.begin_http2();
            Protocol::Http2 { received: 0 }
        } else {
            Protocol::Unknown(matched + compared)
        };
        Poll::Ready(Ok(()))
    }
}

/// Reads at most `most` bytes, and returns how many were read.
fn poll_read_some<T: AsyncRead + Unpin>(
    inner: &mut T,
    context: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
    most: usize,
) -> Poll<io::Result<usize>> {
    if buffer.remaining() <= most {
        let before = buffer.filled().len();
        ready!(Pin::new(inner).poll_read(context, buffer))?;
        return Poll::Ready(Ok(buffer.filled().len() - before));
    }
    let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
    ready!(Pin::new(inner).poll_read(context, &mut part))?;
    let read = part.filled().len();
    buffer.advance(read);
    Poll::Ready(Ok(read))
}

impl<T: Carrier> AsyncRead for Metered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        let before = buffer.filled().len();
        let result = match self.protocol {
            Protocol::Unknown(matched) => self.poll_unknown(matched, context, buffer),
            Protocol::Http1(_) => self.poll_http1(context, buffer),
            Protocol::Http2 { .. } => self.poll_http2(context, buffer),
        };
        self.activity.moved(buffer.filled().len() - before);
        // A request that has arrived by now is answered, because a client may not repeat one that changes something.
        // What remains is the moment in which neither side can know of the other.
        if result.is_pending() && self.activity.may_end() && !self.inner.has_unread() {
            let is_late = self.activity.has_part_of_header();
            return Poll::Ready(if is_late {
                Err(io::ErrorKind::TimedOut.into())
            } else {
                Ok(())
            });
        }
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(context, buffer))?;
        self.activity.moved(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(context, buffers))?;
        self.activity.moved(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
