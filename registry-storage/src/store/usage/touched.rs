//! Repositories in which a push made something visible that gives the collector nothing to do: a tag, or a manifest whose
//! blobs were there.
//!
//! They are in memory until the next cycle marks them as changed, because a mark would cost each push to a bucket a request. On a
//! disk a push sets the mark together with a new manifest anyway.
//! What a process that is killed forgets is counted with the next change, or by the pass over all repositories.

use std::collections::BTreeSet;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use registry_core::{Error, RepositoryName, Timestamp};

use crate::backend::{Again, Backend, Durability, RecordTransaction, Transaction};
use crate::key::Key;
use crate::store::Store;
use crate::store::collect::mark_changed;

/// How many repositories are remembered before they are marked.
const REMEMBERED: usize = 10_000;

/// How many repositories are marked in one transaction.
const MARKS_PER_TRANSACTION: usize = 64;

/// The repositories that are to be marked.
#[derive(Debug, Default)]
pub(in crate::store) struct Touched(Mutex<BTreeSet<RepositoryName>>);

impl Touched {
    fn all(&self) -> MutexGuard<'_, BTreeSet<RepositoryName>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a repository once the result is dropped, so even if a push is cut off, unless it is told that nothing new is
    /// visible.
    pub(in crate::store) fn at_end(&self, repository: &RepositoryName) -> Touch<'_> {
        Touch {
            touched: self,
            repository: Some(repository.clone()),
        }
    }

    /// Returns those of which `is_wanted`.
    pub(super) fn select(&self, is_wanted: impl Fn(&RepositoryName) -> bool) -> Vec<RepositoryName> {
        let all = self.all();
        all.iter().filter(|name| is_wanted(name)).cloned().collect()
    }
}

/// A push that may make something visible.
pub(in crate::store) struct Touch<'t> {
    touched: &'t Touched,
    repository: Option<RepositoryName>,
}

impl Touch<'_> {
    /// Says that nothing new is visible.
    pub(in crate::store) fn forget(mut self) {
        self.repository = None;
    }
}

impl Drop for Touch<'_> {
    fn drop(&mut self) {
        self.touched.all().extend(self.repository.take());
    }
}

/// Repositories that are being marked. What is left when this is dropped is to be marked later.
struct Taken<'t> {
    touched: &'t Touched,
    left: BTreeSet<RepositoryName>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.touched.all().append(&mut self.left);
    }
}

impl<B: Backend> Store<B> {
    /// Marks the repositories as changed if there are too many to remember.
    pub(in crate::store) async fn mark_too_many_touched(&self) -> Result<(), Error> {
        let are_too_many = self.touched.all().len() >= REMEMBERED;
        if are_too_many {
            self.mark_touched().await?;
        }
        Ok(())
    }

    /// Marks the repositories as changed.
    pub(crate) async fn mark_touched(&self) -> Result<(), Error> {
        let left = mem::take(&mut *self.touched.all());
        let mut taken = Taken {
            touched: &self.touched,
            left,
        };
        while !taken.left.is_empty() {
            let some: Vec<RepositoryName> = taken.left.iter().take(MARKS_PER_TRANSACTION).cloned().collect();
            let mark = MarkAll {
                repositories: some.clone(),
                now: self.clock.now(),
            };
            self.backend.transact(Durability::Deferred, mark).await?;
            for repository in some {
                taken.left.remove(&repository);
            }
        }
        Ok(())
    }
}

#[derive(Clone)]
struct MarkAll {
    repositories: Vec<RepositoryName>,
    now: Timestamp,
}

impl Transaction for MarkAll {
    type Output = ();

    fn again(&self) -> Option<Again<Self>> {
        Some(Again::Freeing(self.clone()))
    }

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        for repository in &self.repositories {
            mark_changed(records, &Key::changed(repository), self.now).await?;
        }
        Ok(())
    }
}
