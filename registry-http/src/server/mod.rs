//! The server and its accept loop.

mod activity;
mod clock;
mod connection;
mod connection_limit;
mod listener;
mod metered;
mod open_streams;
mod stream;
mod transport;
mod unix;
mod watched;

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use tokio::net::ToSocketAddrs;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use self::clock::ClockWatch;
pub use self::clock::check_clock;
use self::connection::stopped;
use self::connection_limit::{ConnectionLimit, ConnectionSlot};
pub use self::listener::Listener;
pub(crate) use self::metered::ConnectionMemory;
use self::stream::StreamTasks;
pub(crate) use self::stream::{BoxError, UnreadRequest};
use self::transport::Socket;
#[cfg(feature = "testing")]
pub(crate) use self::watched::ConnectionReset;
use crate::address::{ListenAddress, PeerAddress};
use crate::limits::Limits;
use crate::log_limit::LogLimit;
use crate::tasks::Tasks;

/// How long to wait if no connection can be accepted, for example because the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How long requests that a shutdown interrupted may take to record how far they got.
const INTERRUPTED_TIMEOUT: Duration = Duration::from_secs(5);

/// A running server: it accepts HTTP/1.1 and HTTP/2 connections and passes their requests to a service.
///
/// [`Server::shutdown`] stops it gracefully; dropping it cuts all connections. No task outlives either for long.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<ListenAddress>,
    stop: watch::Sender<bool>,
    connections: Tasks,
    interrupted: Tasks,
}

impl Server {
    /// Listens on `address` and serves there. Port 0 selects any free port. Cancel safe: a future that is dropped leaves
    /// no socket.
    ///
    /// # Errors
    /// Errors of the socket, for example if the address is in use, and those of [`serve`](Self::serve).
    pub async fn bind<S, B>(address: impl ToSocketAddrs, service: S, limits: Limits) -> io::Result<Self>
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self::serve([Listener::bind(address).await?], service, limits)
    }

    /// Serves the connections of all `listeners`, which share the limits. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If there is no runtime or no listener, and those of [`check_clock`] for the current time.
    #[expect(clippy::disallowed_methods, reason = "the clock that dates the answers")]
    pub fn serve<S, B>(
        listeners: impl IntoIterator<Item = Listener>,
        service: S,
        limits: Limits,
    ) -> io::Result<Self>
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Handle::try_current().map_err(io::Error::other)?;
        check_clock(SystemTime::now())?;
        let listeners: Vec<Listener> = listeners.into_iter().collect();
        if listeners.is_empty() {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "a server needs a listener",
            ));
        }
        let addresses = listeners.iter().map(|listener| listener.address().clone());
        let addresses = addresses.collect();
        let (stop, stopped) = watch::channel(false);
        let (connections, interrupted) = (Tasks::default(), Tasks::default());
        let limit = Arc::new(ConnectionLimit::new(limits.connections, limits.memory.clone()));
        let (relieved, mut ended) = (Arc::clone(&limit), stopped.clone());
        connections.spawn(async move {
            tokio::select! {
                () = self::stopped(&mut ended) => {}
                () = relieved.relieve() => {}
            }
        });
        let limits = Arc::new(limits);
        let failed_handshakes = Arc::new(LogLimit::new());
        for listener in listeners {
            listener.limit_unsent(limits.buffer);
            let accept = Accept {
                address: Arc::new(listener.address().clone()),
                listener,
                service: service.clone(),
                limit: Arc::clone(&limit),
                failed_handshakes: Arc::clone(&failed_handshakes),
                limits: Arc::clone(&limits),
                connections: connections.clone(),
                interrupted: interrupted.clone(),
                stop: stopped.clone(),
            };
            connections.spawn(accept.run());
        }
        Ok(Self {
            addresses,
            stop,
            connections,
            interrupted,
        })
    }

    /// Returns the addresses it listens on, in the order of the listeners.
    #[must_use]
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// Stops the server: it accepts no more connections, tells clients that theirs end, and finishes running requests.
    /// What still runs after `limit` is cut; uploads then record how far they got, which takes at most another five
    /// seconds.
    ///
    /// Not cancel safe: if the future is dropped, all connections and running requests are cut at once, as if the
    /// server were dropped.
    pub async fn shutdown(self, limit: Duration) {
        self.stop.send_replace(true);
        if timeout(limit, self.connections.finished()).await.is_err() {
            self.connections.abort();
            self.connections.finished().await;
        }
        if timeout(INTERRUPTED_TIMEOUT, self.interrupted.finished())
            .await
            .is_err()
        {
            tracing::warn!("interrupted requests were given up");
            self.interrupted.abort();
            self.interrupted.finished().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.connections.abort();
        self.interrupted.abort();
    }
}

struct Accept<S> {
    listener: Listener,
    address: Arc<ListenAddress>,
    service: S,
    limits: Arc<Limits>,
    failed_handshakes: Arc<LogLimit>,
    limit: Arc<ConnectionLimit>,
    connections: Tasks,
    interrupted: Tasks,
    stop: watch::Receiver<bool>,
}

impl<S, B> Accept<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    #[expect(clippy::disallowed_methods, reason = "the clock that dates the answers")]
    async fn run(mut self) {
        let mut clock = ClockWatch::default();
        loop {
            let accepted = tokio::select! {
                () = stopped(&mut self.stop) => return,
                accepted = accept(&self.listener, &self.limit) => accepted,
            };
            let Some((socket, peer, slot)) = accepted else {
                continue;
            };
            if !clock.is_usable(SystemTime::now()) {
                continue;
            }
            let connection = connection::Accepted {
                socket,
                peer,
                listener: Arc::clone(&self.address),
                tls: self.listener.tls().cloned(),
                http2: self.listener.has_http2(),
                limits: Arc::clone(&self.limits),
                failed_handshakes: Arc::clone(&self.failed_handshakes),
                streams: StreamTasks::new(self.connections.clone(), &self.limits),
                interrupted: self.interrupted.clone(),
                stop: self.stop.clone(),
                slot,
            };
            self.connections.spawn(connection.serve(self.service.clone()));
        }
    }
}

/// Accepts one connection, and waits until there is a place for it.
async fn accept(
    listener: &Listener,
    limit: &Arc<ConnectionLimit>,
) -> Option<(Socket, PeerAddress, ConnectionSlot)> {
    match listener.accept().await {
        Ok((socket, peer)) => Some((socket, peer, limit.enter(peer.ip()).await?)),
        Err(error) => {
            // The client gave up before it was accepted. Any other error is likely to persist, so it is not retried at
            // once.
            let is_of_client = matches!(
                error.kind(),
                ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
            );
            if !is_of_client {
                tracing::error!(%error, "no connection can be accepted");
                // Mostly because the process is out of file descriptors.
                limit.make_room();
                sleep(ACCEPT_PAUSE).await;
            }
            None
        }
    }
}
