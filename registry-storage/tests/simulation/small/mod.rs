//! A few processes, each of which does one or two things to the same few records.

mod blobs;
mod end;
mod images;
mod maintenance;
mod pairs;
mod schedule;
mod snapshot;
mod work;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use registry_core::quota::Quota;
use registry_core::storage::UploadKey;
use registry_core::{Digest, RepositoryName, Tag};
use registry_storage::testing::storage_conformance::Random;
use registry_storage::testing::{Faulty, ManualClock};
use registry_storage::{Maintenance as _, ObjectStoreBackend, Store, StoreOptions, SweepOptions};

use self::schedule::Schedule;
use self::work::{Op, Work};
use crate::Process;
use crate::contents::{Blob, Image};

/// How long a store keeps what is deleted, if it does.
const KEPT: Duration = Duration::from_hours(24);

/// How long ago everything happened that was before.
const BEFORE: Duration = Duration::from_hours(2);

/// Small enough that a blob has several parts.
const PART_SIZE: usize = 8 * 1024;

pub(crate) use self::pairs::{PAIRS, run as run_pair};

pub(crate) async fn run(seed: u64) -> u64 {
    let world = Arc::new(World::new(Work::of(seed), seed, is_cut_off(seed)));
    println!("{:?}", world.work);
    Arc::clone(&world).run(seed).await;
    world.calls()
}

fn is_cut_off(seed: u64) -> bool {
    Random::new(!seed).below(8) == 0
}

struct World {
    work: Work,
    /// What a client does is printed.
    is_told: bool,
    /// The bucket without delays: what reads it sees one moment.
    bucket: ObjectStoreBackend,
    clock: Arc<ManualClock>,
    /// One for each client, and a last one that never waits.
    processes: Vec<Arc<Process>>,
    repositories: Vec<RepositoryName>,
    blobs: Vec<Blob>,
    images: Vec<Image>,
    quotas: Vec<Quota>,
    /// A client is cut off in the middle of a request.
    is_cut_off: bool,
    /// Somebody counts, or has counted, for quotas.
    has_counted: AtomicBool,
    /// An upload whose commits and cancel meet.
    upload: Mutex<Option<UploadKey>>,
    /// The tags of acknowledged pushes, if nothing may take them away.
    pushed: Mutex<BTreeSet<(RepositoryName, Tag, Digest)>>,
    /// Manifests whose delete was acknowledged.
    deleted: Mutex<BTreeSet<Digest>>,
}

impl World {
    fn new(work: Work, seed: u64, is_cut_off: bool) -> Self {
        let mut random = Random::new(seed);
        let bucket = ObjectStoreBackend::memory();
        let clock = Arc::new(ManualClock::default());
        let clients = work.clients().len().max(pairs::CLIENTS);
        let quotas = work.quotas();
        let options = StoreOptions {
            keep_deleted: if work.keeps_deleted() {
                KEPT
            } else {
                Duration::ZERO
            },
            ..StoreOptions::default()
        };
        let process = |_| {
            let backend = Arc::new(Faulty::new(bucket.clone()).with_part_size(PART_SIZE));
            let process = Store::with_options(backend, Arc::clone(&clock) as _, options.clone());
            process.set_quotas(quotas.clone());
            Arc::new(process)
        };
        let processes = (0..=clients).map(process).collect();
        let blobs = work.blobs(&mut random);
        let images = work.images(&blobs);
        Self {
            work,
            is_told: std::env::var_os(crate::SEEDS).is_some(),
            is_cut_off,
            bucket,
            clock,
            processes,
            repositories: work.repositories(),
            blobs,
            images,
            quotas,
            has_counted: AtomicBool::new(false),
            upload: Mutex::default(),
            pushed: Mutex::default(),
            deleted: Mutex::default(),
        }
    }

