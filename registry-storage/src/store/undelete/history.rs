//! Reading what tags named before.

use std::collections::BTreeSet;

use registry_core::storage::{Page, PageRequest, TagEnd, TagValue};
use registry_core::{Digest, Error, RepositoryName, Tag};

use super::plan::{Allowed, Planner};
use crate::backend::{Backend, LIST_LIMIT};
use crate::chain::names;
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::pages::keys;
use crate::record::{ManifestRecord, PastTagRecord, TagRecord};
use crate::store::Store;
use crate::store::edge::{Found, read_cached};

/// What a tag names now.
#[derive(Clone, Debug, Default)]
pub(super) struct Present {
    /// The record that readers see; its manifest may be gone.
    record: Option<TagRecord>,
    is_counted: bool,
}

impl Present {
    /// Returns what the tag names now.
    pub(super) fn counted(&self) -> Option<&TagRecord> {
        self.record.as_ref().filter(|_| self.is_counted)
    }

    /// Returns what the tag names in vain: a delete of the manifest has not reached the tag.
    pub(super) fn dangling(&self) -> Option<&TagRecord> {
        self.record.as_ref().filter(|_| !self.is_counted)
    }

    /// Returns whether a past value is what the tag still names: its end was written down, and then it did not end.
    pub(super) fn is(&self, key: &Key) -> bool {
        let nonce = self.record.as_ref().map(|record| record.stamp.nonce());
        matches!(KeyKind::of(key), Some(KeyKind::PastTag { nonce: past, .. }) if Some(past) == nonce)
    }
}

impl<B: Backend> Store<B> {
    pub(super) async fn present(&self, repository: &RepositoryName, tag: &Tag) -> Result<Present, Error> {
        let found = read_cached::<TagRecord>(&*self.backend, &Key::tag(repository, tag)).await?;
        let Some((record, _)) = found.visible() else {
            return Ok(Present::default());
        };
        let manifest = Key::manifest(repository, &record.digest);
        let manifest = read_cached::<ManifestRecord>(&*self.backend, &manifest).await?;
        let incarnation = manifest.header().map(|manifest| &manifest.incarnation);
        let is_counted = manifest.state().is_visible() && names(incarnation, &record.incarnation);
        Ok(Present {
            record: Some(record),
            is_counted,
        })
    }

    /// Lists what tags named, as [`list_tag_history`](registry_core::storage::ListStorage::list_tag_history) says.
    pub(in crate::store) async fn page_of_history(
        &self,
        repository: &RepositoryName,
        tag: Option<&Tag>,
        page: PageRequest,
    ) -> Result<Page<TagValue>, Error> {
        let all = Key::past_tags(repository);
        let prefix = tag.map_or_else(|| all.clone(), |tag| Key::past_tags_of(repository, tag));
        let limit = page.limit.clamp(1, LIST_LIMIT - 1);
        let after = page.last.map(|last| all.join(&last));
        let listed = self.backend.list(&prefix, after.as_ref(), limit + 1).await?;
        let has_more = listed.len() > limit;
        let past: Vec<Key> = keys(listed).collect();
        let stored = self.backend.get_all(&past).await?;
        let mut values = Values::new(self, repository, limit);
        // What a tag names now comes after its past values, which may all have been on the page before.
        if let Some(tag) = after.as_ref().map_or_else(|| tag.cloned(), tag_of) {
            values.begin(tag).await?;
        }
        let mut is_cut = false;
        for (key, stored) in past.into_iter().zip(stored) {
            let Some(tag) = tag_of(&key) else { continue };
            if values.tag() != Some(&tag) {
                is_cut = !values.end().await?;
                if !is_cut {
                    values.begin(tag.clone()).await?;
                }
            }
            is_cut |= values.is_full();
            if is_cut {
                break;
            }
            // `check` reports a record that cannot be read.
            let found = Found::<PastTagRecord>::new(stored.as_ref()).ok();
            let record = found.and_then(|found| found.record).map(|(record, _)| record);
            values.add_past(tag, key, record).await?;
        }
        if !is_cut && !has_more {
            is_cut = !values.end().await?;
        }
        let next = values.position.filter(|_| is_cut || has_more);
        Ok(Page {
            items: values.items,
            next: next.and_then(|last| last.after(&all)),
        })
    }
}

