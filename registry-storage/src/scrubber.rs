//! Scrubbing in the background.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use crate::background::Background;
use crate::maintenance::Maintenance;
use crate::observer::{Finding, MaintenanceObserver};
use crate::store::ScrubOptions;

/// The time to the first round, so that a start is quick.
const FIRST_PAUSE: Duration = Duration::from_mins(1);

/// The time to the next try after an error of the medium.
const RETRY_PAUSE: Duration = Duration::from_mins(10);

/// The shortest time between two rounds.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// A task that scrubs a store, round after round. It ends with [`Scrubber::shutdown`], or soon after it was dropped.
///
/// Any number may be started on one bucket, in any number of processes; one works, and another one takes over if it ends.
#[derive(Debug)]
pub struct Scrubber(Background);

impl Scrubber {
    /// Starts the task on the current tokio runtime. It begins after a minute, or after [`ScrubOptions::every`] if that is
    /// shorter.
    #[must_use]
    pub fn start(store: Arc<dyn Maintenance>, options: ScrubOptions) -> Self {
        Self(Background::start(async move {
            let mut pause = FIRST_PAUSE.min(options.every);
            loop {
                sleep(pause).await;
                pause = match store.scrub(&options, &LogFindings).await {
                    Ok(report) => {
                        let counts = report.counts;
                        if report.is_finished || counts.blobs > 0 {
                            tracing::info!(
                                blobs = counts.blobs,
                                bytes = counts.bytes,
                                broken = counts.broken,
                                quarantined = counts.quarantined,
                                unreadable = counts.unreadable,
                                is_finished = report.is_finished,
                                "scrubbed"
                            );
                        }
                        report.wait.max(SHORTEST_PAUSE)
                    }
                    Err(error) => {
                        let cause = std::error::Error::source(&error);
                        tracing::error!(%error, cause, "scrubbing failed; it goes on from there later");
                        RETRY_PAUSE.min(options.every)
                    }
                };
            }
        }))
    }

    /// Stops the task, even in the middle of a blob, and waits until it has ended.
    pub async fn shutdown(self) {
        self.0.shutdown().await;
    }
}

/// Logs what is broken.
struct LogFindings;

#[async_trait]
impl MaintenanceObserver for LogFindings {
    async fn found(&self, finding: Finding) {
        tracing::error!("{finding}");
    }
}
