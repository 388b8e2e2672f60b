//! What an adoption did, and who is told on the way.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::defect::{Defect, DefectKind};

/// What an adoption took over in this run, or would take over. What was here before is not counted again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdoptReport {
    /// How many repositories the tree has.
    pub repositories: u64,
    /// How many of them were gone through.
    pub repositories_done: u64,
    /// How many links of blobs and manifests the tree has in them.
    pub links: u64,
    /// How many of the links were gone through.
    pub links_done: u64,
    /// How many bytes are compared with their digests where all are, about; else 0.
    pub content: u64,
    /// How many of these were read, or need not be: they were adopted before, or nothing names them.
    pub content_done: u64,
    /// Manifests.
    pub manifests: u64,
    /// Tags.
    pub tags: u64,
    /// Blobs, each counted once, whatever number of repositories has it.
    pub blobs: u64,
    /// The size of the blobs in bytes. None of them was copied, but for small ones, which are in records.
    pub bytes: u64,
    /// Rights of a repository to read a blob.
    pub grants: u64,
    /// Tags that were left as they are here, because they were moved here later than in the tree.
    pub kept_tags: u64,
    /// Uploads in progress, which are not adopted.
    pub uploads: u64,
    /// How many defects there were, by kind.
    pub defects: BTreeMap<DefectKind, u64>,
}

/// Is told how an adoption goes on.
#[async_trait]
pub trait Observer: Send + Sync {
    /// Takes the report as it stands now; called after each step, which takes up to a second or so.
    fn progress(&mut self, report: &AdoptReport);

    /// Takes something that is broken. There may be any number of them, and the report only counts them; the adoption
    /// waits until this one is taken.
    async fn defect(&mut self, defect: &Defect);
}

/// Takes no notice.
#[async_trait]
impl Observer for () {
    fn progress(&mut self, _: &AdoptReport) {}

    async fn defect(&mut self, _: &Defect) {}
}

impl AdoptReport {
    /// Tells whether nothing was taken over or left out in this run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let done = [self.manifests, self.tags, self.blobs, self.grants];
        done.iter().all(|count| *count == 0) && self.defects.is_empty()
    }

    pub(super) async fn note(&mut self, observer: &mut dyn Observer, defect: &Defect) {
        observer.defect(defect).await;
        let count = self.defects.entry(defect.kind()).or_default();
        *count = count.saturating_add(1);
    }
}
