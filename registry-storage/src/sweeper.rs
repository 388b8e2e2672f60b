//! Sweeping in the background.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::background::Background;
use crate::maintenance::Maintenance;
use crate::store::SweepOptions;

/// The minimum time between a sweep and one that is requested for lack of space.
const SHORTEST_PAUSE: Duration = Duration::from_secs(2);

/// That time is also at least this many times the duration of the last sweep: a large store is not swept all the time.
const PAUSE_FACTOR: u32 = 10;

/// A task that sweeps a store repeatedly. It ends with [`Sweeper::shutdown`], or soon after it was dropped.
#[derive(Debug)]
pub struct Sweeper(Background);

impl Sweeper {
    /// Starts the task on the current tokio runtime. The first sweep starts after `interval`, as do later ones.
    ///
    /// While writes are refused because the disk is full, a sweep starts as soon as something was deleted, but not
    /// directly after the previous one.
    #[must_use]
    pub fn start(store: Arc<dyn Maintenance>, interval: Duration) -> Self {
        Self(Background::start(async move {
            let mut earliest = Instant::now();
            loop {
                let wanted = async {
                    store.sweep_wanted().await;
                    sleep_until(earliest).await;
                };
                tokio::select! {
                    () = sleep(interval) => {}
                    () = wanted => {}
                }
                let begun = Instant::now();
                match store.sweep(&SweepOptions::default()).await {
                    Ok(report) => tracing::info!(
                        is_full = report.is_full,
                        aborted_uploads = report.aborted_uploads,
                        abandoned_uploads = report.abandoned_uploads,
                        forgotten_uploads = report.forgotten_uploads,
                        dropped_blobs = report.dropped_blobs,
                        deleted_bytes = report.deleted_bytes,
                        undeleted_bytes = report.undeleted_bytes,
                        dropped_quarantine = report.dropped_quarantine,
                        unreadable_records = report.unreadable_records,
                        "swept"
                    ),
                    Err(error) => {
                        let cause = std::error::Error::source(&error);
                        tracing::error!(%error, cause, "the sweep failed; it is tried again later");
                    }
                }
                earliest = Instant::now() + SHORTEST_PAUSE.max(begun.elapsed() * PAUSE_FACTOR);
            }
        }))
    }

    /// Stops the task, even in the middle of a sweep, and waits until it has ended.
    pub async fn shutdown(self) {
        self.0.shutdown().await;
    }
}