/// The values of a page.
struct Values<'a, B> {
    store: &'a Store<B>,
    repository: &'a RepositoryName,
    planner: Planner<'a, B>,
    limit: usize,
    /// The tag whose values come now.
    current: Option<(Tag, Present)>,
    seen: BTreeSet<uuid::Uuid>,
    items: Vec<TagValue>,
    /// Where the next page begins: after this past value, or after everything of a tag.
    position: Option<Key>,
}

impl<'a, B: Backend> Values<'a, B> {
    fn new(store: &'a Store<B>, repository: &'a RepositoryName, limit: usize) -> Self {
        Self {
            store,
            repository,
            planner: Planner::new(store, repository, Allowed::default()),
            limit,
            current: None,
            seen: BTreeSet::new(),
            items: Vec::new(),
            position: None,
        }
    }

    fn tag(&self) -> Option<&Tag> {
        self.current.as_ref().map(|(tag, _)| tag)
    }

    const fn is_full(&self) -> bool {
        self.items.len() >= self.limit
    }

    async fn begin(&mut self, tag: Tag) -> Result<(), Error> {
        let present = self.store.present(self.repository, &tag).await?;
        self.current = Some((tag, present));
        Ok(())
    }

    /// Adds what the tag names now, or named until the delete of its manifest, which has not reached the tag; returns `false` if
    /// there is no room for it.
    async fn end(&mut self) -> Result<bool, Error> {
        let Some((tag, present)) = self.current.take() else {
            return Ok(true);
        };
        let end = match present.dangling() {
            Some(record) => match self.end_of(&record.digest).await? {
                Some(end) => Some(end),
                None => return Ok(true),
            },
            None => None,
        };
        let Some(record) = present.record else {
            return Ok(true);
        };
        if self.is_full() {
            return Ok(false);
        }
        // `~` sorts after every key of a past value.
        self.position = Some(Key::past_tags_of(self.repository, &tag).join("~"));
        self.items.push(TagValue {
            tag,
            digest: record.digest,
            since: record.stamp.written,
            principal: record.principal,
            end,
        });
        Ok(true)
    }

    /// Returns how a manifest that is gone ended, if it is kept.
    async fn end_of(&mut self, digest: &Digest) -> Result<Option<TagEnd>, Error> {
        let Some((key, _)) = self.store.newest_deleted(self.repository, digest).await? else {
            return Ok(None);
        };
        let Some((deleted, _)) = self.store.read_deleted(digest, &key).await? else {
            return Ok(None);
        };
        Ok(Some(TagEnd {
            at: deleted.stamp.written,
            reason: deleted.reason,
            principal: String::new(),
            restorable_until: self.planner.restorable_until(digest).await?,
        }))
    }

    async fn add_past(&mut self, tag: Tag, key: Key, record: Option<PastTagRecord>) -> Result<(), Error> {
        let is_present = self.current.as_ref().is_some_and(|(_, present)| present.is(&key));
        if let Some(KeyKind::PastTag { until, nonce, .. }) = KeyKind::of(&key)
            && let Some(record) = record.filter(|_| !is_present)
            // Two pushes at the same time may both have written down that it ends, and only one of them moved the tag.
            && self.seen.insert(nonce)
        {
            let restorable = self.planner.restorable_until(&record.digest).await?;
            self.items.push(TagValue {
                tag,
                digest: record.digest,
                since: record.since,
                principal: record.principal,
                end: Some(TagEnd {
                    at: record.stamp.written,
                    reason: record.reason,
                    principal: record.ended_by,
                    restorable_until: restorable.map(|restorable| restorable.min(until)),
                }),
            });
        }
        self.position = Some(key);
        Ok(())
    }
}

fn tag_of(key: &Key) -> Option<Tag> {
    match KeyKind::of(key)? {
        KeyKind::PastTag { tag, .. } => Some(tag),
        _ => None,
    }
}
