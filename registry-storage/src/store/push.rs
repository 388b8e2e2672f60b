//! Storing a manifest and pointing tags at it.

use registry_core::chain::{Confirm, Enter, Publish, State, confirm, enter, publish};
use registry_core::storage::{ChildKind, ManifestChild, NewManifest, TagCondition};
use registry_core::{Digest, Error, ErrorCode, RepositoryName, Tag, Timestamp};
use uuid::Uuid;

use super::delete::tombstone;
use super::edge::{contended, read, require_child, rescue, write};
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
        let push = PushManifest {
            key: Key::manifest(repository, &manifest.manifest.digest),
            repository: repository.clone(),
            new: manifest,
            now: self.clock.now(),
            written: Vec::new(),
        };
        self.backend.transact(Durability::Synced, push).await?
    }
}

struct PushManifest {
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
            self.add_repository(records).await?;
            for tag in self.new.tags.clone() {
                if !self.write_tag(records, &tag, &incarnation).await? {
                    continue 'again;
                }
            }
            if self.confirm(records, &incarnation).await? {
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
        let (incarnation, pending) = match (enter(manifest.state()), incarnation) {
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
        if publish(manifest.state(), manifest.is(&pending)) == Publish::Again {
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
        let dead = self.record(State::Dead, incarnation);
        if let Some(dead) = write(records, &self.key, &dead, &[], Condition::Matches(pending)).await? {
            records.forget(&self.key, &dead).await?;
        }
        Ok(())
    }

    /// Enters the manifest in the list of its subject.
    async fn add_referrer(&self, records: &mut dyn Records, incarnation: &str) -> Result<(), Error> {
        if let Some((subject, descriptor)) = &self.new.subject {
            let key = Key::referrer(&self.repository, subject, &self.new.manifest.digest, incarnation);
            let entry = ReferrerRecord {
                incarnation: incarnation.to_owned(),
                descriptor: descriptor.clone(),
                stamp: Stamp::new(self.now),
            };
            write(records, &key, &entry, &[], Condition::Absent).await?;
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

    /// Enters the repository in the catalog.
    async fn add_repository(&self, records: &mut dyn Records) -> Result<(), Error> {
        let key = Key::repository(&self.repository);
        if records.get(&key).await?.is_none() {
            let record = RepositoryRecord {
                name: self.repository.clone(),
                stamp: Stamp::new(self.now),
            };
            write(records, &key, &record, &[], Condition::Absent).await?;
        }
        Ok(())
    }

    /// Checks the condition on a tag, and returns the tag as it counts and the condition to write it by.
    async fn check_tag(
        &self,
        records: &mut dyn Records,
        tag: &Tag,
    ) -> Result<(Option<TagRecord>, Condition), Stop> {
        let found = read::<TagRecord>(records, &Key::tag(&self.repository, tag)).await?;
        let unchanged = found.unchanged();
        let mut current = found.visible().map(|(tag, _)| tag);
        if let Some(record) = &current {
            let manifest = Key::manifest(&self.repository, &record.digest);
            let manifest = read::<ManifestRecord>(records, &manifest).await?.visible();
            if manifest.is_none_or(|(manifest, _)| manifest.incarnation != record.incarnation) {
                current = None;
            }
        }
        let digest = &self.new.manifest.digest;
        let refusal = match (&self.new.condition, &current) {
            (TagCondition::Any, _) => return Ok((current, Condition::Any)),
            (TagCondition::Immutable, Some(record)) if record.digest != *digest => {
                let message = format!("the tag {tag} is immutable and names {}", record.digest);
                Error::new(ErrorCode::TagConflict, message)
            }
            (TagCondition::Absent, Some(record)) if !self.wrote(tag, record) => {
                Error::new(ErrorCode::PreconditionFailed, format!("the tag {tag} exists"))
            }
            (TagCondition::Matches(digests), current)
                if !current
                    .as_ref()
                    .is_some_and(|record| digests.contains(&record.digest) || self.wrote(tag, record)) =>
            {
                let message = format!("the tag {tag} is not what If-Match says");
                Error::new(ErrorCode::PreconditionFailed, message)
            }
            _ => return Ok((current, unchanged)),
        };
        Err(Stop::Refused(refusal))
    }

    /// Tells whether this push wrote the tag itself, before it had to begin again.
    fn wrote(&self, tag: &Tag, record: &TagRecord) -> bool {
        let key = Key::tag(&self.repository, tag);
        self.written
            .iter()
            .any(|written| written.key == key && written.record.incarnation == record.incarnation)
    }

    /// Writes the hint and the tag; `false` where the tag was written by somebody else since it was checked.
    async fn write_tag(
        &mut self,
        records: &mut dyn Records,
        tag: &Tag,
        incarnation: &str,
    ) -> Result<bool, Stop> {
        let (before, condition) = self.check_tag(records, tag).await?;
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
        let key = Key::tag(&self.repository, tag);
        let Some(version) = write(records, &key, &record, &[], condition).await? else {
            return Ok(false);
        };
        match self.written.iter_mut().find(|written| written.key == key) {
            Some(written) => (written.version, written.record) = (version, record),
            None => self.written.push(WrittenTag {
                key,
                version,
                record,
                before,
            }),
        }
        Ok(true)
    }

    /// Reads the manifest once more: a delete or the collector may have been faster than the tag.
    async fn confirm(&self, records: &mut dyn Records, incarnation: &str) -> Result<bool, Error> {
        for _ in 0..ATTEMPTS {
            let manifest = read::<ManifestRecord>(records, &self.key).await?;
            let same = manifest
                .header()
                .is_some_and(|manifest| manifest.incarnation == incarnation);
            match confirm(manifest.state(), same) {
                Confirm::Done => return Ok(true),
                Confirm::Again => return Ok(false),
                Confirm::Rescue => {
                    if rescue(records, &self.key, &manifest, self.now).await? {
                        return Ok(true);
                    }
                }
            }
        }
        Err(contended())
    }

    /// Takes back the tags of a push that is refused, each to what it replaced if that is still there.
    async fn take_back(&self, records: &mut dyn Records) -> Result<(), Error> {
        for written in &self.written {
            let mut restored = None;
            if let Some(before) = &written.before {
                let key = Key::manifest(&self.repository, &before.digest);
                let manifest = read::<ManifestRecord>(records, &key).await?.visible();
                if manifest.is_some_and(|(manifest, _)| manifest.incarnation == before.incarnation) {
                    restored = Some(TagRecord {
                        stamp: Stamp::new(self.now),
                        ..before.clone()
                    });
                }
            }
            let value = restored.unwrap_or_else(|| tombstone(written.record.clone(), self.now));
            let condition = Condition::Matches(written.version.clone());
            records.put(&written.key, encode(&value, &[])?, condition).await?;
        }
        Ok(())
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
