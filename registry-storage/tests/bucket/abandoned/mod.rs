//! Uploads in a bucket that nobody knows of any more: they are aborted, and no other is.

mod servers;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use registry_core::storage::UploadKey;
use registry_core::{ErrorCode, Storage, Timestamp};
use registry_storage::check::CheckOptions;
use registry_storage::testing::s3::S3Fault;
use registry_storage::testing::{ManualClock, S3Double};
use registry_storage::{
    BytesName, Clock as _, Key, Maintenance as _, ObjectStoreBackend, Store, StoreOptions, SweepOptions,
    SweepReport,
};

use crate::support::images::{append, digest, start_upload};
use crate::support::tamper::{put_raw, remove};

const PART: usize = 5 * 1024 * 1024;
const DAY: Duration = Duration::from_hours(24);
const ROOT: &str = "registry";

struct World {
    double: S3Double,
    store: Store<ObjectStoreBackend>,
    clock: Arc<ManualClock>,
}

impl World {
    async fn new(upload_idle_limit: Duration) -> Self {
        let double = S3Double::start().await.unwrap();
        let clock = clock_at(double.now());
        let store = store(double.backend(ROOT).unwrap(), &clock, upload_idle_limit);
        Self { double, store, clock }
    }

    async fn sweep_everything(&self) -> SweepReport {
        let everything = SweepOptions::new().full(true);
        self.store.sweep(&everything).await.unwrap()
    }

    /// Sweeps, and returns how many uploads were aborted that no session named, and how many are left in the bucket.
    async fn sweep(&self) -> (u64, usize) {
        let report = self.sweep_everything().await;
        assert_eq!(report.undeleted_bytes, 0);
        (report.abandoned_uploads, self.double.open_uploads())
    }

    /// Begins an upload and sends a part and some more.
    async fn upload(&self, content: &Bytes) -> UploadKey {
        start_upload(&self.store, "a", content).await
    }

    /// How often uploads were listed since the last call.
    fn listings(&self) -> usize {
        let seen = self.double.faults().take_seen();
        seen.iter()
            .filter(|request| request.starts_with("GET ") && request.contains("?uploads="))
            .count()
    }
}

fn clock_at(time: Timestamp) -> Arc<ManualClock> {
    let clock = Arc::new(ManualClock::default());
    clock.advance(time.since(clock.now()));
    clock
}

fn store(
    backend: ObjectStoreBackend,
    clock: &Arc<ManualClock>,
    upload_idle_limit: Duration,
) -> Store<ObjectStoreBackend> {
    let options = StoreOptions {
        upload_idle_limit,
        ..StoreOptions::default()
    };
    Store::with_options(Arc::new(backend), Arc::clone(clock) as _, options)
}

fn content(seed: u8) -> Bytes {
    vec![seed; PART + 100].into()
}

/// Sends the rest of an upload and ends it.
async fn assert_finishes(storage: &dyn Storage, upload: &UploadKey, sent: &Bytes) {
    let rest = content(9);
    append(storage, upload, &rest).await.unwrap();
    let whole: Bytes = [&sent[..], &rest].concat().into();
    storage.commit_upload(upload, &digest(&whole)).await.unwrap();
    let blob = storage.open_blob(&upload.repository, &digest(&whole)).await;
    assert_eq!(blob.unwrap().size, whole.len() as u64);
}

#[tokio::test]
async fn an_upload_whose_record_was_lost_is_aborted_a_day_after_it_could_be_idle() {
    let world = World::new(7 * DAY).await;
    let upload = world.upload(&content(1)).await;
    assert_eq!(world.sweep().await, (0, 1));
    remove(&world.store, &Key::upload(upload.id)).await;
    assert_eq!(world.sweep().await, (0, 1));
    world.clock.advance(8 * DAY);
    assert_eq!(world.sweep().await, (0, 1));
    world.clock.advance(Duration::from_secs(1));
    world.listings();
    // Only a sweep of everything asks the bucket.
    let report = world.store.sweep(&SweepOptions::new()).await.unwrap();
    assert_eq!((report.is_full, report.abandoned_uploads), (false, 0));
    assert_eq!((world.listings(), world.double.open_uploads()), (0, 1));
    assert_eq!(world.sweep().await, (1, 0));
    assert_eq!(world.double.parts_of_open_uploads(), 0);
    assert_eq!(world.sweep().await, (0, 0));
}

