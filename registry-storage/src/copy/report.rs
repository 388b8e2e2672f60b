//! What a copy did, and what it could not.

use std::error::Error as _;
use std::fmt;

use registry_core::printable::with_causes;
use registry_core::{Error, RepositoryName};
use serde::Serialize;

/// What was copied, and what was there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CopyReport {
    /// Repositories, also those of which the target had everything.
    pub repositories: u64,
    /// Manifests that were stored, each once for each repository.
    pub manifests: u64,
    /// Manifests that the target had.
    pub manifests_there: u64,
    /// Tags that were written.
    pub tags: u64,
    /// Those of them that named something else in the target.
    pub tags_moved: u64,
    /// Tags that named the same in the target.
    pub tags_there: u64,
    /// Tags that name something else in the target and are immutable there.
    pub tags_kept: u64,
    /// Tags that only the target has, in the repositories of the source. They stay.
    pub tags_only_in_target: u64,
    /// Blobs that were sent.
    pub blobs_sent: u64,
    /// The size of these blobs in bytes.
    pub bytes_sent: u64,
    /// Blobs that another repository of the target had.
    pub blobs_mounted: u64,
    /// The size of these blobs in bytes.
    pub bytes_mounted: u64,
    /// Blobs that the repository had in the target.
    pub blobs_there: u64,
    /// The size of these blobs in bytes.
    pub bytes_there: u64,
    /// Manifests that an index names and the source does not have: no fault, if its server allows that.
    pub missing: u64,
    /// What was not copied although it should have been, each reported as a [`Finding`](crate::Finding).
    pub faults: u64,
}

/// Something was not copied, and why.
#[derive(Debug)]
#[non_exhaustive]
pub struct NotCopied {
    /// The repository.
    pub repository: RepositoryName,
    /// The tag, or the digest.
    pub what: String,
    /// The reason.
    pub reason: NotCopiedReason,
}

/// Why something was not copied.
#[derive(Debug)]
#[non_exhaustive]
pub enum NotCopiedReason {
    /// Its content in the source is not what its digest says.
    Damaged,
    /// The source cannot read it.
    Unreadable(Error),
    /// A manifest names it, and the source does not have it.
    Missing,
    /// The tag names something else in the target, and is immutable there.
    Immutable,
    /// The target does not take it.
    Refused(Error),
    /// The manifest that the tag names was not copied, or not all of its blobs while the target's tag names another one.
    Incomplete,
}

impl fmt::Display for NotCopied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            repository,
            what,
            reason,
        } = self;
        write!(f, "{repository}: {what} was not copied: {reason}")
    }
}

impl fmt::Display for NotCopiedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged => f.write_str("its content in the source is not what its digest says"),
            Self::Unreadable(cause) => {
                let cause = with_causes(cause.to_string(), cause.source());
                write!(f, "the source cannot read it: {cause}")
            }
            Self::Missing => f.write_str("a manifest names it, and the source does not have it"),
            Self::Immutable => {
                f.write_str("the tag names another manifest in the target, and is immutable there")
            }
            Self::Refused(cause) => {
                let cause = with_causes(cause.to_string(), cause.source());
                write!(f, "the target refuses it: {cause}")
            }
            Self::Incomplete => f.write_str("the manifest that it names was not copied as a whole"),
        }
    }
}
