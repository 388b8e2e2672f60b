//! What the collector of a server applies of `retention`.

use std::sync::Arc;

use registry_core::retention::Retention;
use tokio::sync::watch;

use super::reload::{Change, Reloadable};
use crate::config::sections::retention::retention;
use crate::config::{Configuration, Loaded};
use crate::failure::Failure;

/// The policies of the start, and the newest immutable tags.
///
/// Policies wait for a restart: a file that is written by half may lack an entry that keeps tags.
#[derive(Debug)]
pub(super) struct AppliedRetention(watch::Sender<Arc<Retention>>);

impl AppliedRetention {
    /// Takes what the configuration says at the start.
    ///
    /// # Errors
    /// An invalid pattern.
    pub(super) fn of(configuration: &Configuration) -> Result<Self, Failure> {
        let retention = retention(&configuration.retention, &configuration.tags)?;
        Ok(Self(watch::Sender::new(Arc::new(retention))))
    }

    /// Returns what is applied, now and after each change.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Retention>> {
        self.0.subscribe()
    }
}

impl Reloadable for AppliedRetention {
    fn prepare(self: Arc<Self>, new: &Loaded) -> Result<Change, Failure> {
        let immutable = new.configuration.tags.immutable_rules()?;
        Ok(Box::new(move || {
            self.0.send_modify(|retention| {
                *retention = Arc::new(Retention {
                    policies: retention.policies.clone(),
                    immutable,
                });
            });
        }))
    }
}
