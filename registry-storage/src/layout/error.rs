//! Errors of image layouts.

use std::io;
use std::path::{Path, PathBuf};

use registry_core::{Digest, Error, RepositoryName};

/// Why a layout, or a part of it, was not written or stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The file system returned an error.
    #[error("{}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// The error.
        #[source]
        cause: io::Error,
    },
    /// It is not an image layout, or cannot be written as one.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The folder or archive.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The content does not match its digest.
    #[error("what is kept as {digest} has the digest {found}")]
    OtherContent {
        /// The digest.
        digest: Digest,
        /// The digest of the content that was found.
        found: Digest,
    },
    /// A manifest names content that does not exist.
    #[error("{digest} is not there")]
    Missing {
        /// The digest.
        digest: Digest,
    },
    /// An index names what was left out.
    #[error("it names {digest}, which was left out")]
    Incomplete {
        /// The digest of what was left out.
        digest: Digest,
    },
    /// There are more tags and referrers than one layout may have.
    #[error("there are more than {limit} tags and referrers; name some of the repositories")]
    TooMany {
        /// The maximum number.
        limit: usize,
    },
    /// The storage refused or failed.
    #[error("{repository}: {what}")]
    Storage {
        /// The repository.
        repository: RepositoryName,
        /// The operation.
        what: String,
        /// The storage's error.
        #[source]
        cause: Error,
    },
    /// The storage failed.
    #[error(transparent)]
    Store(#[from] Error),
}

impl LayoutError {
    pub(super) fn storage(
        repository: &RepositoryName,
        what: impl Into<String>,
    ) -> impl FnOnce(Error) -> Self {
        let (repository, what) = (repository.clone(), what.into());
        move |cause| Self::Storage {
            repository,
            what,
            cause,
        }
    }
}

pub(super) fn disk(path: &Path) -> impl FnOnce(io::Error) -> LayoutError {
    move |cause| LayoutError::Disk {
        path: path.to_owned(),
        cause,
    }
}
