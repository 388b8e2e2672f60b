//! Counting what a repository has, from its records.

use registry_core::quota::Amount;
use registry_core::{Digest, Error, ErrorCode, RepositoryName};

use super::RepositoryUsage;
use crate::backend::{Backend, RecordEntry};
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::pages::{Pages, Values, living_keys};
use crate::record::{size_of_blob, size_of_manifest, state_of_size};
use crate::store::{BlobCount, Store};

/// How many grants are read at once.
const GRANTS_PER_READ: usize = 256;

/// Returns whether clients see a record of which only the entry in a listing is known.
const fn is_visible(entry: &RecordEntry) -> bool {
    state_of_size(entry.size).is_visible()
}

impl RepositoryUsage {
    /// Adds the blob of a grant, by the value of its record, if clients see it.
    pub(in crate::store) fn add_grant(&mut self, grant: &[u8]) {
        if state_of_size(grant.len() as u64).is_visible() {
            self.blobs.add(size_of_blob(grant));
        }
    }

    /// Adds a manifest, by the value of its record, if clients see it.
    pub(in crate::store) fn add_manifest(&mut self, manifest: &[u8]) {
        if state_of_size(manifest.len() as u64).is_visible() {
            self.manifests = self.manifests.saturating_add(1);
            self.manifest_bytes = self.manifest_bytes.saturating_add(size_of_manifest(manifest));
        }
    }
}

impl<B: Backend> Store<B> {
    /// Returns the first repository with a record after another one, also one that the catalog does not have yet.
    pub(crate) async fn repository_after(
        &self,
        after: Option<&RepositoryName>,
    ) -> Result<Option<RepositoryName>, Error> {
        self.first_repository(after.map(Key::end_of_repository)).await
    }

    /// Returns the repository of the first record after a key.
    pub(super) async fn first_repository(
        &self,
        mut after: Option<Key>,
    ) -> Result<Option<RepositoryName>, Error> {
        loop {
            let page = self
                .backend
                .list(&Key::all_repositories(), after.as_ref(), 1)
                .await?;
            let Some(entry) = page.into_iter().next() else {
                return Ok(None);
            };
            let kind = KeyKind::of(&entry.key);
            if let Some(repository) = kind.as_ref().and_then(KeyKind::repository) {
                return Ok(Some(repository.clone()));
            }
            after = Some(entry.key);
        }
    }

    /// Returns what a repository has, or [`NameUnknown`](ErrorCode::NameUnknown).
    pub(crate) async fn usage_of(
        &self,
        repository: &RepositoryName,
        is_shared: bool,
    ) -> Result<RepositoryUsage, Error> {
        let usage = self.count_repository(repository, is_shared).await?;
        if usage.amount() == Amount::NONE && usage.blobs.blobs == 0 && !self.is_known(repository).await? {
            return Err(ErrorCode::NameUnknown.into());
        }
        Ok(usage)
    }

    /// Counts what a repository has.
    pub(in crate::store) async fn count_repository(
        &self,
        repository: &RepositoryName,
        is_shared: bool,
    ) -> Result<RepositoryUsage, Error> {
        let mut usage = RepositoryUsage {
            tags: self.count_tags(repository).await?,
            ..RepositoryUsage::default()
        };
        let mut manifests = Values::of(Key::manifests(repository), is_visible);
        while let Some(read) = manifests.next(&*self.backend).await? {
            for stored in read.into_iter().filter_map(|(_, stored)| stored) {
                usage.add_manifest(&stored.value);
            }
        }
        let mut shared = BlobCount::default();
        let mut blobs = Pages::of(Key::repository_blobs(repository));
        while let Some(page) = blobs.next(&*self.backend).await? {
            let digests = living_keys(page).filter_map(|key| match KeyKind::of(&key) {
                Some(KeyKind::RepositoryBlob(_, digest)) => Some(digest),
                _ => None,
            });
            let digests: Vec<Digest> = digests.collect();
            for some in digests.chunks(GRANTS_PER_READ) {
                let grants: Vec<Key> = some.iter().map(|digest| Key::grant(digest, repository)).collect();
                let values = self.backend.get_all(&grants).await?;
                for ((digest, key), stored) in some.iter().zip(&grants).zip(values) {
                    let Some(stored) = stored else { continue };
                    let before = usage.blobs;
                    usage.add_grant(&stored.value);
                    if is_shared && usage.blobs != before && self.is_shared(digest, key).await? {
                        shared.add(usage.blobs.bytes - before.bytes);
                    }
                }
            }
        }
        usage.shared = is_shared.then_some(shared);
        Ok(usage)
    }

    /// Counts the tags of a repository.
    pub(in crate::store) async fn count_tags(&self, repository: &RepositoryName) -> Result<u64, Error> {
        let mut count = 0;
        let mut tags = Pages::of(Key::tags(repository));
        while let Some(page) = tags.next(&*self.backend).await? {
            count += page.iter().filter(|entry| is_visible(entry)).count() as u64;
        }
        Ok(count)
    }

    /// Returns whether another repository than that of the grant `own` has a blob.
    async fn is_shared(&self, digest: &Digest, own: &Key) -> Result<bool, Error> {
        let mut pages = Pages::of(Key::grants(digest));
        while let Some(page) = pages.next(&*self.backend).await? {
            let mut others = page.iter().filter(|entry| entry.key != *own);
            if others.any(is_visible) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
