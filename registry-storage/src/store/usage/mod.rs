//! What repositories have.
//!
//! [`count`] counts it from the records. A cycle of the collector reads the repositories that changed anyway, and writes down
//! what each has ([`counted`]), so that [`list`] need not read everything. [`touched`] remembers changes that give the collector
//! nothing to do. Nothing that is deleted or refused depends on any of it.

mod count;
mod counted;
mod list;
mod order;
mod touched;

use registry_core::quota::Amount;
use registry_core::{RepositoryName, Timestamp};

pub(super) use self::touched::Touched;
use super::BlobCount;

/// What a repository has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepositoryUsage {
    /// The blobs that clients can read in it.
    pub blobs: BlobCount,
    /// Manifests.
    pub manifests: u64,
    /// The bytes of the manifests.
    pub manifest_bytes: u64,
    /// Tags.
    pub tags: u64,
    /// Those of the blobs that another repository has too; `None` if that was not counted.
    pub shared: Option<BlobCount>,
}

impl RepositoryUsage {
    /// Returns the sum.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        self.blobs = self.blobs.plus(other.blobs);
        self.manifests = self.manifests.saturating_add(other.manifests);
        self.manifest_bytes = self.manifest_bytes.saturating_add(other.manifest_bytes);
        self.tags = self.tags.saturating_add(other.tags);
        self.shared = match (self.shared, other.shared) {
            (Some(shared), Some(other)) => Some(shared.plus(other)),
            (shared, other) => shared.or(other),
        };
        self
    }

    /// Returns what counts for quotas.
    #[must_use]
    pub const fn amount(&self) -> Amount {
        Amount {
            bytes: self.blobs.bytes.saturating_add(self.manifest_bytes),
            manifests: self.manifests,
            tags: self.tags,
        }
    }

    /// Returns the bytes that no other repository has: those that a delete of the repository frees, and what was pushed since
    /// [`shared`](Self::shared) was counted. `None` if that was not counted.
    #[must_use]
    pub fn own_bytes(&self) -> Option<u64> {
        let shared = self.shared?;
        Some(self.amount().bytes.saturating_sub(shared.bytes))
    }

    /// Returns whether there is nothing.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.blobs.blobs == 0 && self.amount() == Amount::NONE
    }
}

/// What a repository had when it was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CountedRepository {
    /// The repository.
    pub repository: RepositoryName,
    /// What it had.
    pub usage: RepositoryUsage,
    /// When it was counted.
    pub counted: Timestamp,
    /// When [what it shares](RepositoryUsage::shared) was counted.
    pub shared_counted: Option<Timestamp>,
    /// Something may have changed since.
    pub is_changed: bool,
}

/// Some repositories, in the order of the catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CountedPage {
    /// The repositories.
    pub repositories: Vec<CountedRepository>,
    /// After which repository the next page begins; `None` if this is the last one.
    pub next: Option<RepositoryName>,
}

/// The repositories that have most, and what all others have together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LargestRepositories {
    /// The largest ones, in the order of their bytes, the largest first.
    pub largest: Vec<(RepositoryName, RepositoryUsage)>,
    /// How many others there are.
    pub others: u64,
    /// The bytes of all others.
    pub other_bytes: u64,
    /// The [own bytes](RepositoryUsage::own_bytes) of all others; `None` if they are not known of each.
    pub other_own_bytes: Option<u64>,
}
