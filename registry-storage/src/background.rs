//! Work beside requests.

use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A task that ends when its handle is shut down or dropped.
#[derive(Debug)]
pub(crate) struct Background {
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Background {
    /// Starts the task on the current tokio runtime. The work is dropped to end it.
    #[expect(clippy::disallowed_methods, reason = "its owner ends it and waits for it")]
    pub(crate) fn start(work: impl Future<Output = ()> + Send + 'static) -> Self {
        let (stop, mut stopped) = watch::channel(());
        let task = tokio::spawn(async move {
            tokio::select! {
                () = work => {}
                // An error means that the sender, and so the handle, was dropped.
                _ = stopped.changed() => {}
            }
        });
        Self { stop, task }
    }

    /// Ends the work and waits for it.
    pub(crate) async fn shutdown(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a background task ended unexpectedly");
        }
    }
}
