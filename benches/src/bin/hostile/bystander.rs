//! A client like any other, at an address of its own, that notes how long it waits.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use crate::slow::{Client, blob_of, manifest_of};

/// The address it comes from.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const REPOSITORY: &str = "/v2/bystander/app";
/// How long it waits for an answer before that counts as refused.
const PATIENCE: Duration = Duration::from_secs(20);
/// The pause between its requests.
const PAUSE: Duration = Duration::from_millis(10);
const CONTENT: &[u8] = b"content of the bystander";

/// How long requests took.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    times: Vec<Duration>,
    /// Requests that were not answered as they should be, or not at all.
    pub(crate) refused: usize,
}

impl Waits {
    pub(crate) const fn count(&self) -> usize {
        self.times.len()
    }

    /// Returns what so many of a hundred requests did not wait longer than.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut times = self.times.clone();
        times.sort();
        let last = times.len().saturating_sub(1);
        let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(index.min(last)).copied().unwrap_or(PATIENCE)
    }
}

/// The client, on a thread of its own: it waits for the server, not for those that trouble it.
pub(crate) struct Bystander {
    stop: watch::Sender<bool>,
    thread: JoinHandle<Result<Waits, String>>,
}

impl Bystander {
    /// Pushes what it pulls.
    pub(crate) async fn prepare(server: SocketAddr) -> Result<(), String> {
        let mut client = Client::connect(server, ADDRESS).await?;
        client.push_blob(REPOSITORY, CONTENT).await?;
        let target = format!("{REPOSITORY}/manifests/latest");
        client
            .put_manifest(&target, &manifest_of(CONTENT, ""))
            .await?
            .expect(&[201])
    }

    pub(crate) fn start(server: SocketAddr) -> Self {
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| error.to_string())?;
            Ok(runtime.block_on(ask(server, stopped)))
        });
        Self { stop, thread }
    }

    pub(crate) fn end(self) -> Result<Waits, String> {
        self.stop.send_replace(true);
        self.thread
            .join()
            .map_err(|_| String::from("the bystander panicked"))?
    }
}

/// Asks until it is stopped, and says why a request was refused.
async fn ask(server: SocketAddr, stopped: watch::Receiver<bool>) -> Waits {
    let mut waits = Waits::default();
    let mut client = None;
    let mut round = 0_u64;
    while !*stopped.borrow() {
        let began = Instant::now();
        let step = timeout(PATIENCE, step(&mut client, server, round)).await;
        let waited = began.elapsed();
        waits.times.push(waited);
        let reason = match step {
            Ok(Ok(())) => None,
            Ok(Err(reason)) => Some(reason),
            Err(_) => Some("no answer".to_owned()),
        };
        if let Some(reason) = reason {
            eprintln!("request {round} of the bystander was refused after {waited:.1?}: {reason}");
            waits.refused += 1;
            client = None;
        }
        round += 1;
        tokio::time::sleep(PAUSE).await;
    }
    waits
}

/// One request: a pull of a manifest, a pull of a blob, or a push of a tag, and now and then on a new connection.
async fn step(client: &mut Option<Client>, server: SocketAddr, round: u64) -> Result<(), String> {
    if round.is_multiple_of(10) {
        *client = None;
    }
    let client = match client {
        Some(client) => client,
        None => client.insert(Client::connect(server, ADDRESS).await?),
    };
    match round % 3 {
        0 => {
            let target = format!("{REPOSITORY}/manifests/latest");
            client.request("GET", &target, &[], b"").await?.expect(&[200])
        }
        1 => {
            let target = format!("{REPOSITORY}/blobs/{}", blob_of(CONTENT));
            client.request("GET", &target, &[], b"").await?.expect(&[200])
        }
        _ => {
            let target = format!("{REPOSITORY}/manifests/tag-{round}");
            let manifest = manifest_of(CONTENT, &format!(r#","annotations":{{"round":"{round}"}}"#));
            client.put_manifest(&target, &manifest).await?.expect(&[201])
        }
    }
}
