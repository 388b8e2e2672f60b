//! The mount of the blob into the second repository.

use crate::rules::{Mutation, Rules};
use crate::state::{Renaming, Version, World};
use registry_storage::chain::{self, Enter, Publish, Require, State};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Step {
    #[default]
    ReadSource,
    Enter,
    Require,
    RescueBlob,
    Publish,
    Withdraw,
    Done,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Mounter {
    step: Step,
    grant: Version,
    rescued: Version,
    bytes: u8,
    /// It looks whether the bytes that records name are there.
    looks: bool,
}

impl Mounter {
    pub(crate) fn new(looks: bool) -> Self {
        Self {
            looks,
            ..Self::default()
        }
    }

    pub(crate) const fn rename(&mut self, versions: &mut Renaming) {
        versions.apply(&mut self.grant);
        versions.apply(&mut self.rescued);
    }

    pub(crate) fn steps(mut self, world: &World, rules: &Rules, emit: &mut dyn FnMut(World, Self)) {
        let mut next = *world;
        match self.step {
            Step::ReadSource => {
                self.step = match chain::may_mount(world.grant.state) {
                    false => Step::Done,
                    true if rules.lacks(Mutation::LateMount) => Step::Require,
                    true => Step::Enter,
                };
            }
            Step::Enter => self.enter(&mut next, rules),
            Step::Require => {
                match chain::require(rules.counted(world.blob.state, self.looks && world.is_blob_lost())) {
                    Require::Ready => self.take(world),
                    Require::Rescue => {
                        self.rescued = world.blob.version;
                        self.step = Step::RescueBlob;
                    }
                    Require::Missing => self.step = Step::Withdraw,
                }
            }
            Step::RescueBlob => {
                self.step = Step::Require;
                if world.blob.version == self.rescued {
                    next.blob = next.write(rules, State::Live, world.blob.value, 0);
                    self.take(world);
                }
                self.rescued = 0;
            }
            Step::Publish => {
                let same = world.mounted.version == self.grant;
                if self.looks && world.mounted.state.is_visible() {
                    self.step = Step::Enter;
                    if world.mounted.value == self.bytes {
                        self.step = Step::Done;
                    } else if rules.heal(world.mounted.state, same) == Publish::Write {
                        next.mounted = next.write(rules, State::Live, self.bytes, 0);
                        self.step = Step::Done;
                    }
                    self.grant = 0;
                    self.bytes = 0;
                    emit(next, self);
                    return;
                }
                self.step = match rules.publish_grant(world.mounted.state, same, Mutation::LateMount) {
                    Publish::Write => {
                        next.mounted = next.write(rules, State::Live, self.bytes, 0);
                        Step::Done
                    }
                    Publish::Again => Step::Enter,
                };
                self.grant = 0;
                self.bytes = 0;
            }
            Step::Withdraw => {
                if chain::withdraw(world.mounted.state, world.mounted.version == self.grant) {
                    next.mounted = next.write(rules, State::Dead, 0, 0);
                }
                self.grant = 0;
                self.step = Step::Done;
            }
            Step::Done => return,
        }
        emit(next, self);
    }

    fn enter(&mut self, world: &mut World, rules: &Rules) {
        self.step = Step::Done;
        match chain::enter(world.mounted.state) {
            Enter::Published if !self.looks => return,
            Enter::Rescue => {
                world.mounted = world.write(rules, State::Live, world.mounted.value, 0);
                if !self.looks {
                    return;
                }
            }
            Enter::Published | Enter::Join => {}
            Enter::Create => world.mounted = world.write(rules, State::Pending, 0, 0),
        }
        self.grant = world.mounted.version;
        self.step = Step::Require;
    }

    const fn take(&mut self, world: &World) {
        self.bytes = world.blob.value;
        self.step = Step::Publish;
    }
}
