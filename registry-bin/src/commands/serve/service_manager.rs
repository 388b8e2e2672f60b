//! Messages to a service manager through `sd_notify`, if there is one that listens.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::interval;

/// Reports what the server is doing.
pub(super) fn status(text: &str) {
    send(&[NotifyState::Status(text)]);
}

/// Reports that requests are answered.
pub(super) fn ready(text: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(text)]);
}

/// Reports that the configuration is being reloaded; [`reloaded`] follows.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "there is no monotonic time"),
    }
}

/// Reports that the configuration was reloaded.
pub(super) fn reloaded() {
    send(&[NotifyState::Ready]);
}

/// Reports that the server is stopping.
pub(super) fn stopping() {
    send(&[
        NotifyState::Stopping,
        NotifyState::Status("requests that run may end"),
    ]);
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = block_in_place(|| sd_notify::notify(false, state)) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

/// Reports that the server is alive, as often as the service manager requires (`WatchdogSec=`).
pub(super) struct Watchdog(Option<JoinHandle<()>>);

impl Watchdog {
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
                send(&[NotifyState::Watchdog]);
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
