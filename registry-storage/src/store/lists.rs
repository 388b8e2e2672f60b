//! The facet of lists.

use async_trait::async_trait;
use registry_core::storage::{ListStorage, Page, PageRequest, ReferrersRequest, TagValue};
use registry_core::{Descriptor, Digest, Error, ErrorCode, RepositoryName, Tag};

use super::Store;
use crate::backend::{Backend, LIST_LIMIT};
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::record::state_of_size;

/// The maximum number of backend listings for one page, unless its limit needs more; most of their records may be
/// tombstones.
const LISTINGS_PER_PAGE: usize = 4;

#[async_trait]
impl<B: Backend> ListStorage for Store<B> {
    async fn list_tags(&self, repository: &RepositoryName, page: PageRequest) -> Result<Page<Tag>, Error> {
        if !self.is_known(repository).await? {
            return Err(ErrorCode::NameUnknown.into());
        }
        let prefix = Key::tags(repository);
        let after = page.last.as_ref().map(|last| prefix.join(last));
        self.list_names(&prefix, after, page.limit).await
    }

    async fn list_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        request: ReferrersRequest,
    ) -> Result<Page<Descriptor>, Error> {
        self.page_of_referrers(repository, subject, request).await
    }

    async fn list_repositories(&self, page: PageRequest) -> Result<Page<RepositoryName>, Error> {
        // `last` need not exist, and need not even be a name.
        let after = page
            .last
            .as_ref()
            .map(|last| match last.parse::<RepositoryName>() {
                Ok(name) => Key::repository(&name),
                // A key ends with `!`, and no name has that character or a smaller one. If `last` has one, the names
                // after `last` are those after the part before that character.
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

    async fn list_tag_history(
        &self,
        repository: &RepositoryName,
        tag: Option<&Tag>,
        page: PageRequest,
    ) -> Result<Page<TagValue>, Error> {
        self.page_of_history(repository, tag, page).await
    }
}

impl<B: Backend> Store<B> {
    /// Lists the digests of the manifests of a repository, with and without tags, in the order of their keys.
    pub(crate) async fn page_of_manifests(
        &self,
        repository: &RepositoryName,
        page: PageRequest,
    ) -> Result<Page<Digest>, Error> {
        let prefix = Key::manifests(repository);
        let after = page.last.as_ref().map(|last| prefix.join(last));
        let visible = self.list_visible(&prefix, after, page.limit).await?;
        let is_full = visible.items.len() >= page.limit;
        let last = visible.items.last().filter(|_| is_full);
        let next = match last {
            Some(last) => last.after(&prefix),
            None => visible.next.and_then(|key| Key::from_stored(&key).after(&prefix)),
        };
        let digest = |key: &Key| match KeyKind::of(key)? {
            KeyKind::Manifest(_, digest) => Some(digest),
            _ => None,
        };
        let items = visible.items.iter().filter_map(digest).collect();
        Ok(Page { items, next })
    }

    /// Lists the names that follow `prefix` in the keys of records that readers see.
    pub(super) async fn list_names<T>(
        &self,
        prefix: &Key,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Page<T>, Error>
    where
        T: std::str::FromStr + AsRef<str>,
    {
        let name = |key: &Key| Some(key.after(prefix)?.trim_end_matches('!').to_owned());
        let visible = self.list_visible(prefix, after, limit.saturating_add(1)).await?;
        let names = visible.items.iter().filter_map(|key| name(key)?.parse().ok());
        let mut items: Vec<T> = names.collect();
        let more = items.len() > limit;
        items.truncate(limit);
        let next = match items.last() {
            Some(last) if more => Some(last.as_ref().to_owned()),
            _ => visible.next.and_then(|key| name(&Key::from_stored(&key))),
        };
        Ok(Page { items, next })
    }

    /// Lists up to `limit` keys of records that readers see, judged by the sizes of the records alone. If there are
    /// many that readers do not see, it gives up and returns where to continue.
    async fn list_visible(
        &self,
        prefix: &Key,
        mut after: Option<Key>,
        limit: usize,
    ) -> Result<Page<Key>, Error> {
        let mut items = Vec::new();
        let mut size = limit.clamp(1, LIST_LIMIT);
        for _ in 0..LISTINGS_PER_PAGE.max(limit.div_ceil(LIST_LIMIT)) {
            let page = self.backend.list(prefix, after.as_ref(), size).await?;
            let is_last = page.len() < size;
            after = page.last().map(|last| last.key.clone());
            let visible = page
                .into_iter()
                .filter(|entry| state_of_size(entry.size).is_visible());
            items.extend(visible.map(|entry| entry.key).take(limit - items.len()));
            if is_last || items.len() >= limit {
                return Ok(Page { items, next: None });
            }
            size = LIST_LIMIT;
        }
        let next = after.map(|after| after.as_str().to_owned());
        Ok(Page { items, next })
    }
}
