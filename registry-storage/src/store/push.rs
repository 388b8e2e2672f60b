//! Storing a manifest and pointing tags at it.

use registry_core::chain::{
    Confirm, Enter, Publish, State, TakeBack, confirm, enter, heal, names, publish, take_back, withdraw,
};
use registry_core::storage::{ChildKind, ManifestChild, NewManifest, TagCondition};
use registry_core::{Digest, Error, ErrorCode, RepositoryName, Tag, Timestamp};
use uuid::Uuid;

use super::delete::tombstone;
use super::edge::{Found, contended, read, require_child, rescue, write};
use super::{ATTEMPTS, Store};
use crate::backend::{Backend, Condition, Durability, Records, Sequence, Version};
use crate::key::Key;
use crate::record::{
    GrantRecord, HintRecord, ManifestRecord, ReferrerRecord, RepositoryRecord, Stamp, TagRecord, encode,
};

impl<B: Backend> Store<B> {
    pub(super) async fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: NewManifest,
    ) -> Result<(), Error> {
        let push = PushManifest::new(repository, manifest, self.clock.now());
        self.backend.transact(Durability::Synced, push).await?
    }
}

/// Stores a manifest and points its tags at it.
pub(super) struct PushManifest {
    repository: RepositoryName,
    key: Key,
    new: NewManifest,
    now: Timestamp,
    /// The tags that this push wrote so far, in case it has to take them back.
    written: Vec<WrittenTag>,
}

/// A tag that was written, and what it was before.
struct WrittenTag {
    key: Key,
    version: Version,
    record: TagRecord,
    before: Option<TagRecord>,
}

/// A tag as a push finds it.
struct FoundTag {
    key: Key,
    /// The tag as it counts: a tag of a manifest that is gone is none.
    current: Option<TagRecord>,
    /// The condition that nobody wrote it since.
    unchanged: Condition,
    /// This push wrote it.
    is_own: bool,
}

/// What became of steps 1 to 3 for the manifest.
enum Published {
    /// It is Live, in this incarnation.
    Live(String),
    /// Somebody else wrote it: begin again.
    Again,
    /// A child is not there and may not be missing.
    Refused(Digest),
}

impl Sequence for PushManifest {
    /// The inner error is a refusal. It is not the sequence's, whose steps must stand: they took back what was done.
    type Output = Result<(), Error>;

    async fn run(mut self, records: &mut dyn Records) -> Result<Self::Output, Error> {
        let refusal = match self.push(records).await {
            Ok(()) => return Ok(Ok(())),
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::Refused(refusal)) => refusal,
        };
        self.take_back(records).await?;
        Ok(Err(refusal))
    }
}

/// Why a push stopped.
enum Stop {
    /// By a rule; what was written is taken back.
    Refused(Error),
    /// By the medium.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl PushManifest {
    pub(super) fn new(repository: &RepositoryName, manifest: NewManifest, now: Timestamp) -> Self {
        Self {
            key: Key::manifest(repository, &manifest.manifest.digest),
            repository: repository.clone(),
            new: manifest,
            now,
            written: Vec::new(),
        }
    }

