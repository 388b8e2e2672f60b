//! An adoption ends at any point, by being dropped or by the loss of power, and is begun anew.

use registry_core::storage::{BlobStorage as _, ListStorage as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use registry_storage::distribution::{AdoptOptions, AdoptReport, Adoption, Tree, adoption};
use registry_storage::filesystem::volatile::VolatileDisk;
use registry_storage::filesystem::{FilesystemBackend, FilesystemOptions};
use registry_storage::testing::Observed;
use registry_storage::{Maintenance as _, MaintenanceObserver, Store, SweepOptions};
use tokio::sync::Notify;

use crate::fixture::{LARGE, Old, SMALL, all, content, expect_sound, get, image, name, read, sha256};

const IMAGES: usize = 6;

fn tree() -> Old {
    let old = Old::new();
    for seed in 0..IMAGES {
        old.push_image(&format!("app/{seed}"), "v1", seed);
        // Shared by all.
        old.push_blob(&format!("app/{seed}"), &content(77, LARGE));
    }
    old
}

async fn expect_whole(store: &Store<FilesystemBackend>) {
    expect_sound(store).await;
    let names = store.list_repositories(all()).await.unwrap().items;
    assert_eq!(names.len(), IMAGES);
    for seed in 0..IMAGES {
        let repository = format!("app/{seed}");
        let layers = [
            content(seed + 10_000, LARGE + seed),
            content(seed + 20_000, SMALL),
        ];
        let manifest = image(&content(seed, SMALL), &layers, "");
        assert_eq!(get(store, &repository, "v1").await.unwrap().bytes, manifest);
        for blob in layers.iter().chain([&content(77, LARGE), &content(seed, SMALL)]) {
            assert_eq!(read(store, &repository, &sha256(blob)).await.unwrap(), *blob);
        }
    }
}

/// Says when so many steps were done.
struct Steps {
    left: AtomicUsize,
    done: Arc<Notify>,
}

impl MaintenanceObserver for Steps {
    fn adopted(&self, _: &AdoptReport) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.done.notify_one();
        }
    }
}

#[tokio::test]
async fn an_adoption_that_was_dropped_is_gone_on_with() {
    let mut unfinished = 0;
    for steps in 1..8 {
        let old = tree();
        let before = old.snapshot();
        let store = old.open().await;
        let done = Arc::new(Notify::new());
        let observer = Steps {
            left: AtomicUsize::new(steps),
            done: Arc::clone(&done),
        };
        let found = old.found();
        let options = AdoptOptions::new();
        tokio::select! {
            biased;
            () = done.notified() => {}
            result = store.adopt(&found, &options, &observer) => drop(result.unwrap()),
        }
        if let Adoption::Begun(_) = adoption(&store).await.unwrap() {
            unfinished += 1;
            old.adopt(&store).await;
        }
        expect_whole(&store).await;
        store.sweep(&SweepOptions::default()).await.unwrap();
        expect_whole(&store).await;
        assert_eq!(old.files_of_bytes(), IMAGES + 1, "nothing is left over");
        assert!(old.snapshot() == before);
    }
    assert!(unfinished > 2, "most were interrupted");
}

async fn open(root: &Path, disk: &VolatileDisk) -> Store<FilesystemBackend> {
    let options = FilesystemOptions::new().disk(Arc::new(disk.clone()));
    Store::new(options.open(root).await.unwrap())
}

#[tokio::test]
async fn what_is_adopted_survives_the_loss_of_power() {
    let mut finished = 0;
    let mut unfinished = 0;
    for syncs in 0.. {
        let old = tree();
        let disk = VolatileDisk::new(old.root.path()).unwrap();
        let store = open(old.root.path(), &disk).await;
        disk.lose_power_after(syncs);
        let was_adopted = store.adopt(&old.found(), &AdoptOptions::new(), &()).await.is_ok();
        let is_promised = was_adopted && !disk.is_powerless();
        let root = disk.after_power_loss().unwrap();
        drop(store);

        let disk = VolatileDisk::new(root.path()).unwrap();
        let store = open(root.path(), &disk).await;
        match adoption(&store).await.unwrap() {
            Adoption::Finished(_) => finished += 1,
            _ => {
                assert!(!is_promised, "after {syncs} syncs");
                unfinished += 1;
                let observed = Observed::default();
                let found = Tree::find(root.path()).unwrap().unwrap();
                store
                    .adopt(&found, &AdoptOptions::new(), &observed)
                    .await
                    .unwrap();
                assert_eq!(observed.lines(), [""; 0]);
            }
        }
        expect_whole(&store).await;
        store.sweep(&SweepOptions::default()).await.unwrap();
        expect_whole(&store).await;
        let bytes = store
            .stat_blob(&name("app/0"), &sha256(&content(77, LARGE)))
            .await;
        assert_eq!(bytes.unwrap(), LARGE as u64);
        if is_promised {
            break;
        }
    }
    assert!(finished > 0 && unfinished > 5, "{finished} {unfinished}");
}
