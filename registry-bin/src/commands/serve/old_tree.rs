//! What the distribution registry writes into a bucket after its tree there was adopted. A look at it lists the whole tree, which may
//! take long, so it goes on beside requests.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use registry_storage::distribution::{AdoptError, AdoptReport, find_news, update_in_place};
use registry_storage::{Finding, Maintenance, MaintenanceObserver, ObjectStoreBackend, Store};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::storage::PROGRESS_INTERVAL;
use crate::adoption::{describe, finding_line};

/// How long clients wait for it: what came into a small tree is there from the beginning.
const HEAD_START: Duration = Duration::from_secs(2);

/// When it is repeated after it failed for the first time. The time doubles, up to the longest.
const FIRST_RETRY: Duration = Duration::from_mins(1);
const LAST_RETRY: Duration = Duration::from_hours(1);

/// Takes once what came, until it is dropped.
#[derive(Debug)]
pub(super) struct OldTree(JoinHandle<()>);

impl OldTree {
    /// Starts, if the store is in a bucket, and returns when it is done, or goes on for a while already. If it may write nothing, it
    /// only says that something came.
    #[expect(clippy::disallowed_methods, reason = "its owner ends it and waits for it")]
    pub(super) async fn start(store: &Arc<dyn Maintenance>, is_read_only: bool) -> Option<Self> {
        store.in_bucket()?;
        let mut old_tree = Self(tokio::spawn(run(Arc::clone(store), is_read_only)));
        let done = timeout(HEAD_START, &mut old_tree.0).await;
        done.is_err().then_some(old_tree)
    }

    /// Ends it. The next start continues.
    pub(super) async fn shutdown(mut self) {
        self.0.abort();
        // The task was aborted, so its result does not matter.
        drop((&mut self.0).await);
    }
}

impl Drop for OldTree {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run(store: Arc<dyn Maintenance>, is_read_only: bool) {
    let Some(store) = store.in_bucket() else {
        return;
    };
    let mut wait = FIRST_RETRY;
    loop {
        let done = match is_read_only {
            true => look(store).await,
            false => update(store).await,
        };
        let Err(error) = done else {
            return;
        };
        tracing::warn!(
            %error,
            "cannot take what the distribution registry got after its data in this bucket was adopted; it is tried again"
        );
        sleep(wait).await;
        wait = wait.saturating_mul(2).min(LAST_RETRY);
    }
}

async fn look(store: &Store<ObjectStoreBackend>) -> Result<(), AdoptError> {
    if let Some((link, written)) = find_news(store).await? {
        tracing::warn!(
            link,
            %written,
            "the distribution registry was used after its data in this bucket was adopted, and what it got since is not here; a \
             start without `storage.maintenance.readonly` takes it"
        );
    }
    Ok(())
}

async fn update(store: &Store<ObjectStoreBackend>) -> Result<(), AdoptError> {
    match update_in_place(store, &Progress::default()).await {
        Ok(Some(report)) if !report.is_empty() => {
            tracing::info!(
                "the distribution registry was used after its data in this bucket was adopted; adopted {}",
                describe(&report)
            );
            if !report.defects.is_empty() {
                tracing::warn!("once the rest is put right, `registry-bin adopt --again` adds it");
            }
            Ok(())
        }
        // Another server or a command gave the tree up meanwhile.
        Ok(_) | Err(AdoptError::Released(_)) => Ok(()),
        Err(AdoptError::Exporting { key, written }) => {
            tracing::warn!(
                link = key,
                %written,
                "the distribution registry's data in this bucket says something else than what is here, maybe because of an export that \
                 goes on or did not end, so it is left alone; if no export goes on, `registry-bin adopt --again` adds it, and \
                 brings back what was deleted only here"
            );
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Logs the progress and each defect.
struct Progress(Mutex<Instant>);

impl Default for Progress {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

#[async_trait]
impl MaintenanceObserver for Progress {
    async fn found(&self, finding: Finding) {
        tracing::warn!("{}", finding_line(&finding));
    }

    fn adopted(&self, report: &AdoptReport) {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.elapsed() < PROGRESS_INTERVAL {
            return;
        }
        *logged = Instant::now();
        tracing::info!(
            blobs = report.blobs,
            manifests = report.manifests,
            tags = report.tags,
            "adopting what the distribution registry got since"
        );
    }
}
