//! Memory that others need more than its holder does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A holder keeps its memory if it has put another half of it to use within the patience of those who wait.
const PROGRESS_DIVISOR: usize = 2;

/// How often a holder that is too slow looks whether its memory is needed.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Those who wait for memory.
#[derive(Debug, Default)]
pub(crate) struct Need(Mutex<Count>);

#[derive(Debug, Default)]
struct Count {
    waiting: usize,
    /// For how many of them a holder was told to give its memory back.
    recalled: usize,
}

impl Need {
    /// Returns whether one more holder has to give its memory back, which then counts as told.
    fn recall_one(&self) -> bool {
        let mut count = self.count();
        let is_needed = count.recalled < count.waiting;
        count.recalled += usize::from(is_needed);
        is_needed
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of those who wait, until it is dropped.
#[derive(Debug)]
pub(crate) struct Waiting(Arc<Need>);

impl Waiting {
    pub(crate) fn new(need: &Arc<Need>) -> Self {
        need.count().waiting += 1;
        Self(Arc::clone(need))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut count = self.0.count();
        count.waiting -= 1;
        count.recalled = count.recalled.saturating_sub(1);
    }
}

/// What makes a holder of memory give it back: it is too slow, and somebody waits for whom nobody else gives back.
#[derive(Debug)]
pub(crate) struct Recall {
    need: Arc<Need>,
    patience: Duration,
    /// When it had put how many bytes to use.
    progress: (Instant, usize),
}

impl Recall {
    pub(crate) fn new(need: Arc<Need>, patience: Duration) -> Self {
        Self {
            need,
            patience,
            progress: (Instant::now(), 0),
        }
    }

    /// Waits until this holder has to give its memory back. It has put `used` bytes of `size` to use.
    pub(crate) async fn wait(&mut self, used: usize, size: usize) {
        if used >= self.progress.1 + size / PROGRESS_DIVISOR {
            self.progress = (Instant::now(), used);
        }
        let mut next = self.progress.0 + self.patience;
        loop {
            sleep_until(next).await;
            if self.need.recall_one() {
                return;
            }
            next = Instant::now() + LOOK_INTERVAL;
        }
    }
}
