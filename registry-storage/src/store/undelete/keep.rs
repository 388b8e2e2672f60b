//! Writing down what is about to be moved or deleted.

use bytes::Bytes;
use registry_core::storage::EndReason;
use registry_core::{Digest, Error, RepositoryName, Tag, Timestamp};

use crate::backend::{Backend, Condition, LIST_LIMIT, RecordEntry, RecordTransaction};
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::record::{DeletedManifestRecord, ManifestRecord, PastTagRecord, Stamp, TagRecord};
use crate::store::Store;
use crate::store::edge::write;

/// How many past values of one tag are kept. The oldest goes first.
const VALUES_PER_TAG: usize = 100;

/// That what is about to be moved or deleted is kept, until when, and why it ends.
#[derive(Clone, Debug)]
pub(in crate::store) struct Keep {
    now: Timestamp,
    until: Timestamp,
    reason: EndReason,
    /// Who moves a tag.
    principal: String,
}

impl<B: Backend> Store<B> {
    /// Returns how what ends now is kept; `None` if nothing is.
    pub(in crate::store) fn keep(&self, reason: EndReason) -> Option<Keep> {
        let time = self.options.keep_deleted;
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now = self.clock.now();
        (milliseconds > 0).then(|| Keep {
            now,
            until: Timestamp(now.0.saturating_add(milliseconds)),
            reason,
            principal: String::new(),
        })
    }
}

impl Keep {
    /// Sets who moves the tag.
    pub(in crate::store) fn by(self, principal: &str) -> Self {
        Self {
            principal: principal.to_owned(),
            ..self
        }
    }

    /// Returns until when it is kept.
    pub(in crate::store) const fn until(&self) -> Timestamp {
        self.until
    }

    /// Keeps the value of a tag that is about to be replaced. `is_counted` says whether the manifest that it names is there:
    /// if not, its delete has not reached the tag. Returns the key, for a push that takes the tag back.
    pub(in crate::store) async fn tag(
        &self,
        records: &mut dyn RecordTransaction,
        repository: &RepositoryName,
        tag: &Tag,
        value: &TagRecord,
        is_counted: bool,
    ) -> Result<Key, Error> {
        let past = Key::past_tags_of(repository, tag);
        let kept = records.list(&past, None, LIST_LIMIT).await?;
        let of = |entry: &RecordEntry| match KeyKind::of(&entry.key) {
            Some(KeyKind::PastTag { until, nonce, .. }) => Some((until, nonce)),
            _ => None,
        };
        // So the keys are in the order in which the values ended, whatever the clock says, and `keepdeleted` is by now. What
        // was written down for this value before, which then did not end, is replaced.
        let nonce = value.stamp.nonce();
        let others = kept.iter().filter_map(of).filter(|(_, other)| *other != nonce);
        let newest = others
            .map(|(until, _)| Timestamp(until.0.saturating_add(1)))
            .max();
        let key = Key::past_tag(
            repository,
            tag,
            newest.max(Some(self.until)).unwrap_or(self.until),
            nonce,
        );
        let surplus = (kept.len() + 1).saturating_sub(VALUES_PER_TAG);
        for (at, entry) in kept.iter().enumerate().filter(|(_, entry)| entry.key != key) {
            if at < surplus || of(entry).is_some_and(|(_, other)| other == nonce) {
                records.remove(&entry.key).await?;
            }
        }
        let past = PastTagRecord {
            digest: value.digest.clone(),
            since: value.stamp.written,
            principal: value.principal.clone(),
            reason: if is_counted {
                self.reason
            } else {
                EndReason::ManifestDeleted
            },
            ended_by: self.principal.clone(),
            stamp: Stamp::new(self.now),
        };
        write(records, &key, &past, &[], Condition::Any).await?;
        Ok(key)
    }

    /// Keeps a manifest that is about to go Dead. Its content is that of its earlier deletes, so it replaces what they left.
    pub(in crate::store) async fn manifest(
        &self,
        records: &mut dyn RecordTransaction,
        repository: &RepositoryName,
        digest: &Digest,
        manifest: &ManifestRecord,
        content: &Bytes,
    ) -> Result<(), Error> {
        let earlier = Key::deleted_manifest_of(repository, digest);
        let earlier = records.list(&earlier, None, LIST_LIMIT).await?;
        let key = Key::deleted_manifest(repository, digest, self.until, &manifest.incarnation);
        let deleted = DeletedManifestRecord {
            media_type: manifest.media_type.clone(),
            subject: manifest.subject.clone(),
            reason: self.reason,
            stamp: Stamp::new(self.now),
        };
        write(records, &key, &deleted, content, Condition::Any).await?;
        for earlier in earlier.into_iter().filter(|earlier| earlier.key != key) {
            records.remove(&earlier.key).await?;
        }
        Ok(())
    }
}
