//! A clock that a test sets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use registry_core::Timestamp;

use crate::clock::Clock;

/// A clock that stands still until it is moved. It begins on 2024-01-01.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl Default for ManualClock {
    fn default() -> Self {
        Self(AtomicU64::new(1_704_067_200_000))
    }
}

impl ManualClock {
    /// Moves the clock forward.
    pub fn advance(&self, time: Duration) {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.0.fetch_add(milliseconds, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}
