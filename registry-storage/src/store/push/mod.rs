//! Storing a manifest and pointing tags at it.

mod referrers_tag;
mod tags;

use crate::chain::{Confirm, Enter, Publish, State, confirm, enter, heal, publish, withdraw};
use registry_core::quota::Amount;
use registry_core::storage::{ChildKind, EndReason, ManifestChild, NewManifest};
use registry_core::{Digest, Error, ErrorCode, RepositoryName, Tag, Timestamp};

use self::tags::WrittenTag;
use super::delete::write_note;
use super::edge::{Found, contended, has_child, read_latest, rescue, write};
use super::quota::is_over_quota;
use super::steps::{Counted, Step};
use super::undelete::Keep;
use super::{Store, TRANSACTION_ATTEMPTS};
use crate::backend::{Backend, Condition, Durability, RecordTransaction, Transaction, Version};
use crate::key::Key;
use crate::record::{
    GrantRecord, ManifestRecord, NoteKind, ReferrerRecord, RepositoryRecord, Stamp, state_of_size,
};
use crate::unique::unique;

impl<B: Backend> Store<B> {
    /// Stores a manifest and points its tags at it.
    pub(in crate::store) async fn push_manifest(
        &self,
        repository: &RepositoryName,
        manifest: NewManifest,
    ) -> Result<(), Error> {
        self.require_room_for_manifest(repository, &manifest).await?;
        if !manifest.allow_missing
            && let Some(lost) = self.lost_child(repository, &manifest.children).await?
        {
            return Err(missing_content(&lost));
        }
        let keep = self
            .keep(EndReason::Moved)
            .map(|keep| keep.by(&manifest.principal));
        self.mark_too_many_touched().await?;
        let touch = self.touched.at_end(repository);
        let mut push = PushManifest::new(repository, manifest, self.clock.now());
        push.keep = keep;
        loop {
            match self.backend.transact(Durability::Synced, push).await? {
                Step::Done(Ok(Pushed::Nothing)) => {
                    touch.forget();
                    return Ok(());
                }
                // A push that was refused because of a tag leaves its manifest.
                Step::Done(outcome) => return outcome.map(drop),
                Step::More(rest) => push = rest,
            }
            if push.is_to_hold() {
                let missing = self.hold_content(repository, &push.new).await?;
                push.held(missing);
            }
        }
    }
}

/// Stores a manifest and points its tags at it, in as many transactions as its children and tags take.
pub(super) struct PushManifest {
    repository: RepositoryName,
    key: Key,
    new: NewManifest,
    now: Timestamp,
    /// The tags that this push has written, in case it has to take them back.
    written: Vec<WrittenTag>,
    /// How many of its tags are new, so that quotas have to have room for them.
    new_tags: u64,
    /// This transaction has set aside what a quota has to have room for.
    has_set_aside: bool,
    /// How many times it began again.
    attempts: usize,
    stage: Stage,
    /// The note of this push, if it takes several transactions.
    note: Option<Key>,
    /// How what its tags named before is kept; `None` if it is not.
    keep: Option<Keep>,
    pushed: Pushed,
}

/// What a push made visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// The manifest and its tags were there.
    Nothing,
    /// The manifest or a tag.
    New,
}

/// What a push does next.
enum Stage {
    /// Check the condition on the tag with this index, before anything is written: a push that its condition refuses
    /// leaves nothing behind.
    Check(usize),
    /// Store the manifest Pending (step 1 of the rule).
    Enter,
    /// Look for the child with this index (step 2).
    Require(Entered, usize),
    /// Make the manifest Live (step 3).
    Publish(Entered),
    /// Enter the manifest, which is Live in this incarnation, in its lists: its subject's referrers and the catalog.
    Enlist(String),
    /// Point the tag with this index at it.
    Tag(String, usize),
    /// Pause between two transactions, until what an immutable tag reaches is kept from the deletes in progress.
    Hold(String),
    /// Read it once more: a delete or the collector may have been faster than the tags.
    Confirm(String),
    /// Take back a tag, because the push is refused.
    RollBack(Error),
}

/// A manifest whose children are being looked for.
struct Entered {
    incarnation: String,
    /// The version in which it is Pending, or visible if it is damaged.
    version: Version,
    /// Its content does not match its digest. Readers are told that it does not exist, so a push of it brings its
    /// content. It keeps its incarnation, which its tags name.
    is_damaged: bool,
}

impl Transaction for PushManifest {
    /// The inner error is a refusal. The transaction itself succeeds, because its steps, which took back what was done,
    /// must be kept.
    type Output = Step<Self, Result<Pushed, Error>>;

    async fn run(mut self, records: &mut dyn RecordTransaction) -> Result<Self::Output, Error> {
        let mut records = Counted::new(records);
        while !(records.is_enough() && !self.is_tagging() || self.is_to_hold()) {
            if let Some(outcome) = self.advance(&mut records).await? {
                if let Some(note) = &self.note {
                    records.remove(note).await?;
                }
                return Ok(Step::Done(outcome));
            }
        }
        self.has_set_aside = false;
        self.leave_note(&mut records).await?;
        Ok(Step::More(self))
    }
}

