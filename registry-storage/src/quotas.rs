//! Quotas of a server: applied, counted in the background, and looked at before a client sends anything.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use registry_core::quota::Quota;
use registry_core::{Admission, Error, Principal, Request};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::background::Background;
use crate::maintenance::Maintenance;
use crate::store::QuotaUsage;

/// How often the counts are read, for those who watch them.
const READ_INTERVAL: Duration = Duration::from_mins(1);

/// After how many times it is looked whether something has to be counted: an hour.
const READS: usize = 60;

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
    /// Applies `quotas` at once, and each later value of it, and starts the task on the current tokio runtime. It counts at
    /// once what was never counted, with `at_start` everything, and each quota at least once a day. If the sender of the
    /// quotas is gone, the last ones stay.
    #[must_use]
    pub fn start(
        store: Arc<dyn Maintenance>,
        mut quotas: watch::Receiver<Arc<[Quota]>>,
        at_start: bool,
    ) -> Self {
        store.set_quotas(quotas.borrow_and_update().to_vec());
        let (sender, used) = watch::channel(Arc::from([]));
        let task = Background::start(async move {
            let mut after = if at_start { Duration::ZERO } else { COUNTED_FOR };
            loop {
                count(&*store, after).await;
                after = COUNTED_FOR;
                for _ in 0..READS {
                    let applied = Arc::clone(&quotas.borrow());
                    if let Ok(used) = store.quota_usage(&applied).await {
                        sender.send_replace(used.into());
                    }
                    tokio::select! {
                        () = sleep(READ_INTERVAL) => {}
                        Ok(()) = quotas.changed() => {
                            store.set_quotas(quotas.borrow_and_update().to_vec());
                            break;
                        }
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

async fn count(store: &dyn Maintenance, after: Duration) {
    match store.count_for_quotas(Some(after), &()).await {
        Ok(0) => {}
        Ok(quotas) => tracing::info!(quotas, "counted what the repositories of quotas have"),
        Err(error) => {
            let cause = std::error::Error::source(&error);
            tracing::error!(%error, cause, "what the repositories of quotas have is not counted; it is tried again");
        }
    }
}

/// Refuses a blob that no quota has room for before the client sends it: if its digest and its size are known, or if not a
/// byte is left.
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
    async fn admit(&self, _: &Principal, request: &Request) -> Result<(), Error> {
        let (repository, digest, size) = match request {
            Request::StartUpload { repository, .. } => (repository, None, None),
            Request::UploadBlob {
                repository,
                digest,
                length,
            } => (repository, Some(digest), *length),
            Request::FinishUpload {
                repository,
                digest,
                offset,
                length: Some(length),
                ..
            } => {
                let size = length.saturating_add(offset.unwrap_or(0));
                (repository, Some(digest), Some(size))
            }
            _ => return Ok(()),
        };
        self.0.require_room_for_blob(repository, digest, size).await
    }
}
