//! A disk that is full, for real: a small one of memory. That takes root; without it the test says so and ends.
//!
//! A program of its own, because it starts many others: until such a child runs its program, it holds the locks of all roots
//! that tests of this process have open, and who opens one again at that moment finds it held.
#![cfg(all(feature = "filesystem", target_os = "linux"))]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "test code")]

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use registry_core::retention::{KeepRule, Retention, RetentionPolicy};
use registry_core::storage::{
    BlobStorage as _, Manifest, ManifestStorage as _, NewManifest, UploadKey, UploadStorage as _,
};
use registry_core::{Algorithm, Digest, Error, ErrorCode, Reference, RepositoryName, Tag};
use registry_storage::Maintenance as _;
use registry_storage::filesystem::{FilesystemBackend, FilesystemOptions};
use registry_storage::testing::{ManualClock, SmallDisk};
use registry_storage::{
    CollectOptions, RetainOptions, ScrubOptions, Store, StoreOptions, SweepOptions, Sweeper,
};

use crate::support::images::{INDEX, append, bare_manifest, create_upload};

/// A disk of `megabytes` over a folder.
fn mount(folder: &Path, megabytes: u32, files: u32) -> Option<SmallDisk> {
    let disk = SmallDisk::mount(folder, megabytes, files);
    if disk.is_none() {
        println!("skipped: a file system cannot be mounted here");
    }
    disk
}

struct World {
    store: Arc<Store<FilesystemBackend>>,
    clock: Arc<ManualClock>,
}

/// More files than a test makes.
const FILES: u32 = 10_000;

fn repository() -> RepositoryName {
    "full/disk".parse().unwrap()
}

impl World {
    async fn open(root: &Path) -> Self {
        Self::open_with(root, StoreOptions::default()).await
    }

    async fn open_with(root: &Path, options: StoreOptions) -> Self {
        let clock = Arc::new(ManualClock::default());
        // For a child of another test that has not begun its own program yet.
        let options_of_disk = FilesystemOptions::new().wait(Duration::from_secs(30));
        let backend = options_of_disk.open(root).await.unwrap();
        let store = Store::with_options(Arc::new(backend), Arc::clone(&clock) as _, options);
        Self {
            store: Arc::new(store),
            clock,
        }
    }

    async fn begin(&self) -> Result<UploadKey, Error> {
        create_upload(&*self.store, repository().as_str()).await
    }

    async fn append(&self, upload: &UploadKey, content: Bytes) -> Result<u64, Error> {
        append(&*self.store, upload, &content).await
    }

    async fn upload(&self, size: usize) -> Result<(UploadKey, Digest), Error> {
        let upload = self.begin().await?;
        let content = Bytes::from(vec![9; size]);
        let digest = Digest::of(Algorithm::Sha256, &content);
        self.append(&upload, content).await?;
        Ok((upload, digest))
    }

    async fn push(&self, size: usize) -> Result<(), Error> {
        let (upload, digest) = self.upload(size).await?;
        self.store.commit_upload(&upload, &digest).await
    }

    async fn push_manifest(&self, tag: &str) -> Result<Digest, Error> {
        self.push_manifest_with(tag, "").await
    }

    async fn push_manifest_with(&self, tag: &str, filler: &str) -> Result<Digest, Error> {
        let bytes = Bytes::from(format!(
            r#"{{"schemaVersion":2,"manifests":[],"annotations":{{"tag":"{tag}","filler":"{filler}"}}}}"#
        ));
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let manifest = NewManifest {
            tags: vec![tag.parse().unwrap()],
            ..bare_manifest(Manifest {
                digest: digest.clone(),
                media_type: INDEX.parse().unwrap(),
                bytes,
            })
        };
        self.store.put_manifest(&repository(), manifest).await?;
        Ok(digest)
    }
}

