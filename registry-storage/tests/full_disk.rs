//! A disk that is full, for real: a small one of memory. That takes root; without it the test says so and ends.
#![cfg(all(feature = "filesystem", target_os = "linux"))]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "test code")]

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use registry_core::storage::{Manifest, NewManifest, TagCondition, UploadKey};
use registry_core::{Algorithm, Digest, Error, ErrorCode, RepositoryName, Storage as _, Tag};
use registry_storage::filesystem::FilesystemBackend;
use registry_storage::testing::ManualClock;
use registry_storage::{Store, StoreOptions};

/// A file system of its own, which ends with the test.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(megabytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(folder.path())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(folder));
        }
        println!("skipped: a file system cannot be mounted here");
        None
    }

    /// Takes all space that is left.
    fn fill(&self) {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.0.path().join("filler"))
            .unwrap();
        while file.write_all(&[7; 4096]).is_ok() {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

struct World {
    store: Store<FilesystemBackend>,
    clock: Arc<ManualClock>,
}

fn repository() -> RepositoryName {
    "full/disk".parse().unwrap()
}

impl World {
    async fn open(root: &Path) -> Self {
        let clock = Arc::new(ManualClock::default());
        let backend = FilesystemBackend::open(root).await.unwrap();
        let store = Store::with_options(
            Arc::new(backend),
            Arc::clone(&clock) as _,
            StoreOptions::default(),
        );
        Self { store, clock }
    }

    async fn upload(&self, size: usize) -> Result<(UploadKey, Digest), Error> {
        let id = self
            .store
            .create_upload(&repository(), "", Algorithm::Sha256)
            .await?;
        let upload = UploadKey {
            repository: repository(),
            id,
            principal: String::new(),
        };
        let content = Bytes::from(vec![9; size]);
        let digest = Digest::of(Algorithm::Sha256, &content);
        let body = std::pin::pin!(stream::iter([Ok(content)]));
        self.store.append_upload(&upload, None, body).await?;
        Ok((upload, digest))
    }

    async fn push(&self, size: usize) -> Result<(), Error> {
        let (upload, digest) = self.upload(size).await?;
        self.store.commit_upload(&upload, &digest).await
    }

    async fn push_manifest(&self, tag: &str) -> Result<Digest, Error> {
        let bytes = Bytes::from(format!("{{\"schemaVersion\":2,\"tag\":\"{tag}\"}}"));
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let manifest = NewManifest {
            manifest: Manifest {
                digest: digest.clone(),
                media_type: "application/vnd.oci.image.manifest.v1+json".parse().unwrap(),
                bytes,
            },
            children: Vec::new(),
            allow_missing: false,
            optional_children: Vec::new(),
            subject: None,
            tags: vec![tag.parse().unwrap()],
            condition: TagCondition::Any,
            immutable_tags: Vec::new(),
            principal: String::new(),
        };
        self.store.put_manifest(&repository(), manifest).await?;
        Ok(digest)
    }
}

#[tokio::test]
async fn a_full_disk_takes_deletes_and_everything_again_once_there_is_room() {
    let Some(disk) = SmallDisk::mount(40) else {
        return;
    };
    let root = disk.0.path().join("root");
    let world = World::open(&root).await;
    let digest = world.push_manifest("one").await.unwrap();
    let tag: Tag = "two".parse().unwrap();
    world.push_manifest(tag.as_str()).await.unwrap();
    world.push(100_000).await.unwrap();
    let (abandoned, _) = world.upload(12 << 20).await.unwrap();

    disk.fill();
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
    world.store.delete_tag(&repository(), &tag).await.unwrap();
    let blob = Digest::of(Algorithm::Sha256, &vec![9; 100_000]);
    world.store.delete_blob(&repository(), &blob, None).await.unwrap();
    assert!(!root.join("reserve").exists(), "it was used");
    // What deletes were given is for deletes.
    full(world.push(1 << 20).await);
    full(world.push_manifest("three").await.map(drop));
    assert_eq!(world.store.backend().writes_stopped(), None);

    world.store.cancel_upload(&abandoned).await.unwrap();
    world.clock.advance(Duration::from_hours(24 * 30));
    world.store.sweep().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = world.push(1 << 20).await {
        assert_eq!(error.code(), ErrorCode::StorageFull);
        assert!(Instant::now() < deadline, "there is room, and it is not used");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(root.join("reserve").exists(), "it is kept again");
    world.push_manifest("three").await.unwrap();

    // A start finds no room, and has what was kept.
    disk.fill();
    drop(world.store.close().await);
    let world = World::open(&root).await;
    let tag: Tag = "three".parse().unwrap();
    world.store.delete_tag(&repository(), &tag).await.unwrap();
}