#[tokio::test]
async fn an_upload_stays_while_its_session_is_open_however_long_ago_it_began() {
    let world = World::new(7 * DAY).await;
    let mut sent = content(1);
    let upload = world.upload(&sent).await;
    for _ in 0..5 {
        world.clock.advance(6 * DAY);
        append(&world.store, &upload, &content(2)).await.unwrap();
        sent = [&sent[..], &content(2)].concat().into();
        assert_eq!(world.sweep().await, (0, 1));
    }
    // Another process, whose clock is ahead.
    let ahead = clock_at(Timestamp(world.clock.now().0 + 1_000_000));
    let other = store(world.double.backend(ROOT).unwrap(), &ahead, 7 * DAY);
    let report = other.sweep(&SweepOptions::new().full(true)).await.unwrap();
    assert_eq!(report.abandoned_uploads, 0);
    assert_finishes(&world.store, &upload, &sent).await;
    assert_eq!(world.sweep().await, (0, 0));
}

#[tokio::test]
async fn an_upload_stays_for_as_long_as_it_may_be_idle() {
    let world = World::new(400 * DAY).await;
    let sent = content(1);
    let upload = world.upload(&sent).await;
    world.clock.advance(400 * DAY);
    assert_eq!(world.sweep().await, (0, 1));
    assert_finishes(&world.store, &upload, &sent).await;

    let world = World::new(Duration::MAX).await;
    let upload = world.upload(&sent).await;
    remove(&world.store, &Key::upload(upload.id)).await;
    world.clock.advance(10_000 * DAY);
    assert_eq!(world.sweep().await, (0, 1));
    assert_eq!(world.listings(), 0);
}

#[tokio::test]
async fn while_a_session_cannot_be_read_nothing_is_aborted_and_once_it_is_in_quarantine_its_upload_is() {
    let world = World::new(7 * DAY).await;
    let lost = world.upload(&content(1)).await;
    let rotten = world.upload(&content(2)).await;
    remove(&world.store, &Key::upload(lost.id)).await;
    put_raw(&world.store, &Key::upload(rotten.id), "rot".into()).await;
    world.clock.advance(9 * DAY);
    assert_eq!(world.sweep().await, (0, 2));
    let repair = CheckOptions::new().repair(true);
    world.store.check(&repair, &()).await.unwrap();
    assert_eq!(world.sweep().await, (2, 0));
}

#[tokio::test]
async fn uploads_of_others_in_the_bucket_stay() {
    let name = BytesName::random(Timestamp(0));
    let hex = "ab".repeat(32);
    let others = [
        format!("registry2/bytes/{name}"),
        format!("bytes/{name}"),
        format!("registry/registry/bytes/{name}"),
        format!("registry/bytes/{name}/more"),
        format!("registry/bytes/distribution/sha256/{hex}"),
        "registry/bytes/backup.tar".to_owned(),
        format!("registry/uploads/{name}"),
        // Of the distribution registry.
        "registry/docker/registry/v2/repositories/a/_uploads/1/data".to_owned(),
        format!("registry/docker/registry/v2/blobs/sha256/cd/{hex}/data"),
        format!("registry2/docker/registry/v2/blobs/sha256/ab/{hex}/data"),
    ];
    // The second is what an export in place left that was killed in the middle of a large blob.
    let own = [
        format!("registry/bytes/{name}"),
        format!("registry/docker/registry/v2/blobs/sha256/ab/{hex}/data"),
    ];
    let world = World::new(7 * DAY).await;
    for key in others.iter().chain(&own) {
        world.double.begin_upload(key);
    }
    world.clock.advance(9 * DAY);
    assert_eq!(world.sweep().await, (own.len() as u64, others.len()));

    // Nor does a registry without a folder take those of others below it.
    let whole = store(world.double.backend("").unwrap(), &world.clock, 7 * DAY);
    let report = whole.sweep(&SweepOptions::new().full(true)).await.unwrap();
    assert_eq!(report.abandoned_uploads, 1);
    assert_eq!(world.double.open_uploads(), others.len() - 1);
}

