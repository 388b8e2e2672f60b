//! When a sweep is wanted before its time: there is no space, and there may be something to sweep.

use std::sync::atomic::{AtomicBool, Ordering};

use registry_core::{Error, ErrorCode};
use tokio::sync::Notify;

use super::Store;
use crate::backend::Backend;

/// Whether there is room, as far as answers tell.
#[derive(Debug)]
pub(super) struct Room {
    /// A write was refused for want of space, and none succeeded since.
    is_short: AtomicBool,
    /// Something was deleted since the last sweep began, or nobody knows.
    may_free: AtomicBool,
    wanted: Notify,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            is_short: AtomicBool::new(false),
            may_free: AtomicBool::new(true),
            wanted: Notify::new(),
        }
    }
}

impl Room {
    fn refused(&self) {
        self.is_short.store(true, Ordering::SeqCst);
        if self.may_free.load(Ordering::SeqCst) {
            self.wanted.notify_one();
        }
    }

    /// Notes that a sweep begins, which finds what was deleted until now.
    pub(super) fn begin_sweep(&self) {
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
            Err(error) if error.code() == ErrorCode::StorageFull => self.room.refused(),
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
        if self.room.is_short.load(Ordering::SeqCst) || self.backend.is_short_of_space() {
            self.room.wanted.notify_one();
        }
    }
}
