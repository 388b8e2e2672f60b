//! When a sweep is needed before its time: space is short, and there may be something to sweep.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use registry_core::{Error, ErrorCode, Timestamp};
use tokio::sync::Notify;

use super::Store;
use crate::backend::Backend;

/// How long after a sweep a refused write requests another one even if nothing was deleted: uploads may be idle by now.
const REQUEST_INTERVAL: Duration = Duration::from_mins(1);

/// Whether there is room, judging by the results of writes.
#[derive(Debug)]
pub(crate) struct Room {
    /// A write was refused for lack of space, and none succeeded since.
    is_short: AtomicBool,
    /// Something was deleted since the last sweep began, or it is not known.
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
        if self.may_free.load(Ordering::SeqCst) || now.since(swept) >= REQUEST_INTERVAL {
            self.wanted.notify_one();
        }
    }

    /// Notes that a sweep begins, which finds everything deleted before.
    pub(super) fn begin_sweep(&self, now: Timestamp) {
        self.swept.store(now.0, Ordering::SeqCst);
        self.may_free.store(false, Ordering::SeqCst);
    }

    /// Waits until a sweep is requested. Cancel safe.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }
}

impl<B: Backend> Store<B> {
    /// Notes from the result of a write whether there was room for it.
    pub(crate) fn note_room<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
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

    /// Returns whether writes are refused for lack of space, or will be soon.
    pub(super) fn is_short_of_space(&self) -> bool {
        self.room.is_short.load(Ordering::SeqCst) || self.backend.is_short_of_space()
    }
}
