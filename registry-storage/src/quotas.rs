//! Quotas of a server: applied, counted in the background, and looked at before a client sends anything.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use registry_core::quota::Quota;
use registry_core::storage::UploadKey;
use registry_core::{Admission, Error, ErrorCode, Principal, Request};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::background::Background;
use crate::maintenance::Maintenance;
use crate::store::{QuotaUsage, have_one_count};

/// How often the counts are read, for those who watch them, and the pause before the second count of what was written while it
/// was counted. That pause doubles with each such count, up to a day: under a steady load no count is exact.
const READ_INTERVAL: Duration = Duration::from_mins(1);

/// After how many reads at most it is looked whether something has to be counted: an hour.
const READS: u64 = 60;

/// How long a count is good. It is kept with each change; what a process that died or was not told of the quotas did is
/// found by the next one.
const COUNTED_FOR: Duration = Duration::from_hours(24);

/// A task that applies quotas to a store, and counts what their repositories have. It ends with [`QuotaCounter::shutdown`],
/// or soon after it was dropped.
///
/// Any number may work on one bucket, in any number of processes.
#[derive(Debug)]
pub struct QuotaCounter {
    task: Background,
    used: watch::Receiver<Arc<[QuotaUsage]>>,
}

impl QuotaCounter {
    /// Applies `quotas` at once, and each later value of it, and starts the task on the current tokio runtime. It counts
    /// everything at its start and if there are new patterns, because the counts of quotas that were not applied were
    /// not kept; otherwise once a day, and more often what was not exact. If the sender of the quotas is gone, the last
    /// ones stay.
    #[must_use]
    pub fn start(store: Arc<dyn Maintenance>, mut quotas: watch::Receiver<Arc<[Quota]>>) -> Self {
        let applied = Arc::clone(&quotas.borrow_and_update());
        store.set_quotas(applied.to_vec());
        let (sender, used) = watch::channel(Arc::from([]));
        let mut quotas = Applied {
            store,
            quotas,
            applied,
        };
        let task = Background::start(async move {
            let store = Arc::clone(&quotas.store);
            let mut ages = Ages::UNKNOWN;
            loop {
                let counted = {
                    let mut count = pin!(count(&*store, ages));
                    loop {
                        tokio::select! {
                            counted = &mut count => break Some(counted),
                            has_new_patterns = quotas.changed() => if has_new_patterns {
                                break None;
                            },
                        }
                    }
                };
                let Some(counted) = counted else {
                    ages = Ages::UNKNOWN;
                    continue;
                };
                let mut reads = READS;
                for read in 0.. {
                    if let Ok(used) = store.quota_usage(&quotas.applied).await {
                        if read == 0 {
                            let is_exact = used.iter().all(|used| used.is_exact);
                            ages = ages.after(counted, is_exact);
                            reads = if is_exact { READS } else { ages.reads() };
                        }
                        sender.send_replace(used.into());
                    }
                    tokio::select! {
                        () = sleep(READ_INTERVAL) => {}
                        has_new_patterns = quotas.changed() => if has_new_patterns {
                            ages = Ages::UNKNOWN;
                            break;
                        },
                    }
                    if read + 1 >= reads {
                        break;
                    }
                }
            }
        });
        Self { task, used }
    }

    /// Returns what is used of each quota, in their order, as it was read within the last minute.
    #[must_use]
    pub fn usage(&self) -> watch::Receiver<Arc<[QuotaUsage]>> {
        self.used.clone()
    }

    /// Stops the task, even in the middle of a count, and waits until it has ended. The quotas stay.
    pub async fn shutdown(self) {
        self.task.shutdown().await;
    }
}

/// The quotas that are applied.
struct Applied {
    store: Arc<dyn Maintenance>,
    quotas: watch::Receiver<Arc<[Quota]>>,
    applied: Arc<[Quota]>,
}

impl Applied {
    /// Waits for other quotas and applies them. Returns whether some have patterns that were not applied before.
    async fn changed(&mut self) -> bool {
        if self.quotas.changed().await.is_err() {
            return std::future::pending().await;
        }
        let before = std::mem::replace(&mut self.applied, Arc::clone(&self.quotas.borrow_and_update()));
        self.store.set_quotas(self.applied.to_vec());
        let was_applied = |quota: &Quota| before.iter().any(|before| have_one_count(before, quota));
        !self.applied.iter().all(was_applied)
    }
}

