//! The memory that chunks on their way to clients take.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The largest chunk in bytes. With 256 KiB one client pulled a seventh slower, with 512 KiB no faster; more would be more
/// memory than clients that stall should have.
const LARGEST: usize = 384 * 1024;

/// The smallest chunk in bytes, which needs no permit.
const SMALLEST: usize = 8 * 1024;

/// A chunk is at most so small a share of what is free, so that clients that stall use up what is there more and more
/// slowly, and there is something for the next one.
const SHARE: usize = 16;

/// A budget of memory that all streams share, in kibibytes.
#[derive(Clone, Debug)]
pub(super) struct ChunkMemory(Arc<Semaphore>);

/// The chunks that a stream has at once: one that the receiver still sends the end of, the next one that it has, and one that
/// is read ahead.
const AT_ONCE: usize = 3;

/// What a stream may have in memory: three chunks of one size.
#[derive(Debug)]
pub(super) struct Chunks {
    /// None stands for chunks of the smallest size, of which none is read ahead.
    permit: Option<OwnedSemaphorePermit>,
    size: usize,
}

impl ChunkMemory {
    /// Makes a budget of `size` bytes.
    pub(super) fn new(size: usize) -> Self {
        Self(Arc::new(Semaphore::new(
            (size / 1024).min(Semaphore::MAX_PERMITS),
        )))
    }

    /// Gives a stream what is there for it in place of what it had.
    pub(super) fn renew(&self, before: Option<Chunks>) -> Chunks {
        drop(before);
        let free = self.0.available_permits().saturating_mul(1024);
        let size = (free / SHARE / SMALLEST * SMALLEST).min(LARGEST);
        let units = u32::try_from(AT_ONCE * size / 1024).unwrap_or_default();
        let permit = if size > SMALLEST {
            Arc::clone(&self.0).try_acquire_many_owned(units).ok()
        } else {
            None
        };
        let size = if permit.is_some() { size } else { SMALLEST };
        Chunks { permit, size }
    }
}

impl Chunks {
    /// Returns the size of a chunk in bytes.
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// Tells whether there is memory for one that is read ahead.
    pub(super) const fn may_read_ahead(&self) -> bool {
        self.permit.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_stall_leave_something_for_the_next_one() {
        let memory = ChunkMemory::new(24 << 20);
        let stalled: Vec<Chunks> = (0..1000).map(|_| memory.renew(None)).collect();
        let sizes: Vec<usize> = stalled.iter().map(Chunks::size).collect();
        assert!(sizes.is_sorted_by(|one, next| one >= next), "{sizes:?}");
        assert_eq!((sizes[0], sizes[999]), (LARGEST, SMALLEST));
        assert!(!stalled[999].may_read_ahead());
        drop(stalled);
        let last = memory.renew(None);
        let again = memory.renew(Some(last));
        assert_eq!(
            (again.size(), memory.0.available_permits()),
            (LARGEST, (24 << 10) - 3 * 384)
        );
    }
}
