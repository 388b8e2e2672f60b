//! What was left out of a layout, or of what was read from one.

use std::error::Error as _;
use std::fmt;

use registry_core::RepositoryName;
use registry_core::printable::with_causes;

use super::error::LayoutError;

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
        let cause = with_causes(self.cause.to_string(), self.cause.source());
        write!(f, "{} was left out: {cause}", self.what)
    }
}
