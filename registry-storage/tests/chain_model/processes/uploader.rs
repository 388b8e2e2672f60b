//! An upload, from its session to its grant.

use crate::rules::{Mutation, Rules};
use crate::state::{Renaming, Version, World};
use registry_storage::chain::{self, Enter, Join, Offer, Publish, Recheck, State};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Step {
    #[default]
    Open,
    Append,
    Enter,
    Offer,
    Join,
    Recheck,
    RescueBlob,
    Complete,
    Publish,
    Finish,
    SendAgain,
    Done,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Uploader {
    step: Step,
    /// The number of the bytes.
    number: u8,
    /// The version of the Pending grant that was stored or joined.
    grant: Version,
    /// The version of the Condemned blob that is rescued.
    rescued: Version,
    /// The bytes that the grant will name.
    bytes: u8,
    /// The process completed a proposal of its own.
    has_completed: bool,
    /// It died once in its commit, and another process resumed it.
    has_crashed: bool,
    /// It may die.
    may_crash: bool,
    /// It looks whether the bytes that records name are there.
    looks: bool,
    /// It began after the medium lost bytes.
    is_after_loss: bool,
    /// It was answered 201.
    is_acknowledged: bool,
}

impl Uploader {
    pub(crate) fn new(number: u8, may_crash: bool, looks: bool) -> Self {
        Self {
            number,
            may_crash,
            looks,
            ..Self::default()
        }
    }

    /// An upload whose session is open and whose bytes are there.
    pub(crate) fn sent(number: u8, may_crash: bool, looks: bool) -> Self {
        Self {
            step: Step::Enter,
            ..Self::new(number, may_crash, looks)
        }
    }

    /// The upload began after bytes were lost, was answered 201, and the repository reads lost bytes.
    pub(crate) const fn is_deceived(&self, world: &World) -> bool {
        self.is_acknowledged
            && self.is_after_loss
            && world.grant.state.is_visible()
            && world.lost & (1 << world.grant.value) != 0
    }

    pub(crate) const fn rename(&mut self, versions: &mut Renaming) {
        versions.apply(&mut self.grant);
        versions.apply(&mut self.rescued);
    }

    pub(crate) fn steps(mut self, world: &World, rules: &Rules, emit: &mut dyn FnMut(World, Self)) {
        let bit = 1 << self.number;
        let is_open = world.open & bit != 0;
        let is_named = world.blob.state == State::Pending && world.blob.value & bit != 0;
        let mut next = *world;
        if self.may_crash && !self.has_crashed && self.is_in_commit() {
            let resumed = Self {
                has_crashed: true,
                is_after_loss: self.is_after_loss,
                ..Self::sent(self.number, true, self.looks)
            };
            emit(next, resumed);
        }
        match self.step {
            Step::Open => {
                self.is_after_loss = world.lost != 0;
                if !rules.lacks(Mutation::NoSession) {
                    next.open |= bit;
                }
                self.step = Step::Append;
            }
            Step::Append => {
                next.bytes |= bit;
                self.step = if rules.lacks(Mutation::LateGrant) {
                    Step::Offer
                } else {
                    Step::Enter
                };
            }
            Step::Enter => self.enter(&mut next, rules),
            Step::Offer => {
                let is_proposed = world.proposed & bit != 0;
                match rules.offer(
                    self.counted(world, rules),
                    is_named,
                    is_open,
                    is_proposed,
                    self.has_completed,
                ) {
                    Offer::Use => self.take(world),
                    Offer::Rescue => self.rescue(world),
                    Offer::Finish => self.step = Self::after_join(rules),
                    Offer::SendAgain => self.step = Step::SendAgain,
                    Offer::Propose => {
                        if !rules.lacks(Mutation::NoProposed) {
                            next.proposed |= bit;
                        }
                        self.step = Step::Join;
                    }
                }
            }
            Step::Join => match rules.join(self.counted(world, rules)) {
                Join::Use => self.take(world),
                Join::Rescue => self.rescue(world),
                Join::Write => {
                    let proposals = match world.blob.state {
                        State::Pending => world.blob.value,
                        _ => 0,
                    };
                    next.blob = next.write(rules, State::Pending, proposals | bit, 0);
                    self.step = Self::after_join(rules);
                }
            },
            Step::Recheck => {
                self.step = match rules.recheck(is_open) {
                    Recheck::Finish => Step::Complete,
                    Recheck::Withdraw => Step::SendAgain,
                };
            }
            Step::RescueBlob => {
                self.step = Step::Offer;
                if world.blob.version == self.rescued {
                    next.blob = next.write(rules, State::Live, world.blob.value, 0);
                    self.take(world);
                }
                self.rescued = 0;
            }
            Step::Complete => {
                self.step = Step::Offer;
                if chain::complete(world.blob.state, is_named) {
                    next.blob = next.write(rules, State::Live, self.number, 0);
                    self.has_completed = true;
                    self.take(&next);
                }
            }
            Step::Publish => self.publish(&mut next, rules),
            Step::Finish => {
                next.open &= !bit;
                self.is_acknowledged = self.looks;
                self.finish();
            }
            Step::SendAgain => self.finish(),
            Step::Done => return,
        }
        emit(next, self);
    }

    const fn is_in_commit(&self) -> bool {
        !matches!(self.step, Step::Open | Step::Append | Step::Enter | Step::Done)
    }

    /// Step 1 of the rule for the grant.
    fn enter(&mut self, world: &mut World, rules: &Rules) {
        self.step = Step::Finish;
        match chain::enter(world.grant.state) {
            Enter::Published if !self.looks => return,
            Enter::Rescue => {
                world.grant = world.write(rules, State::Live, world.grant.value, 0);
                if !self.looks {
                    return;
                }
            }
            Enter::Published | Enter::Join => {}
            Enter::Create => world.grant = world.write(rules, State::Pending, 0, 0),
        }
        self.grant = world.grant.version;
        self.step = Step::Offer;
    }

    /// Step 3 of the rule for the grant.
    fn publish(&mut self, world: &mut World, rules: &Rules) {
        let same = world.grant.version == self.grant;
        if self.looks && world.grant.state.is_visible() {
            self.step = Step::Enter;
            if world.grant.value == self.bytes {
                self.step = Step::Finish;
            } else if rules.heal(world.grant.state, same) == Publish::Write {
                world.grant = world.write(rules, State::Live, self.bytes, 0);
                self.step = Step::Finish;
            }
            self.grant = 0;
            self.bytes = 0;
            return;
        }
        self.step = match rules.publish_grant(world.grant.state, same, Mutation::LateGrant) {
            Publish::Write => {
                world.grant = world.write(rules, State::Live, self.bytes, 0);
                Step::Finish
            }
            Publish::Again => Step::Enter,
        };
        self.grant = 0;
        self.bytes = 0;
    }

    /// The state of the blob, with a look at its bytes.
    fn counted(&self, world: &World, rules: &Rules) -> State {
        rules.counted(world.blob.state, self.looks && world.is_blob_lost())
    }

    const fn take(&mut self, world: &World) {
        self.bytes = world.blob.value;
        self.step = Step::Publish;
    }

    const fn rescue(&mut self, world: &World) {
        self.rescued = world.blob.version;
        self.step = Step::RescueBlob;
    }

    fn after_join(rules: &Rules) -> Step {
        if rules.lacks(Mutation::NoRecheck) {
            Step::Complete
        } else {
            Step::Recheck
        }
    }

    const fn finish(&mut self) {
        self.step = Step::Done;
        self.grant = 0;
        self.has_completed = false;
    }
}
