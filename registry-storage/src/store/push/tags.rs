//! The tags of a push: their conditions, their writes, and how they are taken back.

use crate::chain::{RollBack, State, names, roll_back};
use registry_core::storage::TagCondition;
use registry_core::{Error, ErrorCode, MediaType, Tag};

use super::manifest::confirm_incarnation;
use super::referrers_tag::only_adds_entries;
use super::{PushManifest, Pushed, Stop};
use crate::backend::{Condition, RecordTransaction, Version};
use crate::key::Key;
use crate::record::{BackReferenceRecord, ManifestRecord, Stamp, TagRecord, encode};
use crate::store::TRANSACTION_ATTEMPTS;
use crate::store::delete::tombstone;
use crate::store::edge::{Found, contended, read_latest, write};
use crate::store::quota::is_over_quota;

/// A tag that was written, and what it was before.
pub(super) struct WrittenTag {
    key: Key,
    version: Version,
    record: TagRecord,
    before: Option<TagRecord>,
    /// What is kept of that.
    past: Option<Key>,
}

/// A tag as a push finds it.
pub(super) struct FoundTag {
    key: Key,
    /// The tag as it counts: a tag of a manifest that is gone counts as `None`.
    current: Option<TagRecord>,
    /// The tag as its record says, if that is another manifest than this push's.
    other: Option<TagRecord>,
    /// The condition that the tag was not written since.
    unchanged: Condition,
    /// This push wrote it.
    is_own: bool,
    /// Its record says that it names something, so that quotas count it.
    pub(super) is_counted: bool,
}

impl PushManifest {
    /// Checks the condition on a tag, and returns the tag as it was found.
    pub(super) async fn check_tag(
        &self,
        records: &mut dyn RecordTransaction,
        tag: &Tag,
    ) -> Result<FoundTag, Stop> {
        let key = Key::tag(&self.repository, tag);
        let found = read_latest::<TagRecord>(records, &key).await?;
        let is_own = self
            .written
            .iter()
            .any(|written| written.key == key && found.is(&written.version));
        let (unchanged, is_counted) = (found.unchanged(), found.state().is_visible());
        let mut current = found.visible().map(|(tag, _)| tag);
        let other = current
            .clone()
            .filter(|record| record.digest != self.new.manifest.digest);
        if let Some(record) = &current
            && !self.is_named_manifest_visible(records, record).await?
        {
            current = None;
        }
        let moved_from = current
            .as_ref()
            .filter(|record| record.digest != self.new.manifest.digest && !is_own && self.is_immutable(tag));
        let may_not_move = match moved_from {
            Some(record) => !self.adds_referrers(records, tag, record).await?,
            None => false,
        };
        let refusal = match (&self.new.condition, &current) {
            // A tag that this push wrote itself, before it had to begin again, met the condition.
            _ if is_own => None,
            (TagCondition::Absent, Some(_)) => Some(Error::new(
                ErrorCode::PreconditionFailed,
                format!("the tag {tag} exists"),
            )),
            (TagCondition::Matches(digests), current)
                if !current
                    .as_ref()
                    .is_some_and(|record| digests.contains(&record.digest)) =>
            {
                let message = format!("the tag {tag} is not what If-Match says");
                Some(Error::new(ErrorCode::PreconditionFailed, message))
            }
            (_, Some(record)) if may_not_move => {
                let message = format!(
                    "the tag {tag} names {} and may not be moved; push another tag",
                    record.digest
                );
                Some(Error::new(ErrorCode::TagConflict, message))
            }
            _ => None,
        };
        match refusal {
            Some(refusal) => Err(Stop::Refused(refusal)),
            None => Ok(FoundTag {
                key,
                current,
                other,
                unchanged,
                is_own,
                is_counted,
            }),
        }
    }

    /// Returns whether the push only adds to the list of referrers that a tag names. notation keeps such a list
    /// alongside the registry's own, and moves the tag with each signature.
    async fn adds_referrers(
        &self,
        records: &mut dyn RecordTransaction,
        tag: &Tag,
        before: &TagRecord,
    ) -> Result<bool, Error> {
        if !tag.lists_referrers() || self.new.manifest.media_type.as_str() != MediaType::OCI_INDEX {
            return Ok(false);
        }
        let key = Key::manifest(&self.repository, &before.digest);
        let Some((record, content)) = read_latest::<ManifestRecord>(records, &key).await?.visible() else {
            // Deleted since it was read: the tag names nothing any more.
            return Ok(true);
        };
        Ok(record.media_type.as_str() == MediaType::OCI_INDEX
            && only_adds_entries(&content, &self.new.manifest.bytes))
    }

    /// Returns whether the manifest that a tag names exists, in the incarnation that it names.
    async fn is_named_manifest_visible(
        &self,
        records: &mut dyn RecordTransaction,
        tag: &TagRecord,
    ) -> Result<bool, Error> {
        let manifest =
            read_latest::<ManifestRecord>(records, &Key::manifest(&self.repository, &tag.digest)).await?;
        Ok(names_visible(tag, &manifest))
    }

