//! The memory for chunks that are being sent to clients.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The largest chunk in bytes. With 256 KiB one client pulled a seventh slower, with 512 KiB no faster; larger chunks
/// would give clients that stall more memory than they should have.
const LARGEST_CHUNK_BYTES: usize = 384 * 1024;

/// The smallest chunk in bytes, which needs no permit.
const SMALLEST_CHUNK_BYTES: usize = 8 * 1024;

/// A chunk takes at most 1/`CHUNK_SHARE_DIVISOR` of the free memory, so that clients that stall use it up more and
/// more slowly, and some is left for the next client.
const CHUNK_SHARE_DIVISOR: usize = 16;

/// A budget of memory that all streams share, in kibibytes.
#[derive(Clone, Debug)]
pub(super) struct ChunkMemory(Arc<Semaphore>);

/// The chunks that a stream has at once: one whose end the receiver is still sending, the next one that it has, and one
/// that is read ahead.
const CHUNKS_AT_ONCE: usize = 3;

/// What a stream may have in memory: three chunks of one size.
#[derive(Debug)]
pub(super) struct Chunks {
    /// `None` for chunks of the smallest size, of which none is read ahead.
    permit: Option<OwnedSemaphorePermit>,
    size: usize,
}

impl ChunkMemory {
    /// Creates a budget of `size` bytes.
    pub(super) fn new(size: usize) -> Self {
        Self(Arc::new(Semaphore::new(
            (size / 1024).min(Semaphore::MAX_PERMITS),
        )))
    }

    /// Replaces a stream's memory with what is available for it now.
    pub(super) fn renew(&self, before: Option<Chunks>) -> Chunks {
        drop(before);
        let free = self.0.available_permits().saturating_mul(1024);
        let size = (free / CHUNK_SHARE_DIVISOR / SMALLEST_CHUNK_BYTES * SMALLEST_CHUNK_BYTES)
            .min(LARGEST_CHUNK_BYTES);
        let units = u32::try_from(CHUNKS_AT_ONCE * size / 1024).unwrap_or_default();
        let permit = if size > SMALLEST_CHUNK_BYTES {
            Arc::clone(&self.0).try_acquire_many_owned(units).ok()
        } else {
            None
        };
        let size = if permit.is_some() {
            size
        } else {
            SMALLEST_CHUNK_BYTES
        };
        Chunks { permit, size }
    }
}

impl Chunks {
    /// Returns the size of a chunk in bytes.
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// Returns whether there is memory for a chunk that is read ahead.
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
        assert_eq!(
            (sizes[0], sizes[999]),
            (LARGEST_CHUNK_BYTES, SMALLEST_CHUNK_BYTES)
        );
        assert!(!stalled[999].may_read_ahead());
        drop(stalled);
        let last = memory.renew(None);
        let again = memory.renew(Some(last));
        assert_eq!(
            (again.size(), memory.0.available_permits()),
            (LARGEST_CHUNK_BYTES, (24 << 10) - 3 * 384)
        );
    }
}
