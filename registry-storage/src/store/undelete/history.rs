//! Reading what tags named before.

use std::collections::{BTreeMap, BTreeSet};

use registry_core::storage::{Page, PageRequest, TagEnd, TagValue};
use registry_core::{Digest, Error, RepositoryName, Tag, Timestamp};

use super::plan::Allowed;
use crate::backend::{Backend, LIST_LIMIT, RecordEntry};
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
        let is_first = page.last.is_none();
        let after = page.last.map(|last| all.join(&last));
        let limit = page.limit.clamp(1, LIST_LIMIT - 1);
        let listed = self.backend.list(&prefix, after.as_ref(), limit + 1).await?;
        let following = listed.get(limit).and_then(|entry| tag_of(&entry.key));
        let has_more = listed.len() > limit;
        let past: Vec<RecordEntry> = listed.into_iter().take(limit).collect();
        let last = past.last().map(|entry| entry.key.clone());
        let next = last.and_then(|key| key.after(&all)).filter(|_| has_more);
        let mut values = Values {
            repository,
            restorable: BTreeMap::new(),
            seen: BTreeSet::new(),
            items: Vec::new(),
        };
        let past: Vec<Key> = keys(past).collect();
        let stored = self.backend.get_all(&past).await?;
        let mut of_tag: Option<(Tag, Present)> = None;
        for (key, stored) in past.into_iter().zip(stored) {
            let Some(tag) = tag_of(&key) else { continue };
            if of_tag.as_ref().is_none_or(|(before, _)| *before != tag) {
                values.add_present(of_tag.take());
                let present = self.present(repository, &tag).await?;
                of_tag = Some((tag.clone(), present));
            }
            let is_present = of_tag.as_ref().is_some_and(|(_, present)| present.is(&key));
            // `check` reports a record that cannot be read.
            let found = Found::<PastTagRecord>::new(stored.as_ref()).ok();
            if let Some((record, _)) = found.and_then(|found| found.record).filter(|_| !is_present) {
                self.add_past(&mut values, tag, &key, record).await?;
            }
        }
        match (of_tag, tag) {
            (Some((tag, present)), _) if following.as_ref() != Some(&tag) => {
                values.add_present(Some((tag, present)));
            }
            (None, Some(tag)) if is_first => {
                let present = self.present(repository, tag).await?;
                values.add_present(Some((tag.clone(), present)));
            }
            _ => {}
        }
        Ok(Page {
            items: values.items,
            next,
        })
    }

    async fn add_past(
        &self,
        values: &mut Values<'_>,
        tag: Tag,
        key: &Key,
        record: PastTagRecord,
    ) -> Result<(), Error> {
        let Some(KeyKind::PastTag { until, nonce, .. }) = KeyKind::of(key) else {
            return Ok(());
        };
        // Two pushes at the same time may both have written down that it ends, and only one of them moved the tag.
        if !values.seen.insert(nonce) {
            return Ok(());
        }
        let restorable = match values.restorable.get(&record.digest) {
            Some(known) => *known,
            None => {
                let plan = self
                    .plan(values.repository, &record.digest, Allowed::default())
                    .await?;
                let restorable = plan.ok().map(|plan| plan.until.unwrap_or(Timestamp(u64::MAX)));
                values.restorable.insert(record.digest.clone(), restorable);
                restorable
            }
        };
        values.items.push(TagValue {
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
        Ok(())
    }
}

/// The values that were read.
struct Values<'a> {
    repository: &'a RepositoryName,
    /// Until when manifests can be restored.
    restorable: BTreeMap<Digest, Option<Timestamp>>,
    seen: BTreeSet<uuid::Uuid>,
    items: Vec<TagValue>,
}

impl Values<'_> {
    fn add_present(&mut self, present: Option<(Tag, Present)>) {
        let Some((tag, present)) = present else { return };
        if let Some(record) = present.counted() {
            self.items.push(TagValue {
                tag,
                digest: record.digest.clone(),
                since: record.stamp.written,
                principal: record.principal.clone(),
                end: None,
            });
        }
    }
}

fn tag_of(key: &Key) -> Option<Tag> {
    match KeyKind::of(key)? {
        KeyKind::PastTag { tag, .. } => Some(tag),
        _ => None,
    }
}
