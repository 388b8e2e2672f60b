//! The shared records, and what must hold in every state of the model.

use crate::processes::Process;
use crate::rules::Rules;
use registry_storage::chain::{self, State};

/// The version of a record; 0 is that of a record that was never written.
pub(crate) type Version = u8;

/// A manifest's incarnation; 0 is none.
pub(crate) type Incarnation = u8;

/// A record as it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    pub(crate) state: State,
    /// Manifest: the incarnation. Tag: the incarnation that it names. Grant, and blob that is not Pending: the bytes'
    /// number. Pending blob: the set of proposed bytes.
    pub(crate) value: u8,
    /// The cycle that wrote it.
    pub(crate) cycle: u8,
    pub(crate) version: Version,
}

impl Record {
    /// A Live record of the initial state.
    pub(crate) const fn live(value: u8, version: Version) -> Self {
        Self {
            state: State::Live,
            value,
            cycle: 0,
            version,
        }
    }

    /// The incarnation that a tag names.
    pub(crate) fn named(&self) -> Option<&Incarnation> {
        (self.value != 0).then_some(&self.value)
    }
}

/// Everything that the processes share. Sets of bytes, sessions and cycles have one bit for each member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) blob: Record,
    pub(crate) grant: Record,
    pub(crate) manifest: Record,
    pub(crate) tag: Record,
    /// The grant of the second repository.
    pub(crate) mounted: Record,
    /// A manifest without children that the tag named at first.
    pub(crate) previous: Record,
    /// The bytes that exist.
    pub(crate) bytes: u8,
    /// The bytes that the medium lost while a record named them.
    pub(crate) lost: u8,
    /// The sessions that are open.
    pub(crate) open: u8,
    /// The sessions whose bytes were proposed.
    pub(crate) proposed: u8,
    /// A user deleted the blob, so the manifest may miss it.
    pub(crate) is_blob_deleted: bool,
    pub(crate) cycle: u8,
    pub(crate) sealed: u8,
    pub(crate) next_version: Version,
    pub(crate) next_incarnation: Incarnation,
}

impl World {
    /// A version for a record that is written now.
    pub(crate) fn write(&mut self, rules: &Rules, state: State, value: u8, cycle: u8) -> Record {
        let version = rules.version(self.next_version, state, value, cycle);
        self.next_version += 1;
        Record {
            state,
            value,
            cycle,
            version,
        }
    }

    /// A new incarnation.
    pub(crate) const fn incarnate(&mut self) -> Incarnation {
        self.next_incarnation += 1;
        self.next_incarnation - 1
    }

    /// The set of bytes that the blob's record names.
    pub(crate) const fn named_by_blob(&self) -> u8 {
        match self.blob.state {
            State::Pending => self.blob.value,
            State::Live | State::Condemned => 1 << self.blob.value,
            State::Absent | State::Dead => 0,
        }
    }

    /// Tells whether the blob names bytes that the medium lost.
    pub(crate) const fn is_blob_lost(&self) -> bool {
        self.blob.state.is_visible() && self.lost & (1 << self.blob.value) != 0
    }

    /// A grant that names lost bytes says nothing of the blob: its reader looks at the blob's record.
    fn has_blob_of(&self, grant: &Record) -> bool {
        self.lost & (1 << grant.value) != 0 || self.blob.state.is_visible() && self.blob.value == grant.value
    }

    fn resolves(&self) -> bool {
        let is_named = |manifest: &Record| {
            manifest.state.is_visible() && chain::names(self.tag.named(), &manifest.value)
        };
        is_named(&self.manifest) || is_named(&self.previous)
    }
}

/// The most processes that a scenario may have.
pub(crate) const PROCESSES: usize = 6;

/// One state of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Model {
    pub(crate) world: World,
    pub(crate) processes: [Process; PROCESSES],
}

impl Model {
    /// Says which invariant does not hold.
    pub(crate) fn violation(&self, is_strict: bool) -> Option<&'static str> {
        let world = &self.world;
        if world.blob.state.is_visible()
            && !world.is_blob_lost()
            && world.bytes & (1 << world.blob.value) == 0
        {
            return Some("a visible blob has no bytes");
        }
        if world.grant.state.is_visible() && !world.has_blob_of(&world.grant) {
            return Some("a visible grant has no blob");
        }
        if world.mounted.state.is_visible() && !world.has_blob_of(&world.mounted) {
            return Some("a mounted grant has no blob");
        }
        if world.manifest.state.is_visible() && !world.grant.state.is_visible() && !world.is_blob_deleted {
            return Some("a visible manifest misses a child");
        }
        if self.processes.iter().any(|process| process.is_deceived(world)) {
            return Some("an upload was answered 201, and its repository reads bytes that were lost before");
        }
        if is_strict && self.processes.iter().any(Process::is_refused_for_no_reason) {
            return Some("a push was refused for no reason");
        }
        if !self.processes.iter().all(Process::is_settled) {
            return None;
        }
        if world.tag.named().is_some() && !world.resolves() {
            return Some("a tag names nothing after every push and delete ended");
        }
        let is_lost = |process: &Process| {
            process.acknowledged().is_some_and(|incarnation| {
                world.manifest.state.is_visible()
                    && world.manifest.value == incarnation
                    && world.tag.value != incarnation
            })
        };
        (self.processes.iter().any(is_lost))
            .then_some("an acknowledged tag was lost while its manifest lives")
    }

    /// Renames versions and incarnations in the order of their appearance, as only their equality matters.
    pub(crate) fn rename(&mut self) {
        let mut versions = Renaming::default();
        let mut incarnations = Renaming::default();
        let world = &mut self.world;
        for record in [
            &mut world.blob,
            &mut world.grant,
            &mut world.manifest,
            &mut world.tag,
            &mut world.mounted,
            &mut world.previous,
        ] {
            versions.apply(&mut record.version);
        }
        for record in [&mut world.manifest, &mut world.tag, &mut world.previous] {
            incarnations.apply(&mut record.value);
        }
        for process in &mut self.processes {
            process.rename(&mut versions, &mut incarnations);
        }
        world.next_version = versions.next();
        world.next_incarnation = incarnations.next();
    }
}

/// New names for the numbers below 64, in the order in which they are seen; 0 keeps its name.
#[derive(Debug)]
pub(crate) struct Renaming {
    names: [u8; 64],
    used: u8,
}

impl Default for Renaming {
    fn default() -> Self {
        Self {
            names: [0; 64],
            used: 0,
        }
    }
}

impl Renaming {
    pub(crate) const fn apply(&mut self, number: &mut u8) {
        if *number == 0 {
            return;
        }
        let name = &mut self.names[*number as usize];
        if *name == 0 {
            self.used += 1;
            *name = self.used;
        }
        *number = *name;
    }

    const fn next(&self) -> u8 {
        self.used + 1
    }
}
