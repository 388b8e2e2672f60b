//! Tasks that end with their owner.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::rt::Executor;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// A set of tasks that can be waited for and aborted as one. Clones are the same set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    /// Starts a task. Outside of a runtime, or in one that is shutting down, the future is dropped.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let mut set = self.lock();
        while set.try_join_next().is_some() {}
        set.spawn_on(future, &runtime);
    }

    /// Waits until no task is left. Cancel safe.
    pub(crate) async fn finished(&self) {
        while poll_fn(|context| self.lock().poll_join_next(context))
            .await
            .is_some()
        {}
    }

    /// Aborts every task.
    pub(crate) fn abort(&self) {
        self.lock().abort_all();
    }

    fn lock(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, future: F) {
        self.spawn(future);
    }
}

/// The tasks of a server that finish interrupted requests. A server of this crate puts it into the extensions.
#[derive(Clone, Debug)]
pub(crate) struct InterruptedRequests(pub(crate) Tasks);
