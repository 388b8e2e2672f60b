//! Notification of progress and of what is left out.

use std::error::Error as _;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use registry_core::RepositoryName;

use super::LayoutError;
use crate::progress::{Progress, Step};

/// Is notified of the progress, and of what is broken.
#[async_trait]
pub trait Observer: Progress {
    /// Something was left out because of a fault of its own; the rest continues.
    async fn left_out(&self, what: LeftOut);
}

/// How many bytes of blobs were copied, or need not be, and how many there are in total.
pub(super) struct Copied<'a> {
    observer: &'a dyn Observer,
    done: AtomicU64,
    total: u64,
}

impl<'a> Copied<'a> {
    pub(super) const fn new(observer: &'a dyn Observer) -> Self {
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

/// What was left out, and why.
#[derive(Debug)]
#[non_exhaustive]
pub struct LeftOut {
    /// The repository, if it is known.
    pub repository: Option<RepositoryName>,
    /// The tag, or the digest.
    pub what: String,
    /// The reason.
    pub cause: LayoutError,
}

impl LeftOut {
    pub(super) fn new(repository: Option<&RepositoryName>, what: String, cause: LayoutError) -> Self {
        Self {
            repository: repository.cloned(),
            what,
            cause,
        }
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(repository) = &self.repository {
            write!(f, "{repository}: ")?;
        }
        write!(f, "{} was left out: {}", self.what, self.cause)?;
        let mut cause = self.cause.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Ignores the progress.
#[async_trait]
impl Observer for () {
    async fn left_out(&self, _: LeftOut) {}
}
