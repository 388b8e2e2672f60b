//! The accept loop.

mod activity;
mod connection;
mod transport;
mod watched;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

#[cfg(feature = "testing")]
pub(crate) use self::watched::ConnectionReset;
use crate::limits::Limits;
use crate::service::{BoxError, PeerAddress};
use crate::tasks::Tasks;

/// How long to wait when no connection can be accepted, for example because no file can be opened any more.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How long requests that a shutdown interrupted may take to note how far they came.
const FINISH: Duration = Duration::from_secs(5);

/// A server that runs: it accepts HTTP/1.1 and HTTP/2 connections and answers by a service.
///
/// HTTP/2 is told from HTTP/1.1 by its first bytes, so that it needs no upgrade and no TLS.
/// [`Server::shutdown`] ends it in order; dropping it cuts all connections. No task outlives either for long.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    connections: Tasks,
    interrupted: Tasks,
}

impl Server {
    /// Listens at `address` and serves there. Port 0 is any free port.
    ///
    /// # Errors
    /// Those of the socket, for example that the address is in use.
    pub async fn bind<S, B>(address: impl ToSocketAddrs, service: S, limits: Limits) -> io::Result<Self>
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self::serve(TcpListener::bind(address).await?, service, limits)
    }

    /// Serves the connections of `listener`, from within a tokio runtime.
    ///
    /// # Errors
    /// Those of asking the listener for its address, and where there is no runtime.
    pub fn serve<S, B>(listener: TcpListener, service: S, limits: Limits) -> io::Result<Self>
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Handle::try_current().map_err(io::Error::other)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let (connections, interrupted) = (Tasks::default(), Tasks::default());
        let accept = Accept {
            listener,
            service,
            slots: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
            limits: Arc::new(limits),
            connections: connections.clone(),
            interrupted: interrupted.clone(),
            stop: stopped,
        };
        connections.spawn(accept.run());
        Ok(Self {
            address,
            stop,
            connections,
            interrupted,
        })
    }

    /// Returns the address that it listens at.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops: no connection is accepted any more, clients are told that theirs ends, and requests that run are
    /// finished. What still runs after `limit` is cut; uploads then note how far they came, which takes at most five
    /// seconds more.
    pub async fn shutdown(self, limit: Duration) {
        self.stop.send_replace(true);
        if timeout(limit, self.connections.finished()).await.is_err() {
            self.connections.abort();
            self.connections.finished().await;
        }
        if timeout(FINISH, self.interrupted.finished()).await.is_err() {
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
    listener: TcpListener,
    service: S,
    limits: Arc<Limits>,
    slots: Arc<Semaphore>,
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
    async fn run(mut self) {
        let builder = Arc::new(connection::builder(&self.limits, self.connections.clone()));
        loop {
            let accepted = tokio::select! {
                () = stopped(&mut self.stop) => return,
                accepted = accept(&self.listener, &self.slots) => accepted,
            };
            let Some((stream, peer, slot)) = accepted else {
                continue;
            };
            let connection = connection::serve(
                stream,
                PeerAddress(peer),
                self.service.clone(),
                Arc::clone(&builder),
                Arc::clone(&self.limits),
                self.interrupted.clone(),
                self.stop.clone(),
            );
            self.connections.spawn(async move {
                connection.await;
                drop(slot);
            });
        }
    }
}

/// Waits until the server is to stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error is a server that was dropped.
    drop(stop.wait_for(|stop| *stop).await);
}

/// Accepts one connection when there is room for it.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Small answers are whole when they are written, and wait for nothing.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "the delay of small packets cannot be switched off");
            }
            Some((stream, peer, slot))
        }
        Err(error) => {
            // The client gave up before it was accepted; all else does not go away by trying at once.
            let is_of_client = matches!(
                error.kind(),
                ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
            );
            if !is_of_client {
                tracing::error!(%error, "no connection can be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
            None
        }
    }
}
