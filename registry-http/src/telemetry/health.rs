//! Health: what is watched, and whether it is well.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{sleep, timeout};

use crate::tasks::Tasks;

/// The name under which distribution shows that an operator took a server out of service.
const MANUAL: &str = "manual_http_status";

/// When a check is run, and when it counts.
#[derive(Clone, Copy, Debug)]
pub struct CheckOptions {
    /// How often; 10 seconds where it is zero.
    pub interval: Duration,
    /// After how many failures in a row it counts; 0 means 1.
    pub threshold: u32,
    /// How long it may take; the interval where it is zero.
    pub timeout: Duration,
}

/// The health of a server. Clones are the same; the checks end with the last of them.
///
/// What fails is shown and makes the server not ready. It never refuses a request: whoever asks this server gets an
/// answer, if a worse one than from another.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Arc<Mutex<State>>,
    tasks: Tasks,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

/// What operators should know of a server that is well.
type Remark = Box<dyn Fn() -> Option<String> + Send>;

#[derive(Default)]
struct State {
    is_started: bool,
    is_stopping: bool,
    /// What it does before it has started.
    phase: Option<String>,
    failures: BTreeMap<String, String>,
    remarks: Vec<Remark>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("is_started", &self.is_started)
            .field("is_stopping", &self.is_stopping)
            .field("phase", &self.phase)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

impl Health {
    /// Makes the health of a server that starts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The server does this before it can answer requests; it is shown to those who ask whether it has started.
    pub fn starting(&self, phase: impl Into<String>) {
        self.state().phase = Some(phase.into());
    }

    /// The server answers requests from now on.
    pub fn started(&self) {
        let mut state = self.state();
        state.is_started = true;
        state.phase = None;
    }

    /// The server takes no more requests: it is not ready any more, and lives until it ends.
    pub fn stopping(&self) {
        self.state().is_stopping = true;
    }

    /// Takes the server out of service by hand, or puts it back: it shows itself as not ready.
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

    /// Runs `check` again and again, from within a tokio runtime. Its error says what is wrong, without secrets.
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

    /// Asks `remark` each time that somebody asks whether the server is ready: what it returns is shown, and nothing more.
    /// It is for what others than the clients have to put right, while requests are still best sent here. It must not block.
    pub fn add_remark(&self, remark: impl Fn() -> Option<String> + Send + 'static) {
        self.state().remarks.push(Box::new(remark));
    }

    /// Returns what operators should know of a server that is well.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        self.state()
            .remarks
            .iter()
            .filter_map(|remark| remark())
            .collect()
    }

    /// Returns what fails, and why.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<String, String> {
        self.state().failures.clone()
    }

    /// Returns what the server does before it has started, where that was said.
    #[must_use]
    pub fn phase(&self) -> Option<String> {
        self.state().phase.clone()
    }

    /// Tells whether the server has started.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.state().is_started
    }

    /// Tells whether requests should be sent to the server.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let state = self.state();
        state.is_started && !state.is_stopping && state.failures.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
