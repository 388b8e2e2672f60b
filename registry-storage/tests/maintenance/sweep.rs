//! The sweeper: what it deletes, and what it must never.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use registry_core::storage::{
    ChildKind, Manifest, ManifestChild, NewManifest, PageRequest, TagFilter, UploadKey,
};
use registry_core::{Algorithm, Digest, ErrorCode, Hasher, Reference, RepositoryName, Tag};
use registry_storage::Maintenance as _;
use registry_storage::backend::RecordEntry;
use registry_storage::check::CheckOptions;
use registry_storage::testing::faulty::Fault;
use registry_storage::testing::{Faulty, ManualClock};
use registry_storage::{
    Backend, BytesName, Clock as _, CollectOptions, Key, ObjectStoreBackend, Store, StoreOptions,
    SweepOptions, SweepReport, Sweeper,
};

use crate::support::images::{IMAGE, append, bare_manifest, digest, start_upload};
use crate::support::poll_times;
use crate::support::tamper::{put_raw, remove};

const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);

/// Sizes that are kept in another way each: in the record, as the tail of a session, in parts.
const SIZES: [usize; 3] = [10, 20_000, 5 * 1024 * 1024 + 1];

struct World<B> {
    store: Arc<Store<B>>,
    backend: Arc<B>,
    clock: Arc<ManualClock>,
    repository: RepositoryName,
}

fn world<B: Backend>(backend: B, _files: Option<PathBuf>) -> World<B> {
    let clock = Arc::new(ManualClock::default());
    let backend = Arc::new(backend);
    let options = StoreOptions {
        upload_idle_limit: 2 * HOUR,
        ended_upload_memory: HOUR,
        ..StoreOptions::default()
    };
    World {
        store: Arc::new(Store::with_options(
            Arc::clone(&backend),
            Arc::clone(&clock) as _,
            options,
        )),
        backend,
        clock,
        repository: "a".parse().unwrap(),
    }
}

fn memory() -> World<ObjectStoreBackend> {
    world(ObjectStoreBackend::memory(), None)
}

impl<B: Backend> World<B> {
    async fn upload(&self, content: &Bytes) -> UploadKey {
        start_upload(self.storage(), self.repository.as_str(), content).await
    }

    async fn append(&self, upload: &UploadKey, content: &Bytes) {
        append(self.storage(), upload, content).await.unwrap();
    }

    fn storage(&self) -> &dyn registry_core::Storage {
        &*self.store
    }

    async fn push(&self, content: &Bytes) -> Digest {
        let upload = self.upload(content).await;
        let digest = digest(content);
        self.storage().commit_upload(&upload, &digest).await.unwrap();
        digest
    }

    async fn assert_blob(&self, content: &Bytes) {
        let blob = self
            .storage()
            .open_blob(&self.repository, &digest(content))
            .await
            .unwrap();
        let mut chunks = blob.content.read(0..blob.size);
        let mut read = Vec::new();
        while let Some(chunk) = chunks.next().await {
            read.extend_from_slice(&chunk.unwrap());
        }
        assert!(read == *content);
    }

    async fn assert_unknown(&self, upload: &UploadKey) {
        let error = self.storage().upload_status(upload).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::BlobUploadUnknown);
    }

    async fn sweep(&self) -> SweepReport {
        self.store.sweep(&SweepOptions::default()).await.unwrap()
    }

    async fn sweep_everything(&self) -> SweepReport {
        let everything = SweepOptions::new().full(true);
        self.store.sweep(&everything).await.unwrap()
    }

    /// Sweeps what was written down, and returns how many bytes are there.
    async fn bytes_after_sweep(&self) -> usize {
        assert!(!self.sweep().await.is_full);
        self.bytes().await
    }

    /// How many blobs a sweep of everything sees, and their size.
    async fn swept(&self) -> (u64, u64) {
        self.sweep_everything().await;
        let (contents, _) = self.store.counted_contents().unwrap();
        (contents.blobs, contents.bytes)
    }

    async fn bytes(&self) -> usize {
        self.bytes_names().await.len()
    }

    async fn bytes_names(&self) -> Vec<BytesName> {
        self.store.backend().list_bytes(None, 1000).await.unwrap()
    }
}

fn content(fill: u8, size: usize) -> Bytes {
    vec![fill; size].into()
}

on_each_backend! {
    a_sweep_counts_what_is_stored_each_blob_once
    what_loses_its_name_is_found_without_a_listing
    what_nobody_wrote_down_goes_with_a_sweep_of_everything
    an_idle_session_is_aborted_and_one_that_is_written_to_is_not
    bytes_of_blobs_and_open_sessions_stay
    bytes_of_ended_sessions_go
    bytes_that_lost_against_others_go
    bytes_that_are_hashed_again_stay
    an_ended_session_is_forgotten_in_time
    sweeps_at_once_do_no_harm
    an_upload_whose_bytes_trickle_in_is_not_swept
    an_upload_in_the_hands_of_a_request_is_not_swept
    a_record_that_cannot_be_read_is_stepped_over_and_what_it_may_name_stays
}