    async fn run(self: Arc<Self>, seed: u64) {
        let mut random = Random::new(seed << 8);
        let before = self.work.before();
        self.begin(before[random.below(before.len())], random.next())
            .await;
        let schedule = Schedule::random(&mut random, self.work.clients().len());
        if self.is_told {
            println!("{schedule:?}");
        }
        let cut_off = self.is_cut_off.then(|| random.below(self.processes.len() - 1));
        let mut tasks = Vec::new();
        for (number, (ops, most)) in self.work.clients().iter().enumerate() {
            // The fewer there are, the more often those meet that have to.
            if random.below(3) == 0 && !schedule.needs(number) {
                continue;
            }
            schedule.apply(number, self.processes[number].backend(), &mut random);
            let client = self.client(number, random.next());
            let polls = (cut_off == Some(number)).then(|| random.below(120));
            let steps = 1 + random.below(*most);
            tasks.push(tokio::spawn(client.run(ops, steps, schedule, polls)));
        }
        for done in join_all(tasks).await {
            done.unwrap();
        }
        for process in &self.processes {
            process.backend().heal();
        }
        self.assert_end(random.below(2) == 0).await;
    }

    /// Does what happened before the clients begin.
    async fn begin(self: &Arc<Self>, before: &[Op], seed: u64) {
        // The first sweep is one of everything.
        self.process().sweep(&SweepOptions::new()).await.unwrap();
        let mut client = self.client(self.processes.len() - 1, seed);
        for op in before {
            client.perform(*op).await;
        }
        for _ in 0..2 {
            self.clock.advance(BEFORE / 2);
            if before.contains(&Op::RecordPulls) {
                // A server that records all the time.
                client.perform(Op::RecordPulls).await;
            }
        }
        self.pushed.lock().unwrap().clear();
        self.has_counted.store(false, Ordering::Relaxed);
    }

    /// How many calls of the bucket all processes made.
    fn calls(&self) -> u64 {
        let processes = self.processes.iter();
        processes.map(|process| process.backend().calls()).sum()
    }

    fn client(self: &Arc<Self>, number: usize, seed: u64) -> Client {
        Client {
            world: Arc::clone(self),
            process: Arc::clone(&self.processes[number]),
            number,
            random: Random::new(seed),
        }
    }
}

/// Somebody who makes requests of a process of their own.
struct Client {
    world: Arc<World>,
    process: Arc<Process>,
    number: usize,
    random: Random,
}

impl Client {
    async fn run(mut self, ops: &'static [Op], steps: usize, schedule: Schedule, polls: Option<usize>) {
        let work = async {
            for step in 0..steps {
                crate::wait(schedule.pause(self.number, step == 0, &mut self.random)).await;
                let op = self.one_of(ops);
                self.perform(op).await;
            }
        };
        match polls {
            Some(polls) => drop(crate::poll_times(work, polls).await),
            None => work.await,
        }
    }

    const fn one_of<T: Copy>(&mut self, some: &[T]) -> T {
        some[self.random.below(some.len())]
    }

    async fn perform(&mut self, op: Op) {
        if self.world.is_told {
            println!("{} begins {op:?}", self.number);
        }
        match op {
            Op::PushBlob => self.push_blob().await,
            Op::CancelUpload => self.cancel_upload().await,
            Op::Append => self.append().await,
            Op::Commit(at) => self.commit(at).await,
            Op::CommitWrongly => self.commit_wrongly().await,
            Op::Cancel => self.cancel().await,
            Op::CommitTwice => self.commit_twice().await,
            Op::Mount => self.mount().await,
            Op::DeleteBlob => self.delete_blob().await,
            Op::PushImage => self.push_image().await,
            Op::PushOld => self.push_old().await,
            Op::PushIfMatches => self.push_if_matches().await,
            Op::PushOldTo(tag) => self.push_old_to(tag).await,
            Op::PushImmutable => self.push_both_tags(None).await,
            Op::DeleteOld => self.delete(0).await,
            Op::PushIncomplete => self.push_incomplete().await,
            Op::DeleteImage => self.delete_image().await,
            Op::Restore => self.restore().await,
            Op::Collect | Op::SlowCollect => self.collect().await,
            Op::Sweep => self.sweep().await,
            Op::SweepAll => self.sweep_all().await,
            Op::Count => self.count().await,
            Op::Retain => self.retain().await,
            Op::PushAll => self.push_all().await,
            Op::RecordPulls => self.record_pulls().await,
            Op::Pull(at) => self.pull(at).await,
            Op::DeleteRepository => self.delete_repository().await,
        }
        if self.world.is_told {
            println!("{} ended {op:?}", self.number);
        }
        self.world.assert_snapshot().await;
    }
}