    /// Writes the back reference and the tag with this index; returns `false` if the tag was written by another request since it
    /// was checked.
    pub(super) async fn write_tag(
        &mut self,
        records: &mut dyn RecordTransaction,
        tag: &Tag,
        at: usize,
        incarnation: &str,
    ) -> Result<bool, Stop> {
        let checked = self.checked.get_mut(at).and_then(Option::take);
        // A tag that is given twice is another one after it was written.
        let is_written = |found: &FoundTag| self.written.iter().any(|written| written.key == found.key);
        let found = match checked.filter(|found| !is_written(found)) {
            Some(found) => found,
            None => self.check_tag(records, tag).await?,
        };
        let back_reference = BackReferenceRecord {
            state: State::Live,
            tag: Some(tag.clone()),
            stamp: Stamp::new(self.now),
        };
        let back_reference_key = Key::tagged(&self.repository, &self.new.manifest.digest, tag);
        write(records, &back_reference_key, &back_reference, &[], Condition::Any).await?;
        let record = TagRecord {
            state: State::Live,
            digest: self.new.manifest.digest.clone(),
            incarnation: incarnation.to_owned(),
            principal: self.new.principal.clone(),
            stamp: Stamp::new(self.now),
        };
        let past = match (&self.keep, &found.other) {
            (Some(keep), Some(other)) => {
                let is_counted = found.current.is_some();
                Some(
                    keep.tag(records, &self.repository, tag, other, is_counted)
                        .await?,
                )
            }
            _ => None,
        };
        // By compare-and-swap even if the last writer wins: a later refusal has to know what was replaced.
        let written = match write(records, &found.key, &record, &[], found.unchanged.clone()).await {
            Err(refusal) if is_over_quota(&refusal) => {
                let now = read_latest::<TagRecord>(records, &found.key).await?;
                if now.unchanged() == found.unchanged {
                    return Err(refusal.into());
                }
                // Another push wrote it, and is counted.
                None
            }
            written => written?,
        };
        let Some(version) = written else { return Ok(false) };
        if found.current.is_none() {
            self.pushed = Pushed::New;
        }
        match self.written.iter_mut().find(|written| written.key == found.key) {
            Some(written) => {
                (written.version, written.record) = (version, record);
                if !found.is_own {
                    (written.before, written.past) = (found.current, past);
                }
            }
            None => self.written.push(WrittenTag {
                key: found.key,
                version,
                record,
                before: found.current,
                past,
            }),
        }
        Ok(true)
    }

    /// Takes back a tag of a refused push, to what it replaced if that still exists.
    pub(super) async fn take_back_tag(
        &self,
        records: &mut dyn RecordTransaction,
        mut written: WrittenTag,
    ) -> Result<(), Error> {
        for _ in 0..TRANSACTION_ATTEMPTS {
            let now = read_latest::<TagRecord>(records, &written.key).await?;
            let (replaced, same) = match &written.before {
                Some(before) => {
                    let key = Key::manifest(&self.repository, &before.digest);
                    let manifest = read_latest::<ManifestRecord>(records, &key).await?;
                    (manifest.state(), names_visible(before, &manifest))
                }
                None => (State::Absent, false),
            };
            let restored = match (
                roll_back(now.is(&written.version), replaced, same),
                &written.before,
            ) {
                (RollBack::Leave, _) => return Ok(()),
                (RollBack::Restore, Some(before)) => Some(TagRecord {
                    stamp: Stamp::new(self.now),
                    ..before.clone()
                }),
                (RollBack::Restore | RollBack::WriteTombstone, _) => None,
            };
            let value = restored
                .clone()
                .unwrap_or_else(|| tombstone(written.record.clone(), self.now));
            let condition = Condition::Matches(written.version.clone());
            let Some(version) = records.put(&written.key, encode(&value, &[])?, condition).await? else {
                return Ok(());
            };
            let Some(restored) = restored else {
                records.purge_if(&written.key, &version).await?;
                return Ok(());
            };
            // The tag names it still.
            if let Some(past) = &written.past {
                records.remove(past).await?;
            }
            // A delete may have ended between the reads of the manifest and of the tag.
            let key = Key::manifest(&self.repository, &restored.digest);
            if confirm_incarnation(records, &key, &restored.incarnation, self.now).await? {
                return Ok(());
            }
            written = WrittenTag {
                version,
                record: restored,
                ..written
            };
        }
        Err(contended())
    }
}

/// Returns whether a tag names the manifest that was read.
fn names_visible(tag: &TagRecord, manifest: &Found<ManifestRecord>) -> bool {
    let incarnation = manifest.header().map(|manifest| &manifest.incarnation);
    manifest.state().is_visible() && names(incarnation, &tag.incarnation)
}
