//! Bringing back what was moved or deleted, by pushing it again.

use std::collections::{BTreeMap, BTreeSet};

use registry_core::storage::{Manifest, NewManifest, RestoreTag, RestoredTag};
use registry_core::{Digest, Error, ErrorCode, RepositoryName, Tag};

use super::plan::{Allowed, Deleted, Plan, not_kept};
use crate::backend::{Backend, RecordEntry};
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::pages::Values;
use crate::record::{DeletedManifestRecord, PastTagRecord};
use crate::store::Store;
use crate::store::delete::parse_manifest;
use crate::store::edge::Found;

/// How many deleted manifests that refer to another one are looked at, some hundred bytes each.
const REFERRERS_LIMIT: usize = 100_000;

impl<B: Backend> Store<B> {
    /// Returns the manifest that a restore would point the tag at.
    pub(in crate::store) async fn restorable(
        &self,
        repository: &RepositoryName,
        restore: &RestoreTag,
    ) -> Result<Manifest, Error> {
        let digest = self.value_to_restore(repository, restore).await?;
        let plan = self.plan(repository, &digest, Allowed::by(restore)).await??;
        Ok(plan.manifest)
    }

    /// Restores a tag, as [`restore_tag`](registry_core::storage::ManifestStorage::restore_tag) says.
    pub(in crate::store) async fn restore(
        &self,
        repository: &RepositoryName,
        restore: RestoreTag,
    ) -> Result<RestoredTag, Error> {
        let allowed = Allowed::by(&restore);
        let digest = self.value_to_restore(repository, &restore).await?;
        let root = self.plan(repository, &digest, allowed).await??;
        let present = self.present(repository, &restore.tag).await?;
        let replaced = present.counted().map(|record| record.digest.clone());
        if restore.is_immutable && replaced.as_ref().is_some_and(|named| *named != digest) {
            let message = format!(
                "the tag {} names another manifest and may not be moved",
                restore.tag
            );
            return Err(Error::new(ErrorCode::TagConflict, message));
        }
        let mut restored = RestoredTag {
            manifest: root.manifest.clone(),
            replaced,
            manifests: 0,
            referrers: 0,
            referrers_left_out: 0,
        };
        // What refers to a manifest comes before it, and the tag comes last: so a restore that ends early is whole if it is
        // repeated, and nobody finds a tag without its signatures.
        let referrers = self
            .referrers_of(repository, &root, allowed, &mut restored)
            .await?;
        for plan in referrers.iter().rev() {
            self.push_all(repository, &plan.steps, allowed, &mut restored)
                .await?;
        }
        self.push_all(repository, &root.steps, allowed, &mut restored)
            .await?;
        let tagged = self.new_manifest(root.manifest, allowed).await?;
        let tags = vec![restore.tag];
        let tagged = NewManifest {
            immutable_tags: if restore.is_immutable {
                tags.clone()
            } else {
                Vec::new()
            },
            tags,
            principal: restore.principal,
            ..tagged
        };
        self.push_manifest(repository, tagged).await?;
        Ok(restored)
    }

    /// Returns what the tag is to name.
    async fn value_to_restore(
        &self,
        repository: &RepositoryName,
        restore: &RestoreTag,
    ) -> Result<Digest, Error> {
        if let Some(digest) = &restore.digest {
            return Ok(digest.clone());
        }
        let newest = self.newest_past_value(repository, &restore.tag).await?;
        newest.ok_or_else(|| {
            let message = format!(
                "nothing is kept of what the tag {} named before; name the manifest by its digest",
                restore.tag
            );
            Error::new(ErrorCode::ManifestUnknown, message)
        })
    }