#[tokio::test]
async fn all_pages_are_read() {
    const LOST: usize = 2100;
    let world = World::new(7 * DAY).await;
    let live = world.upload(&content(1)).await;
    for _ in 0..LOST {
        let name = BytesName::random(world.double.now());
        world.double.begin_upload(&format!("{ROOT}/bytes/{name}"));
    }
    world.clock.advance(6 * DAY);
    append(&world.store, &live, &content(2)).await.unwrap();
    world.clock.advance(6 * DAY);
    world.listings();
    assert_eq!(world.sweep().await, (LOST as u64, 1));
    assert_eq!(world.listings(), 3 + 1, "pages of bytes, and of the tree");
    let sent: Bytes = [content(1), content(2)].concat().into();
    assert_finishes(&world.store, &live, &sent).await;
}

#[tokio::test]
async fn a_store_that_lists_no_uploads_is_asked_once_in_a_sweep_and_swept_all_the_same() {
    let world = World::new(7 * DAY).await;
    let upload = world.upload(&content(1)).await;
    remove(&world.store, &Key::upload(upload.id)).await;
    world.clock.advance(9 * DAY);
    let faults = world.double.faults();
    for (status, code) in [
        (501, "NotImplemented"),
        (403, "AccessDenied"),
        (405, "MethodNotAllowed"),
        (400, "NotImplemented"),
        // It lists objects.
        (200, ""),
    ] {
        faults.refuse_upload_listings(Some((status, code)));
        world.listings();
        assert_eq!(world.sweep().await, (0, 1), "{status} {code}");
        assert_eq!(world.listings(), 1, "{status} {code}");
    }
    // Rclone, if there never was an upload.
    faults.refuse_upload_listings(Some((404, "NoSuchUpload")));
    assert_eq!((world.sweep().await, world.listings()), ((0, 1), 2));
    // What may pass is told, and the rest of the sweep is done.
    faults.refuse_upload_listings(Some((503, "SlowDown")));
    let name = BytesName::random(world.clock.now());
    let key = format!("{ROOT}/bytes/{name}");
    world.double.put(&key, "unnamed".into());
    let everything = SweepOptions::new().full(true);
    let error = world.store.sweep(&everything).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert!(!world.double.objects().contains_key(&key));
    faults.refuse_upload_listings(None);
    assert_eq!(world.sweep().await, (1, 0));
}

/// Whatever request of a sweep fails or loses its answer: the upload of the session stays, and the next sweep aborts the other.
#[tokio::test]
async fn whatever_fails_the_next_sweep_does_it() {
    let (mut failed, mut survived) = (0, 0);
    for fault in [
        S3Fault::Answer(400, "Oops"),
        S3Fault::LoseAnswer,
        S3Fault::CutBody,
        S3Fault::Page,
    ] {
        for at in 0.. {
            let world = World::new(7 * DAY).await;
            let (lost, live) = (world.upload(&content(1)).await, world.upload(&content(2)).await);
            remove(&world.store, &Key::upload(lost.id)).await;
            world.clock.advance(6 * DAY);
            append(&world.store, &live, &content(3)).await.unwrap();
            world.clock.advance(6 * DAY);
            let before = world.double.faults().requests();
            world.double.faults().fault_after(at, fault);
            let everything = SweepOptions::new().full(true);
            match world.store.sweep(&everything).await {
                Ok(report) if report.abandoned_uploads == 1 => survived += 1,
                _ => failed += 1,
            }
            if world.double.faults().requests() <= before + at {
                break;
            }
            world.sweep_everything().await;
            assert_eq!(world.double.open_uploads(), 1, "{fault:?} {at}");
            let sent: Bytes = [content(2), content(3)].concat().into();
            assert_finishes(&world.store, &live, &sent).await;
        }
    }
    assert!(failed > 5 && survived > 5, "{failed} {survived}");
}
