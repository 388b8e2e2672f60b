//! Scrubbing: what rotted is found and never served, what is whole stays, and a round goes on where it was.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use registry_core::storage::BlobStorage as _;
use registry_core::{Digest, Error, ErrorCode};
use registry_storage::backend::{Durability, RecordTransaction, StagedBytes, Transaction};
use registry_storage::check::{CheckOptions, CheckReport, Problem, Repair};
use registry_storage::filesystem::FilesystemBackend;
use registry_storage::testing::faulty::Fault;
use registry_storage::testing::{Faulty, ManualClock, Observed};
use registry_storage::{
    Backend, BytesName, Clock, Key, Maintenance as _, ObjectStoreBackend, ScrubOptions, ScrubReport, Store,
    StoreOptions, SweepOptions,
};

use crate::support::images::{digest, name, push_blob};
use crate::support::tamper::put_raw;

/// Larger than what is kept in a record.
const LARGE: usize = 40_000;
const DAY: Duration = Duration::from_hours(24);

fn content(fill: u8) -> Bytes {
    vec![fill; LARGE].into()
}

fn options() -> ScrubOptions {
    ScrubOptions::new()
        .bytes_per_second(u64::MAX)
        .save(Duration::from_millis(1))
        .settle(Duration::ZERO)
}

/// A store whose bytes and time a test can change.
struct World<B> {
    store: Store<B>,
    backend: Arc<B>,
    clock: Arc<ManualClock>,
    /// Where the bytes are files.
    files: Option<PathBuf>,
}

fn world<B: Backend>(backend: B, files: Option<PathBuf>) -> World<B> {
    let (backend, clock) = (Arc::new(backend), Arc::new(ManualClock::default()));
    World {
        store: process(&backend, &clock),
        backend,
        clock,
        files,
    }
}

fn process<B: Backend>(backend: &Arc<B>, clock: &Arc<ManualClock>) -> Store<B> {
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    Store::with_options(Arc::clone(backend), clock, StoreOptions::default())
}

/// Puts other bytes in the place of bytes.
struct Overwrite(BytesName, Bytes);

impl Transaction for Overwrite {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        let staged = StagedBytes {
            name: self.0,
            token: None,
        };
        records.complete_bytes(&staged, &[], self.1).await
    }
}

fn found(observed: Observed) -> Vec<(Key, Problem, Repair)> {
    let found = observed.into_records().into_iter();
    found
        .map(|found| (found.key, found.problem, found.repair))
        .collect()
}

impl<B: Backend> World<B> {
    /// Another process on the same records.
    fn other_process(&self) -> Store<B> {
        process(&self.backend, &self.clock)
    }

    /// Pushes a blob, and returns the name of its bytes.
    async fn push(&self, content: &Bytes) -> BytesName {
        let before = self.names().await;
        push_blob(&self.store, "a/b", content).await;
        let mut names = self.names().await;
        names.retain(|name| !before.contains(name));
        assert_eq!(names.len(), 1);
        names.pop().unwrap()
    }

    async fn names(&self) -> Vec<BytesName> {
        self.backend.list_bytes(None, 1000).await.unwrap()
    }

    async fn damage(&self, name: &BytesName, bytes: Option<&Bytes>) {
        match (bytes, &self.files) {
            (None, _) => self.backend.delete_bytes(name).await.unwrap(),
            (Some(bytes), Some(files)) => std::fs::write(files.join(name.as_str()), bytes).unwrap(),
            (Some(bytes), None) => {
                let overwrite = Overwrite(name.clone(), bytes.clone());
                self.backend
                    .transact(Durability::Synced, overwrite)
                    .await
                    .unwrap();
            }
        }
    }

    async fn read(&self, digest: &Digest) -> Result<Vec<u8>, ErrorCode> {
        self.read_from("a/b", digest).await
    }

    async fn read_from(&self, repository: &str, digest: &Digest) -> Result<Vec<u8>, ErrorCode> {
        let blob = self.store.open_blob(&name(repository), digest).await;
        let blob = blob.map_err(|error| error.code())?;
        let chunks: Vec<Bytes> = blob.content.read(0..blob.size).try_collect().await.unwrap();
        Ok(chunks.concat())
    }

    async fn scrub(&self) -> (ScrubReport, Vec<(Key, Problem, Repair)>) {
        let observed = Observed::default();
        let report = self.store.scrub(&options(), &observed).await.unwrap();
        (report, found(observed))
    }

    async fn check(&self, verifies: bool) -> (CheckReport, Vec<(Key, Problem, Repair)>) {
        let observed = Observed::default();
        let options = CheckOptions::new()
            .verify_content(verifies)
            .settle(Duration::ZERO);
        let report = self.store.check(&options, &observed).await.unwrap();
        (report, found(observed))
    }
}

on_each_backend! {
    what_rotted_is_never_served_and_a_push_brings_it_back
    what_is_in_quarantine_is_dropped_after_thirty_days
    what_is_lost_is_reported_and_stays_with_every_repository
    a_round_goes_on_where_it_was_and_the_next_one_comes_when_it_is_due
    a_record_that_cannot_be_read_begins_a_round
}

