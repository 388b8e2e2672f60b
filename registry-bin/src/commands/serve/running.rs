//! The shutdown of a server.

use std::time::{Duration, Instant};

use registry_http::Health;
use registry_http::Server;

use super::backups::Backups;
use super::notifications::Notifications;
use super::reload::Reload;
use super::service_manager;
use super::signals::Signals;
use super::telemetry::Telemetry;
use crate::control::server::ControlServer;
use crate::failure::Failure;
use crate::storage::OpenStorage;

/// What runs, and must be stopped in order.
pub(super) struct Running {
    pub(super) server: Server,
    pub(super) backups: Option<Backups>,
    pub(super) debug: Option<Server>,
    pub(super) health: Health,
    pub(super) reload: Reload,
    pub(super) control: Option<ControlServer>,
    pub(super) notifications: Option<Notifications>,
    pub(super) telemetry: Telemetry,
    pub(super) storage: OpenStorage,
}

impl Running {
    /// Lets running requests finish, for up to `drain` or until the next signal, and then stops everything else.
    pub(super) async fn stop(self, drain: Duration, signals: &mut Signals) -> Result<(), Failure> {
        service_manager::stopping();
        self.health.stopping();
        self.reload.shutdown().await;
        tracing::info!(
            seconds = drain.as_secs(),
            "stopping; requests that run may end, a second signal cuts them"
        );
        let end = Instant::now() + drain;
        tokio::select! {
            () = self.server.shutdown(drain) => {}
            () = signals.next() => tracing::warn!("running requests were cut"),
        }
        if let Some(backups) = self.backups {
            backups.shutdown().await;
        }
        if let Some(control) = self.control {
            control.shutdown().await;
        }
        let rest = end.saturating_duration_since(Instant::now());
        tokio::join!(
            async {
                if let Some(notifications) = self.notifications {
                    notifications.shutdown(rest).await;
                }
            },
            self.telemetry.traces.shutdown(rest),
        );
        self.storage.close().await?;
        if let Some(debug) = self.debug {
            debug.shutdown(Duration::ZERO).await;
        }
        // This waits until the request logs are written; nothing else is left to do.
        self.telemetry.close();
        tracing::info!("stopped");
        Ok(())
    }
}
