//! Bytes in the tree of the distribution registry, which were adopted where they are. They are nobody's to delete until the tree
//! is released.

#[cfg(all(feature = "filesystem", unix))]
use std::collections::BTreeSet;

#[cfg(all(feature = "filesystem", unix))]
use registry_core::{Digest, ErrorCode};
use registry_core::{Error, Timestamp};

use super::ListedBytes;
#[cfg(all(feature = "filesystem", unix))]
use super::{Deleting, Unnamed, Unreadable};
use crate::backend::{Again, Backend, Durability, RecordTransaction, Transaction};
use crate::key::Key;
use crate::record::AdoptionRecord;
use crate::store::Store;
use crate::store::edge::read_latest;

impl<B: Backend> Store<B> {
    /// Returns when the tree was released, as it is now; `None` if it was not, or there is none.
    pub(in crate::store) async fn tree_released(&self) -> Result<Option<Timestamp>, Error> {
        self.backend.transact(Durability::Deferred, ReadReleased).await
    }

    /// Keeps bytes of the tree unless it was released. This comes **before** the records that may name them are read, because
    /// an adoption reads the same after it has named bytes.
    pub(super) async fn keep_tree(&self, listed: &mut ListedBytes) -> Result<(), Error> {
        let is_of_tree = listed.names.iter().any(|name| name.digest_in_tree().is_some());
        if is_of_tree && self.tree_released().await?.is_none() {
            let marks = listed.names.iter().zip(&mut listed.by_blob);
            for (_, mark) in marks.filter(|(name, _)| name.digest_in_tree().is_some()) {
                *mark = true;
            }
        }
        Ok(())
    }

    /// Deletes the content of a released tree that no record names, of these digests, and returns how much of it was there.
    ///
    /// # Errors
    /// If a record cannot be read, because nobody knows what it names; those of the medium.
    #[cfg(all(feature = "filesystem", unix))]
    pub(crate) async fn delete_unnamed_of_tree(&self, digests: &BTreeSet<Digest>) -> Result<u64, Error> {
        let of_tree = |digest: &Digest| {
            let name = crate::bytes_name::BytesName::in_tree(digest)?;
            let blob = Some(digest.clone());
            Some(Unnamed { name, blob })
        };
        let unnamed: Vec<Unnamed> = digests.iter().filter_map(of_tree).collect();
        let (mut deleting, mut unreadable) = (Deleting::default(), Unreadable::default());
        let listed = ListedBytes::of(&unnamed);
        let is_done = self
            .delete_unnamed(listed, &unnamed, &mut deleting, &mut unreadable)
            .await?;
        if !is_done {
            let message = "content of the tree could not be deleted; the log says which, or which record cannot be read";
            return Err(Error::new(ErrorCode::Unavailable, message));
        }
        Ok(deleting.deleted)
    }
}

/// Reads when the tree was released.
#[derive(Clone)]
struct ReadReleased;

impl Transaction for ReadReleased {
    type Output = Option<Timestamp>;

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Reading(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Self::Output, Error> {
        let adoption = read_latest::<AdoptionRecord>(records, &Key::adoption()).await?;
        Ok(adoption.header().and_then(|adoption| adoption.released))
    }
}
