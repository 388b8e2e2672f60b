//! What users take away: a manifest with its tags, a blob, an upload.

use crate::rules::{Mutation, Rules};
use crate::state::{Incarnation, Renaming, Version, World};
use registry_storage::chain::{self, State};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Step {
    #[default]
    Delete,
    ReadTag,
    Untag,
    Done,
}

/// The manifest that is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    #[default]
    Manifest,
    Previous,
}

/// Deletes a manifest by its digest: the manifest first, then the tags that name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Deleter {
    step: Step,
    target: Target,
    incarnation: Incarnation,
    tag: Version,
}

impl Deleter {
    pub(crate) fn of(target: Target) -> Self {
        Self {
            target,
            ..Self::default()
        }
    }

    pub(crate) const fn is_settled(&self) -> bool {
        matches!(self.step, Step::Done | Step::Delete)
    }

    pub(crate) const fn rename(&mut self, versions: &mut Renaming, incarnations: &mut Renaming) {
        versions.apply(&mut self.tag);
        incarnations.apply(&mut self.incarnation);
    }

    pub(crate) fn steps(mut self, world: &World, rules: &Rules, emit: &mut dyn FnMut(World, Self)) {
        let mut next = *world;
        match self.step {
            Step::Delete => {
                let manifest = match self.target {
                    Target::Manifest => world.manifest,
                    Target::Previous => world.previous,
                };
                if !chain::delete(manifest.state) {
                    return;
                }
                let dead = next.write(rules, State::Dead, 0, 0);
                match self.target {
                    Target::Manifest => next.manifest = dead,
                    Target::Previous => next.previous = dead,
                }
                self.incarnation = manifest.value;
                self.step = Step::ReadTag;
            }
            Step::ReadTag => {
                if rules.untag(world.tag.named(), self.incarnation) {
                    self.tag = world.tag.version;
                    self.step = Step::Untag;
                } else {
                    self.finish();
                }
            }
            Step::Untag => {
                if world.tag.version == self.tag {
                    next.tag = next.write(rules, State::Dead, 0, 0);
                    self.finish();
                } else {
                    self.step = Step::ReadTag;
                }
                self.tag = 0;
            }
            Step::Done => return,
        }
        emit(next, self);
    }

    const fn finish(&mut self) {
        self.step = Step::Done;
        self.incarnation = 0;
    }
}

/// Deletes the blob from its repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct BlobDeleter {
    is_done: bool,
}

impl BlobDeleter {
    pub(crate) fn steps(mut self, world: &World, rules: &Rules, emit: &mut dyn FnMut(World, Self)) {
        if !self.is_done && chain::delete(world.grant.state) {
            let mut next = *world;
            next.grant = next.write(rules, State::Dead, 0, 0);
            next.is_blob_deleted = true;
            self.is_done = true;
            emit(next, self);
        }
    }
}

/// The session that is cancelled.
const CANCELLED: u8 = 1 << 1;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum CancelStep {
    #[default]
    Abort,
    DeleteBytes,
    Done,
}

/// Cancels the first upload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Canceller {
    step: CancelStep,
}

impl Canceller {
    pub(crate) fn steps(mut self, world: &World, rules: &Rules, emit: &mut dyn FnMut(World, Self)) {
        let mut next = *world;
        match self.step {
            CancelStep::Abort if world.open & CANCELLED != 0 => {
                next.open &= !CANCELLED;
                self.step = if rules.lacks(Mutation::AbortDeletesBytes) {
                    CancelStep::DeleteBytes
                } else {
                    CancelStep::Done
                };
            }
            CancelStep::DeleteBytes => {
                next.bytes &= !CANCELLED;
                self.step = CancelStep::Done;
            }
            CancelStep::Abort | CancelStep::Done => return,
        }
        emit(next, self);
    }
}
