//! Storing a manifest and pointing tags at it.

mod manifest;
mod referrers_tag;
mod tags;

use crate::chain::State;
use registry_core::storage::{EndReason, NewManifest};
use registry_core::{Digest, Error, ErrorCode, RepositoryName, Tag, Timestamp};

use self::manifest::{Entered, confirm_incarnation};
use self::tags::{FoundTag, WrittenTag};
use super::delete::write_note;
use super::edge::{contended, write};
use super::quota::is_over_quota;
use super::steps::{Counted, Step};
use super::undelete::Keep;
use super::{Store, TRANSACTION_ATTEMPTS};
use crate::backend::{Backend, Condition, Durability, RecordTransaction, Transaction};
use crate::key::Key;
use crate::record::{NoteKind, ReferrerRecord, RepositoryRecord, Stamp, state_of_size};

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
        let mut push = PushManifest::new(repository, manifest, self.backend.is_atomic(), self.clock.now());
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
    is_one_step: bool,
    now: Timestamp,
    /// The tags that this push has written, in case it has to take them back.
    written: Vec<WrittenTag>,
    /// Its tags as they were checked, until they are written.
    checked: Vec<Option<FoundTag>>,
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
    /// `is_one_step` says that each of its transactions is one step.
    pub(super) fn new(
        repository: &RepositoryName,
        manifest: NewManifest,
        is_one_step: bool,
        now: Timestamp,
    ) -> Self {
        Self {
            is_one_step,
            key: Key::manifest(repository, &manifest.manifest.digest),
            repository: repository.clone(),
            new: manifest,
            now,
            written: Vec::new(),
            checked: Vec::new(),
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
                    if at == 0 {
                        (self.new_tags, self.checked) = (0, Vec::new());
                    }
                    self.new_tags += u64::from(!found.is_counted);
                    self.checked.push(Some(found));
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
                Some(tag) if self.write_tag(records, &tag, at, &incarnation).await? => {
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
