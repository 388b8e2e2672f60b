//! The push of a manifest with a tag.

use crate::rules::{Mutation, Rules};
use crate::state::{Incarnation, Renaming, Version, World};
use registry_storage::chain::{self, Confirm, Enter, Publish, Require, RollBack, State};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Step {
    #[default]
    Enter,
    Require,
    RescueGrant,
    Publish,
    Tag,
    Confirm,
    RescueManifest,
    Again,
    Withdraw,
    RollBack,
    WriteTombstone,
    Restore,
    ConfirmRestored,
    Done,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Outcome {
    #[default]
    None,
    Acknowledged,
    Superseded,
    RefusedForNoReason,
}

/// What [`Mutation::ChildFirst`] remembers of the child.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum ChildSeen {
    #[default]
    Unread,
    Live,
    Other,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Writer {
    step: Step,
    incarnation: Incarnation,
    /// The version of the Pending manifest that was stored or joined.
    manifest: Version,
    /// The version of the record that is rescued.
    rescued: Version,
    /// The version of the tag that was written.
    tag: Version,
    /// The incarnation that the tag named before.
    replaced: Incarnation,
    outcome: Outcome,
    child: ChildSeen,
}

impl Writer {
    pub(crate) const fn is_done(&self) -> bool {
        matches!(self.step, Step::Done)
    }

    pub(crate) const fn acknowledged(&self) -> Option<Incarnation> {
        match self.outcome {
            Outcome::Acknowledged => Some(self.incarnation),
            _ => None,
        }
    }

    pub(crate) const fn is_refused_for_no_reason(&self) -> bool {
        matches!(
            (self.step, self.outcome),
            (Step::Done, Outcome::RefusedForNoReason)
        )
    }

    pub(crate) const fn rename(&mut self, versions: &mut Renaming, incarnations: &mut Renaming) {
        versions.apply(&mut self.manifest);
        versions.apply(&mut self.rescued);
        versions.apply(&mut self.tag);
        incarnations.apply(&mut self.incarnation);
        incarnations.apply(&mut self.replaced);
    }

    pub(crate) fn steps(mut self, world: &World, rules: &Rules, emit: &mut dyn FnMut(World, Self)) {
        let mut next = *world;
        match self.step {
            Step::Enter => self.enter(&mut next, rules),
            Step::Require => self.require(world, rules),
            Step::RescueGrant => {
                self.step = Step::Require;
                if world.grant.version == self.rescued {
                    next.grant = next.write(rules, State::Live, world.grant.value, 0);
                    self.step = Step::Publish;
                }
                self.rescued = 0;
            }
            Step::Publish => self.publish(&mut next, rules),
            Step::Tag => {
                self.replaced = if self.remembers_replaced(world) {
                    world.tag.value
                } else {
                    self.replaced
                };
                next.tag = next.write(rules, State::Live, self.incarnation, 0);
                self.tag = next.tag.version;
                self.step = Step::Confirm;
                if rules.lacks(Mutation::NoConfirm) {
                    self.finish();
                }
            }
            Step::Confirm => {
                let same = chain::names(Some(&world.manifest.value), &self.incarnation);
                match rules.confirm(world.manifest.state, same) {
                    Confirm::Done => self.acknowledge(world),
                    Confirm::Rescue => {
                        self.step = Step::RescueManifest;
                        self.rescued = world.manifest.version;
                    }
                    Confirm::Again => self.step = Step::Again,
                }
            }
            Step::RescueManifest => {
                if world.manifest.version == self.rescued {
                    next.manifest = next.write(rules, State::Live, world.manifest.value, 0);
                    self.acknowledge(world);
                } else {
                    self.step = Step::Confirm;
                }
                self.rescued = 0;
            }
            Step::Again => {
                self.incarnation = 0;
                self.step = if rules.lacks(Mutation::TakeBackFirst) {
                    Step::RollBack
                } else {
                    Step::Enter
                };
            }
            Step::Withdraw => {
                if chain::withdraw(world.manifest.state, world.manifest.version == self.manifest) {
                    next.manifest = next.write(rules, State::Dead, 0, 0);
                }
                self.manifest = 0;
                self.incarnation = 0;
                self.refuse();
            }
            Step::RollBack | Step::WriteTombstone | Step::Restore | Step::ConfirmRestored => {
                self.roll_back(&mut next, rules);
            }
            Step::Done => return,
        }
        emit(next, self);
    }

    /// Step 1 of the rule.
    fn enter(&mut self, world: &mut World, rules: &Rules) {
        if rules.lacks(Mutation::ChildFirst) && self.child == ChildSeen::Unread {
            self.child = if world.grant.state == State::Live {
                ChildSeen::Live
            } else {
                ChildSeen::Other
            };
            return;
        }
        self.step = Step::Tag;
        match rules.enter_manifest(world.manifest.state) {
            Enter::Published => {}
            Enter::Rescue => world.manifest = world.write(rules, State::Live, world.manifest.value, 0),
            Enter::Join => {
                self.manifest = world.manifest.version;
                self.step = Step::Require;
            }
            Enter::Create => {
                let incarnation = world.incarnate();
                world.manifest = world.write(rules, State::Pending, incarnation, 0);
                self.manifest = world.manifest.version;
                self.step = Step::Require;
            }
        }
        self.incarnation = world.manifest.value;
    }

    /// Step 2 of the rule.
    fn require(&mut self, world: &World, rules: &Rules) {
        self.step = match rules.require_grant(world.grant.state) {
            _ if self.child == ChildSeen::Live => Step::Publish,
            Require::Ready => Step::Publish,
            Require::Rescue => {
                self.rescued = world.grant.version;
                Step::RescueGrant
            }
            Require::Missing => Step::Withdraw,
        };
    }

    /// Step 3 of the rule.
    fn publish(&mut self, world: &mut World, rules: &Rules) {
        match chain::publish(world.manifest.state, world.manifest.version == self.manifest) {
            Publish::Write => {
                world.manifest = world.write(rules, State::Live, world.manifest.value, 0);
                self.step = Step::Tag;
            }
            Publish::Again => {
                self.incarnation = 0;
                self.step = Step::Enter;
                if rules.lacks(Mutation::NoJoin) {
                    self.outcome = Outcome::RefusedForNoReason;
                    self.refuse();
                }
            }
        }
        self.manifest = 0;
    }

    /// A push that goes back to step 1 after it wrote its tag replaces its own.
    fn remembers_replaced(&self, world: &World) -> bool {
        world.previous.state != State::Absent && (self.tag == 0 || self.tag != world.tag.version)
    }

    fn acknowledge(&mut self, world: &World) {
        self.outcome = if world.tag.version == self.tag {
            Outcome::Acknowledged
        } else {
            Outcome::Superseded
        };
        self.finish();
    }

    const fn refuse(&mut self) {
        if self.tag == 0 {
            self.finish();
        } else {
            self.step = Step::RollBack;
        }
    }

    const fn finish(&mut self) {
        self.step = Step::Done;
        self.tag = 0;
        self.replaced = 0;
    }

    /// Reads what the tag named before, writes the tag by compare-and-swap, and confirms what it restored.
    fn roll_back(&mut self, world: &mut World, rules: &Rules) {
        match self.step {
            Step::RollBack if self.replaced != 0 => {
                let same = chain::names(Some(&self.replaced), &world.previous.value);
                self.step = match chain::roll_back(true, world.previous.state, same) {
                    RollBack::Restore => Step::Restore,
                    RollBack::WriteTombstone | RollBack::Leave => Step::WriteTombstone,
                };
            }
            Step::Restore => {
                if world.tag.version == self.tag {
                    world.tag = world.write(rules, State::Live, self.replaced, 0);
                    self.tag = world.tag.version;
                    self.step = Step::ConfirmRestored;
                    if rules.lacks(Mutation::NoConfirmOfRestored) {
                        self.finish();
                    }
                } else {
                    self.finish();
                }
            }
            Step::ConfirmRestored => {
                let same = chain::names(Some(&self.replaced), &world.previous.value);
                match rules.confirm(world.previous.state, same) {
                    Confirm::Done => self.finish(),
                    Confirm::Rescue => {
                        world.previous = world.write(rules, State::Live, world.previous.value, 0);
                        self.finish();
                    }
                    Confirm::Again => self.step = Step::WriteTombstone,
                }
            }
            _ => {
                if chain::roll_back(world.tag.version == self.tag, State::Absent, false)
                    == RollBack::WriteTombstone
                {
                    world.tag = world.write(rules, State::Dead, 0, 0);
                }
                self.finish();
            }
        }
    }
}
