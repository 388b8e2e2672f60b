//! Whether the store may write, and why not.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use registry_core::{Error, ErrorCode, Timestamp};
use tokio::sync::mpsc::WeakSender;

use super::command::Command;
use crate::clock::{Clock as _, SystemClock};

/// How often the log reports that nothing is written.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// After how many seconds a client should try again.
const RETRY_AFTER: &str = "5";

/// Whether the store may still write.
///
/// After a failed sync, what the disk holds is not known, and a second sync that succeeds proves nothing (the kernel
/// drops the pages that it could not write). So such an error ends writing until the records were reopened and are
/// known to be whole. Any other failure affects only the requests that hit it.
#[derive(Debug, Default)]
pub(super) struct WriteHealth {
    is_stopped: AtomicBool,
    state: Mutex<WriteHealthState>,
    writer: OnceLock<WeakSender<Command>>,
}

#[derive(Debug, Default)]
struct WriteHealthState {
    stop: Option<Stop>,
    /// How many times writing ended.
    stops: u64,
}

#[derive(Clone, Debug)]
struct Stop {
    since: Timestamp,
    reason: &'static str,
    cure: Cure,
    warned_at: Instant,
}

/// What lets the store write again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cure {
    /// The writer reopens the records and finds what it acknowledged.
    Reopen,
    /// An operator fixes the cause and restarts the program.
    Restart,
}

/// Identifies one end of writing, so that its cure is not taken for that of a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StopNumber(u64);

impl WriteHealth {
    /// Sets the writer to wake when writing ends.
    pub(super) fn set_writer(&self, writer: WeakSender<Command>) {
        drop(self.writer.set(writer));
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    /// Succeeds while the store may write.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.is_stopped() {
            Err(self.refusal())
        } else {
            Ok(())
        }
    }

    /// Ends writing.
    pub(super) fn end_writing(&self, reason: &'static str, cure: Cure) {
        let mut state = self.state();
        state.stops = state.stops.wrapping_add(1);
        if state.stop.as_ref().is_some_and(|stop| stop.cure >= cure) {
            return;
        }
        let stop = Stop {
            since: SystemClock.now(),
            reason,
            cure,
            warned_at: Instant::now(),
        };
        tracing::error!("{stop}");
        state.stop = Some(stop);
        self.is_stopped.store(true, Ordering::Release);
        drop(state);
        // It tries to write again even if no request arrives. If its queue is full, it is awake.
        if let Some(writer) = self.writer.get().and_then(WeakSender::upgrade) {
            drop(writer.try_send(Command::Wake));
        }
    }

    /// Returns the end of writing that the writer can cure.
    pub(super) fn curable(&self) -> Option<StopNumber> {
        let state = self.state();
        let is_curable = state.stop.as_ref()?.cure == Cure::Reopen;
        is_curable.then_some(StopNumber(state.stops))
    }

    /// Lets the store write again, unless something failed since.
    pub(super) fn resume(&self, number: StopNumber) {
        let mut state = self.state();
        if state.stops == number.0 {
            state.stop = None;
            self.is_stopped.store(false, Ordering::Release);
            tracing::warn!("the records were opened again and are whole; the store writes again");
        }
    }

    /// Logs once a minute that nothing is written.
    pub(super) fn tell_again(&self) {
        if let Some(stop) = &mut self.state().stop
            && stop.warned_at.elapsed() >= WARNING_INTERVAL
        {
            stop.warned_at = Instant::now();
            tracing::error!("{stop}");
        }
    }

    /// Returns why nothing is written, and what helps; `None` while the store writes.
    pub(super) fn reason(&self) -> Option<String> {
        self.state().stop.as_ref().map(Stop::to_string)
    }

    /// Returns the answer to a write while nothing is written.
    pub(super) fn refusal(&self) -> Error {
        let reason = self.reason().map_or(Cow::Borrowed(PASSED), Cow::Owned);
        Error::new(ErrorCode::Unavailable, reason).with_field("Retry-After", RETRY_AFTER)
    }

    fn state(&self) -> MutexGuard<'_, WriteHealthState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The message for a failure that passed before it was reported.
const PASSED: &str = "The registry could not write; try again.";

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cure = match self.cure {
            Cure::Reopen => "The registry tries to go on by itself; its operator should look after the disk.",
            Cure::Restart => {
                "Its operator has to look at the log, put that right and start the registry again."
            }
        };
        let (since, reason) = (self.since, self.reason);
        write!(
            f,
            "Nothing is written since {since}, because {reason}; pulls are served. {cure}"
        )
    }
}

/// Returns the answer to a request that will succeed when it is tried again.
pub(super) fn try_again(message: &'static str) -> Error {
    Error::new(ErrorCode::Unavailable, message).with_field("Retry-After", RETRY_AFTER)
}

/// Returns the answer to a request after the store was closed.
pub(super) fn closed() -> Error {
    Error::new(ErrorCode::Unavailable, "The registry is shutting down.")
}
