//! For how long a process may believe that it is the only writer.

use std::sync::{Mutex, PoisonError};

use registry_core::{Error, ErrorCode};
use tokio::time::Instant;

/// Whether this process may write. It is asked before each write, and makes no request.
#[derive(Debug, Default)]
pub(super) struct Lease(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    /// The store was not claimed, or given back.
    #[default]
    Unclaimed,
    /// The lock in the store was this process's, and nobody else can have it before this moment.
    Held(Instant),
    /// Another process has it, or somebody removed it. That is for good.
    Lost(String),
}

impl Lease {
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn hold_for(&self, time: std::time::Duration) {
        self.hold_until(Instant::now() + time);
    }

    /// Extends it, unless it was lost.
    pub(super) fn hold_until(&self, end: Instant) {
        self.change(|state| {
            if !matches!(state, State::Lost(_)) {
                *state = State::Held(end);
            }
        });
    }

    pub(super) fn lose(&self, why: String) {
        self.change(|state| *state = State::Lost(why));
    }

    /// Ends it. Returns whether it was held, whatever the time.
    pub(super) fn give_back(&self) -> bool {
        self.change(|state| {
            let was_held = matches!(state, State::Held(_));
            if was_held {
                *state = State::Unclaimed;
            }
            was_held
        })
    }

    pub(super) fn is_unclaimed(&self) -> bool {
        self.change(|state| matches!(state, State::Unclaimed))
    }

    pub(super) fn is_held(&self) -> bool {
        self.change(|state| matches!(state, State::Held(end) if Instant::now() < *end))
    }

    /// Returns why a process that claimed the store must not write to it.
    pub(super) fn stopped(&self) -> Option<String> {
        self.change(|state| match state {
            State::Lost(why) => Some(why.clone()),
            State::Held(end) if Instant::now() >= *end => Some(
                "the store did not confirm for some seconds that this process is its only writer; it writes again once the \
                 store answers"
                    .to_owned(),
            ),
            State::Held(_) | State::Unclaimed => None,
        })
    }

    /// Fails unless this process is the writer.
    pub(super) fn require(&self) -> Result<(), Error> {
        let why = match self.stopped() {
            None if self.is_unclaimed() => {
                "this process did not claim the store as its only writer".to_owned()
            }
            None => return Ok(()),
            Some(why) => why,
        };
        let error = Error::new(
            ErrorCode::Unavailable,
            "The registry cannot write to its storage; its log says why.",
        );
        Err(error.with_cause(NotTheWriter(why)))
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("nothing is written: {0}")]
struct NotTheWriter(String);
