//! What a run of the model begins with.

use crate::processes::{
    BlobDeleter, Canceller, Collector, Deleter, Medium, Mounter, Process, Sweeper, Target, Uploader, Writer,
};
use crate::rules::{Mutation, Rules};
use crate::state::{Model, PROCESSES, Record, World};

/// The processes of a run, and what is stored at first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) writers: u8,
    pub(crate) uploaders: u8,
    pub(crate) collectors: u8,
    pub(crate) cycles: u8,
    /// How many users delete the manifest.
    pub(crate) deleters: u8,
    pub(crate) sweeper: bool,
    /// A user deletes the blob.
    pub(crate) blob_delete: bool,
    /// The blob is mounted into a second repository.
    pub(crate) mount: bool,
    /// The first upload is cancelled.
    pub(crate) cancel: bool,
    /// All uploaders share a session.
    pub(crate) twins: bool,
    /// A commit may die, and is resumed by another process.
    pub(crate) crash: bool,
    /// Nothing is stored at first.
    pub(crate) empty: bool,
    /// There is no manifest and no tag at first.
    pub(crate) no_tag: bool,
    /// A push may only be refused for a reason.
    pub(crate) strict: bool,
    /// The tag names another manifest at first, which a user deletes.
    pub(crate) previous: bool,
    /// The medium loses the bytes of the blob, and whoever uses the blob looks at them. Without this all take it for
    /// whole.
    pub(crate) loss: bool,
}

impl Scenario {
    /// A blob, a manifest and a tag that are stored, a user who deletes the manifest, and a sweeper.
    pub(crate) const fn new(writers: u8, uploaders: u8, collectors: u8, cycles: u8) -> Self {
        Self {
            writers,
            uploaders,
            collectors,
            cycles,
            deleters: 1,
            sweeper: true,
            blob_delete: false,
            mount: false,
            cancel: false,
            twins: false,
            crash: false,
            empty: false,
            no_tag: false,
            strict: false,
            previous: false,
            loss: false,
        }
    }

    /// The first state of the run.
    pub(crate) fn model(&self, rules: &Rules) -> Model {
        let mut world = World {
            blob: Record::live(0, 1),
            grant: Record::live(0, 2),
            manifest: Record::live(1, 3),
            tag: Record::live(1, 4),
            bytes: 1,
            ..World::default()
        };
        if self.empty {
            world = World::default();
        }
        if self.no_tag || self.previous {
            world.manifest = Record::default();
            world.tag = Record::default();
        }
        if self.previous {
            world.previous = Record::live(1, 3);
            world.tag = Record::live(1, 4);
        }
        world.next_version = 5;
        world.next_incarnation = 2;

        let mut processes = Vec::new();
        let mut add = |count: u8, process: Process| {
            processes.extend((0..count).map(|_| process));
        };
        add(self.writers, Process::Writer(Writer::default()));
        for index in 0..self.uploaders {
            let number = match rules.mutation {
                Some(Mutation::SameBytesName) => 0,
                _ if self.twins => 1,
                _ => index + 1,
            };
            if self.twins || self.cancel {
                world.open |= 1 << number;
                world.bytes |= 1 << number;
                add(
                    1,
                    Process::Uploader(Uploader::sent(number, self.crash, self.loss)),
                );
            } else {
                add(1, Process::Uploader(Uploader::new(number, self.crash, self.loss)));
            }
        }
        add(
            self.collectors,
            Process::Collector(Collector::new(self.cycles, self.mount, self.previous)),
        );
        add(self.deleters, Process::Deleter(Deleter::of(Target::Manifest)));
        add(
            self.previous.into(),
            Process::Deleter(Deleter::of(Target::Previous)),
        );
        add(self.sweeper.into(), Process::Sweeper(Sweeper::default()));
        add(
            self.blob_delete.into(),
            Process::BlobDeleter(BlobDeleter::default()),
        );
        add(self.mount.into(), Process::Mounter(Mounter::new(self.loss)));
        add(self.cancel.into(), Process::Canceller(Canceller::default()));
        add(self.loss.into(), Process::Medium(Medium::default()));
        assert!(processes.len() <= PROCESSES, "too many processes");
        processes.resize(PROCESSES, Process::None);

        let mut model = Model {
            world,
            processes: std::array::from_fn(|index| processes[index]),
        };
        model.rename();
        model
    }
}
