//! The results of an adoption.

use std::collections::BTreeMap;

use super::defect::{Defect, DefectKind};

/// What an adoption took over in this run, or would take over. Content that was here before is not counted again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdoptReport {
    /// How many repositories the tree has.
    pub repositories: u64,
    /// How many of the repositories are done.
    pub repositories_done: u64,
    /// How many links of blobs and manifests these repositories have.
    pub links: u64,
    /// How many of the links are done.
    pub links_done: u64,
    /// Roughly how many bytes are compared with their digests, if all are; otherwise 0.
    pub content: u64,
    /// How many of these bytes were read, or need not be: they were adopted before, or nothing names them.
    pub content_done: u64,
    /// The number of manifests.
    pub manifests: u64,
    /// The number of tags.
    pub tags: u64,
    /// The number of blobs, each counted once, no matter how many repositories have it.
    pub blobs: u64,
    /// The size of the blobs in bytes. Only small ones were copied, into records.
    pub bytes: u64,
    /// The number of rights of a repository to read a blob.
    pub grants: u64,
    /// The number of tags that were left as they are here, because they were moved here later than in the tree.
    pub kept_tags: u64,
    /// The number of uploads in progress, which are not adopted.
    pub uploads: u64,
    /// How many defects there were, by kind.
    pub defects: BTreeMap<DefectKind, u64>,
}

impl AdoptReport {
    /// Returns whether nothing was taken over or left out in this run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let done = [self.manifests, self.tags, self.blobs, self.grants];
        done.iter().all(|count| *count == 0) && self.defects.is_empty()
    }

    pub(super) fn note(&mut self, defect: &Defect) {
        let count = self.defects.entry(defect.kind()).or_default();
        *count = count.saturating_add(1);
    }
}
