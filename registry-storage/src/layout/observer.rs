//! Who is told how it goes on.

use std::error::Error as _;
use std::fmt;

use async_trait::async_trait;
use registry_core::RepositoryName;

use super::LayoutError;
use crate::progress::Progress;

/// Is told how it goes on, and what is broken.
#[async_trait]
pub trait Observer: Progress {
    /// Something was left out for a reason that lies in it; the rest goes on.
    async fn left_out(&self, what: LeftOut);
}

/// What was left out, and why.
#[derive(Debug)]
#[non_exhaustive]
pub struct LeftOut {
    /// The repository, where that is known.
    pub repository: Option<RepositoryName>,
    /// The tag, or the digest.
    pub what: String,
    /// Why.
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

/// Nobody waits.
#[async_trait]
impl Observer for () {
    async fn left_out(&self, _: LeftOut) {}
}
