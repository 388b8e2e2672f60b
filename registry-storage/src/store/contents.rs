//! How much a store holds, according to the records of its blobs.

use std::sync::{Mutex, PoisonError};

use registry_core::{Error, Timestamp};

use super::Store;
use super::sweep::{Listed, Unreadable};
use crate::backend::Backend;
use crate::record::{BlobRecord, Header as _};

/// The blobs of a store, each counted once, no matter how many repositories may read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contents {
    /// The number of blobs.
    pub blobs: u64,
    /// Their size in bytes. Records, and so manifests, are not counted.
    pub bytes: u64,
    /// How much of that is outside of records, which hold the small blobs.
    pub(super) outside: u64,
}

impl Contents {
    /// Counts a blob that readers see, or that is about to be visible.
    pub(super) fn add(&mut self, record: &BlobRecord) {
        if let Some(blob) = record.blob.as_ref().filter(|_| record.state().is_visible()) {
            self.blobs = self.blobs.saturating_add(1);
            self.bytes = self.bytes.saturating_add(blob.size);
            if blob.bytes.is_some() {
                self.outside = self.outside.saturating_add(blob.size);
            }
        }
    }
}

/// What the last sweep saw, and when it ended.
#[derive(Debug, Default)]
pub(super) struct LastSweep(Mutex<Option<(Contents, Timestamp)>>);

impl<B: Backend> Store<B> {
    /// Returns what existed at the last sweep, and when that ended.
    pub(crate) fn last_swept(&self) -> Option<(Contents, Timestamp)> {
        *self.last_sweep.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_contents(&self, contents: Contents) {
        let now = self.clock.now();
        *self.last_sweep.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((contents, now));
    }

    /// Counts what exists now, by reading each blob's record. Unreadable records are left out.
    pub(crate) async fn contents(&self) -> Result<Contents, Error> {
        let mut contents = Contents::default();
        let (mut nothing, mut unreadable) = (Listed::default(), Unreadable::silent());
        self.mark_bytes_of_blobs(&mut nothing, &mut unreadable, Some(&mut contents))
            .await?;
        Ok(contents)
    }
}
