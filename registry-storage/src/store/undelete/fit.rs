//! What is kept gives way to quotas.
//!
//! Quotas count what clients can read, so a delete makes room at once, and neither a push nor a delete is ever refused because of
//! what is kept. Instead, what is kept may have as many bytes as a quota has left; beyond that, the oldest is given up early.

use std::collections::BinaryHeap;

use registry_core::{Error, RepositoryName, Timestamp};

use crate::backend::Backend;
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::pages::Pages;
use crate::store::Store;
use crate::store::quota::SpareBytes;

/// How many records are given up after one listing.
const RECORDS_PER_LISTING: usize = 1000;

/// What is kept in the repositories of a quota.
struct Kept {
    spare: SpareBytes,
    bytes: u64,
    /// The oldest records, with their sizes.
    oldest: BinaryHeap<(Timestamp, Key, u64)>,
}

impl Kept {
    fn add(&mut self, until: Timestamp, key: &Key, size: u64) {
        self.bytes = self.bytes.saturating_add(size);
        self.oldest.push((until, key.clone(), size));
        if self.oldest.len() > RECORDS_PER_LISTING {
            self.oldest.pop();
        }
    }

    /// Returns what has to go, the oldest first.
    fn surplus(self) -> Vec<Key> {
        let mut surplus = self.bytes.saturating_sub(self.spare.bytes);
        let mut keys = Vec::new();
        for (_, key, size) in self.oldest.into_sorted_vec() {
            if surplus == 0 {
                break;
            }
            surplus = surplus.saturating_sub(size);
            keys.push(key);
        }
        keys
    }
}

impl<B: Backend> Store<B> {
    /// Gives up the oldest of what is kept in a repository, or in all of them, until it fits beside what their quotas count.
    pub(in crate::store) async fn fit_kept(&self, repository: Option<&RepositoryName>) -> Result<(), Error> {
        loop {
            let spare = self.spare_bytes(repository).await?;
            if spare.is_empty() {
                return Ok(());
            }
            let of_quota = |spare| Kept {
                spare,
                bytes: 0,
                oldest: BinaryHeap::new(),
            };
            let mut kept: Vec<Kept> = spare.into_iter().map(of_quota).collect();
            let mut pages = Pages::of(repository.map_or_else(Key::all_kept, Key::kept_of));
            while let Some(page) = pages.next(&*self.backend).await? {
                for entry in page {
                    let Some(
                        KeyKind::PastTag {
                            repository, until, ..
                        }
                        | KeyKind::DeletedManifest {
                            repository, until, ..
                        },
                    ) = KeyKind::of(&entry.key)
                    else {
                        continue;
                    };
                    for kept in kept.iter_mut().filter(|kept| kept.spare.matches(&repository)) {
                        kept.add(until, &entry.key, entry.size);
                    }
                }
            }
            let mut surplus: Vec<Key> = kept.into_iter().flat_map(Kept::surplus).collect();
            surplus.sort_unstable();
            surplus.dedup();
            if surplus.is_empty() {
                return Ok(());
            }
            tracing::info!(
                records = surplus.len(),
                "what was moved or deleted longest ago can be restored no longer: a quota has no room for it"
            );
            self.remove_kept(surplus).await?;
        }
    }

    /// Does that after a delete in a repository, which is done and so never fails for it.
    pub(in crate::store) async fn fit_kept_of(&self, repository: &RepositoryName) {
        if let Err(error) = self.fit_kept(Some(repository)).await {
            tracing::warn!(%repository, %error, "what is kept may be more than a quota has room for");
        }
    }
}
