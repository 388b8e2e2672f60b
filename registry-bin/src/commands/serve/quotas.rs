//! The quotas of a server.

use std::sync::Arc;

use registry_core::policy::Glob;
use registry_core::quota::Quota;
use tokio::sync::watch;

use super::reload::{Change, Reloadable, gone};
use crate::config::sections::quotas::quotas;
use crate::config::{Configuration, Loaded};
use crate::failure::Failure;

/// The quotas that are in force. New limits take effect at once; a limit that is gone is protection that is gone.
#[derive(Debug)]
pub(super) struct AppliedQuotas(watch::Sender<Arc<[Quota]>>);

impl AppliedQuotas {
    /// Takes what the configuration says at the start.
    ///
    /// # Errors
    /// An invalid pattern.
    pub(super) fn of(configuration: &Configuration) -> Result<Self, Failure> {
        let quotas = quotas(&configuration.quotas)?;
        Ok(Self(watch::Sender::new(quotas.into())))
    }

    /// Returns what is in force, now and after each change.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<[Quota]>> {
        self.0.subscribe()
    }
}

impl Reloadable for AppliedQuotas {
    fn prepare(self: Arc<Self>, new: &Loaded) -> Result<Change, Failure> {
        let new: Arc<[Quota]> = quotas(&new.configuration.quotas)?.into();
        if let Some((pattern, what)) = lost(&self.0.borrow(), &new) {
            let consequence = format!("the {what} of repositories like {pattern} would not be limited");
            return Err(gone("quotas", &consequence));
        }
        Ok(Box::new(move || {
            self.0.send_if_modified(|quotas| {
                let is_new = *quotas != new;
                *quotas = new;
                is_new
            });
        }))
    }
}

/// One of the limits of a quota.
type Limit = fn(&Quota) -> Option<u64>;

/// Returns a pattern of repositories that had a limit and has none any more, and the limit.
fn lost<'a>(old: &'a [Quota], new: &[Quota]) -> Option<(&'a Glob, &'static str)> {
    let limits: [(Limit, &'static str); 3] = [
        (|quota| quota.bytes, "bytes"),
        (|quota| quota.manifests, "manifests"),
        (|quota| quota.tags, "tags"),
    ];
    limits.into_iter().find_map(|(limit, what)| {
        let mut limited = old
            .iter()
            .filter(|quota| limit(quota).is_some())
            .flat_map(|quota| &quota.repositories);
        let is_limited = |pattern: &Glob| {
            let mut others = new.iter().filter(|quota| limit(quota).is_some());
            others.any(|quota| quota.repositories.iter().any(|other| other.covers(pattern)))
        };
        limited
            .find(|pattern| !is_limited(pattern))
            .map(|pattern| (pattern, what))
    })
}
