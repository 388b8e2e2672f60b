//! Sweeping in the background.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::Store;
use crate::backend::Backend;

/// How long after a sweep the next one may be wanted for want of space.
const PAUSE: Duration = Duration::from_secs(2);

/// How much longer than a sweep took, too: a large store is not swept all the time.
const PAUSE_FACTOR: u32 = 10;

/// A task that sweeps a store again and again. It ends with [`Sweeper::shutdown`], or soon after it was dropped.
#[derive(Debug)]
pub struct Sweeper {
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Sweeper {
    /// Starts the task on the current tokio runtime: the first sweep comes after `interval`, as do the others.
    ///
    /// While writes are refused because the disk is full, a sweep comes as soon as something was deleted, but not at once
    /// after the one before.
    #[must_use]
    pub fn start<B: Backend>(store: Arc<Store<B>>, interval: Duration) -> Self {
        let (stop, mut stopped) = watch::channel(());
        let task = tokio::spawn(async move {
            let work = async {
                let mut earliest = Instant::now();
                loop {
                    let wanted = async {
                        store.room.wanted().await;
                        sleep_until(earliest).await;
                    };
                    tokio::select! {
                        () = sleep(interval) => {}
                        () = wanted => {}
                    }
                    let begun = Instant::now();
                    match store.sweep().await {
                        Ok(report) => tracing::info!(
                            aborted_uploads = report.aborted_uploads,
                            forgotten_uploads = report.forgotten_uploads,
                            dropped_blobs = report.dropped_blobs,
                            deleted_bytes = report.deleted_bytes,
                            unreadable_records = report.unreadable_records,
                            "swept"
                        ),
                        Err(error) => {
                            let cause = std::error::Error::source(&error);
                            tracing::error!(%error, cause, "the sweep failed; it is tried again later");
                        }
                    }
                    earliest = Instant::now() + PAUSE.max(begun.elapsed() * PAUSE_FACTOR);
                }
            };
            tokio::select! {
                () = work => {}
                // An error means that the sender was dropped, and so the handle.
                _ = stopped.changed() => {}
            }
        });
        Self { stop, task }
    }

    /// Stops the task and waits for its end.
    pub async fn shutdown(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the sweeper ended unexpectedly");
        }
    }
}