async fn an_idle_session_is_aborted_and_one_that_is_written_to_is_not<B: Backend>(world: World<B>) {
    for size in SIZES {
        let idle = world.upload(&content(1, size)).await;
        let busy = world.upload(&content(2, size)).await;
        world.clock.advance(2 * HOUR);
        assert_eq!(
            world.sweep().await.aborted_uploads,
            0,
            "the limit is not passed yet"
        );
        world.append(&busy, &content(3, 1)).await;
        world.clock.advance(MINUTE);
        let report = world.sweep().await;
        assert_eq!(report.aborted_uploads, 1);
        world.assert_unknown(&idle).await;
        assert_eq!(
            world.storage().upload_status(&busy).await.unwrap(),
            size as u64 + 1
        );
        let whole: Bytes = [content(2, size), content(3, 1)].concat().into();
        world
            .storage()
            .commit_upload(&busy, &digest(&whole))
            .await
            .unwrap();
        world.assert_blob(&whole).await;
        assert_eq!(world.sweep().await.aborted_uploads, 0);
        world.clock.advance(2 * HOUR);
        world.sweep().await;
    }
}

async fn bytes_of_blobs_and_open_sessions_stay<B: Backend>(world: World<B>) {
    for (fill, size) in (1..).zip(SIZES) {
        world.push(&content(fill, size)).await;
        let open = world.upload(&content(100 + fill, size)).await;
        for _ in 0..3 {
            world.clock.advance(HOUR);
            assert_eq!(world.sweep().await.deleted_bytes, 0);
            world.append(&open, &content(100 + fill, 1)).await;
        }
        let whole = content(100 + fill, size + 3);
        world
            .storage()
            .commit_upload(&open, &digest(&whole))
            .await
            .unwrap();
        for _ in 0..3 {
            // Long after the sessions are forgotten.
            world.clock.advance(100 * HOUR);
            world.sweep().await;
            world.assert_blob(&whole).await;
            world.assert_blob(&content(fill, size)).await;
        }
    }
}

async fn bytes_of_ended_sessions_go<B: Backend>(world: World<B>) {
    for (fill, size) in (1..).zip(SIZES) {
        let cancelled = world.upload(&content(fill, size)).await;
        world.storage().cancel_upload(&cancelled).await.unwrap();
        let idle = world.upload(&content(fill, size)).await;
        world.clock.advance(3 * HOUR);
        assert_eq!(world.sweep().await.aborted_uploads, 1);
        world.assert_unknown(&idle).await;
    }
    assert_eq!(world.bytes().await, 0);
}

/// The bytes of a second upload of the same blob are nobody's once its session ended.
async fn bytes_that_lost_against_others_go<B: Backend>(world: World<B>) {
    for (fill, size) in (1..).zip(SIZES) {
        let content = content(fill, size);
        world.push(&content).await;
        world.sweep().await;
        let before = world.bytes().await;
        world.push(&content).await;
        world.sweep().await;
        assert_eq!(world.bytes().await, before);
        world.assert_blob(&content).await;
    }
}

/// Bytes that lose what names them are written down, so no sweep lists all of them, or reads the blobs.
async fn what_loses_its_name_is_found_without_a_listing<B: Backend>(world: World<B>) {
    let image = content(1, 20_000);
    let digest = world.push(&image).await;
    assert!(world.sweep().await.is_full, "the first one");
    assert_eq!(world.bytes_after_sweep().await, 1);
    // A cancelled upload, an idle one, and one of content that is there.
    let cancelled = world.upload(&content(2, 20_000)).await;
    world.storage().cancel_upload(&cancelled).await.unwrap();
    assert_eq!(world.bytes_after_sweep().await, 1);
    world.upload(&content(2, 20_000)).await;
    world.clock.advance(2 * HOUR + MINUTE);
    assert_eq!(world.bytes_after_sweep().await, 1);
    world.push(&image).await;
    assert_eq!(world.bytes_after_sweep().await, 1);
    // Bytes that the medium lost, but for some of them, and that were pushed again.
    let named = world.bytes_names().await.remove(0);
    world.store.backend().delete_bytes(&named).await.unwrap();
    world.push(&image).await;
    assert_eq!(world.bytes_after_sweep().await, 1);
    world.assert_blob(&image).await;
    // A blob that is deleted; on a bucket it takes two cycles to be Dead.
    world
        .storage()
        .delete_blob(&world.repository, &digest, None)
        .await
        .unwrap();
    for _ in 0..2 {
        let options = CollectOptions::new().grace(Duration::ZERO);
        world.store.collect(&options, &()).await.unwrap();
    }
    assert_eq!(world.bytes_after_sweep().await, 0);
    for prefix in [Key::all_unnamed(), Key::all_candidates()] {
        // A candidate of a bucket stays for an hour if a repository had its blob when it was looked at.
        let left = world.store.backend().list(&prefix, None, 10).await.unwrap();
        assert_eq!(left, []);
    }
}

