//! The manifest of a push: stored Pending, Live once its children are there and quotas have room for it, or taken back.

use crate::chain::{Confirm, Enter, Publish, State, confirm, enter, heal, withdraw};
use registry_core::quota::Amount;
use registry_core::storage::{ChildKind, ManifestChild};
use registry_core::{Error, Timestamp};

use super::{PushManifest, Pushed, Stage, Stop, missing_content};
use crate::backend::{Condition, RecordTransaction, Version};
use crate::key::Key;
use crate::record::{GrantRecord, ManifestRecord, Stamp};
use crate::store::TRANSACTION_ATTEMPTS;
use crate::store::collect::mark_changed;
use crate::store::edge::{contended, has_child, read_latest, rescue, write};
use crate::store::quota::is_over_quota;
use crate::unique::unique;

/// A manifest whose children are being looked for.
pub(super) struct Entered {
    incarnation: String,
    /// The version in which it is Pending, or visible if it is damaged.
    version: Version,
    /// Its content does not match its digest. Readers are told that it does not exist, so a push of it brings its
    /// content. It keeps its incarnation, which its tags name.
    pub(super) is_damaged: bool,
}

impl PushManifest {
    /// Step 1 of the rule.
    pub(super) async fn enter(&mut self, records: &mut dyn RecordTransaction) -> Result<Stage, Error> {
        let manifest = read_latest::<ManifestRecord>(records, &self.key).await?;
        let incarnation = manifest.header().map(|manifest| manifest.incarnation.clone());
        let content = manifest.record.as_ref().map(|(_, content)| content);
        let is_damaged = manifest.state().is_visible() && content != Some(&self.new.manifest.bytes);
        let (incarnation, version) = match (enter(manifest.state()), incarnation) {
            (Enter::Published | Enter::Rescue, Some(incarnation)) if is_damaged => {
                (incarnation, manifest.version().cloned())
            }
            (Enter::Published, Some(incarnation)) => return Ok(Stage::Enlist(incarnation)),
            (Enter::Rescue, Some(incarnation)) => {
                let rescued = rescue(records, &self.key, &manifest, self.now).await?;
                return Ok(if rescued {
                    Stage::Enlist(incarnation)
                } else {
                    self.again()
                });
            }
            (Enter::Join, Some(incarnation)) => (incarnation, manifest.version().cloned()),
            (Enter::Create, dead) | (_, dead @ None) => {
                // The delete of that incarnation may have died before it removed this, and the record that names it goes now.
                if let Some(dead) = dead {
                    self.remove_referrer(records, &dead).await?;
                }
                let incarnation = unique().simple().to_string();
                let pending = self.record(State::Pending, &incarnation);
                let bytes = &self.new.manifest.bytes;
                let version = write(records, &self.key, &pending, bytes, manifest.unchanged()).await?;
                if self.is_one_step {
                    // A cycle that read the manifests before is not certain any more that nothing names a child.
                    mark_changed(records, &Key::changed(&self.repository), self.now).await?;
                }
                (incarnation, version)
            }
        };
        Ok(match version {
            Some(version) => {
                let entered = Entered {
                    incarnation,
                    version,
                    is_damaged,
                };
                Stage::Require(entered, 0)
            }
            None => self.again(),
        })
    }

    /// Step 2 of the rule, for one child: required children come first.
    pub(super) async fn require(
        &self,
        records: &mut dyn RecordTransaction,
        entered: Entered,
        at: usize,
    ) -> Result<Stage, Stop> {
        let required = self.new.children.len();
        let child = match self.new.children.get(at) {
            Some(child) => child,
            None => match self.new.optional_children.get(at.saturating_sub(required)) {
                Some(child) => child,
                None => return Ok(Stage::Publish(entered)),
            },
        };
        let is_there = self.has(records, child).await?;
        if is_there || at >= required || self.new.allow_missing {
            return Ok(Stage::Require(entered, at + 1));
        }
        let refusal = missing_content(&child.digest);
        self.withdraw(records, entered).await?;
        Err(Stop::Refused(refusal))
    }

