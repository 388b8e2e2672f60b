//! What the process and who started it exchange: signals, messages to a service manager, and messages to a person.

use std::net::SocketAddr;
use std::time::Duration;

use registry_http::{LineSink as _, ListenAddress};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::interval;

use super::tls::Encryption;
use crate::config::sections::auth::Kind;
use crate::config::sections::log::LogFormat;
use crate::config::supported::without_effect;
use crate::config::{Configuration, Loaded, bare_durations, protection, remarks};
use crate::failure::Failure;
use crate::line_writer::LineWriter;
use crate::storage::StorageLocation;

/// SIGXFSZ, which has this number on Linux, the BSDs and macOS.
const SIGXFSZ: i32 = 25;

/// The signals that stop a server.
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|cause| Failure::new("cannot listen to signals").because(cause));
        // Without a handler, a write beyond the file size limit (`ulimit -f`) would kill the process.
        drop(listen(SignalKind::from_raw(SIGXFSZ))?);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The service manager, if there is one that listens: it is sent messages through `sd_notify`.
pub(super) struct ServiceManager;

impl ServiceManager {
    /// Reports what the server is doing.
    pub(super) fn status(text: &str) {
        Self::send(&[NotifyState::Status(text)]);
    }

    /// Reports that requests are answered.
    pub(super) fn ready(text: &str) {
        Self::send(&[NotifyState::Ready, NotifyState::Status(text)]);
    }

    /// Reports that the configuration is being reloaded; [`reloaded`](Self::reloaded) follows.
    pub(super) fn reloading() {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => Self::send(&[NotifyState::Reloading, now]),
            Err(error) => tracing::debug!(%error, "there is no monotonic time"),
        }
    }

    /// Reports that the configuration was reloaded.
    pub(super) fn reloaded() {
        Self::send(&[NotifyState::Ready]);
    }

    /// Reports that the server is stopping.
    pub(super) fn stopping() {
        Self::send(&[
            NotifyState::Stopping,
            NotifyState::Status("requests that run may end"),
        ]);
    }

    fn send(state: &[NotifyState<'_>]) {
        if let Err(error) = block_in_place(|| sd_notify::notify(false, state)) {
            tracing::debug!(%error, "the service manager cannot be told");
        }
    }
}

/// Reports that the server is alive, as often as the service manager requires (`WatchdogSec=`).
pub(super) struct Watchdog(Option<JoinHandle<()>>);

impl Watchdog {
    #[expect(clippy::disallowed_methods, reason = "its owner aborts it when dropped")]
    pub(super) fn start() -> Self {
        let mut microseconds = 0;
        if !sd_notify::watchdog_enabled(false, &mut microseconds) {
            return Self(None);
        }
        // Half the interval, as the manual of `sd_watchdog_enabled` recommends.
        let mut ticks = interval(Duration::from_micros(microseconds / 2).max(Duration::from_millis(1)));
        Self(Some(tokio::spawn(async move {
            loop {
                ticks.tick().await;
                ServiceManager::send(&[NotifyState::Watchdog]);
            }
        })))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Logs everything in the configuration that has no effect, so that nothing is ignored silently.
pub(super) fn log_what_has_no_effect(loaded: &Loaded) {
    if let Some(file) = &loaded.file {
        tracing::info!(file = %file.display(), "configured");
    }
    let keys = without_effect(&loaded.tree);
    if !keys.is_empty() {
        tracing::info!(
            keys = keys.join(", "),
            "these keys of the configuration have no effect, because nothing here needs them"
        );
    }
    for (key, remark) in remarks(&loaded.configuration, &loaded.tree) {
        tracing::warn!("{key} {remark}");
    }
    for (key, origin, number) in bare_durations(&loaded.configuration, &loaded.tree) {
        tracing::warn!("{key} ({origin}) is {number} nanoseconds; write {number}s if seconds are meant");
    }
    for (key, origin) in protection::empty(&loaded.tree) {
        tracing::warn!("{key} ({origin}) is empty and protects nothing; write `~` if that is meant");
    }
    for variable in &loaded.variables.unused {
        tracing::warn!(
            "{} is set in the environment and has no effect: {}",
            variable.name,
            variable.reason
        );
    }
}

/// Reports where the server listens and how to use it: in the log, and on standard output unless that is for programs.
pub(super) fn announce(
    output: &LineWriter,
    configuration: &Configuration,
    addresses: &[ListenAddress],
    location: &StorageLocation,
    encryption: Option<&Encryption>,
) {
    let scheme = if encryption.is_some() { "https" } else { "http" };
    let mut text = String::new();
    for address in addresses {
        let address = match address {
            ListenAddress::Tcp(address) => format!("{scheme}://{address}"),
            ListenAddress::Unix(_) => address.to_string(),
        };
        tracing::info!(address, storage = %location, "listening");
        text.push_str(&format!("Listening on {address}\n"));
    }
    warn_of_open_access(configuration, addresses);
    if configuration.log.formatter != LogFormat::Text {
        // A program that reads request lines there expects nothing else.
        return;
    }
    text.push_str(&format!("Storing in {location}\n"));
    let tcp = addresses.iter().find_map(ListenAddress::tcp);
    let own = encryption.and_then(Encryption::self_signed);
    let reachable = match (tcp, own) {
        (Some(address), Some(own)) => Some((own.host_of(address.ip()), address.port())),
        (Some(address), None) => Some((reachable(address), address.port())),
        (None, _) => None,
    };
    if let Some((host, port)) = reachable {
        if let Some(own) = own {
            text.push_str(&own.instructions(&host, port));
        }
        if encryption.is_none() && tcp.is_some_and(|address| !address.ip().is_loopback()) {
            text.push_str(&format!(
                "Docker on other machines needs in /etc/docker/daemon.json: {{\"insecure-registries\": [\"HOST:{port}\"]}}, with \
                 HOST as they name this machine; or serve with --tls-self-signed\n"
            ));
        }
        let place = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        text.push_str(&format!(
            "Push with: docker tag IMAGE {place}/NAME && docker push {place}/NAME\n"
        ));
    }
    // In one write, so that no log line comes in between.
    output.write(text.trim_end().to_owned());
}

/// Warns if any client that reaches the server may do anything.
fn warn_of_open_access(configuration: &Configuration, addresses: &[ListenAddress]) {
    let tcp = addresses.iter().filter_map(ListenAddress::tcp);
    let Some(address) = tcp.into_iter().find(|address| !address.ip().is_loopback()) else {
        return;
    };
    let asks_for_certificates = !configuration.http.tls.client_authorities.is_empty();
    let is_open = configuration.auth.kind() == Kind::Nobody
        && configuration.access.rules.is_empty()
        && !asks_for_certificates;
    if is_open {
        let what = if configuration.storage.delete.enabled {
            "pull, push and delete"
        } else {
            "pull and push"
        };
        tracing::warn!(
            %address,
            "whoever reaches this address may {what}: no `auth` is configured; write for example `auth: {{htpasswd: …}}`, or listen \
             on 127.0.0.1"
        );
    }
}

fn reachable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        "127.0.0.1".to_owned()
    } else {
        address.ip().to_string()
    }
}
