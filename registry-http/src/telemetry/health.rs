//! Health checks and the state of a server.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{sleep, timeout};

use crate::tasks::Tasks;

/// The name under which distribution reports that an operator took a server out of service.
const MANUAL: &str = "manual_http_status";

/// When a check runs, and when a failure counts.
#[derive(Clone, Copy, Debug)]
pub struct CheckOptions {
    /// How often it runs. Zero means 10 seconds.
    pub interval: Duration,
    /// After how many consecutive failures the check fails. 0 means 1.
    pub threshold: u32,
    /// How long it may take. Zero means the interval.
    pub timeout: Duration,
}

/// The health of a server. Clones share it; its checks end with the last clone.
///
/// A failing check is reported and makes the server not ready. It never causes a request to be refused: a client that
/// asks this server gets an answer, even if another server would answer better.
#[derive(Clone, Debug, Default)]
pub struct ServerHealth(Arc<SharedHealth>);

#[derive(Debug, Default)]
struct SharedHealth {
    state: Arc<Mutex<ServerState>>,
    tasks: Tasks,
}

impl Drop for SharedHealth {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

/// A note for operators about a healthy server.
type Remark = Box<dyn Fn() -> Option<String> + Send>;

#[derive(Default)]
struct ServerState {
    is_started: bool,
    is_stopping: bool,
    /// What the server does before it has started.
    phase: Option<String>,
    failures: BTreeMap<String, String>,
    remarks: Vec<Remark>,
}

impl fmt::Debug for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerState")
            .field("is_started", &self.is_started)
            .field("is_stopping", &self.is_stopping)
            .field("phase", &self.phase)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

impl ServerHealth {
    /// Creates the health of a server that is starting.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what the server does before it can answer requests. It is shown by the startup and readiness probes.
    pub fn starting(&self, phase: impl Into<String>) {
        self.state().phase = Some(phase.into());
    }

    /// Marks the server as started: it answers requests from now on.
    pub fn started(&self) {
        let mut state = self.state();
        state.is_started = true;
        state.phase = None;
    }

    /// Marks the server as stopping: it takes no more requests and is no longer ready, but is live until it ends.
    pub fn stopping(&self) {
        self.state().is_stopping = true;
    }

    /// Takes the server out of service manually, or puts it back. While it is out of service, it is not ready.
    pub fn set_down(&self, is_down: bool) {
        let mut state = self.state();
        if is_down {
            state
                .failures
                .insert(MANUAL.into(), "taken out of service by hand".into());
        } else {
            state.failures.remove(MANUAL);
        }
    }

    /// Runs `check` periodically until the last clone is dropped. Its error describes what is wrong, without secrets.
    /// Outside of a tokio runtime, this does nothing.
    pub fn watch(
        &self,
        name: impl Into<String>,
        options: CheckOptions,
        check: impl Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync + 'static,
    ) {
        let name = name.into();
        let state = Arc::clone(&self.0.state);
        let interval = match options.interval {
            Duration::ZERO => Duration::from_secs(10),
            interval => interval,
        };
        let limit = match options.timeout {
            Duration::ZERO => interval,
            limit => limit,
        };
        self.0.tasks.spawn(async move {
            let mut failures: u32 = 0;
            loop {
                let result = match timeout(limit, check()).await {
                    Ok(result) => result,
                    Err(_) => Err(format!("no answer within {limit:?}")),
                };
                {
                    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                    match result {
                        Ok(()) => {
                            failures = 0;
                            if state.failures.remove(&name).is_some() {
                                tracing::info!(check = name, "a health check succeeds again");
                            }
                        }
                        Err(reason) => {
                            failures = failures.saturating_add(1);
                            if failures >= options.threshold.max(1)
                                && state.failures.insert(name.clone(), reason.clone()).is_none()
                            {
                                tracing::warn!(check = name, reason, "a health check fails");
                            }
                        }
                    }
                }
                sleep(interval).await;
            }
        });
    }

    /// Calls `remark` for each readiness request, and shows what it returns. It has no other effect. It is meant for
    /// problems that do not affect clients, while requests are still best sent here. It must not block.
    pub fn add_remark(&self, remark: impl Fn() -> Option<String> + Send + 'static) {
        self.state().remarks.push(Box::new(remark));
    }

    /// Returns the current remarks.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        self.state()
            .remarks
            .iter()
            .filter_map(|remark| remark())
            .collect()
    }

    /// Returns the failing checks by name, and why each fails.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<String, String> {
        self.state().failures.clone()
    }

    /// Returns what the server does before it has started, if that was set.
    #[must_use]
    pub fn phase(&self) -> Option<String> {
        self.state().phase.clone()
    }

    /// Returns whether the server has started.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.state().is_started
    }

    /// Returns whether requests should be sent to the server.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let state = self.state();
        state.is_started && !state.is_stopping && state.failures.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, ServerState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
