//! The sweeper: it lists bytes, then sessions, then blobs, and deletes the bytes that none names.

use crate::rules::{Mutation, Rules};
use crate::state::World;
use registry_storage::chain;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Step {
    #[default]
    ListBytes,
    ListFirst,
    ListSecondAndDelete,
    Done,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Sweeper {
    step: Step,
    /// The bytes that were listed.
    bytes: u8,
    /// What the first of the two listings after it names.
    named: u8,
}

impl Sweeper {
    pub(crate) fn steps(mut self, world: &World, rules: &Rules, emit: &mut dyn FnMut(World, Self)) {
        let (first, second) = if rules.lacks(Mutation::SweepBlobsFirst) {
            (world.named_by_blob(), world.open)
        } else {
            (world.open, world.named_by_blob())
        };
        let mut next = *world;
        match self.step {
            Step::ListBytes => {
                self.bytes = world.bytes;
                self.step = Step::ListFirst;
            }
            Step::ListFirst => {
                self.named = first;
                self.step = Step::ListSecondAndDelete;
            }
            Step::ListSecondAndDelete => {
                for bit in (0..8).map(|number| 1 << number) {
                    if self.bytes & bit != 0 && chain::may_sweep(self.named & bit != 0, second & bit != 0) {
                        next.bytes &= !bit;
                    }
                }
                self.bytes = 0;
                self.named = 0;
                self.step = Step::Done;
            }
            Step::Done => return,
        }
        emit(next, self);
    }
}