/// Nobody wrote these bytes down: they go with the sweep of everything, each day on a disk and each week on a bucket.
async fn what_nobody_wrote_down_goes_with_a_sweep_of_everything<B: Backend>(world: World<B>) {
    world.push(&content(1, 20_000)).await;
    world.sweep().await;
    let lost = world.upload(&content(2, 6 * 1024 * 1024)).await;
    // On a bucket, the bytes are there once they were completed.
    let other = Digest::of(Algorithm::Sha512, b"");
    world.storage().commit_upload(&lost, &other).await.unwrap_err();
    remove(&world.store, &Key::upload(lost.id)).await;
    assert_eq!(world.bytes_after_sweep().await, 2);
    let days = if world.store.backend().is_atomic() { 1 } else { 7 };
    world.clock.advance(days * 24 * HOUR - MINUTE);
    assert_eq!(world.bytes_after_sweep().await, 2);
    world.clock.advance(MINUTE);
    let report = world.sweep().await;
    assert_eq!((report.is_full, report.deleted_bytes), (true, 1));
    assert_eq!(world.bytes_after_sweep().await, 1);
    world.assert_blob(&content(1, 20_000)).await;
}

/// What it costs depends on what happened, not on what is there.
#[tokio::test]
async fn a_sweep_reads_no_blob_to_which_nothing_happened() {
    let world = world(Faulty::new(ObjectStoreBackend::memory()), None);
    for fill in 0..100 {
        world.push(&content(fill, 20_000)).await;
    }
    world.sweep().await;
    world.clock.advance(HOUR + MINUTE);
    world.sweep().await;
    let before = world.backend.calls();
    let report = world.sweep().await;
    assert_eq!(report, SweepReport::default());
    let calls = world.backend.calls() - before;
    assert!(calls < 10, "{calls}");
    assert_eq!(world.bytes().await, 100);
}

/// A process that dies at any call of a sweep, a push of what is there, or a delete, leaves nothing for good, and takes
/// nothing.
#[tokio::test]
async fn whatever_is_cut_off_is_found_by_a_sweep_of_everything() {
    for cut in 0.. {
        let world = world(Faulty::new(ObjectStoreBackend::memory()), None);
        let (kept, deleted) = (content(1, 20_000), content(2, 20_000));
        let config = world.push(&kept).await;
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"text/plain","digest":"{config}","size":{}}},"layers":[]}}"#,
            kept.len()
        );
        let manifest = image(&Bytes::from(manifest));
        world
            .storage()
            .put_manifest(&world.repository, manifest)
            .await
            .unwrap();
        let gone = world.push(&deleted).await;
        world.sweep().await;
        let before = world.backend.calls();
        for call in before + cut..before + cut + 1000 {
            world.backend.fault_at(call, Fault::Fail);
        }
        let storage = world.storage();
        let work = async {
            let id = storage
                .create_upload(&world.repository, "", Algorithm::Sha256)
                .await?;
            let upload = UploadKey {
                repository: world.repository.clone(),
                id,
                principal: String::new(),
            };
            let mut body = pin!(stream::iter([Ok(kept.clone())]));
            storage.append_upload(&upload, None, body.as_mut()).await?;
            storage.commit_upload(&upload, &digest(&kept)).await?;
            storage.delete_blob(&world.repository, &gone, None).await?;
            let options = CollectOptions::new().grace(Duration::ZERO);
            for _ in 0..3 {
                world.store.collect(&options, &()).await?;
                world.store.sweep(&SweepOptions::default()).await?;
            }
            Ok::<(), registry_core::Error>(())
        };
        let is_whole = work.await.is_ok();
        world.backend.heal();
        // Idle sessions end, and everything is swept.
        for _ in 0..4 {
            world.clock.advance(3 * HOUR);
            let options = CollectOptions::new().grace(Duration::ZERO).full(true);
            world.store.collect(&options, &()).await.unwrap();
            world.swept().await;
        }
        world.assert_blob(&kept).await;
        // No manifest names the other one.
        assert_eq!(world.bytes().await, 1, "cut at {cut}");
        if is_whole {
            assert!(cut > 30, "{cut}");
            return;
        }
    }
}

