//! Errors that end a copy.

use registry_core::{Error, ErrorCode, RepositoryName};

/// Why a copy ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The source does not know a repository that was named. Nothing was copied.
    #[error("the source has no repository {0}; nothing was copied")]
    NoRepository(RepositoryName),
    /// The source could not be read.
    #[error("the source failed at {what}")]
    Source {
        /// What was being done.
        what: String,
        /// The source's error.
        #[source]
        cause: Error,
    },
    /// The target could not be asked, or not be written.
    #[error("the target failed at {what}")]
    Target {
        /// What was being done.
        what: String,
        /// The target's error.
        #[source]
        cause: Error,
    },
}

pub(super) fn in_source(what: impl Into<String>) -> impl FnOnce(Error) -> CopyError {
    let what = what.into();
    move |cause| CopyError::Source { what, cause }
}

pub(super) fn in_target(what: impl Into<String>) -> impl FnOnce(Error) -> CopyError {
    let what = what.into();
    move |cause| CopyError::Target { what, cause }
}

/// Returns whether an error is unrelated to what was to be stored.
pub(super) const fn is_of_storage(code: ErrorCode) -> bool {
    code.status() >= 500 || matches!(code, ErrorCode::TooManyRequests)
}
