//! Collecting in the background.

use std::sync::Arc;
use std::time::Duration;

use registry_core::retention::Retention;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::background::Background;
use crate::maintenance::Maintenance;
use crate::store::{CollectOptions, LargestRepositories, RetainOptions};

/// After what time the largest repositories are found again although this process counted none: others may have.
const PUBLISHED_FOR: Duration = Duration::from_hours(6);

/// Applies retention, and logs what it did.
async fn retain(store: &dyn Maintenance, options: &RetainOptions) {
    match store.retain(options, &()).await {
        Ok(report) => tracing::info!(
            repositories = report.repositories,
            unreadable_repositories = report.unreadable_repositories,
            dropped_tags = report.dropped_tags,
            condemned_manifests = report.condemned_manifests,
            removed_manifests = report.removed_manifests,
            "applied retention"
        ),
        Err(error) => {
            let cause = std::error::Error::source(&error);
            tracing::error!(%error, cause, "retention ended early; it continues before the next cycle");
        }
    }
}

/// The largest repositories, for those who watch them.
struct Largest {
    count: usize,
    sender: watch::Sender<Arc<LargestRepositories>>,
    /// When they were found, and how often this process had written down what a repository has by then.
    found: Option<(Instant, u64)>,
}

impl Largest {
    /// Finds them, if they may have changed.
    async fn publish(&mut self, store: &dyn Maintenance) {
        let writes = store.usage_writes();
        let is_new = |(at, before): &(Instant, u64)| *before == writes && at.elapsed() < PUBLISHED_FOR;
        if self.count == 0 || self.found.as_ref().is_some_and(is_new) {
            return;
        }
        match store.largest_repositories(self.count).await {
            Ok(found) => {
                self.sender.send_replace(Arc::new(found));
                self.found = Some((Instant::now(), writes));
            }
            Err(error) => {
                tracing::warn!(%error, "what the largest repositories have is as old as the cycle before");
            }
        }
    }
}

/// A task that runs cycles of the collector. It ends with [`Collector::shutdown`], or soon after it was dropped.
///
/// Any number may work on one bucket, in any number of processes; each looks at everything that changed.
#[derive(Debug)]
pub struct Collector {
    task: Background,
    largest: watch::Receiver<Arc<LargestRepositories>>,
}

impl Collector {
    /// Starts the task on the current tokio runtime. The first cycle begins after `interval`, and so does each later one,
    /// after the end of the one before.
    ///
    /// The bytes of what is removed are deleted by a [`Sweeper`](crate::Sweeper).
    #[must_use]
    pub fn start(store: Arc<dyn Maintenance>, options: CollectOptions, interval: Duration) -> Self {
        let (_, none) = watch::channel(Arc::default());
        Self::start_with_retention(store, options, interval, none, 0)
    }

    /// Starts the task as [`start`](Self::start) does, and applies the newest `retention` before each cycle. If its sender
    /// is gone, that is the last one that was sent.
    ///
    /// At the start and after a cycle it finds as many of the [largest repositories](Self::largest_repositories) as `largest`
    /// says, which reads one small record for each repository unless it is 0. It does so only if this process, in that cycle or
    /// otherwise, [wrote down](Maintenance::usage_writes) what one has, or after six hours, as other processes may have.
    #[must_use]
    pub fn start_with_retention(
        store: Arc<dyn Maintenance>,
        options: CollectOptions,
        interval: Duration,
        retention: watch::Receiver<Arc<Retention>>,
        largest: usize,
    ) -> Self {
        let (sender, receiver) = watch::channel(Arc::default());
        let task = Background::start(async move {
            let mut largest = Largest {
                count: largest,
                sender,
                found: None,
            };
            loop {
                largest.publish(&*store).await;
                sleep(interval).await;
                let newest = Arc::clone(&retention.borrow());
                if !newest.policies.is_empty() {
                    retain(&*store, &RetainOptions::new(newest, &options)).await;
                }
                match store.collect(&options, &()).await {
                    Ok(report) => tracing::info!(
                        repositories = report.repositories,
                        unreadable_repositories = report.unreadable_repositories,
                        removed_blobs = report.removed.blobs,
                        removed_bytes = report.removed.bytes,
                        condemned_blobs = report.condemned.blobs,
                        condemned_bytes = report.condemned.bytes,
                        empty_repositories = report.empty_repositories,
                        "collected"
                    ),
                    Err(error) => {
                        let cause = std::error::Error::source(&error);
                        tracing::error!(%error, cause, "a cycle of the collector failed; the next one continues");
                    }
                }
            }
        });
        Self {
            task,
            largest: receiver,
        }
    }

    /// Returns the repositories that had most, and what the others had together, when they were found last.
    #[must_use]
    pub fn largest_repositories(&self) -> watch::Receiver<Arc<LargestRepositories>> {
        self.largest.clone()
    }

    /// Stops the task, even in the middle of a cycle, and waits until it has ended.
    pub async fn shutdown(self) {
        self.task.shutdown().await;
    }
}
