//! Progress of copying blobs.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::observer::{MaintenanceObserver, Step};

/// How many bytes of blobs were copied, or need not be, and how many there are in total.
pub(super) struct Copied<'a> {
    observer: &'a dyn MaintenanceObserver,
    done: AtomicU64,
    total: u64,
}

impl<'a> Copied<'a> {
    pub(super) const fn new(observer: &'a dyn MaintenanceObserver) -> Self {
        Self {
            observer,
            done: AtomicU64::new(0),
            total: 0,
        }
    }

    /// Adds bytes to the total.
    pub(super) fn expect(&mut self, bytes: u64) {
        self.total = self.total.saturating_add(bytes);
        self.add(0);
    }

    /// Reports that some bytes were copied. There may turn out to be more than the known total.
    pub(super) fn add(&self, bytes: u64) {
        let done = self
            .done
            .fetch_add(bytes, Ordering::Relaxed)
            .saturating_add(bytes);
        self.observer
            .step(Step::Copying, done, Some(self.total.max(done)));
    }
}
