//! A durable registry in a folder, with what runs beside the requests, and an orderly end.
//!
//! ```console
//! cargo run -p registry-http --example hyper                                  # tries itself out, and ends
//! cargo run -p registry-http --example hyper -- /srv/registry 127.0.0.1:5000  # serves until Ctrl-C
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

mod client;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use registry_core::registry::Options;
use registry_core::{Registry, RepositoryName, Tag};
use registry_http::{Limits, RegistryService, Server};
use registry_storage::filesystem::FilesystemBackend;
use registry_storage::{CollectOptions, Collector, Maintenance, Store, Sweeper};

use crate::client::{Client, Result};

/// How often what nothing needs any more is looked for.
const HOUR: Duration = Duration::from_hours(1);

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let Some(folder) = arguments.next() else {
        return try_it().await;
    };
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:5000".to_owned());
    let running = Running::start(Path::new(&folder), &address).await?;
    println!(
        "serving {folder} at {:?}; Ctrl-C ends it",
        running.server.addresses()
    );
    tokio::signal::ctrl_c().await?;
    running.stop().await
}

/// A registry and what runs beside its requests.
struct Running {
    server: Server,
    collector: Collector,
    sweeper: Sweeper,
    store: Arc<dyn Maintenance>,
}

impl Running {
    /// Opens or creates the registry in `folder`. One process at a time may have it open.
    async fn start(folder: &Path, address: &str) -> Result<Self> {
        let store: Arc<dyn Maintenance> = Arc::new(Store::new(FilesystemBackend::open(folder).await?));

        // Without the collector, blobs that no manifest names any more stay. Without the sweeper, the bytes of abandoned
        // uploads and of removed blobs keep their space.
        let collector = Collector::start(Arc::clone(&store), CollectOptions::new(), HOUR);
        let sweeper = Sweeper::start(Arc::clone(&store), HOUR);

        let limits = Limits::default();
        let service = RegistryService::new(
            Registry::new(Arc::clone(&store), Options::default()),
            limits.clone(),
        );
        let server = Server::bind(address, service, limits).await?;
        Ok(Self {
            server,
            collector,
            sweeper,
            store,
        })
    }

    /// Ends in the reverse order: first the requests, last the store that they use.
    async fn stop(self) -> Result<()> {
        self.server.shutdown(Duration::from_secs(30)).await;
        self.collector.shutdown().await;
        self.sweeper.shutdown().await;
        self.store.close().await?;
        Ok(())
    }
}

/// Pushes an image, restarts the registry, and pulls the image.
async fn try_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (repository, tag): (RepositoryName, Tag) = ("library/app".parse()?, "1".parse()?);
    let layer = b"the only layer";

    let running = Running::start(folder.path(), "127.0.0.1:0").await?;
    let address = running.server.addresses()[0].tcp().ok_or("no TCP address")?;
    let manifest = Client::connect(address)
        .await?
        .push(&repository, &tag, layer)
        .await?;
    println!("pushed {repository}:{tag} as {manifest}");
    running.stop().await?;

    let running = Running::start(folder.path(), "127.0.0.1:0").await?;
    let address = running.server.addresses()[0].tcp().ok_or("no TCP address")?;
    let blobs = Client::connect(address).await?.pull(&repository, &tag).await?;
    assert_eq!(blobs, [&b"{}"[..], layer]);
    println!("pulled {repository}:{tag} after a restart");
    running.stop().await
}
