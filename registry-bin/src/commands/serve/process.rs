//! What the process and who started it exchange: signals, messages to a service manager, and what the log says of the
//! configuration.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::interval;

use crate::config::supported::without_effect;
use crate::config::{Loaded, bare_durations, protection, remarks};
use crate::failure::Failure;

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
