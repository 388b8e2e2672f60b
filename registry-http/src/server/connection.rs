//! One connection, from its first byte to its last.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::{self, Builder};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};
use tokio_util::either::Either;

use super::activity::{Activity, Verdict};
use super::connection_limit::ConnectionSlot;
use super::metered::{self, ConnectionMemory, Metered};
use super::stream::{BoxError, StreamTasks};
use super::transport::{Socket, Watched};
use super::watched::WatchedService;
use crate::address::{ListenAddress, PeerAddress};
use crate::connection::{Connection, TlsSession};
use crate::limits::Limits;
use crate::log_limit::LogLimit;
use crate::tasks::{InterruptedRequests, Tasks};
use crate::tls::{self, Tls, TlsStream};

/// The longest frame of an HTTP/2 request body. Larger than the default of 16 KiB, so that large bodies need fewer
/// frames.
const LARGEST_FRAME_BYTES: u32 = 64 * 1024;

/// The answer to a client that speaks plain HTTP to a TLS listener, like that of Go's servers.
const NOT_TLS: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n\
    This is an HTTPS server: ask it with https:// in place of http://.\n";

/// Waits until the server is asked to stop.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the server was dropped.
    drop(stop.wait_for(|stop| *stop).await);
}

/// Creates the configuration of hyper: HTTP/1.1 only, or with `http2`, whichever version the first bytes announce.
fn builder(limits: &Limits, streams: StreamTasks, http2: bool) -> Builder<StreamTasks> {
    let mut builder = Builder::new(streams);
    // Vectored writes are used if the transport has them: a blob's chunk goes to the socket without a copy.
    builder
        .http1()
        // As Go's servers write them: scripts look for `Docker-Content-Digest:` and `Location:` in this spelling.
        .title_case_headers(true)
        // hyper would also count the time without a request, and close although a request has arrived: see `Activity`.
        .header_read_timeout(None)
        .max_buf_size(limits.buffer.max(8 * 1024))
        .max_headers(limits.fields);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(limits.header)
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(limits.window.min(i32::MAX.unsigned_abs()))
        .initial_connection_window_size(limits.window.min(i32::MAX.unsigned_abs()))
        .max_frame_size(LARGEST_FRAME_BYTES)
        .max_send_buf_size(limits.buffer);
    if http2 { builder } else { builder.http1_only() }
}

/// An accepted connection.
pub(super) struct Accepted {
    pub(super) socket: Socket,
    pub(super) peer: PeerAddress,
    pub(super) listener: Arc<ListenAddress>,
    pub(super) tls: Option<Tls>,
    /// HTTP/2 is accepted without TLS.
    pub(super) http2: bool,
    pub(super) limits: Arc<Limits>,
    pub(super) streams: StreamTasks,
    pub(super) failed_handshakes: Arc<LogLimit>,
    pub(super) interrupted: Tasks,
    pub(super) stop: watch::Receiver<bool>,
    /// Held until the connection has ended.
    pub(super) slot: ConnectionSlot,
}

impl Accepted {
    /// Serves the connection until it ends, until it is cut because the client takes nothing, or, once `stop` is set,
    /// until its running requests have ended.
    pub(super) async fn serve<S, B>(self, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let Self {
            socket,
            peer,
            listener,
            tls,
            mut http2,
            limits,
            streams,
            failed_handshakes,
            interrupted,
            mut stop,
            slot,
        } = self;
        let activity = Arc::clone(slot.activity());
        let Some(charge) = metered::charge_connection(slot.account(), tls.is_some()) else {
            tracing::debug!(%peer, "there is no memory for a connection; it is closed");
            return;
        };
        let mut connection = Connection::new(peer).with_listener(listener);
        let stream = match tls {
            None => Either::Left(Watched::new(socket, Arc::clone(&activity), limits.drain_timeout)),
            Some(tls) => {
                let handshake = shake_hands(socket, &tls, &activity, &limits);
                let secured = tokio::select! {
                    () = stopped(&mut stop) => return,
                    () = activity.dismissed() => return,
                    secured = handshake => secured,
                };
                match secured {
                    Ok((stream, session)) => {
                        http2 = tls::speaks_http2(&stream);
                        connection = connection.with_tls(session);
                        Either::Right(stream)
                    }
                    Err(failure) => {
                        failure.tell(peer, &failed_handshakes);
                        return;
                    }
                }
            }
        };
        let memory = Arc::new(ConnectionMemory::new(Arc::clone(slot.account())));
        let stream = Metered::new(
            stream,
            Arc::clone(&memory),
            Arc::clone(&activity),
            charge,
            &limits,
        );
        let builder = builder(&limits, streams.clone(), http2);
        let service = WatchedService {
            service,
            activity: Arc::clone(&activity),
            memory,
            streams,
            connection,
            interrupted: InterruptedRequests(interrupted),
        };
        run(stream, service, &builder, peer, &activity, &limits, stop).await;
    }
}