async fn what_rotted_is_never_served_and_a_push_brings_it_back<B: Backend>(world: World<B>) {
    let (whole, rotten) = (content(1), content(2));
    world.push(&whole).await;
    let bytes = world.push(&rotten).await;
    let mounted = world
        .store
        .mount_blob(&name("a/b"), &name("other"), &digest(&rotten))
        .await;
    assert!(mounted.unwrap());
    world.damage(&bytes, Some(&content(3))).await;
    assert_eq!(
        world.read(&digest(&rotten)).await.unwrap(),
        content(3),
        "nobody knows yet"
    );
    let (report, found) = world.scrub().await;
    let problem = Problem::OtherContent {
        found: digest(&content(3)),
    };
    assert_eq!(found, [(Key::blob(&digest(&rotten)), problem, Repair::Done)]);
    let counts = report.counts;
    assert_eq!(
        (counts.blobs, counts.broken, counts.quarantined, counts.unreadable),
        (2, 1, 1, 0)
    );
    // What looked wrong was read twice.
    assert_eq!(counts.bytes, 3 * LARGE as u64);
    assert!(report.is_finished);
    assert_eq!(world.store.scrubbed(), counts);
    assert_eq!(world.read(&digest(&rotten)).await, Err(ErrorCode::BlobUnknown));
    assert_eq!(world.read(&digest(&whole)).await.unwrap(), whole);
    // The bytes are kept.
    world.store.sweep(&SweepOptions::default()).await.unwrap();
    assert!(world.names().await.contains(&bytes));
    let problem = |found: Digest| Problem::InQuarantine {
        reason: Problem::OtherContent { found }.to_string(),
        repositories: vec![name("a/b"), name("other")],
    };
    let missing = (
        Key::blob(&digest(&rotten)),
        problem(digest(&content(3))),
        Repair::None,
    );
    for verifies in [false, true] {
        let (report, found) = world.check(verifies).await;
        assert_eq!(found, std::slice::from_ref(&missing));
        assert_eq!(
            (report.is_sound(), report.missing, report.quarantined),
            (false, 1, 1)
        );
    }
    // One push heals it everywhere.
    world.push(&rotten).await;
    for repository in ["a/b", "other"] {
        assert_eq!(
            world.read_from(repository, &digest(&rotten)).await.unwrap(),
            rotten
        );
    }
    let (report, found) = world.check(true).await;
    assert_eq!((found, report.quarantined), (vec![], 1));
    world.clock.advance(31 * DAY);
    let (report, found) = world.scrub().await;
    assert_eq!((report.counts.blobs, found), (2, vec![]));
}

async fn what_is_in_quarantine_is_dropped_after_thirty_days<B: Backend>(world: World<B>) {
    let (pushed, missing) = (content(1), content(2));
    for blob in [&pushed, &missing] {
        let bytes = world.push(blob).await;
        world.damage(&bytes, Some(&content(3))).await;
    }
    assert_eq!(world.scrub().await.0.counts.quarantined, 2);
    world.clock.advance(20 * DAY);
    world.push(&pushed).await;
    let kept = world.names().await;
    assert_eq!(kept.len(), 3);
    for (days, left) in [(9, 2), (2, 0)] {
        world.clock.advance(days * DAY);
        let report = world.store.sweep(&SweepOptions::default()).await.unwrap();
        assert_eq!(report.dropped_quarantine, 2 - left);
        assert_eq!(world.names().await.len() as u64, 1 + left);
        assert_eq!(world.check(false).await.0.quarantined, left);
    }
    assert_eq!(world.read(&digest(&pushed)).await.unwrap(), pushed);
    // What is missing is missing, and can be pushed.
    let expected = (
        Key::blob(&digest(&missing)),
        Problem::MissingBytes,
        Repair::Possible,
    );
    assert_eq!(world.check(false).await.1, [expected]);
    world.push(&missing).await;
    assert_eq!(world.read(&digest(&missing)).await.unwrap(), missing);
}

/// Bytes that a mount point hides come back, and so must the blobs: 404 needs no quarantine.
async fn what_is_lost_is_reported_and_stays_with_every_repository<B: Backend>(world: World<B>) {
    let (gone, cut) = (content(1), content(2));
    let gone_bytes = world.push(&gone).await;
    let cut_bytes = world.push(&cut).await;
    let mounted = world
        .store
        .mount_blob(&name("a/b"), &name("other"), &digest(&cut))
        .await;
    assert!(mounted.unwrap());
    world.damage(&gone_bytes, None).await;
    world.damage(&cut_bytes, Some(&cut.slice(..7))).await;
    let (report, mut found) = world.scrub().await;
    found.sort_by_key(|(_, problem, _)| *problem != Problem::MissingBytes);
    let cut_problem = Problem::OtherLength {
        expected: LARGE as u64,
        found: 7,
    };
    assert_eq!(
        found,
        [
            (Key::blob(&digest(&gone)), Problem::MissingBytes, Repair::Possible),
            (Key::blob(&digest(&cut)), cut_problem, Repair::Possible),
        ]
    );
    assert_eq!((report.counts.broken, report.counts.quarantined), (2, 0));
    assert_eq!(world.read(&digest(&gone)).await, Err(ErrorCode::BlobUnknown));
    assert_eq!(world.read(&digest(&cut)).await, Err(ErrorCode::BlobUnknown));
    world.damage(&cut_bytes, Some(&cut)).await;
    assert_eq!(world.read(&digest(&cut)).await.unwrap(), cut);
    world
        .store
        .stat_blob(&name("other"), &digest(&cut))
        .await
        .unwrap();
}

