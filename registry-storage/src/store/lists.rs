//! Listing tags, referrers and repositories.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use registry_core::chain::State;
use registry_core::storage::{Page, PageRequest};
use registry_core::{Descriptor, Digest, Error, ErrorCode, RepositoryName, Tag};

use super::Store;
use super::edge::peek;
use crate::backend::Backend;
use crate::key::Key;
use crate::record::{ManifestRecord, ReferrerRecord, state_of_size};

/// How many records of a page are read at once; a bucket answers each after some milliseconds.
const PARALLEL_READS: usize = 16;

/// The most records in a listing of the backend.
const BACKEND_PAGE: usize = 1000;

impl<B: Backend> Store<B> {
    pub(super) async fn list_tags(
        &self,
        repository: &RepositoryName,
        page: PageRequest,
    ) -> Result<Page<Tag>, Error> {
        if !self.is_known(repository).await? {
            return Err(ErrorCode::NameUnknown.into());
        }
        let prefix = Key::tags(repository);
        let after = page.last.as_ref().map(|last| prefix.join(last));
        self.list_names(&prefix, after, page.limit).await
    }

    pub(super) async fn list_repositories(&self, page: PageRequest) -> Result<Page<RepositoryName>, Error> {
        // `last` need not exist, and need not even be a name.
        let after = page
            .last
            .as_ref()
            .map(|last| match last.parse::<RepositoryName>() {
                Ok(name) => Key::repository(&name),
                // A key ends with `!`, and no name has that character or a smaller one: where `last` has one, the names
                // after `last` are those after the part before it.
                Err(_) => {
                    let start = last
                        .split(|character| character <= '!')
                        .next()
                        .unwrap_or_default();
                    Key::repositories().join(start).join("!")
                }
            });
        self.list_names(&Key::repositories(), after, page.limit).await
    }

    /// Lists the names that stand behind `prefix` in the keys of records that readers see.
    pub(super) async fn list_names<T>(
        &self,
        prefix: &Key,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Page<T>, Error>
    where
        T: std::str::FromStr + AsRef<str>,
    {
        let entries = self.list_visible(prefix, after, limit.saturating_add(1)).await?;
        let names = entries
            .iter()
            .filter_map(|key| key.after(prefix)?.trim_end_matches('!').parse().ok());
        let mut items: Vec<T> = names.collect();
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|last| last.as_ref().to_owned());
        Ok(Page { items, next })
    }

    /// Lists up to `limit` keys of records that readers see, by the sizes of the records alone.
    async fn list_visible(
        &self,
        prefix: &Key,
        mut after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<Key>, Error> {
        let mut keys = Vec::new();
        while keys.len() < limit {
            let page = self
                .backend
                .list(prefix, after.as_ref(), limit.clamp(1, BACKEND_PAGE))
                .await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            let visible = page
                .into_iter()
                .filter(|entry| state_of_size(entry.size).is_visible());
            keys.extend(visible.map(|entry| entry.key).take(limit - keys.len()));
        }
        Ok(keys)
    }

    pub(super) async fn list_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        page: PageRequest,
    ) -> Result<Page<Descriptor>, Error> {
        let prefix = Key::referrers(repository, subject);
        let after = page.last.as_ref().map(|last| prefix.join(last));
        let mut keys = self
            .list_visible(&prefix, after, page.limit.saturating_add(1))
            .await?;
        let more = keys.len() > page.limit;
        keys.truncate(page.limit);
        let next = keys.last().filter(|_| more).and_then(|key| key.after(&prefix));
        let descriptors = stream::iter(keys).map(|key| self.referrer(repository, key));
        let items: Vec<_> = descriptors.buffered(PARALLEL_READS).try_collect().await?;
        Ok(Page {
            items: items.into_iter().flatten().collect(),
            next,
        })
    }

    /// Reads an entry of a list of referrers; nothing where its manifest is gone, as a delete may have been ended
    /// before it came to the entry.
    async fn referrer(&self, repository: &RepositoryName, key: Key) -> Result<Option<Descriptor>, Error> {
        let entry = peek::<ReferrerRecord>(&*self.backend, &key).await?;
        let Some((entry, _)) = entry.visible() else {
            return Ok(None);
        };
        let manifest = Key::manifest(repository, &entry.descriptor.digest);
        let manifest = peek::<ManifestRecord>(&*self.backend, &manifest).await?;
        let same = manifest
            .header()
            .is_some_and(|manifest| manifest.incarnation == entry.incarnation);
        let visible = matches!(manifest.state(), State::Live | State::Condemned);
        Ok((visible && same).then_some(entry.descriptor))
    }
}
