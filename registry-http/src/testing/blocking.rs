//! The test registry for tests without an async runtime.

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;

use super::endpoint::RegistryEndpoint;
use super::registry::{TestRegistry, TestRegistryBuilder};
use super::script::{Fault, JournalEntry, Script};

/// A [`TestRegistry`] on its own thread. Dropping it ends both.
///
/// ```
/// use registry_http::testing::BlockingTestRegistry;
///
/// let registry = BlockingTestRegistry::start();
/// let url = registry.url();
/// # assert!(url.starts_with("http://127.0.0.1:"));
/// ```
#[derive(Debug)]
pub struct BlockingTestRegistry {
    host: String,
    script: Script,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl BlockingTestRegistry {
    /// Starts a test registry.
    ///
    /// # Panics
    /// If no port is free, or no thread can be started.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(TestRegistry::builder())
    }

    /// Starts a test registry with the settings of `builder`.
    ///
    /// # Panics
    /// If no port is free, or no thread can be started.
    #[must_use]
    pub fn start_with(builder: TestRegistryBuilder) -> Self {
        match Self::try_start(builder) {
            Ok(registry) => registry,
            Err(error) => panic!("a test registry cannot be started: {error}"),
        }
    }

    fn try_start(builder: TestRegistryBuilder) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (started, wait_for_start) = mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel();
        let run = async move {
            match builder.try_start().await {
                Ok(registry) => {
                    let answer = Ok((registry.host(), registry.script().clone()));
                    if started.send(answer).is_ok() {
                        // An error means that the test registry was dropped.
                        stopped.await.unwrap_or(());
                    }
                    registry.shutdown(Duration::ZERO).await;
                }
                Err(error) => drop(started.send(Err(error))),
            }
        };
        let thread = thread::Builder::new()
            .name("test-registry".into())
            .spawn(move || runtime.block_on(run))?;
        let (host, script) = wait_for_start.recv().map_err(io::Error::other)??;
        Ok(Self {
            host,
            script,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Returns the host and port, which image names begin with.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns `http://` with the host and port, without a trailing slash.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.host)
    }

    /// Returns the requests so far, as [`TestRegistry::requests`] does.
    #[must_use]
    pub fn requests(&self) -> Vec<JournalEntry> {
        self.script.journal()
    }

    /// Clears the journal of requests.
    pub fn clear_requests(&self) {
        self.script.clear_journal();
    }

    /// Plans a fault, as [`TestRegistry::fail`] does.
    pub const fn fail(&self, endpoint: RegistryEndpoint, nth: usize) -> Fault<'_> {
        Fault::new(&self.script, endpoint, nth)
    }
}

impl Drop for BlockingTestRegistry {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of a test registry panicked");
        }
    }
}
