//! Repositories without content leave the catalog.
//!
//! The entry in the catalog is removed as that of a deleted repository: a push stores its manifest before it looks for the
//! entry, so a push at the same time keeps it, or writes it again.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use registry_core::{Error, RepositoryName};

use super::CollectReport;
use super::cycle::Cycle;
use crate::backend::{Backend, RecordEntry};
use crate::chain::State;
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::pages::{Pages, Values, living_keys};
use crate::record::{GrantRecord, SessionRecord, state_of_size};
use crate::store::Store;
use crate::store::edge::Found;

/// How many repositories are looked at at once; a bucket takes some milliseconds for each.
const PARALLEL_LOOKS: usize = 16;

impl<B: Backend> Store<B> {
    /// Removes repositories from the catalog that have no manifest, no blob and no upload in progress.
    pub(super) async fn remove_empty_repositories(
        &self,
        cycle: &Cycle,
        report: &mut CollectReport,
    ) -> Result<(), Error> {
        let mut pages = Pages::of(Key::repositories());
        while let Some(page) = pages.next(&*self.backend).await? {
            let mut empty = self.empty_among(page).await?;
            // An upload shows that something is about to be pushed.
            self.retain_without_uploads(&mut empty).await?;
            for repository in empty {
                if cycle.is_dry_run {
                    report.empty_repositories += 1;
                } else if self.remove_from_catalog(&repository).await? {
                    report.empty_repositories += 1;
                    tracing::info!(%repository, "an empty repository left the catalog");
                }
            }
        }
        Ok(())
    }

    /// Returns the repositories of a page of the catalog that have neither a manifest nor a blob.
    async fn empty_among(&self, page: Vec<RecordEntry>) -> Result<BTreeSet<RepositoryName>, Error> {
        let listed = page
            .into_iter()
            .filter_map(|entry| match KeyKind::of(&entry.key) {
                Some(KeyKind::Repository(repository)) if state_of_size(entry.size).is_visible() => {
                    Some(repository)
                }
                _ => None,
            });
        let looks = listed.map(|repository| async move {
            let is_empty = !self.has_manifest(&repository).await? && !self.has_blob(&repository).await?;
            Ok::<_, Error>(is_empty.then_some(repository))
        });
        let mut looks = stream::iter(looks).buffer_unordered(PARALLEL_LOOKS);
        let mut empty = BTreeSet::new();
        while let Some(repository) = looks.try_next().await? {
            empty.extend(repository);
        }
        Ok(empty)
    }

    async fn has_manifest(&self, repository: &RepositoryName) -> Result<bool, Error> {
        let mut pages = Pages::of(Key::manifests(repository));
        while let Some(page) = pages.next(&*self.backend).await? {
            if page.iter().any(|entry| state_of_size(entry.size) != State::Dead) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns whether a repository has a blob.
    async fn has_blob(&self, repository: &RepositoryName) -> Result<bool, Error> {
        let mut pages = Pages::of(Key::repository_blobs(repository));
        while let Some(page) = pages.next(&*self.backend).await? {
            let grants: Vec<Key> = living_keys(page)
                .filter_map(|key| match KeyKind::of(&key) {
                    Some(KeyKind::RepositoryBlob(_, digest)) => Some(Key::grant(&digest, repository)),
                    _ => None,
                })
                .collect();
            for stored in self.backend.get_all(&grants).await? {
                // A record that cannot be read may be a grant.
                let state = Found::<GrantRecord>::new(stored.as_ref()).map(|grant| grant.state());
                if !matches!(state, Ok(State::Absent | State::Dead)) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Removes from a set the repositories to which something is being uploaded.
    async fn retain_without_uploads(&self, empty: &mut BTreeSet<RepositoryName>) -> Result<(), Error> {
        if empty.is_empty() {
            return Ok(());
        }
        let is_open = |entry: &RecordEntry| state_of_size(entry.size).is_visible();
        let mut sessions = Values::of(Key::uploads(), is_open);
        while let Some(read) = sessions.next(&*self.backend).await? {
            for (_, stored) in read {
                // The sweeper reports a record that cannot be read.
                let session = Found::<SessionRecord>::new(stored.as_ref()).ok();
                if let Some((session, _)) = session.and_then(Found::visible) {
                    empty.remove(&session.repository);
                }
            }
        }
        Ok(())
    }
}