/// How old a count has to be to be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ages {
    exact: Duration,
    inexact: Duration,
}

impl Ages {
    /// No count is good.
    const UNKNOWN: Self = Self {
        exact: Duration::ZERO,
        inexact: Duration::ZERO,
    };

    /// Returns the ages after everything of these ages was counted, which was something or nothing, or failed.
    fn after(self, counted: Option<usize>, is_exact: bool) -> Self {
        let inexact = match counted {
            None => return self,
            _ if is_exact => READ_INTERVAL,
            Some(0) => self.inexact,
            Some(_) => (self.inexact * 2).clamp(READ_INTERVAL, COUNTED_FOR),
        };
        Self {
            exact: COUNTED_FOR,
            inexact,
        }
    }

    /// Returns after how many reads it is looked whether something is of these ages, if not all is exact.
    fn reads(self) -> u64 {
        match self.inexact.as_secs() / READ_INTERVAL.as_secs() {
            0 => READS,
            reads => reads.min(READS),
        }
    }
}

/// Returns for how many quotas it counted, unless it failed.
async fn count(store: &dyn Maintenance, ages: Ages) -> Option<usize> {
    let counted = store.count_for_quotas(ages.exact, ages.inexact, &()).await;
    match &counted {
        Ok(0) => {}
        Ok(quotas) => tracing::info!(quotas, "counted what the repositories of quotas have"),
        Err(error) => {
            let cause = std::error::Error::source(error);
            tracing::error!(%error, cause, "what the repositories of quotas have is not counted; it is tried again");
        }
    }
    counted.ok()
}

/// Refuses a blob that no quota has room for before the client sends it: if its digest and its size are known, or if not a
/// byte is left. It ends the upload that is refused.
///
/// It only looks ahead. The store decides what is published, with every way to push, and takes what a repository has already.
/// So bytes whose digest comes later are taken, unless a client that did not ask for the blob begins an upload when the quota
/// is used up.
#[derive(Debug)]
pub struct QuotaAdmission(Arc<dyn Maintenance>);

impl QuotaAdmission {
    /// Looks at the quotas of `store`.
    #[must_use]
    pub const fn new(store: Arc<dyn Maintenance>) -> Self {
        Self(store)
    }
}

#[async_trait]
impl Admission for QuotaAdmission {
    async fn admit(&self, principal: &Principal, request: &Request) -> Result<(), Error> {
        let (repository, id, digest, size) = match request {
            Request::StartUpload { repository, .. } => (repository, None, None, None),
            Request::UploadBlob {
                repository,
                digest,
                length,
            } => {
                // Without a body it starts a session.
                let size = length.filter(|length| *length > 0);
                (repository, None, Some(digest), size)
            }
            Request::FinishUpload {
                repository,
                id,
                digest,
                offset,
                length: Some(length),
                ..
            } => {
                let size = length.saturating_add(offset.unwrap_or(0));
                (repository, Some(*id), Some(digest), Some(size))
            }
            _ => return Ok(()),
        };
        let admitted = self.0.require_room_for_blob(repository, digest, size).await;
        if let (Err(error), Some(id)) = (&admitted, id)
            && error.code() == ErrorCode::Denied
        {
            let upload = UploadKey {
                repository: repository.clone(),
                id,
                principal: principal.name().to_owned(),
            };
            // One that stays is ended for its age.
            if let Err(error) = self.0.cancel_upload(&upload).await {
                tracing::debug!(%error, "an upload that a quota refused was not cancelled");
            }
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_never_exact_is_counted_more_and_more_rarely() {
        let (mut ages, mut pauses) = (Ages::UNKNOWN, Vec::new());
        for _ in 0..13 {
            ages = ages.after(Some(1), false);
            pauses.push(ages.inexact.as_secs() / 60);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1440, 1440]);
        assert_eq!((ages.reads(), ages.exact), (60, COUNTED_FOR));
        // Another process counts.
        assert_eq!(ages.after(Some(0), false), ages);
        assert_eq!(ages.after(Some(1), true).inexact, READ_INTERVAL);
    }

    #[test]
    fn a_count_that_failed_is_still_to_be_made() {
        let ages = Ages::UNKNOWN.after(None, true);
        assert_eq!((ages, ages.reads()), (Ages::UNKNOWN, READS));
    }
}
