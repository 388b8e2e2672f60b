//! Memory that a backend lends to an upload.

use crate::recall::Recall;

/// Memory that was reserved with [`Backend::reserve_memory`](crate::Backend::reserve_memory). It is given back when the permit is dropped.
#[derive(Debug)]
pub struct MemoryPermit {
    size: usize,
    recall: Option<Recall>,
    #[expect(
        dead_code,
        reason = "it is held, and gives the memory back when it is dropped"
    )]
    held: Option<tokio::sync::OwnedSemaphorePermit>,
}

impl MemoryPermit {
    /// Creates a permit for `size` bytes, which `held` represents.
    #[must_use]
    pub const fn new(size: usize, held: Option<tokio::sync::OwnedSemaphorePermit>) -> Self {
        let recall = None;
        Self { size, recall, held }
    }

    /// Lets others have it back from a holder that makes no use of it.
    #[must_use]
    pub(crate) fn with_recall(mut self, recall: Recall) -> Self {
        self.recall = Some(recall);
        self
    }

    /// Waits until others need the memory more than its holder, who has put `used` bytes into it. May be dropped and called
    /// again.
    pub(crate) async fn recalled(&mut self, used: usize) {
        match &mut self.recall {
            Some(recall) => recall.wait(used, self.size).await,
            None => std::future::pending().await,
        }
    }

    /// Returns how many bytes the permit is for.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }
}
