//! Bringing back what was moved or deleted, by pushing it again.

use std::collections::{BTreeMap, BTreeSet};

use registry_core::quota::Amount;
use registry_core::storage::{Manifest, NewManifest, RestoreTag, RestoredTag};
use registry_core::{Digest, Error, ErrorCode, RepositoryName, Tag};

use super::plan::{Allowed, Deleted, Plan, Planner, not_kept};
use crate::backend::{Backend, RecordEntry};
use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::pages::Values;
use crate::record::{DeletedManifestRecord, PastTagRecord, TagRecord};
use crate::store::Store;
use crate::store::delete::parse_manifest;
use crate::store::edge::{Found, read_cached};

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
        let mut planner = Planner::new(self, repository, Allowed::by(restore));
        Ok(planner.plan(&digest).await??.manifest)
    }

    /// Restores a tag, as [`restore_tag`](registry_core::storage::ManifestStorage::restore_tag) says.
    pub(in crate::store) async fn restore(
        &self,
        repository: &RepositoryName,
        restore: RestoreTag,
    ) -> Result<RestoredTag, Error> {
        let allowed = Allowed::by(&restore);
        let digest = self.value_to_restore(repository, &restore).await?;
        let root = Planner::new(self, repository, allowed).plan(&digest).await??;
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
            digests: Vec::new(),
            referrers: 0,
            referrers_left_out: 0,
        };
        // What refers to a manifest comes before it, and the tag comes last: so a restore that ends early is whole if it is
        // repeated, and nobody finds a tag without its signatures.
        let referrers = self
            .referrers_of(repository, &root, allowed, &mut restored)
            .await?;
        let mut steps: Vec<&Deleted> = Vec::new();
        let mut seen = BTreeSet::new();
        let plans = referrers.iter().rev().chain([&root]);
        for step in plans.flat_map(|plan| &plan.steps) {
            if seen.insert(&step.digest) {
                steps.push(step);
            }
        }
        self.require_room_to_restore(repository, &steps, &restore.tag)
            .await?;
        let tagged = self.new_manifest(root.manifest.clone(), allowed).await?;
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
        // Those that are there already, because a restore was cut off, may not be in the list of their subject.
        let is_there = |plan: &&Plan| !seen.contains(&plan.manifest.digest);
        let there: Vec<&Plan> = referrers.iter().filter(is_there).collect();
        let mut pushed = Vec::new();
        let outcome = self
            .push_all(repository, &steps, &there, allowed, tagged, &mut pushed)
            .await;
        restored.manifests = pushed.len() as u64;
        if let Err(error) = &outcome
            && !pushed.is_empty()
        {
            // They stay: another restore or push may have been answered because they were there.
            tracing::warn!(
                %repository,
                %error,
                manifests = pushed.len(),
                root = %restored.manifest.digest,
                "a restore was refused after some manifests came back; they stay, and a repeated restore continues from there"
            );
        }
        restored.digests = pushed;
        outcome.map(|()| restored)
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
        let mut newest = None;
        // The keys are in the order in which the values ended.
        let mut past = Values::of(Key::past_tags_of(repository, tag), |_: &RecordEntry| true);
        while let Some(read) = past.next(&*self.backend).await? {
            for (key, stored) in read.into_iter().rev() {
                let found = Found::<PastTagRecord>::new(stored.as_ref()).ok();
                let record = found.and_then(|found| found.record).map(|(record, _)| record);
                let other = record.filter(|record| named != Some(&record.digest) && !present.is(&key));
                if let Some(record) = other {
                    newest = Some(record.digest);
                    break;
                }
            }
        }
        Ok(newest)
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
        let of_subjects = self.deleted_referrers(repository).await?;
        let mut subjects = root.manifests.clone();
        let mut seen: BTreeSet<Digest> = subjects.iter().cloned().collect();
        while let Some(subject) = subjects.pop() {
            for referrer in of_subjects.get(&subject).into_iter().flatten() {
                if !seen.insert(referrer.clone()) {
                    continue;
                }
                let mut planner = Planner::new(self, repository, allowed);
                let Ok(plan) = planner.plan(referrer).await? else {
                    restored.referrers_left_out += 1;
                    continue;
                };
                let is_gone = plan.steps.iter().any(|step| step.digest == *referrer);
                restored.referrers += u64::from(is_gone);
                subjects.extend(plan.manifests.iter().cloned());
                plans.push(plan);
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

    /// Refuses a restore for which there is no room now, before anything of it is pushed.
    async fn require_room_to_restore(
        &self,
        repository: &RepositoryName,
        steps: &[&Deleted],
        tag: &Tag,
    ) -> Result<(), Error> {
        let named = read_cached::<TagRecord>(&*self.backend, &Key::tag(repository, tag)).await?;
        let more = Amount {
            bytes: steps.iter().map(|step| step.size).sum(),
            manifests: steps.len() as u64,
            tags: u64::from(!named.state().is_visible()),
        };
        self.require_room(repository, more).await
    }

    /// Pushes what was deleted, each as it was, then `referrers` that are there, and then the manifest with the tag. What came back
    /// is in `pushed`.
    async fn push_all(
        &self,
        repository: &RepositoryName,
        steps: &[&Deleted],
        referrers: &[&Plan],
        allowed: Allowed,
        tagged: NewManifest,
        pushed: &mut Vec<Digest>,
    ) -> Result<(), Error> {
        for Deleted { digest, key, .. } in steps {
            let live = self.find_live(repository, digest).await?;
            // Another restore, or a push, was faster. It may have died before it entered the manifest in the list of its subject.
            let is_there = live.is_some();
            let manifest = match live {
                Some(manifest) => manifest,
                None => {
                    let deleted = self.read_deleted(digest, key).await?;
                    deleted.ok_or_else(|| not_kept(digest))?.1
                }
            };
            let new = self.new_manifest(manifest, allowed).await?;
            self.push_manifest(repository, new).await?;
            if !is_there {
                pushed.push(digest.clone());
            }
        }
        for referrer in referrers {
            let new = self.new_manifest(referrer.manifest.clone(), allowed).await?;
            self.push_manifest(repository, new).await?;
        }
        self.push_manifest(repository, tagged).await
    }

    async fn new_manifest(&self, manifest: Manifest, allowed: Allowed) -> Result<NewManifest, Error> {
        let view = parse_manifest(manifest.bytes.clone(), manifest.media_type.clone()).await?;
        Ok(allowed.push(view.as_ref(), manifest))
    }
}