/// Why a push stopped.
enum Stop {
    /// A rule refuses it; what was written is taken back.
    Refused(Error),
    /// The medium failed.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        if is_over_quota(&error) {
            Self::Refused(error)
        } else {
            Self::Failed(error)
        }
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
            new_tags: 0,
            has_set_aside: false,
            attempts: 0,
            stage: Stage::Check(0),
            note: None,
            keep: None,
            pushed: Pushed::Nothing,
        }
    }

    /// Runs the whole push as part of another transaction.
    #[cfg(all(feature = "filesystem", unix))]
    pub(super) async fn run_whole(mut self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        loop {
            if let Some(outcome) = self.advance(records).await? {
                return outcome.map(drop);
            }
        }
    }

    /// Writes a note if the manifest is left Pending for the next transaction, in case that never runs.
    async fn leave_note(&mut self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        let is_pending = match &self.stage {
            Stage::Require(entered, _) | Stage::Publish(entered) => !entered.is_damaged,
            _ => false,
        };
        if is_pending && self.note.is_none() {
            let (digest, kind) = (&self.new.manifest.digest, NoteKind::PushManifest);
            self.note = Some(write_note(records, &self.repository, digest, kind, self.now).await?);
        }
        Ok(())
    }

    /// Does what is next. Returns the outcome once the push has ended.
    async fn advance(
        &mut self,
        records: &mut dyn RecordTransaction,
    ) -> Result<Option<Result<Pushed, Error>>, Error> {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Enter) {
            Stage::RollBack(refusal) => {
                let Some(written) = self.written.pop() else {
                    return Ok(Some(Err(refusal)));
                };
                self.take_back_tag(records, written).await?;
                Stage::RollBack(refusal)
            }
            Stage::Confirm(incarnation) => {
                if confirm_incarnation(records, &self.key, &incarnation, self.now).await? {
                    return Ok(Some(Ok(self.pushed)));
                }
                self.remove_referrer(records, &incarnation).await?;
                self.again()
            }
            stage => match self.after(records, stage).await {
                Ok(next) => next,
                Err(Stop::Refused(refusal)) => Stage::RollBack(refusal),
                Err(Stop::Failed(error)) => return Err(error),
            },
        };
        Ok(None)
    }

    /// Runs a stage that is not the last one, and returns the next one.
    async fn after(&mut self, records: &mut dyn RecordTransaction, stage: Stage) -> Result<Stage, Stop> {
        Ok(match stage {
            Stage::Check(at) => match self.new.tags.get(at).cloned() {
                Some(tag) => {
                    let found = self.check_tag(records, &tag).await?;
                    let before = if at == 0 { 0 } else { self.new_tags };
                    self.new_tags = before + u64::from(!found.is_counted);
                    Stage::Check(at + 1)
                }
                None => Stage::Enter,
            },
            Stage::Enter => self.enter(records).await?,
            Stage::Require(entered, at) => self.require(records, entered, at).await?,
            Stage::Publish(entered) => self.publish(records, entered).await?,
            Stage::Enlist(incarnation) => {
                self.add_referrer(records, &incarnation).await?;
                add_repository(records, &self.repository, self.now).await?;
                Stage::Tag(incarnation, 0)
            }
            Stage::Tag(incarnation, at) => match self.new.tags.get(at).cloned() {
                Some(tag) if self.write_tag(records, &tag, &incarnation).await? => {
                    Stage::Tag(incarnation, at + 1)
                }
                Some(_) => self.again(),
                None if self.has_immutable_tag() => Stage::Hold(incarnation),
                None => Stage::Confirm(incarnation),
            },
            // An adoption has no immutable tags, and a push does this between two transactions.
            Stage::Hold(incarnation) => Stage::Confirm(incarnation),
            last @ (Stage::Confirm(_) | Stage::RollBack(_)) => last,
        })
    }

    /// Returns whether the tags are to be written in this transaction, because room for them was set aside in it. A
    /// request has a bounded number of tags.
    const fn is_tagging(&self) -> bool {
        self.has_set_aside && matches!(self.stage, Stage::Enlist(_) | Stage::Tag(..))
    }

    const fn is_to_hold(&self) -> bool {
        matches!(self.stage, Stage::Hold(_))
    }

    /// Continues after what the manifest reaches was kept from deletes, or something was found to be `missing`.
    fn held(&mut self, missing: Option<Digest>) {
        if let Stage::Hold(incarnation) = &mut self.stage {
            let incarnation = std::mem::take(incarnation);
            self.stage = match missing {
                None => Stage::Confirm(incarnation),
                Some(digest) => Stage::RollBack(missing_content(&digest)),
            };
        }
    }

    fn has_immutable_tag(&self) -> bool {
        !self.new.immutable_tags.is_empty()
    }

    fn is_immutable(&self, tag: &Tag) -> bool {
        self.new.immutable_tags.contains(tag)
    }

    /// Begins again, because another request wrote the same records.
    fn again(&mut self) -> Stage {
        self.attempts += 1;
        if self.attempts < TRANSACTION_ATTEMPTS {
            Stage::Check(0)
        } else {
            Stage::RollBack(contended())
        }
    }

    /// Step 1 of the rule.
    async fn enter(&mut self, records: &mut dyn RecordTransaction) -> Result<Stage, Error> {
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
            (Enter::Create, _) | (_, None) => {
                let incarnation = unique().simple().to_string();
                let pending = self.record(State::Pending, &incarnation);
                let bytes = &self.new.manifest.bytes;
                let version = write(records, &self.key, &pending, bytes, manifest.unchanged()).await?;
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
    async fn require(
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
    async fn publish(
        &mut self,
        records: &mut dyn RecordTransaction,
        entered: Entered,
    ) -> Result<Stage, Stop> {
        let manifest = read_latest::<ManifestRecord>(records, &self.key).await?;
        let (state, is_same) = (manifest.state(), manifest.is(&entered.version));
        let decision = if entered.is_damaged {
            heal(state, is_same)
        } else {
            publish(state, is_same)
        };
        if decision == Publish::Again {
            return Ok(self.again());
        }
        match self.write_live(records, &entered, &manifest).await {
            Ok(Some(_)) => {
                self.pushed = Pushed::New;
                Ok(Stage::Enlist(entered.incarnation))
            }
            Ok(None) => Ok(self.again()),
            Err(refusal) if is_over_quota(&refusal) => {
                self.withdraw(records, entered).await?;
                Err(Stop::Refused(refusal))
            }
            Err(error) => Err(Stop::Failed(error)),
        }
    }

    /// Makes the manifest Live, if quotas have room for it and its tags: a push that they refuse leaves nothing behind.
    async fn write_live(
        &mut self,
        records: &mut dyn RecordTransaction,
        entered: &Entered,
        found: &Found<ManifestRecord>,
    ) -> Result<Option<Version>, Error> {
        if self.new_tags > 0 {
            let is_new = !found.state().is_visible();
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
        write(records, &self.key, &live, bytes, found.unchanged()).await
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

    /// Takes the Pending manifest back, unless another push wrote it since.
    async fn withdraw(&self, records: &mut dyn RecordTransaction, entered: Entered) -> Result<(), Error> {
        let manifest = read_latest::<ManifestRecord>(records, &self.key).await?;
        if withdraw(manifest.state(), manifest.is(&entered.version)) {
            let dead = self.record(State::Dead, &entered.incarnation);
            if let Some(dead) = write(records, &self.key, &dead, &[], manifest.unchanged()).await? {
                records.purge_if(&self.key, &dead).await?;
            }
        }
        Ok(())
    }

    /// Enters the manifest in the list of its subject.
    async fn add_referrer(
        &self,
        records: &mut dyn RecordTransaction,
        incarnation: &str,
    ) -> Result<(), Error> {
        if let Some((subject, descriptor)) = &self.new.subject {
            let key = Key::referrer(&self.repository, subject, &self.new.manifest.digest, incarnation);
            let entry = ReferrerRecord::new(incarnation, descriptor, self.now);
            let annotations = descriptor.annotations.as_json();
            write(records, &key, &entry, annotations, Condition::Absent).await?;
        }
        Ok(())
    }

    async fn remove_referrer(
        &self,
        records: &mut dyn RecordTransaction,
        incarnation: &str,
    ) -> Result<(), Error> {
        if let Some((subject, _)) = &self.new.subject {
            let key = Key::referrer(&self.repository, subject, &self.new.manifest.digest, incarnation);
            records.remove(&key).await?;
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

fn missing_content(digest: &Digest) -> Error {
    let message = format!("the manifest names {digest}, which is not in this repository; push it first");
    Error::new(ErrorCode::ManifestBlobUnknown, message)
}

/// Enters a repository in the catalog, unless it is there already. One of its manifests has to exist before.
pub(super) async fn add_repository(
    records: &mut dyn RecordTransaction,
    name: &RepositoryName,
    now: Timestamp,
) -> Result<(), Error> {
    let key = Key::repository(name);
    for _ in 0..TRANSACTION_ATTEMPTS {
        let condition = match records.stat(&key).await? {
            Some(stat) if state_of_size(stat.size) == State::Live => return Ok(()),
            Some(stat) => Condition::Matches(stat.version),
            None => Condition::Absent,
        };
        let record = RepositoryRecord {
            state: State::Live,
            name: name.clone(),
            stamp: Stamp::new(now),
        };
        if write(records, &key, &record, &[], condition).await?.is_some() {
            return Ok(());
        }
    }
    Err(contended())
}

/// Reads a manifest once more, after a tag was pointed at it, and rescues it; returns `false` if it is gone.
async fn confirm_incarnation(
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
