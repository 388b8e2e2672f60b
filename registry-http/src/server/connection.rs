//! One connection, from its first byte to its last.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};

use super::activity::{Activity, Verdict};
use super::stopped;
use super::transport::{Transport, Watched};
use super::watched::WatchedService;
use crate::limits::Limits;
use crate::service::{BoxError, InterruptedRequests, PeerAddress};
use crate::tasks::Tasks;

/// The longest frame of an HTTP/2 request body. Larger than the default of 16 KiB, so that large bodies need fewer.
const FRAME: u32 = 64 * 1024;

/// Returns what all connections of a server are configured with. The tasks of HTTP/2 streams run in `tasks`.
pub(super) fn builder(limits: &Limits, tasks: Tasks) -> Builder<Tasks> {
    let mut builder = Builder::new(tasks);
    // Vectored writes are on where the transport has them: a blob's chunk goes to the socket without a copy.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_buf_size(limits.buffer.max(8 * 1024))
        .max_headers(limits.fields);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(limits.header)
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(limits.window.min(i32::MAX.unsigned_abs()))
        .initial_connection_window_size(limits.window.min(i32::MAX.unsigned_abs()))
        .max_frame_size(FRAME)
        .max_send_buf_size(limits.buffer);
    builder
}

/// Serves a connection until it ends, is cut because the client takes nothing, or, once `stop` says so, what runs on
/// it has ended.
pub(super) async fn serve<T, S, B>(
    transport: T,
    peer: PeerAddress,
    service: S,
    builder: Arc<Builder<Tasks>>,
    limits: Arc<Limits>,
    interrupted: Tasks,
    mut stop: watch::Receiver<bool>,
) where
    T: Transport,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let activity = Arc::new(Activity::new());
    let io = TokioIo::new(Watched::new(transport, Arc::clone(&activity), limits.drain_time));
    let service = WatchedService {
        service,
        activity: Arc::clone(&activity),
        peer,
        interrupted: InterruptedRequests(interrupted),
    };
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut check_at = Instant::now();
    let mut is_stopping = false;
    let result = loop {
        tokio::select! {
            result = &mut connection => break result,
            () = stopped(&mut stop), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = sleep_until(check_at.into()) => match activity.verdict(Instant::now(), &limits) {
                Verdict::AskAt(time) => check_at = time,
                Verdict::Cut => {
                    tracing::debug!(peer = %peer.0, "a client takes nothing; its connection is cut");
                    return;
                }
                Verdict::Close => {
                    connection.as_mut().graceful_shutdown();
                    match timeout(limits.drain_time, &mut connection).await {
                        Ok(result) => break result,
                        Err(_) => return,
                    }
                }
            },
        }
    };
    if let Err(error) = result {
        // Mostly a client that went away; what matters was told of the request.
        tracing::debug!(peer = %peer.0, error, "a connection ended with an error");
    }
}