async fn an_ended_session_is_forgotten_in_time<B: Backend>(world: World<B>) {
    let content = content(1, 10);
    let upload = world.upload(&content).await;
    world
        .storage()
        .commit_upload(&upload, &digest(&content))
        .await
        .unwrap();
    let cancelled = world.upload(&content).await;
    world.storage().cancel_upload(&cancelled).await.unwrap();
    world.clock.advance(HOUR);
    assert_eq!(world.sweep().await.forgotten_uploads, 0);
    world
        .storage()
        .commit_upload(&upload, &digest(&content))
        .await
        .unwrap();
    world.clock.advance(MINUTE);
    assert_eq!(
        world.sweep().await.forgotten_uploads,
        1,
        "the cancelled one left nothing"
    );
    assert_eq!(world.sweep().await, SweepReport::default());
    let forgotten = world.storage().commit_upload(&upload, &digest(&content)).await;
    assert_eq!(forgotten.unwrap_err().code(), ErrorCode::BlobUploadUnknown);
    world.assert_unknown(&cancelled).await;
    world.assert_blob(&content).await;
}

async fn a_sweep_counts_what_is_stored_each_blob_once<B: Backend>(mut world: World<B>) {
    assert_eq!(world.store.counted_contents(), None);
    assert_eq!(world.swept().await, (0, 0));
    // In a record, and in bytes of its own; the same content again, and in another repository.
    world.push(&content(1, 100)).await;
    assert_eq!(world.swept().await, (1, 100));
    let large = content(2, 20_000);
    world.push(&large).await;
    world.push(&large).await;
    world.repository = "other".parse().unwrap();
    world.push(&large).await;
    // What is on its way is nothing yet.
    world.upload(&content(3, 30_000)).await;
    assert_eq!(world.swept().await, (2, 20_100));
    let (_, when) = world.store.counted_contents().unwrap();
    assert_eq!(when, world.clock.now());
}

async fn sweeps_at_once_do_no_harm<B: Backend>(world: World<B>) {
    let kept = content(1, 20_000);
    world.push(&kept).await;
    for _ in 0..3 {
        let cancelled = world.upload(&content(2, 20_000)).await;
        world.storage().cancel_upload(&cancelled).await.unwrap();
    }
    world.clock.advance(3 * HOUR);
    let sweeps = (0..4).map(|_| world.sweep());
    futures_util::future::join_all(sweeps).await;
    world.assert_blob(&kept).await;
    assert_eq!(world.bytes().await, 1);
}

/// What a client deletes is a grant; without one nobody finds the blob, and its bytes go with the next sweep.
#[cfg(all(feature = "filesystem", unix))]
#[tokio::test]
async fn on_a_disk_a_blob_that_no_repository_has_any_more_goes_and_its_bytes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let backend = registry_storage::filesystem::FilesystemBackend::open(folder.path())
        .await
        .unwrap();
    let world = world(backend, None);
    let other: RepositoryName = "b".parse().unwrap();
    for (fill, size) in (1..).zip(SIZES) {
        let content = content(fill, size);
        let digest = world.push(&content).await;
        let storage = world.storage();
        assert!(
            storage
                .mount_blob(&world.repository, &other, &digest)
                .await
                .unwrap()
        );
        storage.delete_blob(&other, &digest, None).await.unwrap();
        assert_eq!(world.sweep().await.dropped_blobs, 0, "a repository has it");
        world.assert_blob(&content).await;
        storage
            .delete_blob(&world.repository, &digest, None)
            .await
            .unwrap();
        // The session remembers its answer, and names no bytes any more.
        assert_eq!(world.sweep().await.dropped_blobs, 1);
        assert_eq!(world.bytes().await, 0);
        assert_eq!(world.backend.get(&Key::blob(&digest)).await.unwrap(), None);
        world.push(&content).await;
        world.assert_blob(&content).await;
        assert_eq!(world.sweep().await.dropped_blobs, 0);
        storage
            .delete_blob(&world.repository, &digest, None)
            .await
            .unwrap();
        world.sweep().await;
    }
}