/// Another program fills the disk, and the night is long: what is done by the clock leaves the reserve to the deletes.
#[tokio::test]
async fn what_frees_nothing_leaves_the_reserve_to_deletes() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = mount(folder.path(), 40, FILES) else {
        return;
    };
    let root = folder.path().join("root");
    let world = World::open(&root).await;
    let digest = world.push_manifest("one").await.unwrap();
    // What nothing names yet, and is too young to go.
    world.push(100_000).await.unwrap();
    disk.fill(0).unwrap();
    world.store.probe().await.unwrap();
    let reserve = || std::fs::metadata(root.join("reserve")).map_or(0, |file| file.len());
    let held = reserve();
    assert!(held > 1 << 20, "{held}");
    let untagged = RetentionPolicy {
        repositories: vec!["**".parse().unwrap()],
        tags: vec!["*".parse().unwrap()],
        keep: vec![KeepRule::default()],
        untagged: Some(Duration::ZERO),
        pulled_within: None,
    };
    let retention = Retention {
        policies: vec![untagged],
        immutable: Vec::new(),
    };
    let options = CollectOptions::default();
    for _ in 0..3 {
        world.store.sweep(&SweepOptions::default()).await.unwrap();
        let scrubbed = world.store.scrub(&ScrubOptions::default(), &()).await.unwrap();
        assert!(!scrubbed.is_finished && scrubbed.wait > Duration::ZERO);
        let retain = RetainOptions::new(Arc::new(retention.clone()), &options);
        world.store.retain(&retain, &()).await.unwrap();
        let report = world.store.collect(&options, &()).await.unwrap();
        assert_eq!(report.young.blobs, 1, "{report:?}");
        assert_eq!(reserve(), held);
        world.clock.advance(Duration::from_hours(1));
    }
    // The space is theirs, and that of what frees something.
    world.clock.advance(Duration::from_hours(24));
    assert_eq!(
        world.store.collect(&options, &()).await.unwrap().condemned.blobs,
        1
    );
    world
        .store
        .delete_manifest(&repository(), &digest, None, None)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_full_disk_takes_deletes_and_everything_again_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = mount(folder.path(), 40, FILES) else {
        return;
    };
    let root = folder.path().join("root");
    let world = World::open(&root).await;
    let digest = world.push_manifest("one").await.unwrap();
    let tag: Tag = "two".parse().unwrap();
    world.push_manifest(tag.as_str()).await.unwrap();
    world.push(100_000).await.unwrap();
    let (abandoned, _) = world.upload(12 << 20).await.unwrap();

    disk.fill(0).unwrap();
    let full = |result: Result<(), Error>| assert_eq!(result.unwrap_err().code(), ErrorCode::StorageFull);
    full(world.push(1 << 20).await);
    // As many as the log had room for, and more.
    for number in 0..40 {
        if let Err(error) = world.push_manifest(&format!("more-{number}")).await {
            assert_eq!(error.code(), ErrorCode::StorageFull);
            break;
        }
    }
    world
        .store
        .delete_manifest(&repository(), &digest, None, None)
        .await
        .unwrap();
    world.store.delete_tag(&repository(), &tag, None).await.unwrap();
    let blob = Digest::of(Algorithm::Sha256, &vec![9; 100_000]);
    world.store.delete_blob(&repository(), &blob, None).await.unwrap();
    assert!(!root.join("reserve").exists(), "it was used");
    // What deletes were given is for deletes.
    full(world.push(1 << 20).await);
    full(world.push_manifest("three").await.map(drop));
    assert_eq!(world.store.write_state().stopped, None);

    world.store.cancel_upload(&abandoned).await.unwrap();
    world.clock.advance(Duration::from_hours(24 * 30));
    world.store.sweep(&SweepOptions::default()).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = world.push(1 << 20).await {
        assert_eq!(error.code(), ErrorCode::StorageFull);
        assert!(Instant::now() < deadline, "there is room, and it is not used");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(root.join("reserve").exists(), "it is kept again");
    world.push_manifest("three").await.unwrap();

    // A start finds no room, and has what was kept.
    disk.fill(0).unwrap();
    drop(world.store.close().await);
    let world = World::open(&root).await;
    let tag: Tag = "three".parse().unwrap();
    world.store.delete_tag(&repository(), &tag, None).await.unwrap();
}

