//! What the distribution registry writes into a bucket after its tree there was adopted. A look at it lists the whole tree, which may
//! take long, so it runs beside requests.

use std::sync::Arc;
use std::time::Duration;

use registry_storage::distribution::find_news;
use registry_storage::{Maintenance, ObjectStoreBackend, Store};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// When a look that failed is repeated.
const RETRY_INTERVAL: Duration = Duration::from_mins(1);

/// Looks once, until it is dropped.
#[derive(Debug)]
pub(super) struct OldTree(JoinHandle<()>);

impl OldTree {
    /// Starts, if the store is in a bucket.
    #[expect(clippy::disallowed_methods, reason = "its owner ends it and waits for it")]
    pub(super) fn start(store: &Arc<dyn Maintenance>) -> Option<Self> {
        store.in_bucket()?;
        Some(Self(tokio::spawn(run(Arc::clone(store)))))
    }

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

async fn run(store: Arc<dyn Maintenance>) {
    let Some(store) = store.in_bucket() else {
        return;
    };
    while !look(store).await {
        sleep(RETRY_INTERVAL).await;
    }
}

/// Says whether there is something new. Returns whether that could be found out.
async fn look(store: &Store<ObjectStoreBackend>) -> bool {
    match find_news(store).await {
        Ok(None) => {}
        Ok(Some((link, written))) => tracing::warn!(
            link,
            %written,
            "the distribution registry was used after its data in this bucket was adopted, and what it got since is not here; \
             `registry-bin adopt --again` adds it, and brings back what was deleted only here"
        ),
        Err(error) => {
            tracing::warn!(
                %error,
                "cannot look whether the distribution registry was used after its data in this bucket was adopted; it is tried \
                 again"
            );
            return false;
        }
    }
    true
}
