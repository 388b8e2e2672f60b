//! The power goes at each sync of a push, and everything that was not synced goes with it: what was answered is there
//! and whole, what was begun goes on or is unknown, and nothing is left over.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use registry_core::storage::{
    BlobStorage as _, ChildKind, Manifest, ManifestChild, ManifestStorage as _, NewManifest, UploadKey,
    UploadStorage as _,
};
use registry_core::{Digest, Error, ErrorCode, Reference, RepositoryName};
use registry_storage::Maintenance as _;
use registry_storage::filesystem::volatile::VolatileDisk;
use registry_storage::filesystem::{FilesystemBackend, FilesystemOptions};
use registry_storage::testing::ManualClock;
use registry_storage::{Backend as _, Store, StoreOptions, SweepOptions};

use crate::support::images::{IMAGE, append, bare_manifest, create_upload, digest};

/// More than two parts of a disk's uploads, and not a multiple.
const LAYER: usize = 1_200_000;
/// Kept in its record.
const CONFIG: usize = 1000;

struct World {
    disk: VolatileDisk,
    store: Store<FilesystemBackend>,
    clock: Arc<ManualClock>,
}

impl World {
    async fn open(root: &Path) -> Self {
        let disk = VolatileDisk::new(root).unwrap();
        let backend = FilesystemOptions::new()
            .disk(Arc::new(disk.clone()))
            .open(root)
            .await
            .unwrap();
        let clock = Arc::new(ManualClock::default());
        let store = Store::with_options(
            Arc::new(backend),
            Arc::clone(&clock) as _,
            StoreOptions::default(),
        );
        Self { disk, store, clock }
    }
}

/// What a client was told while there was power.
#[derive(Default)]
struct Told {
    blobs: Vec<Bytes>,
    manifest: bool,
    session: Option<UploadKey>,
}

fn repository() -> RepositoryName {
    "power/loss".parse().unwrap()
}

fn content(seed: usize, size: usize) -> Bytes {
    (0..size)
        .map(|at| u8::try_from((at * 31 + seed * 17 + at / 251) % 256).unwrap())
        .collect()
}

impl World {
    async fn begin(&self) -> Result<UploadKey, Error> {
        create_upload(&self.store, repository().as_str()).await
    }

    async fn append(&self, upload: &UploadKey, piece: Bytes) -> Result<u64, Error> {
        append(&self.store, upload, &piece).await
    }

    async fn commit(&self, upload: &UploadKey, content: &Bytes, told: &mut Told) -> Result<(), Error> {
        self.store.commit_upload(upload, &digest(content)).await?;
        if !self.disk.is_powerless() {
            told.blobs.push(content.clone());
        }
        Ok(())
    }
}

fn manifest() -> NewManifest {
    let bytes = Bytes::from_static(b"{\"schemaVersion\":2}");
    let child = |content: &Bytes| ManifestChild {
        digest: digest(content),
        kind: ChildKind::Blob,
    };
    NewManifest {
        children: vec![child(&content(1, LAYER)), child(&content(2, CONFIG))],
        tags: vec!["latest".parse().unwrap()],
        ..bare_manifest(Manifest {
            digest: digest(&bytes),
            media_type: IMAGE.parse().unwrap(),
            bytes,
        })
    }
}

/// Pushes an image until there is no power; what fails then is the client's loss.
async fn push_image(world: &World) -> Told {
    let mut told = Told::default();
    let push = async {
        // The layer comes in two pieces, and between them the configuration is pushed whole.
        let (layer, config) = (content(1, LAYER), content(2, CONFIG));
        let upload = world.begin().await?;
        told.session = Some(upload.clone());
        world.append(&upload, layer.slice(..LAYER / 2)).await?;
        let other = world.begin().await?;
        world.append(&other, config.clone()).await?;
        world.commit(&other, &config, &mut told).await?;
        world.append(&upload, layer.slice(LAYER / 2..)).await?;
        world.commit(&upload, &layer, &mut told).await?;
        world.store.put_manifest(&repository(), manifest()).await?;
        Ok::<_, Error>(!world.disk.is_powerless())
    };
    if let Ok(manifest) = push.await {
        told.manifest = manifest;
    }
    told
}