/// Removing a file that is open frees nothing.
#[tokio::test]
async fn a_full_disk_takes_deletes_while_another_program_copies_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = mount(folder.path(), 40, FILES) else {
        return;
    };
    let root = folder.path().join("root");
    let world = World::open(&root).await;
    let tag: Tag = "one".parse().unwrap();
    world.push_manifest(tag.as_str()).await.unwrap();
    let copied = std::fs::File::open(root.join("reserve")).unwrap();
    disk.fill(0).unwrap();
    for number in 0..40 {
        if let Err(error) = world.push_manifest(&format!("more-{number}")).await {
            assert_eq!(error.code(), ErrorCode::StorageFull);
            break;
        }
    }
    world.store.delete_tag(&repository(), &tag, None).await.unwrap();
    assert!(!root.join("reserve").exists(), "it was used");
    drop(copied);
}

/// A cycle writes a little itself: with what is kept for deletes, as those do.
#[tokio::test]
async fn a_full_disk_is_collected_and_takes_pushes_again() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = mount(folder.path(), 40, FILES) else {
        return;
    };
    let world = World::open(&folder.path().join("root")).await;
    world.push(12 << 20).await.unwrap();
    disk.fill(0).unwrap();
    let refused = world.push(1 << 20).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::StorageFull);
    let options = CollectOptions::new().grace(Duration::ZERO);
    let mut removed = 0;
    for _ in 0..3 {
        removed += world.store.collect(&options, &()).await.unwrap().removed.blobs;
    }
    assert_eq!(removed, 1);
    world.store.sweep(&SweepOptions::default()).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = world.push(1 << 20).await {
        assert_eq!(error.code(), ErrorCode::StorageFull);
        assert!(Instant::now() < deadline, "there is room, and it is not used");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What is deleted is kept if there is room for it, also in what is set aside for deletes; without room it is deleted all the same.
#[tokio::test]
async fn a_full_disk_takes_deletes_that_are_kept_and_gives_them_up() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = mount(folder.path(), 40, FILES) else {
        return;
    };
    let options = StoreOptions {
        keep_deleted: Duration::from_hours(24),
        ..StoreOptions::default()
    };
    let world = World::open_with(&folder.path().join("root"), options).await;
    // Larger than the room that is kept for deletes.
    let count = 3000;
    let mut digests = Vec::new();
    for number in 0..count {
        let filler = "x".repeat(4000);
        digests.push(
            world
                .push_manifest_with(&format!("t{number}"), &filler)
                .await
                .unwrap(),
        );
    }
    disk.fill(0).unwrap();
    let refused = world.push(1 << 20).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::StorageFull);
    for digest in &digests {
        world
            .store
            .delete_manifest(&repository(), digest, None, None)
            .await
            .unwrap();
    }
    let options = CollectOptions::new().grace(Duration::ZERO).forget_deleted(true);
    let report = world.store.collect(&options, &()).await.unwrap();
    assert!(report.deleted.forgotten_manifests <= count);
    let report = world.store.collect(&options, &()).await.unwrap();
    assert_eq!(
        (report.deleted.manifests, report.deleted.forgotten_manifests),
        (0, 0)
    );
    disk.clear().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = world.push_manifest("again").await {
        assert_eq!(error.code(), ErrorCode::StorageFull);
        assert!(Instant::now() < deadline, "there is room, and it is not used");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The regular sweep is days away.
#[tokio::test]
async fn on_a_full_disk_what_was_deleted_is_free_within_seconds_and_pushes_work_again() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = mount(folder.path(), 60, FILES) else {
        return;
    };
    let world = World::open(&folder.path().join("root")).await;
    let sweeper = Sweeper::start(Arc::clone(&world.store) as _, Duration::from_hours(24));
    for is_cancelled in [false, true] {
        let size = 12 << 20;
        let (upload, digest) = world.upload(size).await.unwrap();
        if !is_cancelled {
            world.store.commit_upload(&upload, &digest).await.unwrap();
        }
        disk.fill(1 << 20).unwrap();
        let refused = world.push(size / 2).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::StorageFull);
        if is_cancelled {
            world.store.cancel_upload(&upload).await.unwrap();
        } else {
            world
                .store
                .delete_blob(&repository(), &digest, None)
                .await
                .unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Err(error) = world.push(size / 2).await {
            assert_eq!(error.code(), ErrorCode::StorageFull);
            assert!(
                Instant::now() < deadline,
                "what was deleted is not free, and the disk full"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let digest = Digest::of(Algorithm::Sha256, &vec![9; size / 2]);
        world
            .store
            .delete_blob(&repository(), &digest, None)
            .await
            .unwrap();
        disk.clear().unwrap();
    }
    sweeper.shutdown().await;
}

/// A client that pushes again and again would use up whatever deletes free, and nobody else's push be taken.
#[tokio::test]
async fn an_upload_that_meets_a_full_disk_gives_back_what_that_request_wrote() {
    const MEGABYTE: usize = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = mount(folder.path(), 130, FILES) else {
        return;
    };
    let world = World::open(&folder.path().join("root")).await;
    let free = async || {
        world.store.probe().await.unwrap();
        world.store.write_state().space.unwrap().free
    };
    for had in [0, 2 * MEGABYTE] {
        let upload = world.begin().await.unwrap();
        let start = Bytes::from(vec![7; had]);
        world.append(&upload, start.clone()).await.unwrap();
        disk.fill(70 << 20).unwrap();
        let before = free().await;
        // More than what is between two times that a session is written down, once by a chunk and once by the last request.
        let large = Bytes::from(vec![9; 90 * MEGABYTE]);
        let refused = world.append(&upload, large.clone()).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::StorageFull);
        let after = free().await;
        assert!(after + (MEGABYTE as u64) > before, "{after} of {before}");
        let digest = Digest::of(Algorithm::Sha256, &large);
        let body = std::pin::pin!(stream::iter([Ok(large)]));
        let refused = world.store.finish_upload(&upload, &digest, None, body).await;
        assert_eq!(refused.unwrap_err().code(), ErrorCode::StorageFull);
        let after = free().await;
        assert!(after + (MEGABYTE as u64) > before, "{after} of {before}");

        assert_eq!(world.store.upload_status(&upload).await.unwrap(), had as u64);
        let rest = Bytes::from(vec![8; MEGABYTE]);
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Err(error) = world.append(&upload, rest.clone()).await {
            // What is kept for deletes was used to write the session down, and is kept again within a second.
            assert_eq!(error.code(), ErrorCode::StorageFull);
            assert!(Instant::now() < deadline, "there is room, and it is not used");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let digest = Digest::of(Algorithm::Sha256, &[start, rest].concat());
        world.store.commit_upload(&upload, &digest).await.unwrap();
        disk.clear().unwrap();
    }
}

/// They were cut before it was full. The regular sweep is days away, and nobody deletes anything.
#[tokio::test]
async fn on_a_full_disk_idle_uploads_end_within_minutes_unless_they_are_kept_for_ever() {
    for is_kept in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let Some(disk) = mount(folder.path(), 60, FILES) else {
            return;
        };
        let mut options = StoreOptions::default();
        if is_kept {
            options.upload_idle_limit = Duration::MAX;
        }
        let world = World::open_with(&folder.path().join("root"), options).await;
        let sweeper = Sweeper::start(Arc::clone(&world.store) as _, Duration::from_hours(24));
        let size = 12 << 20;
        let (idle, _) = world.upload(size).await.unwrap();
        disk.fill(1 << 20).unwrap();
        let full = |result: Result<(), Error>| assert_eq!(result.unwrap_err().code(), ErrorCode::StorageFull);
        full(world.push(size / 2).await);
        world.store.sweep(&SweepOptions::default()).await.unwrap();
        assert_eq!(world.store.upload_status(&idle).await.unwrap(), size as u64);

        world.clock.advance(Duration::from_mins(6));
        if is_kept {
            full(world.push(size / 2).await);
            world.store.sweep(&SweepOptions::default()).await.unwrap();
            assert_eq!(world.store.upload_status(&idle).await.unwrap(), size as u64);
        } else {
            let deadline = Instant::now() + Duration::from_secs(30);
            while let Err(error) = world.push(size / 2).await {
                assert_eq!(error.code(), ErrorCode::StorageFull);
                assert!(Instant::now() < deadline, "idle uploads keep the disk full");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        sweeper.shutdown().await;
    }
}

/// The file system has room: only errors tell of the quota. On btrfs not even a file can be cut then.
#[tokio::test]
async fn a_quota_that_is_used_up_takes_deletes_and_everything_again_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount_quota(folder.path(), 60) else {
        println!("skipped: a file system with a quota cannot be mounted here");
        return;
    };
    let world = World::open(&folder.path().join("quota/root")).await;
    let sweeper = Sweeper::start(Arc::clone(&world.store) as _, Duration::from_hours(24));
    let mut pushed = Vec::new();
    let refused = loop {
        let size = (5 << 20) + pushed.len();
        match world.push(size).await {
            Ok(()) => pushed.push(size),
            Err(error) => break error,
        }
        assert!(pushed.len() < 12, "there is no quota");
    };
    assert_eq!(refused.code(), ErrorCode::StorageFull);
    assert_eq!(world.store.write_state().stopped, None);
    world.store.probe().await.unwrap();
    sweeper.shutdown().await;

    // A start writes a little, and there is no room for it but what is kept for deletes.
    let root = folder.path().join("quota/root");
    while world
        .push_manifest(&format!("more-{}", pushed.len()))
        .await
        .is_ok()
    {
        pushed.push(0);
    }
    pushed.retain(|size| *size > 0);
    world.store.close().await.unwrap();
    drop(world);
    let world = World::open(&root).await;
    let sweeper = Sweeper::start(Arc::clone(&world.store) as _, Duration::from_hours(24));
    for size in &pushed {
        let blob = Digest::of(Algorithm::Sha256, &vec![9; *size]);
        world.store.open_blob(&repository(), &blob).await.unwrap();
        world.store.delete_blob(&repository(), &blob, None).await.unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = world.push(20 << 20).await {
        assert_eq!(error.code(), ErrorCode::StorageFull);
        assert!(Instant::now() < deadline, "there is room, and it is not used");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    sweeper.shutdown().await;
}

/// It is cut with the space that is kept for deletes.
#[tokio::test]
async fn an_upload_that_meets_the_end_of_a_quota_gives_back_what_that_request_wrote() {
    const MEGABYTE: usize = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount_quota(folder.path(), 60) else {
        println!("skipped: a file system with a quota cannot be mounted here");
        return;
    };
    let world = World::open(&folder.path().join("quota/root")).await;
    let upload = world.begin().await.unwrap();
    world
        .append(&upload, Bytes::from(vec![7; MEGABYTE]))
        .await
        .unwrap();
    let large = Bytes::from(vec![9; 58 * MEGABYTE]);
    let refused = world.append(&upload, large).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::StorageFull);
    assert_eq!(world.store.upload_status(&upload).await.unwrap(), MEGABYTE as u64);
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = world.push(30 * MEGABYTE).await {
        assert_eq!(error.code(), ErrorCode::StorageFull);
        assert!(Instant::now() < deadline, "nothing was given back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The reserve was used up, or somebody removed it for the space, and then the server ended: in order, or killed.
#[tokio::test]
async fn a_start_on_a_full_disk_without_its_reserve_serves_what_can_be_served() {
    for is_killed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let Some(disk) = mount(folder.path(), 40, FILES) else {
            return;
        };
        let root = folder.path().join("root");
        let world = World::open(&root).await;
        let digest = world.push_manifest("one").await.unwrap();
        world.push(100_000).await.unwrap();
        let blob = Digest::of(Algorithm::Sha256, &vec![9; 100_000]);
        let root = if is_killed {
            let copy = folder.path().join("left");
            assert!(
                Command::new("cp")
                    .arg("-a")
                    .args([&root, &copy])
                    .status()
                    .unwrap()
                    .success()
            );
            copy
        } else {
            world.store.close().await.unwrap();
            root
        };
        std::fs::remove_file(root.join("reserve")).unwrap();
        disk.fill(0).unwrap();

        let world = World::open(&root).await;
        let reference = Reference::Digest(digest.clone());
        let pulled = world.store.get_manifest(&repository(), &reference).await.unwrap();
        assert_eq!(pulled.digest, digest);
        world.store.open_blob(&repository(), &blob).await.unwrap();
        let full = |result: Result<(), Error>| assert_eq!(result.unwrap_err().code(), ErrorCode::StorageFull);
        full(world.push(100_000).await);
        full(world.push_manifest("two").await.map(drop));
        assert_eq!(world.store.write_state().stopped, None);
        world.store.probe().await.unwrap();
        let said = world.store.write_state().lacks_space.unwrap();
        assert!(
            said.contains("full") && said.contains(root.to_str().unwrap()),
            "{said}"
        );

        // Some room, and not enough for a push: the delete is taken.
        disk.fill(256 << 10).unwrap();
        world
            .store
            .delete_manifest(&repository(), &digest, None, None)
            .await
            .unwrap();
        full(world.push_manifest("two").await.map(drop));
        disk.clear().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        // Nobody writes: the look at the health of the store finds the room.
        while world.store.write_state().lacks_space.is_some() {
            assert!(Instant::now() < deadline, "there is room, and it is not used");
            world.store.probe().await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let reserve = std::fs::metadata(root.join("reserve")).unwrap();
        assert_eq!(reserve.len(), 8 << 20, "it is kept again");
        world.push_manifest("two").await.unwrap();
        world.push(1 << 20).await.unwrap();
        world.store.close().await.unwrap();
        World::open(&root).await.push_manifest("three").await.unwrap();
    }
}

#[tokio::test]
async fn a_start_on_a_disk_that_takes_no_more_files_serves_and_takes_deletes() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = mount(folder.path(), 40, 200) else {
        return;
    };
    let root = folder.path().join("root");
    let world = World::open(&root).await;
    let digest = world.push_manifest("one").await.unwrap();
    world.store.close().await.unwrap();
    std::fs::remove_file(root.join("reserve")).unwrap();
    disk.take_all_files().unwrap();
    let world = World::open(&root).await;
    let reference = Reference::Digest(digest.clone());
    world.store.get_manifest(&repository(), &reference).await.unwrap();
    world
        .store
        .delete_manifest(&repository(), &digest, None, None)
        .await
        .unwrap();
    assert_eq!(
        world.push_manifest("two").await.unwrap_err().code(),
        ErrorCode::StorageFull
    );
}

#[tokio::test]
async fn a_start_with_little_room_keeps_what_there_is_for_deletes() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = mount(folder.path(), 40, FILES) else {
        return;
    };
    let root = folder.path().join("root");
    World::open(&root).await.store.close().await.unwrap();
    std::fs::remove_file(root.join("reserve")).unwrap();
    disk.fill(5 << 20).unwrap();
    let world = World::open(&root).await;
    assert_eq!(std::fs::metadata(root.join("reserve")).unwrap().len(), 4 << 20);
    world.push(100_000).await.unwrap();
}
