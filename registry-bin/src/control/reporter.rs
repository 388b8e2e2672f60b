//! The connection from a command to its audience, with bounded queues: only the newest progress counts, and lines wait
//! until they are taken.

use std::time::Duration;

use async_trait::async_trait;
use registry_storage::{Finding, MaintenanceObserver, Step};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::message::{Message, State};
use crate::adoption::finding_line;

/// How many lines are queued at most before the command waits.
const QUEUED_LINES: usize = 64;

/// How often progress is reported. A client that disconnected is noticed within this time.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);

/// The sending side of the messages of a command.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    progress: watch::Sender<State>,
    lines: mpsc::Sender<String>,
}

/// The messages of a command. They end when all reporters are dropped.
#[derive(Debug)]
pub(super) struct Messages {
    progress: watch::Receiver<State>,
    lines: mpsc::Receiver<String>,
    next_progress: Instant,
}

impl Reporter {
    pub(super) fn new() -> (Self, Messages) {
        let (progress, state) = watch::channel(State::default());
        let (lines, taken) = mpsc::channel(QUEUED_LINES);
        let reporter = Self { progress, lines };
        let messages = Messages {
            progress: state,
            lines: taken,
            next_progress: Instant::now() + REPORT_INTERVAL,
        };
        (reporter, messages)
    }
}

impl Reporter {
    /// Shows a line. Waits while too many are queued.
    pub(crate) async fn say(&self, line: String) {
        // The receiver may be gone, and then the command is being stopped.
        drop(self.lines.send(line).await);
    }
}

#[async_trait]
impl MaintenanceObserver for Reporter {
    fn step(&self, step: Step, done: u64, total: Option<u64>) {
        self.progress.send_modify(|state| {
            if state.unit != step.unit() {
                step.unit().clone_into(&mut state.unit);
                state.is_bytes = step.is_bytes();
            }
            (state.done, state.total) = (done, total);
        });
    }

    async fn found(&self, finding: Finding) {
        self.say(finding_line(&finding)).await;
    }
}

impl Messages {
    /// Waits for the next message. Returns `None` once there will be none. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Message> {
        loop {
            tokio::select! {
                biased;
                line = self.lines.recv() => return line.map(Message::Say),
                () = sleep_until(self.next_progress) => {
                    self.next_progress = Instant::now() + REPORT_INTERVAL;
                    let state = self.progress.borrow_and_update().clone();
                    if !state.unit.is_empty() {
                        return Some(Message::Progress(state));
                    }
                }
            }
        }
    }
}
