//! Two processes, six clients, two repositories and five manifests: much happens at once.

mod client;
mod invariants;
mod maintenance;
mod manifests;
mod uploads;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use registry_core::{Digest, RepositoryName};
use registry_storage::testing::faulty::Fault;
use registry_storage::testing::storage_conformance::Random;
use registry_storage::testing::{Faulty, ManualClock};
use registry_storage::{
    Backend as _, Maintenance as _, ObjectStoreBackend, Store, StoreOptions, SweepOptions,
};

use self::client::Client;
use crate::Process;
use crate::contents::{Blob, Image, digest, images};

const TASKS: u64 = 6;
const STEPS: usize = 10;
const CALLS: u64 = 6000;

/// What a seed does beside waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nothing.
    None,
    /// One call of the bucket fails.
    Fault,
    /// Clients go away in the middle of requests, and come back.
    Drops,
}

/// What clients do: anything, or what meets often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    All,
    /// Pushes and deletes of few manifests and tags in one repository.
    Manifests,
    /// Uploads, cancels and sweeps of few blobs.
    Uploads,
    /// Pushes, mounts and deletes beside cycles of the collector that keep nothing for a while.
    Collector,
    /// The same beside retention, which keeps only the tags of which each client has one.
    Retention,
    /// The same beside deletes of the whole repository `b`.
    Repository,
}

const WORKS: [Work; 6] = [
    Work::All,
    Work::Manifests,
    Work::Uploads,
    Work::Collector,
    Work::Retention,
    Work::Repository,
];

#[derive(Clone)]
pub(crate) struct Simulation {
    pub(super) seed: u64,
    pub(super) work: Work,
    pub(super) trouble: Trouble,
    pub(super) backend: Arc<Faulty<ObjectStoreBackend>>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) processes: [Arc<Process>; 2],
    pub(super) repositories: [RepositoryName; 2],
    pub(super) blobs: Arc<[Blob]>,
    pub(super) images: Arc<[Image]>,
    /// What was acknowledged and may not go: manifests that nobody deletes.
    pub(super) acknowledged: Arc<Mutex<BTreeSet<(RepositoryName, Digest)>>>,
    /// What was refused after it may have written a tag: no tag may name it.
    pub(super) refused: Arc<Mutex<BTreeSet<Digest>>>,
    /// How many deletes of images have begun, and how many have ended, together.
    pub(super) deletes: Arc<AtomicUsize>,
}

pub(crate) async fn run(seed: u64) -> u64 {
    let simulation = Simulation::new(seed);
    println!("{:?} {:?}", simulation.work, simulation.trouble);
    let backend = Arc::clone(&simulation.backend);
    simulation.run().await;
    backend.calls()
}

impl Simulation {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let backend = Faulty::new(ObjectStoreBackend::memory());
        let trouble = [Trouble::None, Trouble::None, Trouble::Fault, Trouble::Drops][(seed % 4) as usize];
        let slowest = 1 + random.below(12);
        for call in 0..CALLS {
            backend.fault_at(call, Fault::Delay(random.below(slowest) as u32));
        }
        if trouble == Trouble::Fault {
            let fault = [Fault::Fail, Fault::LoseAnswer][random.below(2)];
            backend.fault_at(random.below(1500) as u64, fault);
        }
        let (backend, clock) = (Arc::new(backend), Arc::new(ManualClock::default()));
        let process = || {
            let options = StoreOptions::default();
            Arc::new(Store::with_options(
                Arc::clone(&backend),
                Arc::clone(&clock) as _,
                options,
            ))
        };
        let blobs: Vec<Blob> = [10, 20_000, 12, 18_000]
            .into_iter()
            .enumerate()
            .map(|(at, size)| {
                let content: Bytes = std::iter::repeat_n(b'a' + at as u8, size).collect();
                Blob {
                    digest: digest(&content),
                    content,
                    is_deleted: at >= 2,
                }
            })
            .collect();
        Self {
            seed,
            work: WORKS[(seed / 4) as usize % WORKS.len()],
            trouble,
            processes: [process(), process()],
            backend,
            clock,
            repositories: ["a".parse().unwrap(), "b".parse().unwrap()],
            images: images(&blobs),
            blobs: blobs.into(),
            acknowledged: Arc::default(),
            refused: Arc::default(),
            deletes: Arc::default(),
        }
    }

    pub(crate) async fn run(self) {
        let tasks: Vec<_> = (0..TASKS)
            .map(|number| {
                let client = Client {
                    world: self.clone(),
                    random: Random::new(self.seed << 8 | number),
                    number,
                    own_tag: BTreeMap::new(),
                };
                tokio::spawn(client.run())
            })
            .collect();
        for done in join_all(tasks).await {
            done.unwrap();
        }
        self.backend.heal();
        self.assert_invariants().await;
        if self.is_collecting() {
            return self.assert_collected().await;
        }
        // All that is swept later is what nothing needs.
        for process in &self.processes {
            self.clock.advance(Duration::from_hours(24 * 30));
            process.sweep(&SweepOptions::default()).await.unwrap();
        }
        self.clock.advance(Duration::from_hours(24 * 30));
        self.processes[0].sweep(&SweepOptions::default()).await.unwrap();
        self.assert_invariants().await;
        let kept = self.backend.list_bytes(None, 100).await.unwrap().len();
        // Each large blob once, and what Pending blobs name that nobody came back to.
        let most = if self.trouble == Trouble::None { 2 } else { 4 };
        assert!(kept <= most, "{kept} byte strings are left over");
    }

    /// A blob that no manifest names may be gone at any time.
    pub(super) fn is_collecting(&self) -> bool {
        matches!(self.work, Work::Collector | Work::Retention | Work::Repository)
    }
}
