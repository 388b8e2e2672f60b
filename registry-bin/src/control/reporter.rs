//! From a command to whoever waits for it, with bounded queues: of the progress only the newest counts, and what is said
//! waits until it is taken.

use std::time::Duration;

use async_trait::async_trait;
use registry_storage::Progress;
use registry_storage::check::{Finding, Findings};
use registry_storage::layout::{LeftOut, Observer};
use registry_storage::progress::Step;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::message::{Message, State};

/// How many lines wait at most before the command does.
const QUEUE: usize = 64;

/// How often the progress is told. Whoever went away is noticed as often, at the latest.
const INTERVAL: Duration = Duration::from_millis(200);

/// Where a command tells what goes on.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    progress: watch::Sender<State>,
    lines: mpsc::Sender<String>,
}

/// What comes of it. It ends when all reporters are gone.
#[derive(Debug)]
pub(super) struct Messages {
    progress: watch::Receiver<State>,
    lines: mpsc::Receiver<String>,
    next_progress: Instant,
}

impl Reporter {
    pub(super) fn new() -> (Self, Messages) {
        let (progress, state) = watch::channel(State::default());
        let (lines, taken) = mpsc::channel(QUEUE);
        let reporter = Self { progress, lines };
        let messages = Messages {
            progress: state,
            lines: taken,
            next_progress: Instant::now() + INTERVAL,
        };
        (reporter, messages)
    }

    /// Says something; waits while much of it was not taken.
    pub(super) async fn say(&self, line: String) {
        // Whoever listened may be gone, and then the command is ended.
        drop(self.lines.send(line).await);
    }
}

impl Progress for Reporter {
    fn step(&self, step: Step, done: u64, total: Option<u64>) {
        self.progress.send_modify(|state| {
            if state.unit != step.unit() {
                step.unit().clone_into(&mut state.unit);
                state.is_bytes = step.is_bytes();
            }
            (state.done, state.total) = (done, total);
        });
    }
}

#[async_trait]
impl Findings for Reporter {
    async fn take(&mut self, finding: Finding) {
        self.say(finding.to_string()).await;
    }
}

#[async_trait]
impl Observer for Reporter {
    async fn left_out(&self, what: LeftOut) {
        self.say(what.to_string()).await;
    }
}

impl Messages {
    /// Waits for the next line; nothing once there will be none. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Message> {
        loop {
            tokio::select! {
                biased;
                line = self.lines.recv() => return line.map(Message::Say),
                () = sleep_until(self.next_progress) => {
                    self.next_progress = Instant::now() + INTERVAL;
                    let state = self.progress.borrow_and_update().clone();
                    if !state.unit.is_empty() {
                        return Some(Message::Progress(state));
                    }
                }
            }
        }
    }
}
