//! The memory that parts on their way to the store may take.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::backend::MemoryPermit;

/// A budget of memory, shared by all uploads and handed out in units of 1024 bytes.
#[derive(Clone, Debug)]
pub(super) struct PartMemory {
    free: Arc<Semaphore>,
    units: u32,
}

impl PartMemory {
    /// Makes a budget of `size` bytes.
    pub(super) fn new(size: usize) -> Self {
        let units = units(size).max(1);
        Self {
            free: Arc::new(Semaphore::new(units as usize)),
            units,
        }
    }

    /// Waits until `size` bytes are free, or all of the budget where it is smaller, so that no one waits for ever.
    pub(super) async fn reserve(&self, size: usize) -> MemoryPermit {
        let wanted = units(size).min(self.units);
        // The semaphore is never closed.
        let permit = Arc::clone(&self.free).acquire_many_owned(wanted).await;
        permit.map_or_else(|_| MemoryPermit::default(), MemoryPermit::from)
    }
}

fn units(size: usize) -> u32 {
    // Far below what a semaphore may hold on every platform.
    u32::try_from(size.div_ceil(1024))
        .unwrap_or(u32::MAX)
        .min(1 << 28)
}