    /// Step 3 of the rule.
    pub(super) async fn publish(
        &mut self,
        records: &mut dyn RecordTransaction,
        entered: Entered,
    ) -> Result<Stage, Stop> {
        if entered.is_damaged {
            let manifest = read_latest::<ManifestRecord>(records, &self.key).await?;
            if heal(manifest.state(), manifest.is(&entered.version)) == Publish::Again {
                return Ok(self.again());
            }
        }
        match self.write_live(records, &entered).await {
            Ok(Some(_)) => {
                self.pushed = Pushed::New;
                Ok(Stage::Enlist(entered.incarnation))
            }
            Ok(None) => Ok(self.again()),
            // If another push made it Live, that one is counted.
            Err(refusal) if is_over_quota(&refusal) => match self.withdraw(records, entered).await? {
                true => Err(Stop::Refused(refusal)),
                false => Ok(self.again()),
            },
            Err(error) => Err(Stop::Failed(error)),
        }
    }

    /// Makes the manifest Live if it is as it was entered, and if quotas have room for it and its tags: a push that they refuse leaves
    /// nothing behind.
    async fn write_live(
        &mut self,
        records: &mut dyn RecordTransaction,
        entered: &Entered,
    ) -> Result<Option<Version>, Error> {
        if self.new_tags > 0 {
            let is_new = !entered.is_damaged;
            let size = self.new.manifest.bytes.len() as u64;
            let more = Amount {
                bytes: if is_new { size } else { 0 },
                manifests: u64::from(is_new),
                tags: self.new_tags,
            };
            self.has_set_aside = records.set_aside(&self.repository, more).await?;
        }
        let live = self.record(State::Live, &entered.incarnation);
        let bytes = &self.new.manifest.bytes;
        // Whether a Pending manifest is still the same, its write finds out.
        let unchanged = Condition::Matches(entered.version.clone());
        write(records, &self.key, &live, bytes, unchanged).await
    }

    /// Returns whether a child exists. An entry of an index may be a blob: the cache indexes of `BuildKit` name layers.
    async fn has(&self, records: &mut dyn RecordTransaction, child: &ManifestChild) -> Result<bool, Error> {
        if child.kind == ChildKind::Manifest {
            let key = Key::manifest(&self.repository, &child.digest);
            if has_child::<ManifestRecord>(records, &key, self.now).await? {
                return Ok(true);
            }
        }
        let key = Key::grant(&child.digest, &self.repository);
        has_child::<GrantRecord>(records, &key, self.now).await
    }

    /// Takes the Pending manifest back. Returns `false` if another push wrote it since it was entered.
    async fn withdraw(&self, records: &mut dyn RecordTransaction, entered: Entered) -> Result<bool, Error> {
        let manifest = read_latest::<ManifestRecord>(records, &self.key).await?;
        let is_same = manifest.is(&entered.version);
        if withdraw(manifest.state(), is_same) {
            let dead = self.record(State::Dead, &entered.incarnation);
            match write(records, &self.key, &dead, &[], manifest.unchanged()).await? {
                Some(dead) => records.purge_if(&self.key, &dead).await?,
                None => return Ok(false),
            };
        }
        Ok(is_same)
    }

    fn record(&self, state: State, incarnation: &str) -> ManifestRecord {
        ManifestRecord {
            state,
            incarnation: incarnation.to_owned(),
            media_type: self.new.manifest.media_type.clone(),
            subject: self.new.subject.as_ref().map(|(subject, _)| subject.clone()),
            condemned_in: None,
            stamp: Stamp::new(self.now),
        }
    }
}

/// Reads a manifest once more, after a tag was pointed at it, and rescues it; returns `false` if it is gone.
pub(super) async fn confirm_incarnation(
    records: &mut dyn RecordTransaction,
    key: &Key,
    incarnation: &str,
    now: Timestamp,
) -> Result<bool, Error> {
    for _ in 0..TRANSACTION_ATTEMPTS {
        let manifest = read_latest::<ManifestRecord>(records, key).await?;
        let same = manifest
            .header()
            .is_some_and(|manifest| manifest.incarnation == incarnation);
        match confirm(manifest.state(), same) {
            Confirm::Done => return Ok(true),
            Confirm::Again => return Ok(false),
            Confirm::Rescue => {
                if rescue(records, key, &manifest, now).await? {
                    return Ok(true);
                }
            }
        }
    }
    Err(contended())
}
