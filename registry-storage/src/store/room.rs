//! When a sweep is wanted before its time: there is no space, and there may be something to sweep.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use registry_core::{Error, ErrorCode, Timestamp};
use tokio::sync::Notify;

use super::Store;
use crate::backend::Backend;

/// How long after a sweep a refused write wants another one though nothing was deleted: uploads may be idle by now.
const INTERVAL: Duration = Duration::from_mins(1);

/// Whether there is room, as far as answers tell.
#[derive(Debug)]
pub(super) struct Room {
    /// A write was refused for want of space, and none succeeded since.
    is_short: AtomicBool,
    /// Something was deleted since the last sweep began, or nobody knows.
    may_free: AtomicBool,
    /// When the last sweep began, in milliseconds since 1970.
    swept: AtomicU64,
    wanted: Notify,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            is_short: AtomicBool::new(false),
            may_free: AtomicBool::new(true),
            swept: AtomicU64::new(0),
            wanted: Notify::new(),
        }
    }
}

impl Room {
    fn refused(&self, now: Timestamp) {
        self.is_short.store(true, Ordering::SeqCst);
        let swept = Timestamp(self.swept.load(Ordering::SeqCst));
        if self.may_free.load(Ordering::SeqCst) || now.since(swept) >= INTERVAL {
            self.wanted.notify_one();
        }
    }

    /// Notes that a sweep begins, which finds what was deleted until now.
    pub(super) fn begin_sweep(&self, now: Timestamp) {
        self.swept.store(now.0, Ordering::SeqCst);
        self.may_free.store(false, Ordering::SeqCst);
    }

    /// Waits until a sweep is wanted. Cancel safe.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }
}

impl<B: Backend> Store<B> {
    /// Notes by its result whether there was room for a write.
    pub(super) fn note_room<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        match &result {
            Err(error) if error.code() == ErrorCode::StorageFull => self.room.refused(self.clock.now()),
            Ok(_) if self.room.is_short.load(Ordering::Relaxed) => {
                self.room.is_short.store(false, Ordering::SeqCst);
            }
            Ok(_) | Err(_) => {}
        }
        result
    }

    /// Notes that there is something to sweep.
    pub(super) fn note_freed(&self) {
        self.room.may_free.store(true, Ordering::SeqCst);
        if self.is_short_of_space() {
            self.room.wanted.notify_one();
        }
    }

    /// Tells whether writes are refused for want of space, or will be soon.
    pub(super) fn is_short_of_space(&self) -> bool {
        self.room.is_short.load(Ordering::SeqCst) || self.backend.is_short_of_space()
    }
}
