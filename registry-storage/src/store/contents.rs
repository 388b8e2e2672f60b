//! How much a store holds, according to the records of its blobs.

use std::sync::{Mutex, PoisonError};

use registry_core::{Error, Timestamp};

use super::Store;
use super::sweep::{ListedBytes, Unreadable};
use crate::backend::Backend;
use crate::record::{BlobRecord, CountedBlobs, Header as _};

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

    /// Returns what a sweep that ends now counted.
    pub(super) const fn counted(self, when: Timestamp) -> CountedBlobs {
        CountedBlobs {
            blobs: self.blobs,
            bytes: self.bytes,
            outside: self.outside,
            when,
        }
    }
}

/// What the last sweep of everything counted.
#[derive(Debug, Default)]
pub(super) struct LastCount(Mutex<Option<CountedBlobs>>);

impl<B: Backend> Store<B> {
    /// Returns what existed at the last sweep of everything that this store knows of, and when that was.
    pub(crate) fn last_counted(&self) -> Option<(Contents, Timestamp)> {
        let counted = *self.last_count.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.map(|counted| {
            let contents = Contents {
                blobs: counted.blobs,
                bytes: counted.bytes,
                outside: counted.outside,
            };
            (contents, counted.when)
        })
    }

    pub(super) fn note_counted(&self, counted: CountedBlobs) {
        *self.last_count.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(counted);
    }

    /// Counts what exists now, by reading each blob's record. Unreadable records are left out.
    pub(crate) async fn contents(&self) -> Result<Contents, Error> {
        let mut contents = Contents::default();
        let (mut nothing, mut unreadable) = (ListedBytes::default(), Unreadable::silent());
        self.mark_bytes_of_blobs(&mut nothing, &mut unreadable, Some(&mut contents))
            .await?;
        Ok(contents)
    }
}
