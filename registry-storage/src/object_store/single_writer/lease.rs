//! For how long a process may believe that it is the only writer.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

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
    /// The lock in the store was this process's, and nobody else can have it before this moment, told by both clocks: one stands
    /// still while the machine is suspended, and somebody may set the other back.
    Held(Instant, SystemTime),
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
                let wall = system_now() + end.saturating_duration_since(Instant::now());
                *state = State::Held(end, wall);
            }
        });
    }

    pub(super) fn lose(&self, why: String) {
        self.change(|state| *state = State::Lost(why));
    }

    /// Ends it. Returns whether it was held, whatever the time.
    pub(super) fn give_back(&self) -> bool {
        self.change(|state| {
            let was_held = matches!(state, State::Held(..));
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
        self.change(|state| matches!(state, State::Held(end, wall) if is_before(*end, *wall)))
    }

    /// Returns why a process that claimed the store must not write to it.
    pub(super) fn stopped(&self) -> Option<String> {
        self.change(|state| match state {
            State::Lost(why) => Some(why.clone()),
            State::Held(end, wall) if !is_before(*end, *wall) => Some(
                "the store did not confirm for some seconds that this process is its only writer; it writes again once the \
                 store answers"
                    .to_owned(),
            ),
            State::Held(..) | State::Unclaimed => None,
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

fn is_before(end: Instant, wall: SystemTime) -> bool {
    Instant::now() < end && system_now() < wall
}

#[expect(clippy::disallowed_methods, reason = "it is compared with itself")]
fn system_now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_machine_that_was_suspended_holds_nothing() {
        let lease = Lease::default();
        lease.hold_for(Duration::from_secs(8));
        assert!(lease.is_held());
        // The machine slept, and only the clock on the wall went on.
        lease.change(|state| {
            if let State::Held(_, wall) = state {
                *wall -= Duration::from_secs(60);
            }
        });
        assert!(!lease.is_held());
        lease.require().unwrap_err();
        lease.hold_for(Duration::from_secs(8));
        assert!(lease.is_held());
    }
}