async fn a_round_goes_on_where_it_was_and_the_next_one_comes_when_it_is_due<B: Backend>(world: World<B>) {
    const BLOBS: u8 = 20;
    for fill in 0..BLOBS {
        world.push(&content(fill)).await;
    }
    // Slow enough that the process ends in the middle, after a few blobs.
    let slow = options().bytes_per_second(20 * LARGE as u64);
    let killed = tokio::time::timeout(Duration::from_millis(700), world.store.scrub(&slow, &())).await;
    assert!(killed.is_err());
    let done = world.store.scrubbed().blobs;
    assert!((1..u64::from(BLOBS)).contains(&done), "{done}");
    let other = world.other_process();
    let options = options().save(Duration::from_mins(1));
    if !world.backend.is_atomic() {
        let report = other.scrub(&options, &()).await.unwrap();
        assert_eq!((report.counts.blobs, report.wait), (0, Duration::from_mins(5)));
        world.clock.advance(Duration::from_mins(5));
    }
    let report = other.scrub(&options, &()).await.unwrap();
    assert!(report.is_finished);
    assert_eq!(done + report.counts.blobs, u64::from(BLOBS));
    // The round counts from its beginning.
    world.clock.advance(DAY);
    let report = other.scrub(&options, &()).await.unwrap();
    assert_eq!((report.counts.blobs, report.is_finished), (0, false));
    let begun_ago = if world.backend.is_atomic() {
        DAY
    } else {
        DAY + Duration::from_mins(5)
    };
    assert_eq!(report.wait, 30 * DAY - begun_ago);
    world.clock.advance(report.wait);
    let report = world.store.scrub(&options, &()).await.unwrap();
    assert_eq!(report.counts.blobs, u64::from(BLOBS));
}

async fn a_record_that_cannot_be_read_begins_a_round<B: Backend>(world: World<B>) {
    world.push(&content(1)).await;
    put_raw(&world.store, &Key::scrub(), Bytes::from_static(b"{}")).await;
    let (report, _) = world.scrub().await;
    assert_eq!((report.counts.blobs, report.is_finished), (1, true));
}

/// Two processes: the one that was slow finds out, and leaves the rest to the other.
#[tokio::test]
async fn a_process_that_was_taken_over_from_stops() {
    let world = world(ObjectStoreBackend::memory(), None);
    for fill in 0..20 {
        world.push(&content(fill)).await;
    }
    let slow = options().bytes_per_second(20 * LARGE as u64);
    let (other, patient) = (world.other_process(), options().save(Duration::from_mins(1)));
    let take_over = async {
        while world.store.scrubbed().blobs == 0 {
            tokio::task::yield_now().await;
        }
        world.clock.advance(Duration::from_hours(1));
        other.scrub(&patient, &()).await.unwrap()
    };
    let (first, second) = tokio::join!(world.store.scrub(&slow, &()), take_over);
    assert!(second.is_finished);
    let first = first.unwrap();
    assert!(!first.is_finished && first.counts.blobs < 20, "{first:?}");
}

/// An error of the medium is no defect of the content.
#[tokio::test]
async fn whatever_call_fails_nothing_whole_goes_into_quarantine() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FilesystemBackend::open(folder.path()).await.unwrap();
    let world = world(Faulty::new(disk), None);
    let (backend, blob) = (&*world.backend, content(1));
    push_blob(&world.store, "a/b", &blob).await;
    let before = backend.calls();
    world.scrub().await;
    let calls = backend.calls() - before;
    assert!(calls > 5, "{calls}");
    let mut failed = 0;
    for call in 0..calls {
        world.clock.advance(31 * DAY);
        backend.fault_at(backend.calls() + call, Fault::Fail);
        let scrubbed = world.store.scrub(&options(), &()).await;
        failed += u32::from(scrubbed.is_err());
        backend.heal();
        assert_eq!(world.read(&digest(&blob)).await.unwrap(), blob);
    }
    let counts = world.store.scrubbed();
    assert_eq!((counts.broken, counts.quarantined), (0, 0), "{counts:?}");
    assert!(failed > 0 && counts.unreadable > 0, "{failed} {counts:?}");
}
