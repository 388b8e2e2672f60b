//! The memory for parts that are being sent to the store.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::backend::MemoryPermit;
use crate::recall::{Need, Recall, Waiting};

/// The memory for pieces is 1/`PIECES_DIVISOR` of the budget. The rest is for whole parts.
const PIECES_DIVISOR: u32 = 8;

/// 1/`KEPT_DIVISOR` of the memory for whole parts is for clients that have shown that they send fast.
const KEPT_DIVISOR: u32 = 4;

/// A piece takes 1/`PIECE_SHARE_DIVISOR` of what is free for pieces, within these bounds in bytes. So among many clients it takes
/// less. Who finds less than the smallest free gets that much beyond the budget, so that nobody waits for it.
const PIECE_SHARE_DIVISOR: usize = 16;
const LARGEST_PIECE: usize = 512 * 1024;
const SMALLEST_PIECE: usize = 32 * 1024;

/// A budget of memory, shared by all uploads and handed out in units of 1024 bytes.
///
/// Memory for a whole part is for those who fill it soon, in the order in which they ask. Nobody knows that of a client that has
/// just begun, so it has such memory while there is plenty, and otherwise gathers a piece of its part. Whoever has memory for a
/// whole part needs nothing more to end it than the client's bytes and the store, and has to give it back if its client turns
/// out to be slow while others wait. So nobody waits for a client that is slow, nor for somebody who waits for memory.
#[derive(Clone, Debug)]
pub(super) struct PartMemory {
    /// What is free for whole parts, and how much that is at most.
    free: Arc<Semaphore>,
    units: u32,
    pieces: Arc<Semaphore>,
    piece_units: u32,
    need: Arc<Need>,
    patience: Option<Duration>,
}

impl PartMemory {
    /// Creates a budget of `size` bytes. While somebody waits, holders are told to give theirs back whose clients take longer than
    /// the `patience` for half of a part: one for who waits, and one more each time that the `patience` has passed.
    pub(super) fn new(size: usize, patience: Option<Duration>) -> Self {
        let piece_units = units(size) / PIECES_DIVISOR;
        let units = (units(size) - piece_units).max(1);
        Self {
            free: Arc::new(Semaphore::new(units as usize)),
            units,
            pieces: Arc::new(Semaphore::new(piece_units as usize)),
            piece_units,
            need: Arc::default(),
            patience,
        }
    }

    /// Returns the size of the budget in bytes.
    pub(super) const fn size(&self) -> usize {
        (self.units as usize + self.piece_units as usize) * 1024
    }

    /// Waits until `size` bytes are free, or all of the memory for whole parts if it is smaller, so that no caller waits for ever.
    pub(super) async fn reserve(&self, size: usize) -> MemoryPermit {
        let wanted = units(size).min(self.units);
        let mut free = pin!(Arc::clone(&self.free).acquire_many_owned(wanted));
        // The semaphore is never closed.
        let Some(patience) = self.patience else {
            return self.whole(size, free.await.ok());
        };
        if let Some(permit) = free.as_mut().now_or_never() {
            return self.whole(size, permit.ok());
        }
        let mut waiting = vec![Waiting::new(&self.need)];
        let permit = loop {
            match timeout(patience, &mut free).await {
                Ok(permit) => break permit,
                // A large part may need what several holders have.
                Err(_) => waiting.push(Waiting::new(&self.need)),
            }
        };
        drop(waiting);
        self.whole(size, permit.ok())
    }

    /// Returns memory for a part of `size` bytes if there is plenty, and otherwise for a piece of it.
    pub(super) fn at_once(&self, size: usize) -> MemoryPermit {
        let wanted = units(size).min(self.units);
        let free = self.free.available_permits();
        let kept = (self.units / KEPT_DIVISOR).min(self.units - wanted);
        if free >= (wanted + kept) as usize
            && let Ok(permit) = Arc::clone(&self.free).try_acquire_many_owned(wanted)
        {
            return self.whole(size, Some(permit));
        }
        let free = self.pieces.available_permits() * 1024;
        let piece = (free / PIECE_SHARE_DIVISOR).min(LARGEST_PIECE).min(size);
        let permit = Arc::clone(&self.pieces).try_acquire_many_owned(units(piece)).ok();
        match permit.filter(|_| piece >= SMALLEST_PIECE.min(size)) {
            Some(permit) => MemoryPermit::new(piece, Some(permit)),
            None => MemoryPermit::new(SMALLEST_PIECE.min(size), None),
        }
    }

    fn whole(&self, size: usize, permit: Option<OwnedSemaphorePermit>) -> MemoryPermit {
        let memory = MemoryPermit::new(size, permit);
        match self.patience {
            Some(patience) => memory.with_recall(Recall::new(Arc::clone(&self.need), patience)),
            None => memory,
        }
    }
}

fn units(size: usize) -> u32 {
    // Far below what a semaphore may hold on every platform.
    u32::try_from(size.div_ceil(1024))
        .unwrap_or(u32::MAX)
        .min(1 << 28)
}

#[cfg(test)]
mod tests;