/// Several repositories push, mount and delete one blob while it is swept: who was answered finds it.
#[cfg(all(feature = "filesystem", unix))]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_a_disk_a_blob_that_is_pushed_while_it_is_dropped_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let backend = registry_storage::filesystem::FilesystemBackend::open(folder.path())
        .await
        .unwrap();
    let mut world = world(backend, None);
    let content = content(1, 20_000);
    let digest = digest(&content);
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let sweeping = tokio::spawn({
        let (store, done) = (Arc::clone(&world.store), Arc::clone(&done));
        async move {
            let mut dropped = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                dropped += store.sweep(&SweepOptions::default()).await.unwrap().dropped_blobs;
            }
            dropped
        }
    });
    let mut tasks = Vec::new();
    for name in ["a", "b", "c"] {
        world.repository = name.parse().unwrap();
        let world = World {
            store: Arc::clone(&world.store),
            backend: Arc::clone(&world.backend),
            clock: Arc::clone(&world.clock),
            repository: name.parse().unwrap(),
        };
        let (content, digest) = (content.clone(), digest.clone());
        tasks.push(tokio::spawn(async move {
            let source: RepositoryName = "a".parse().unwrap();
            for _ in 0..60 {
                let storage = world.storage();
                if world.repository == source
                    || !storage
                        .mount_blob(&source, &world.repository, &digest)
                        .await
                        .unwrap()
                {
                    world.push(&content).await;
                }
                world.assert_blob(&content).await;
                storage
                    .delete_blob(&world.repository, &digest, None)
                    .await
                    .unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    let dropped = sweeping.await.unwrap() + world.sweep().await.dropped_blobs;
    assert!(dropped > 0);
    assert_eq!(world.bytes().await, 0);
}

/// Slower than the idle limit from one part to the next, with a sweeper in this process and one in another.
async fn an_upload_whose_bytes_trickle_in_is_not_swept<B: Backend>(world: World<B>) {
    let options = StoreOptions {
        upload_idle_limit: 2 * HOUR,
        ended_upload_memory: HOUR,
        ..StoreOptions::default()
    };
    let other = Store::with_options(Arc::clone(&world.backend), Arc::clone(&world.clock) as _, options);
    // With a tail in its record, and with none.
    for before in [0, 10] {
        let upload = world.upload(&content(1, before)).await;
        let (clock, store, other) = (&world.clock, &world.store, &other);
        let trickle = stream::iter(0..20).then(|_| async move {
            clock.advance(HOUR);
            assert_eq!(
                store
                    .sweep(&SweepOptions::default())
                    .await
                    .unwrap()
                    .aborted_uploads,
                0
            );
            assert_eq!(
                other
                    .sweep(&SweepOptions::default())
                    .await
                    .unwrap()
                    .aborted_uploads,
                0
            );
            Ok(content(1, 1000))
        });
        let mut body = pin!(trickle);
        let length = world.storage().append_upload(&upload, None, body.as_mut()).await;
        let size = before + 20_000;
        assert_eq!(length.unwrap(), size as u64);
        world.clock.advance(2 * HOUR);
        assert_eq!(
            other
                .sweep(&SweepOptions::default())
                .await
                .unwrap()
                .aborted_uploads,
            0,
            "it counts from the last byte"
        );
        let whole = content(1, size);
        world
            .storage()
            .commit_upload(&upload, &digest(&whole))
            .await
            .unwrap();
        world.assert_blob(&whole).await;
        world.clock.advance(100 * HOUR);
        world.sweep().await;
        world.assert_blob(&whole).await;
    }
}

/// Whoever holds it ends by the limits on silence; a sweep does not take it away.
async fn an_upload_in_the_hands_of_a_request_is_not_swept<B: Backend>(world: World<B>) {
    let upload = world.upload(&content(1, 10)).await;
    let (clock, store) = (&world.clock, &world.store);
    let mut body = pin!(stream::once(async move {
        clock.advance(10 * HOUR);
        assert_eq!(
            store
                .sweep(&SweepOptions::default())
                .await
                .unwrap()
                .aborted_uploads,
            0
        );
        Ok(content(1, 10))
    }));
    world
        .storage()
        .append_upload(&upload, None, body.as_mut())
        .await
        .unwrap();
    assert_eq!(world.storage().upload_status(&upload).await.unwrap(), 20);
    world.clock.advance(2 * HOUR + MINUTE);
    assert_eq!(world.sweep().await.aborted_uploads, 1);
    world.assert_unknown(&upload).await;
}

async fn a_record_that_cannot_be_read_is_stepped_over_and_what_it_may_name_stays<B: Backend>(
    world: World<B>,
) {
    let kept = content(1, 20_000);
    let lost = digest(&content(2, 20_000));
    world.push(&kept).await;
    world.push(&content(2, 20_000)).await;
    let upload = world.upload(&content(3, 20_000)).await;
    let key = |upload: &UploadKey| Key::from_stored(&format!("uploads/{}", upload.id));
    let records = [Key::blob(&lost), key(&upload), Key::blob(&lost).quarantined()];
    for (round, record) in records.into_iter().enumerate() {
        let before = world.store.backend().get(&record).await.unwrap();
        for damage in ["no line", "{}\n", ""] {
            put_raw(&world.store, &record, Bytes::from(damage)).await;
            let idle = world.upload(&content(4, 20_000)).await;
            world.clock.advance(2 * HOUR + MINUTE);
            // Others go on being written to.
            if round != 1 {
                world.append(&upload, &content(3, 1)).await;
            }
            let report = world.sweep_everything().await;
            assert_eq!(report.unreadable_records, 1, "{record} {damage:?}");
            assert_eq!((report.aborted_uploads, report.deleted_bytes), (1, 0));
            world.assert_unknown(&idle).await;
            world.assert_blob(&kept).await;
        }
        match before {
            Some(before) => put_raw(&world.store, &record, before.value).await,
            None => remove(&world.store, &record).await,
        }
    }
    world.assert_blob(&content(2, 20_000)).await;

    // Once a repair put it aside, the sweeper deletes what nothing names, but for the bytes that the grants name.
    put_raw(&world.store, &Key::blob(&lost), Bytes::from("no line")).await;
    put_raw(&world.store, &key(&upload), Bytes::from("no line")).await;
    let options = CheckOptions::new().repair(true).settle(Duration::ZERO);
    world.store.check(&options, &()).await.unwrap();
    let report = world.sweep_everything().await;
    assert_eq!(report.unreadable_records, 0);
    assert_eq!(world.bytes().await, 2);
    world.assert_blob(&kept).await;
    world.push(&content(2, 20_000)).await;
    world.assert_blob(&content(2, 20_000)).await;
}

#[tokio::test(start_paused = true)]
async fn the_background_sweeper_sweeps_until_it_is_shut_down() {
    let world = memory();
    let sweeper = Sweeper::start(Arc::clone(&world.store) as _, HOUR);
    let idle = world.upload(&content(1, 10)).await;
    world.clock.advance(3 * HOUR);
    assert_eq!(world.storage().upload_status(&idle).await.unwrap(), 10);
    tokio::time::sleep(HOUR + MINUTE).await;
    world.assert_unknown(&idle).await;
    sweeper.shutdown().await;
    let late = world.upload(&content(1, 10)).await;
    world.clock.advance(3 * HOUR);
    tokio::time::sleep(5 * HOUR).await;
    assert_eq!(world.storage().upload_status(&late).await.unwrap(), 10);
}

/// A commit, and at each of its steps a cancel by another process, and at each later step a sweep: what the commit
/// publishes has its bytes.
#[tokio::test]
async fn a_cancel_and_a_sweep_at_any_steps_of_a_commit_leave_no_blob_without_bytes() {
    let content = content(1, 20_000);
    let mut published = 0;
    let mut cancel_at = 0;
    loop {
        for wait in 0..12 {
            let backend = Faulty::new(ObjectStoreBackend::memory());
            for call in 0..500 {
                // A request is polled once for each call.
                backend.fault_at(call, Fault::Delay(1));
            }
            let world = world(backend, None);
            let other = Store::with_options(
                Arc::clone(&world.backend),
                Arc::clone(&world.clock) as _,
                StoreOptions::default(),
            );
            let upload = world.upload(&content).await;
            let digest = digest(&content);
            let mut commit = pin!(world.storage().commit_upload(&upload, &digest));
            if poll_times(commit.as_mut(), cancel_at).await.is_some() {
                assert!(published > 0 && cancel_at > 10);
                return;
            }
            let other: &dyn registry_core::Storage = &other;
            drop(other.cancel_upload(&upload).await);
            let result = match poll_times(commit.as_mut(), wait).await {
                Some(result) => result,
                None => {
                    world.sweep().await;
                    commit.await
                }
            };
            world.sweep().await;
            if result.is_ok() {
                published += 1;
                world.assert_blob(&content).await;
            } else {
                let visible = other.stat_blob(&world.repository, &digest).await;
                assert_eq!(visible.unwrap_err().code(), ErrorCode::BlobUnknown);
            }
        }
        cancel_at += 1;
    }
}

/// A commit, and at each of its steps a cancel by another process, a sweep, and a push of the same content by that process: the
/// bytes that come after all of that are found without a listing.
#[tokio::test]
async fn bytes_that_come_after_a_cancel_and_another_push_are_swept() {
    let content = content(1, 20_000);
    for cancel_at in 0.. {
        let backend = Faulty::new(ObjectStoreBackend::memory());
        for call in 0..500 {
            backend.fault_at(call, Fault::Delay(1));
        }
        let world = world(backend, None);
        assert!(world.sweep().await.is_full, "the first one");
        let other = Store::with_options(
            Arc::clone(&world.backend),
            Arc::clone(&world.clock) as _,
            StoreOptions::default(),
        );
        let other = World {
            store: Arc::new(other),
            backend: Arc::clone(&world.backend),
            clock: Arc::clone(&world.clock),
            repository: world.repository.clone(),
        };
        let upload = world.upload(&content).await;
        let digest = digest(&content);
        let mut commit = pin!(world.storage().commit_upload(&upload, &digest));
        if poll_times(commit.as_mut(), cancel_at).await.is_some() {
            assert!(cancel_at > 10);
            return;
        }
        drop(other.storage().cancel_upload(&upload).await);
        other.sweep().await;
        other.push(&content).await;
        other.sweep().await;
        drop(commit.await);
        assert_eq!(other.bytes_after_sweep().await, 1, "cancelled at {cancel_at}");
        other.assert_blob(&content).await;
    }
}

/// Bytes that were completed to be hashed again are their session's, though no blob names them.
async fn bytes_that_are_hashed_again_stay<B: Backend>(world: World<B>) {
    for size in SIZES {
        let content = content(1, size);
        let upload = world.upload(&content).await;
        let digest_of = |content: &[u8]| {
            let mut hasher = Hasher::new(Algorithm::Sha512);
            hasher.update(content);
            hasher.finish()
        };
        let wrong = world.storage().commit_upload(&upload, &digest_of(b"else")).await;
        assert_eq!(wrong.unwrap_err().code(), ErrorCode::DigestInvalid);
        assert_eq!(world.sweep().await.deleted_bytes, 0);
        let digest = digest_of(&content);
        world.storage().commit_upload(&upload, &digest).await.unwrap();
        world.sweep().await;
        let blob = world
            .storage()
            .open_blob(&world.repository, &digest)
            .await
            .unwrap();
        let first = blob.content.read(0..1).next().await.unwrap().unwrap();
        assert_eq!(first, content.slice(..1));
    }
}

/// A delete of a manifest with many tags takes several transactions. Where its client leaves or its process dies in
/// between, the tags name nothing already; the sweeper takes them out of their list.
#[tokio::test]
async fn a_delete_that_was_interrupted_is_ended() {
    let world = world(Faulty::new(ObjectStoreBackend::memory()), None);
    let storage = world.storage();
    let bytes = Bytes::from_static(b"image");
    let digest = digest(&bytes);
    let mut names = Vec::new();
    for batch in 0..4 {
        let tags: Vec<Tag> = (0..60)
            .map(|number| format!("t{batch}-{number:02}").parse().unwrap())
            .collect();
        names.extend(tags.iter().map(ToString::to_string));
        let new = NewManifest {
            tags,
            ..image(&bytes)
        };
        storage.put_manifest(&world.repository, new).await.unwrap();
    }
    let before = world.backend.calls();
    world.backend.fault_at(before + 1200, Fault::Fail);
    let deleted = storage
        .delete_manifest(&world.repository, &digest, None, None)
        .await;
    assert_eq!(deleted.unwrap_err().code(), ErrorCode::Unavailable);
    let list = async || {
        let page = PageRequest {
            last: None,
            limit: 1000,
        };
        let page = storage.list_tags(&world.repository, page).await.unwrap();
        page.items.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let left = list().await;
    assert!(
        !left.is_empty() && left.len() < names.len(),
        "{} are left",
        left.len()
    );
    // To read a tag that is left deletes it.
    let (read, left) = left.split_first().unwrap();
    for tag in names.iter().filter(|name| !left.contains(name)) {
        let tag = Reference::Tag(tag.parse().unwrap());
        let read = storage.get_manifest(&world.repository, &tag).await;
        assert_eq!(read.unwrap_err().code(), ErrorCode::ManifestUnknown);
    }
    assert!(names.contains(read));
    world.sweep().await;
    assert_eq!(list().await, left, "it may go on yet");
    world.clock.advance(HOUR + MINUTE);
    world.sweep().await;
    assert!(list().await.is_empty());
    let notes = world.backend.list(&Key::deletes(), None, 10).await.unwrap();
    assert!(notes.is_empty());
}

/// A delete that was given up before it deleted anything leaves what it was about.
#[tokio::test]
async fn the_note_of_a_delete_that_deleted_nothing_goes() {
    let world = world(Faulty::new(ObjectStoreBackend::memory()), None);
    let content = Bytes::from_static(b"content");
    let blob = world.push(&content).await;
    let immutable: TagFilter = Arc::new(|_| true);
    let before = world.backend.calls();
    // The transaction, a look at the grant, the note, the grant, the list of tags.
    world.backend.fault_at(before + 4, Fault::Fail);
    let deleted = world
        .storage()
        .delete_blob(&world.repository, &blob, Some(immutable))
        .await;
    assert_eq!(deleted.unwrap_err().code(), ErrorCode::Unavailable);
    let notes = async || world.backend.list(&Key::deletes(), None, 10).await.unwrap().len();
    assert_eq!(notes().await, 1);
    world.clock.advance(HOUR + MINUTE);
    world.sweep().await;
    assert_eq!(notes().await, 0);
    world.assert_blob(&content).await;
}

/// Two deletes were given up. What one of them is about cannot be read any more: the other one is ended.
#[tokio::test]
async fn a_note_that_cannot_be_ended_does_not_keep_others() {
    let world = world(Faulty::new(ObjectStoreBackend::memory()), None);
    let immutable: TagFilter = Arc::new(|_| true);
    let mut blobs = Vec::new();
    for content in ["one", "other"] {
        let blob = world.push(&Bytes::from_static(content.as_bytes())).await;
        let before = world.backend.calls();
        world.backend.fault_at(before + 4, Fault::Fail);
        let deleted = world
            .storage()
            .delete_blob(&world.repository, &blob, Some(Arc::clone(&immutable)))
            .await;
        deleted.unwrap_err();
        blobs.push(blob);
    }
    let notes = async || world.backend.list(&Key::deletes(), None, 10).await.unwrap().len();
    assert_eq!(notes().await, 2);
    let grant = Key::grant(&blobs[0], &world.repository);
    let mut value = world.backend.get(&grant).await.unwrap().unwrap().value.to_vec();
    value[0] = b'x';
    put_raw(&world.store, &grant, value.into()).await;
    world.clock.advance(HOUR + MINUTE);
    world.sweep().await;
    assert_eq!(notes().await, 1);
}

/// A push of a manifest that names thousands of contents takes several transactions, and leaves nothing where it is cut
/// off in between.
#[tokio::test]
async fn a_push_that_was_interrupted_leaves_nothing() {
    let world = world(Faulty::new(ObjectStoreBackend::memory()), None);
    let bytes = Bytes::from_static(b"image");
    let child = |number: u32| ManifestChild {
        digest: digest(&Bytes::copy_from_slice(&number.to_le_bytes())),
        kind: ChildKind::Blob,
    };
    let new = NewManifest {
        optional_children: (0..2000).map(child).collect(),
        ..image(&bytes)
    };
    let before = world.backend.calls();
    world.backend.fault_at(before + 1200, Fault::Fail);
    let pushed = world.storage().put_manifest(&world.repository, new.clone()).await;
    assert_eq!(pushed.unwrap_err().code(), ErrorCode::Unavailable);
    let records = async || world.backend.list(&Key::from_stored(""), None, 10).await.unwrap();
    assert_eq!(
        records().await.len(),
        2,
        "the manifest, Pending, and a note of its push"
    );
    world.clock.advance(HOUR + MINUTE);
    world.sweep().await;
    let is_left = |entry: &RecordEntry| entry.key != Key::full_sweep();
    assert_eq!(records().await.into_iter().find(is_left), None);
    world
        .storage()
        .put_manifest(&world.repository, new)
        .await
        .unwrap();
    world.sweep().await;
    let notes = world.backend.list(&Key::pushes(), None, 10).await.unwrap();
    assert_eq!(notes, []);
}

fn image(bytes: &Bytes) -> NewManifest {
    bare_manifest(Manifest {
        digest: digest(bytes),
        media_type: IMAGE.parse().unwrap(),
        bytes: bytes.clone(),
    })
}

/// A folder in the place of a file, or a file that may not be removed, stops nothing but its own delete.
#[tokio::test]
async fn bytes_that_cannot_be_deleted_do_not_keep_others() {
    let folder = tempfile::tempdir().unwrap();
    let backend = registry_storage::filesystem::FilesystemBackend::open(folder.path());
    let world = world(backend.await.unwrap(), None);
    world.push(&content(1, 20_000)).await;
    let day = std::fs::read_dir(folder.path().join("bytes"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let odd = |number: u32| day.join(format!("{number:08}-0000-4000-8000-000000000000"));
    std::fs::create_dir(odd(0)).unwrap();
    let blob = digest(&content(1, 20_000));
    world
        .storage()
        .delete_blob(&world.repository, &blob, None)
        .await
        .unwrap();
    let report = world.store.sweep(&SweepOptions::default()).await.unwrap();
    assert_eq!((report.deleted_bytes, report.undeleted_bytes), (1, 1));
    assert_eq!(world.bytes().await, 1);
    // A disk that deletes nothing fails the sweep.
    for number in 1..20 {
        std::fs::create_dir(odd(number)).unwrap();
    }
    let everything = SweepOptions::new().full(true);
    world.store.sweep(&everything).await.unwrap_err();
}
