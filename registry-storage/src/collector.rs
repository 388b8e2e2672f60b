//! Collecting in the background.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::background::Background;
use crate::maintenance::Maintenance;
use crate::store::CollectOptions;

/// A task that runs cycles of the collector. It ends with [`Collector::shutdown`], or soon after it was dropped.
///
/// Any number may work on one bucket, in any number of processes; each looks at everything that changed.
#[derive(Debug)]
pub struct Collector(Background);

impl Collector {
    /// Starts the task on the current tokio runtime. The first cycle begins after `interval`, and so does each later one,
    /// after the end of the one before.
    ///
    /// The bytes of what is removed are deleted by a [`Sweeper`](crate::Sweeper).
    #[must_use]
    pub fn start(store: Arc<dyn Maintenance>, options: CollectOptions, interval: Duration) -> Self {
        Self(Background::start(async move {
            loop {
                sleep(interval).await;
                match store.collect(&options, &()).await {
                    Ok(report) => tracing::info!(
                        repositories = report.repositories,
                        unchanged_repositories = report.unchanged_repositories,
                        unreadable_repositories = report.unreadable_repositories,
                        removed_blobs = report.removed.blobs,
                        removed_bytes = report.removed.bytes,
                        condemned_blobs = report.condemned.blobs,
                        condemned_bytes = report.condemned.bytes,
                        "collected"
                    ),
                    Err(error) => {
                        let cause = std::error::Error::source(&error);
                        tracing::error!(%error, cause, "a cycle of the collector failed; the next one continues");
                    }
                }
            }
        }))
    }

    /// Stops the task, even in the middle of a cycle, and waits until it has ended.
    pub async fn shutdown(self) {
        self.0.shutdown().await;
    }
}
