//! The memory for parts that are being sent to the store.

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
    /// Creates a budget of `size` bytes.
    pub(super) fn new(size: usize) -> Self {
        let units = units(size).max(1);
        Self {
            free: Arc::new(Semaphore::new(units as usize)),
            units,
        }
    }

    /// Waits until `size` bytes are free, or all of the budget if it is smaller, so that no caller waits for ever.
    pub(super) async fn reserve(&self, size: usize) -> MemoryPermit {
        let wanted = units(size).min(self.units);
        // The semaphore is never closed.
        let permit = Arc::clone(&self.free).acquire_many_owned(wanted).await;
        MemoryPermit::new(size, permit.ok())
    }
}

fn units(size: usize) -> u32 {
    // Far below what a semaphore may hold on every platform.
    u32::try_from(size.div_ceil(1024))
        .unwrap_or(u32::MAX)
        .min(1 << 28)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const MIB: usize = 1024 * 1024;

    #[tokio::test]
    async fn waits_for_memory_that_others_hold() {
        let memory = PartMemory::new(10 * MIB);
        let first = memory.reserve(6 * MIB).await;
        assert!(memory.reserve(6 * MIB).now_or_never().is_none());
        let second = memory.reserve(4 * MIB).now_or_never().unwrap();
        assert!(memory.reserve(1).now_or_never().is_none());
        drop((first, second));
        assert!(memory.reserve(10 * MIB).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_part_larger_than_the_budget_waits_for_all_of_it() {
        let memory = PartMemory::new(10 * MIB);
        let small = memory.reserve(1).await;
        assert!(memory.reserve(1024 * MIB).now_or_never().is_none());
        drop(small);
        let large = memory.reserve(1024 * MIB).now_or_never().unwrap();
        assert!(memory.reserve(1).now_or_never().is_none());
        drop(large);
    }
}