    /// Returns the newest past value of a tag that it does not name now.
    async fn newest_past_value(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<Digest>, Error> {
        let present = self.present(repository, tag).await?;
        if let Some(record) = present.dangling() {
            return Ok(Some(record.digest.clone()));
        }
        let named = present.counted().map(|record| &record.digest);
        let ended = |past: &PastTagRecord| (past.stamp.written, past.since);
        let mut newest: Option<PastTagRecord> = None;
        let mut past = Values::of(Key::past_tags_of(repository, tag), |_: &RecordEntry| true);
        while let Some(read) = past.next(&*self.backend).await? {
            for (key, stored) in read {
                let found = Found::<PastTagRecord>::new(stored.as_ref()).ok();
                let record = found.and_then(|found| found.record).map(|(record, _)| record);
                let other = record.filter(|record| named != Some(&record.digest) && !present.is(&key));
                // How long values are kept may have changed, so the keys need not be in the order in which they ended.
                newest = match (newest, other) {
                    (Some(newest), Some(other)) if ended(&other) < ended(&newest) => Some(newest),
                    (newest, other) => other.or(newest),
                };
            }
        }
        Ok(newest.map(|record| record.digest))
    }

    /// Returns what it takes to bring back what refers to what is to be restored, each after what it refers to.
    async fn referrers_of(
        &self,
        repository: &RepositoryName,
        root: &Plan,
        allowed: Allowed,
        restored: &mut RestoredTag,
    ) -> Result<Vec<Plan>, Error> {
        let mut plans = Vec::new();
        if root.steps.is_empty() {
            return Ok(plans);
        }
        let of_subjects = self.deleted_referrers(repository).await?;
        let mut subjects: Vec<Digest> = root.steps.iter().map(|step| step.digest.clone()).collect();
        let mut seen: BTreeSet<Digest> = subjects.iter().cloned().collect();
        while let Some(subject) = subjects.pop() {
            for referrer in of_subjects.get(&subject).into_iter().flatten() {
                if !seen.insert(referrer.clone()) {
                    continue;
                }
                let Ok(plan) = self.plan(repository, referrer, allowed).await? else {
                    restored.referrers_left_out += 1;
                    continue;
                };
                if !plan.steps.is_empty() {
                    restored.referrers += 1;
                    subjects.extend(plan.steps.iter().map(|step| step.digest.clone()));
                    plans.push(plan);
                }
            }
        }
        Ok(plans)
    }

    /// Returns the deleted manifests of a repository that refer to another one, by that one.
    async fn deleted_referrers(
        &self,
        repository: &RepositoryName,
    ) -> Result<BTreeMap<Digest, BTreeSet<Digest>>, Error> {
        let mut of_subjects: BTreeMap<Digest, BTreeSet<Digest>> = BTreeMap::new();
        let mut found = 0;
        let mut deleted = Values::of(Key::deleted_manifests(repository), |_: &RecordEntry| true);
        while let Some(read) = deleted.next(&*self.backend).await? {
            for (key, stored) in read {
                let record = Found::<DeletedManifestRecord>::new(stored.as_ref()).ok();
                let record = record.and_then(|found| found.record).map(|(record, _)| record);
                let subject = record.and_then(|record| record.subject);
                if let (Some(subject), Some(KeyKind::DeletedManifest { digest, .. })) =
                    (subject, KeyKind::of(&key))
                    && found < REFERRERS_LIMIT
                {
                    found += 1;
                    of_subjects.entry(subject).or_default().insert(digest);
                }
            }
        }
        Ok(of_subjects)
    }

    async fn push_all(
        &self,
        repository: &RepositoryName,
        steps: &[Deleted],
        allowed: Allowed,
        restored: &mut RestoredTag,
    ) -> Result<(), Error> {
        for Deleted { digest, key } in steps {
            let manifest = self.read_deleted(digest, key).await?;
            let manifest = manifest.ok_or_else(|| not_kept(digest))?;
            let new = self.new_manifest(manifest, allowed).await?;
            self.push_manifest(repository, new).await?;
            restored.manifests += 1;
        }
        Ok(())
    }

    async fn new_manifest(&self, manifest: Manifest, allowed: Allowed) -> Result<NewManifest, Error> {
        let view = parse_manifest(manifest.bytes.clone(), manifest.media_type.clone()).await?;
        Ok(allowed.push(view.as_ref(), manifest))
    }
}
