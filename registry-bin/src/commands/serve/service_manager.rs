//! What a service manager is told, by `sd_notify`: where there is one, and it listens.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::interval;

/// Says what the server does.
pub(super) fn status(text: &str) {
    send(&[NotifyState::Status(text)]);
}

/// Says that requests are answered.
pub(super) fn ready(text: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(text)]);
}

/// Says that the configuration is read again; [`reloaded`] follows.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "there is no monotonic time"),
    }
}

/// Says that the configuration was read again.
pub(super) fn reloaded() {
    send(&[NotifyState::Ready]);
}

/// Says that the server ends.
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

/// Says that the server is alive, as often as the service manager wants to hear it (`WatchdogSec=`).
pub(super) struct Watchdog(Option<JoinHandle<()>>);

impl Watchdog {
    pub(super) fn start() -> Self {
        let mut microseconds = 0;
        if !sd_notify::watchdog_enabled(false, &mut microseconds) {
            return Self(None);
        }
        // Half the time, as the manual of `sd_watchdog_enabled` recommends.
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
