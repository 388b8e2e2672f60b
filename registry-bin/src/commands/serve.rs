//! `registry-bin serve`.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use registry_core::registry::{Options, Registry};
use registry_http::{Limits, Listener, RegistryService, Server};
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Serve;
use crate::config::Config;
use crate::failure::Failure;
use crate::storage::OpenStorage;

/// The most threads for calls that block: reads and writes of files, and hashing. A thread more costs memory and wins
/// nothing, as each call is short.
const BLOCKING_THREADS: usize = 32;

/// Serves until a signal comes.
pub(crate) fn run(serve: &Serve) -> Result<(), Failure> {
    let config = Config::load(serve)?;
    config.logging.start();
    let runtime = runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|cause| Failure::new("cannot start threads").because(cause))?;
    runtime.block_on(serve_until_signal(serve, &config))
}

async fn serve_until_signal(serve: &Serve, config: &Config) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    // The port first: whoever starts a second server by mistake should learn that, not wait for the storage.
    let listener = listen(config).await?;
    let address = listener
        .local_addr()
        .map_err(|cause| Failure::new("cannot tell the address of the socket").because(cause))?;
    let storage = tokio::select! {
        storage = OpenStorage::open(&config.storage, serve.wait) => storage?,
        () = signals.next() => return Ok(()),
    };
    let mut options = Options::default();
    options.delete = config.delete_enabled;
    options.allow_missing_children = serve.allow_missing_content;
    let registry = Registry::new(Arc::clone(&storage.storage), options);
    let limits = Limits::default();
    let service = RegistryService::new(registry, limits.clone());
    let server = Listener::tcp(listener)
        .and_then(|listener| Server::serve([listener], service, limits))
        .map_err(|cause| Failure::new("cannot accept connections").because(cause))?;
    announce(config, address)?;
    signals.next().await;
    tracing::info!(
        seconds = serve.drain,
        "stopping; requests that run may end, a second signal cuts them"
    );
    tokio::select! {
        () = server.shutdown(Duration::from_secs(serve.drain)) => {}
        () = signals.next() => tracing::warn!("running requests were cut"),
    }
    storage.close().await?;
    tracing::info!("stopped");
    Ok(())
}

async fn listen(config: &Config) -> Result<TcpListener, Failure> {
    let failed = |cause: io::Error| {
        Failure::new(format!(
            "cannot listen on {}; take another address with --listen",
            config.listen
        ))
        .because(cause)
    };
    TcpListener::bind(config.listen).await.map_err(failed)
}

/// Tells the person who started the server what they need to use it.
fn announce(config: &Config, address: SocketAddr) -> Result<(), Failure> {
    let mut reachable = address;
    if address.ip().is_unspecified() {
        reachable.set_ip([127, 0, 0, 1].into());
    }
    let text = format!(
        "Listening on http://{address}\nStoring in {}\nPush with: docker tag IMAGE {reachable}/NAME && docker push {reachable}/NAME\n",
        config.storage
    );
    // A server whose standard output is closed serves all the same.
    match io::stdout().write_all(text.as_bytes()) {
        Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new("cannot write to the standard output").because(cause))
        }
        _ => Ok(()),
    }
}

/// The signals that end a server.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|cause| Failure::new("cannot listen to signals").because(cause));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