async fn read(world: &World, digest: &Digest) -> Option<Vec<u8>> {
    let blob = world.store.open_blob(&repository(), digest).await.ok()?;
    let mut content = Vec::new();
    let mut stream = blob.content.read(0..blob.size);
    while let Some(chunk) = stream.next().await {
        content.extend_from_slice(&chunk.unwrap());
    }
    Some(content)
}

/// Goes on with a session as a client does: by its status. `false` where the client has to begin again.
async fn resume(world: &World, upload: &UploadKey, content: &Bytes) -> bool {
    let length = match world.store.upload_status(upload).await {
        Ok(length) => usize::try_from(length).unwrap(),
        Err(error) => {
            assert_eq!(error.code(), ErrorCode::BlobUploadUnknown);
            return false;
        }
    };
    let rest = std::pin::pin!(stream::iter([Ok(content.slice(length..))]));
    let appended = world.store.append_upload(upload, Some(length as u64), rest).await;
    match appended {
        Ok(_) => {}
        // The bytes were not all synced, and the session says so instead of using what is there.
        Err(error) => {
            assert_eq!(error.code(), ErrorCode::BlobUploadUnknown);
            return false;
        }
    }
    match world.store.commit_upload(upload, &digest(content)).await {
        Ok(()) => true,
        Err(error) => {
            let codes = [
                ErrorCode::DigestInvalid,
                ErrorCode::BlobUploadUnknown,
                ErrorCode::BlobUploadInvalid,
            ];
            assert!(codes.contains(&error.code()), "{error:?}");
            false
        }
    }
}

#[tokio::test]
async fn a_push_survives_the_loss_of_power_at_each_of_its_syncs() {
    let total = {
        let root = tempfile::tempdir().unwrap();
        let world = World::open(root.path()).await;
        let before = world.disk.syncs();
        assert!(push_image(&world).await.manifest);
        world.disk.syncs() - before
    };
    assert!(total >= 7, "{total} syncs");
    let (mut kept, mut resumed) = (0, 0);
    for syncs in 0..=total {
        let root = tempfile::tempdir().unwrap();
        let world = World::open(root.path()).await;
        world.disk.lose_power_after(syncs);
        let told = push_image(&world).await;
        let rest = world.disk.after_power_loss().unwrap();
        drop(world);

        let world = World::open(rest.path()).await;
        for content in &told.blobs {
            let found = read(&world, &digest(content)).await;
            assert!(
                found.as_deref() == Some(content),
                "a blob that was answered, after {syncs} syncs"
            );
            kept += 1;
        }
        let latest = Reference::Tag("latest".parse().unwrap());
        let found = world.store.get_manifest(&repository(), &latest).await;
        if told.manifest {
            assert_eq!(found.unwrap(), manifest().manifest, "after {syncs} syncs");
            kept += 1;
        } else if found.is_ok() {
            // Stored, but the answer was lost: then its children are there.
            for child in manifest().children {
                assert!(read(&world, &child.digest).await.is_some(), "after {syncs} syncs");
            }
        }
        // Answered or not, a blob that is visible is whole.
        for content in [content(1, LAYER), content(2, CONFIG)] {
            if let Some(found) = read(&world, &digest(&content)).await {
                assert!(found == content, "a visible blob, after {syncs} syncs");
            }
        }
        if let Some(upload) = &told.session {
            resumed += u32::from(resume(&world, upload, &content(1, LAYER)).await);
        }
        // The client pushes it all again, and the sweeper finds what the loss of power left.
        let again = push_image(&world).await;
        assert!(again.manifest, "after {syncs} syncs");
        world.clock.advance(Duration::from_hours(24 * 30));
        world.store.sweep(&SweepOptions::default()).await.unwrap();
        let bytes = world.store.backend().list_bytes(None, 100).await.unwrap();
        assert_eq!(
            bytes.len(),
            1,
            "only the layer's bytes are left, after {syncs} syncs"
        );
        assert!(read(&world, &digest(&content(1, LAYER))).await.is_some());
        world.store.close().await.unwrap();
    }
    assert!(kept >= 6 && resumed >= 1, "{kept} kept, {resumed} resumed");
}