/// Why a TLS handshake failed.
enum HandshakeFailure {
    /// The client sent nothing, like a port check.
    Nothing,
    Http,
    Late,
    Tls(io::Error),
}

impl HandshakeFailure {
    /// Logs the failure for the operator, who may have to change the certificate, or what is required of clients.
    fn tell(&self, peer: PeerAddress, limit: &LogLimit) {
        let reason = match self {
            Self::Nothing => {
                tracing::debug!(%peer, "a client connected and sent nothing");
                return;
            }
            Self::Http => "the client speaks HTTP where it should speak HTTPS".to_owned(),
            Self::Late => "it took too long".to_owned(),
            Self::Tls(error) => tls::handshake_failure(error),
        };
        if let Some(left_out) = limit.take(peer.ip()) {
            let left_out = (left_out > 0).then_some(left_out);
            tracing::info!(%peer, reason, left_out, "a TLS handshake failed");
        }
    }
}

/// Performs the TLS handshake. A failure concerns only the client.
async fn shake_hands(
    socket: Socket,
    tls: &Tls,
    activity: &Arc<Activity>,
    limits: &Limits,
) -> Result<(TlsStream<Watched<Socket>>, TlsSession), HandshakeFailure> {
    let start = Instant::now();
    let Ok(Some(first)) = timeout(limits.handshake_timeout, first_byte(&socket)).await else {
        return Err(HandshakeFailure::Nothing);
    };
    let left = limits.handshake_timeout.saturating_sub(start.elapsed());
    let mut stream = Watched::new(socket, Arc::clone(activity), limits.drain_timeout);
    // A method begins with a letter. TLS begins with a record type, which is not a letter (RFC 8446, section 5.1).
    if first.is_ascii_uppercase() {
        // Its request stays unread: the connection keeps reading it, so that the client gets to read this answer.
        activity.leave_unread();
        let answered = async {
            stream.write_all(NOT_TLS).await?;
            stream.shutdown().await
        };
        // It does not matter whether the client read it.
        drop(timeout(left, answered).await);
        return Err(HandshakeFailure::Http);
    }
    match timeout(left, tls.accept(stream)).await {
        Ok(Ok(accepted)) => Ok(accepted),
        Ok(Err(error)) => Err(HandshakeFailure::Tls(error)),
        Err(_) => Err(HandshakeFailure::Late),
    }
}

/// Waits for the first byte without consuming it. Returns `None` if the client closes before. A unix socket cannot be
/// peeked: its first byte is assumed to be that of a TLS handshake.
async fn first_byte(socket: &Socket) -> Option<u8> {
    /// The type of a handshake record.
    const HANDSHAKE: u8 = 22;
    let Either::Left(stream) = socket else {
        return Some(HANDSHAKE);
    };
    let mut first = [0];
    matches!(stream.peek(&mut first).await, Ok(1)).then_some(first[0])
}

async fn run<T, S, B>(
    stream: T,
    service: WatchedService<S>,
    builder: &Builder<StreamTasks>,
    peer: PeerAddress,
    activity: &Activity,
    limits: &Limits,
    mut stop: watch::Receiver<bool>,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut check_at = Instant::now();
    let mut is_stopping = false;
    let result = loop {
        tokio::select! {
            result = &mut connection => break result,
            () = stopped(&mut stop), if !is_stopping => {
                is_stopping = true;
                say_goodbye(connection.as_mut(), activity);
                check_at = Instant::now();
            }
            () = activity.dismissed() => check_at = Instant::now(),
            () = sleep_until(check_at.into()) => match activity.verdict(Instant::now(), limits) {
                Verdict::AskAt(time) => check_at = time,
                Verdict::Cut => {
                    tracing::debug!(%peer, "a client takes nothing, or others need what it has; its connection is cut");
                    return;
                }
                Verdict::Close => say_goodbye(connection.as_mut(), activity),
            },
        }
    };
    if let Err(error) = result {
        // Mostly a client that disconnected. What matters was reported with its request.
        tracing::debug!(%peer, error, "a connection ended with an error");
    }
}

/// Ends a connection once the client's requests are answered.
fn say_goodbye<T, S, B>(
    connection: Pin<&mut auto::Connection<'_, TokioIo<T>, WatchedService<S>, StreamTasks>>,
    activity: &Activity,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    activity.leave();
    // hyper would close an HTTP/1.1 connection without a request although one has arrived, so that one ends when the
    // next read finds nothing.
    if activity.speaks_http2() || activity.idle_since().is_none() {
        connection.graceful_shutdown();
    }
}
