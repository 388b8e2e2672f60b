//! The collector: manifests by tags, grants by manifests, blobs by grants, cycle after cycle.

use crate::rules::Rules;
use crate::state::{Incarnation, Record, Renaming, Version, World};
use registry_storage::chain::{self, Collect, State};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Step {
    #[default]
    Begin,
    ReadTag,
    ReadManifest,
    Manifest,
    ReadPrevious,
    Previous,
    ListManifests,
    ReadGrant,
    Grant,
    ReadMounted,
    Mounted,
    ListGrants,
    ListMounted,
    ReadBlob,
    Blob,
    DeleteBytes,
    Seal,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Collector {
    step: Step,
    cycle: u8,
    /// The cycles that were sealed when this one began.
    sealed: u8,
    /// The incarnation that the tag names.
    tagged: Incarnation,
    /// Something names the record.
    is_root: bool,
    version: Version,
    state: State,
    condemned: u8,
    /// The bytes to delete.
    bytes: u8,
    /// The last cycle that a collector may begin.
    last_cycle: u8,
    has_mount: bool,
    has_previous: bool,
}

impl Collector {
    pub(crate) fn new(last_cycle: u8, has_mount: bool, has_previous: bool) -> Self {
        Self {
            last_cycle,
            has_mount,
            has_previous,
            ..Self::default()
        }
    }

    pub(crate) const fn rename(&mut self, versions: &mut Renaming, incarnations: &mut Renaming) {
        versions.apply(&mut self.version);
        incarnations.apply(&mut self.tagged);
    }

    pub(crate) fn steps(mut self, world: &World, rules: &Rules, emit: &mut dyn FnMut(World, Self)) {
        let mut next = *world;
        match self.step {
            Step::Begin if world.cycle >= self.last_cycle => return,
            Step::Begin => {
                next.cycle += 1;
                self.cycle = next.cycle;
                self.sealed = world.sealed;
                self.step = Step::ReadTag;
            }
            Step::ReadTag => {
                self.tagged = world.tag.value;
                self.step = Step::ReadManifest;
            }
            Step::ReadManifest => {
                self.is_root = self.is_tagged(&world.manifest);
                if !self.has_previous {
                    self.tagged = 0;
                }
                self.read(&world.manifest, Step::Manifest);
            }
            Step::Manifest if self.state == State::Pending => self.leave(self.after_manifest()),
            Step::Manifest => {
                return self.collect(world, rules, self.after_manifest(), |w| &mut w.manifest, emit);
            }
            Step::ReadPrevious => {
                self.is_root = self.is_tagged(&world.previous);
                self.tagged = 0;
                self.read(&world.previous, Step::Previous);
            }
            Step::Previous => {
                return self.collect(world, rules, Step::ListManifests, |w| &mut w.previous, emit);
            }
            Step::ListManifests => {
                self.is_root = rules.manifest_holds(world.manifest.state);
                self.step = Step::ReadGrant;
                if rules.collect(world.manifest.state, false, false, true) == Collect::Kill {
                    let revoking = Self {
                        is_root: false,
                        ..self
                    };
                    next.manifest = next.write(rules, State::Dead, 0, 0);
                    emit(next, revoking);
                    next = *world;
                }
            }
            Step::ReadGrant => self.read(&world.grant, Step::Grant),
            Step::Grant => {
                let then = if self.has_mount {
                    Step::ReadMounted
                } else {
                    Step::ListGrants
                };
                return self.collect(world, rules, then, |w| &mut w.grant, emit);
            }
            Step::ReadMounted => self.read(&world.mounted, Step::Mounted),
            Step::Mounted => {
                self.is_root = false;
                return self.collect(world, rules, Step::ListGrants, |w| &mut w.mounted, emit);
            }
            Step::ListGrants => {
                self.is_root = rules.grant_holds(world.grant.state);
                self.step = if self.has_mount {
                    Step::ListMounted
                } else {
                    Step::ReadBlob
                };
            }
            Step::ListMounted => {
                self.is_root |= world.mounted.state.holds_children();
                self.step = Step::ReadBlob;
            }
            Step::ReadBlob => self.read(&world.blob, Step::Blob),
            Step::Blob => return self.collect(world, rules, Step::Seal, |w| &mut w.blob, emit),
            Step::DeleteBytes => {
                next.bytes &= !(1 << self.bytes);
                self.bytes = 0;
                self.step = Step::Seal;
            }
            Step::Seal => {
                next.sealed |= 1 << self.cycle;
                self = Self::new(self.last_cycle, self.has_mount, self.has_previous);
            }
        }
        emit(next, self);
    }

    fn is_tagged(&self, manifest: &Record) -> bool {
        let tag = (self.tagged != 0).then_some(self.tagged);
        chain::names(tag.as_ref(), &manifest.value)
    }

    const fn after_manifest(&self) -> Step {
        if self.has_previous {
            Step::ReadPrevious
        } else {
            Step::ListManifests
        }
    }

    const fn read(&mut self, record: &Record, then: Step) {
        self.version = record.version;
        self.state = record.state;
        self.condemned = record.cycle;
        self.step = then;
    }

    const fn leave(&mut self, then: Step) {
        self.version = 0;
        self.state = State::Absent;
        self.condemned = 0;
        self.step = then;
    }

    /// What the cycle does with a record that it read before. A Pending one may be too old, or not.
    fn collect(
        self,
        world: &World,
        rules: &Rules,
        then: Step,
        select: fn(&mut World) -> &mut Record,
        emit: &mut dyn FnMut(World, Self),
    ) {
        let is_sealed = self.sealed & (1 << self.condemned) != 0;
        for is_old in [false, true] {
            if !is_old && self.state != State::Pending {
                continue;
            }
            let mut next = *world;
            let mut after = self;
            after.leave(then);
            let now = *select(&mut next);
            let (state, cycle) = match rules.collect(self.state, self.is_root, is_sealed, is_old) {
                Collect::Revive => (State::Live, 0),
                Collect::Condemn => (State::Condemned, self.cycle),
                Collect::Kill => (State::Dead, self.cycle),
                Collect::Leave => (State::Absent, 0),
            };
            if state != State::Absent && now.version == self.version {
                let value = if self.state == State::Pending {
                    0
                } else {
                    now.value
                };
                *select(&mut next) = next.write(rules, state, value, cycle);
                if state == State::Dead && self.state == State::Condemned && then == Step::Seal {
                    after.bytes = now.value;
                    after.step = Step::DeleteBytes;
                }
            }
            emit(next, after);
        }
    }
}