    async fn push(&mut self, records: &mut dyn Records) -> Result<(), Stop> {
        'again: for _ in 0..ATTEMPTS {
            // Before anything is written: a push that its condition refuses leaves nothing.
            for tag in &self.new.tags {
                self.check_tag(records, tag).await?;
            }
            let incarnation = match self.publish(records).await? {
                Published::Live(incarnation) => incarnation,
                Published::Again => continue,
                Published::Refused(child) => {
                    let message =
                        format!("the manifest names {child}, which is not in this repository; push it first");
                    return Err(Stop::Refused(Error::new(ErrorCode::ManifestBlobUnknown, message)));
                }
            };
            self.add_referrer(records, &incarnation).await?;
            add_repository(records, &self.repository, self.now).await?;
            for tag in self.new.tags.clone() {
                if !self.write_tag(records, &tag, &incarnation).await? {
                    continue 'again;
                }
            }
            // A delete or the collector may have been faster than the tag.
            if confirm_incarnation(records, &self.key, &incarnation, self.now).await? {
                return Ok(());
            }
            self.remove_referrer(records, &incarnation).await?;
        }
        Err(Stop::Refused(contended()))
    }

    /// Steps 1 to 3 of the rule, for the manifest and its children.
    async fn publish(&self, records: &mut dyn Records) -> Result<Published, Error> {
        let manifest = read::<ManifestRecord>(records, &self.key).await?;
        let incarnation = manifest.header().map(|manifest| manifest.incarnation.clone());
        // Readers are told that it is not there, so whoever pushes it brings its content. It keeps its incarnation, which
        // its tags name.
        let content = manifest.record.as_ref().map(|(_, content)| content);
        let is_damaged = manifest.state().is_visible() && content != Some(&self.new.manifest.bytes);
        let (incarnation, pending) = match (enter(manifest.state()), incarnation) {
            (Enter::Published | Enter::Rescue, Some(incarnation)) if is_damaged => {
                (incarnation, manifest.version().cloned())
            }
            (Enter::Published, Some(incarnation)) => return Ok(Published::Live(incarnation)),
            (Enter::Rescue, Some(incarnation)) => {
                let rescued = rescue(records, &self.key, &manifest, self.now).await?;
                return Ok(if rescued {
                    Published::Live(incarnation)
                } else {
                    Published::Again
                });
            }
            (Enter::Join, Some(incarnation)) => (incarnation, manifest.version().cloned()),
            (Enter::Create, _) | (_, None) => {
                let incarnation = Uuid::new_v4().simple().to_string();
                let pending = self.record(State::Pending, &incarnation);
                let bytes = &self.new.manifest.bytes;
                let version = write(records, &self.key, &pending, bytes, manifest.unchanged()).await?;
                (incarnation, version)
            }
        };
        let Some(pending) = pending else {
            return Ok(Published::Again);
        };
        for child in &self.new.children {
            if !self.require(records, child).await? && !self.new.allow_missing {
                self.withdraw(records, &incarnation, pending).await?;
                return Ok(Published::Refused(child.digest.clone()));
            }
        }
        for child in &self.new.optional_children {
            self.require(records, child).await?;
        }
        let manifest = read::<ManifestRecord>(records, &self.key).await?;
        let (state, is_same) = (manifest.state(), manifest.is(&pending));
        let decision = if is_damaged {
            heal(state, is_same)
        } else {
            publish(state, is_same)
        };
        if decision == Publish::Again {
            return Ok(Published::Again);
        }
        let live = self.record(State::Live, &incarnation);
        let bytes = &self.new.manifest.bytes;
        let written = write(records, &self.key, &live, bytes, manifest.unchanged()).await?;
        Ok(written.map_or(Published::Again, |_| Published::Live(incarnation)))
    }

    /// Step 2 for a child. An entry of an index may be a blob: the cache indexes of `BuildKit` name layers.
    async fn require(&self, records: &mut dyn Records, child: &ManifestChild) -> Result<bool, Error> {
        if child.kind == ChildKind::Manifest {
            let key = Key::manifest(&self.repository, &child.digest);
            if require_child::<ManifestRecord>(records, &key, self.now)
                .await?
                .is_some()
            {
                return Ok(true);
            }
        }
        let key = Key::grant(&child.digest, &self.repository);
        Ok(require_child::<GrantRecord>(records, &key, self.now)
            .await?
            .is_some())
    }

    /// Takes the Pending manifest back, unless it is somebody else's by now.
    async fn withdraw(
        &self,
        records: &mut dyn Records,
        incarnation: &str,
        pending: Version,
    ) -> Result<(), Error> {
        let manifest = read::<ManifestRecord>(records, &self.key).await?;
        if withdraw(manifest.state(), manifest.is(&pending)) {
            let dead = self.record(State::Dead, incarnation);
            if let Some(dead) = write(records, &self.key, &dead, &[], manifest.unchanged()).await? {
                records.forget(&self.key, &dead).await?;
            }
        }
        Ok(())
    }

    /// Enters the manifest in the list of its subject.
    async fn add_referrer(&self, records: &mut dyn Records, incarnation: &str) -> Result<(), Error> {
        if let Some((subject, descriptor)) = &self.new.subject {
            let key = Key::referrer(&self.repository, subject, &self.new.manifest.digest, incarnation);
            let entry = ReferrerRecord::new(incarnation, descriptor, self.now);
            let annotations = descriptor.annotations.as_json();
            write(records, &key, &entry, annotations, Condition::Absent).await?;
        }
        Ok(())
    }

    async fn remove_referrer(&self, records: &mut dyn Records, incarnation: &str) -> Result<(), Error> {
        if let Some((subject, _)) = &self.new.subject {
            let key = Key::referrer(&self.repository, subject, &self.new.manifest.digest, incarnation);
            records.remove(&key).await?;
        }
        Ok(())
    }

    /// Checks the condition on a tag, and returns the tag as it was found.
    async fn check_tag(&self, records: &mut dyn Records, tag: &Tag) -> Result<FoundTag, Stop> {
        let key = Key::tag(&self.repository, tag);
        let found = read::<TagRecord>(records, &key).await?;
        let is_own = self
            .written
            .iter()
            .any(|written| written.key == key && found.is(&written.version));
        let unchanged = found.unchanged();
        let mut current = found.visible().map(|(tag, _)| tag);
        if let Some(record) = &current
            && !self.is_named_manifest_visible(records, record).await?
        {
            current = None;
        }
        let digest = &self.new.manifest.digest;
        let is_immutable =
            self.new.condition == TagCondition::Immutable || self.new.immutable_tags.contains(tag);
        let refusal = match (&self.new.condition, &current) {
            // What this push wrote itself, before it had to begin again, met the condition.
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
            (_, Some(record)) if is_immutable && record.digest != *digest => {
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
                unchanged,
                is_own,
            }),
        }
    }

    /// Tells whether the manifest that a tag names is there, in the incarnation that it names.
    async fn is_named_manifest_visible(
        &self,
        records: &mut dyn Records,
        tag: &TagRecord,
    ) -> Result<bool, Error> {
        let manifest = read::<ManifestRecord>(records, &Key::manifest(&self.repository, &tag.digest)).await?;
        Ok(names_visible(tag, &manifest))
    }

    /// Writes the hint and the tag; `false` where the tag was written by somebody else since it was checked.
    async fn write_tag(
        &mut self,
        records: &mut dyn Records,
        tag: &Tag,
        incarnation: &str,
    ) -> Result<bool, Stop> {
        let found = self.check_tag(records, tag).await?;
        let hint = HintRecord {
            tag: Some(tag.clone()),
            stamp: Stamp::new(self.now),
        };
        let hint_key = Key::tagged(&self.repository, &self.new.manifest.digest, tag);
        write(records, &hint_key, &hint, &[], Condition::Any).await?;
        let record = TagRecord {
            state: State::Live,
            digest: self.new.manifest.digest.clone(),
            incarnation: incarnation.to_owned(),
            principal: self.new.principal.clone(),
            stamp: Stamp::new(self.now),
        };
        // By compare-and-swap also where the last writer wins: a refusal later on must know what was replaced.
        let Some(version) = write(records, &found.key, &record, &[], found.unchanged).await? else {
            return Ok(false);
        };
        match self.written.iter_mut().find(|written| written.key == found.key) {
            Some(written) => {
                (written.version, written.record) = (version, record);
                if !found.is_own {
                    written.before = found.current;
                }
            }
            None => self.written.push(WrittenTag {
                key: found.key,
                version,
                record,
                before: found.current,
            }),
        }
        Ok(true)
    }

    /// Takes back the tags of a push that is refused, each to what it replaced if that is still there.
    async fn take_back(&mut self, records: &mut dyn Records) -> Result<(), Error> {
        for written in std::mem::take(&mut self.written) {
            self.take_back_tag(records, written).await?;
        }
        Ok(())
    }

    async fn take_back_tag(&self, records: &mut dyn Records, mut written: WrittenTag) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let now = read::<TagRecord>(records, &written.key).await?;
            let (replaced, same) = match &written.before {
                Some(before) => {
                    let key = Key::manifest(&self.repository, &before.digest);
                    let manifest = read::<ManifestRecord>(records, &key).await?;
                    (manifest.state(), names_visible(before, &manifest))
                }
                None => (State::Absent, false),
            };
            let restored = match (
                take_back(now.is(&written.version), replaced, same),
                &written.before,
            ) {
                (TakeBack::Leave, _) => return Ok(()),
                (TakeBack::Restore, Some(before)) => Some(TagRecord {
                    stamp: Stamp::new(self.now),
                    ..before.clone()
                }),
                (TakeBack::Restore | TakeBack::Bury, _) => None,
            };
            let value = restored
                .clone()
                .unwrap_or_else(|| tombstone(written.record.clone(), self.now));
            let condition = Condition::Matches(written.version.clone());
            let Some(version) = records.put(&written.key, encode(&value, &[])?, condition).await? else {
                return Ok(());
            };
            let Some(restored) = restored else { return Ok(()) };
            // A delete may have ended between the look at the manifest and the tag.
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

/// Enters a repository in the catalog, if it is not there.
pub(super) async fn add_repository(
    records: &mut dyn Records,
    name: &RepositoryName,
    now: Timestamp,
) -> Result<(), Error> {
    let key = Key::repository(name);
    if records.get(&key).await?.is_none() {
        let record = RepositoryRecord {
            name: name.clone(),
            stamp: Stamp::new(now),
        };
        write(records, &key, &record, &[], Condition::Absent).await?;
    }
    Ok(())
}

/// Tells whether a tag names what was read of its manifest.
fn names_visible(tag: &TagRecord, manifest: &Found<ManifestRecord>) -> bool {
    let incarnation = manifest.header().map(|manifest| &manifest.incarnation);
    manifest.state().is_visible() && names(incarnation, &tag.incarnation)
}

/// Reads a manifest once more, after a tag was pointed at it, and rescues it; `false` where it is gone.
async fn confirm_incarnation(
    records: &mut dyn Records,
    key: &Key,
    incarnation: &str,
    now: Timestamp,
) -> Result<bool, Error> {
    for _ in 0..ATTEMPTS {
        let manifest = read::<ManifestRecord>(records, key).await?;
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
