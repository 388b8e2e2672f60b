//! A tree in a bucket, and a store beside it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use registry_core::Digest;
use registry_storage::distribution::{AdoptOptions, AdoptReport, adopt_in_place};
use registry_storage::testing::{ManualClock, Observed, S3Double};
use registry_storage::{
    CollectOptions, Maintenance as _, ObjectStoreBackend, Store, StoreOptions, SweepOptions,
};

use crate::exports::push;
use crate::fixture::{Defects, LARGE, Old, SMALL, content, expect_sound, get, image, read, sha256};

/// A bucket in which the distribution registry had `rootdirectory: /root`.
pub(crate) struct Bucket {
    pub(crate) double: S3Double,
}

pub(crate) const ROOT: &str = "root";

impl Bucket {
    /// Puts the files of a tree into a bucket.
    pub(crate) async fn of(old: &Old) -> Self {
        let double = S3Double::start().await.unwrap();
        let bucket = Self { double };
        bucket.put_all(old);
        bucket
    }

    pub(crate) fn put_all(&self, old: &Old) {
        for (path, (content, ..)) in old.snapshot() {
            let key = path.strip_prefix(old.root.path()).unwrap().to_str().unwrap();
            self.double.put(&format!("{ROOT}/{key}"), content.into());
        }
        // What comes next is written later.
        self.double.pass(Duration::from_secs(1));
    }

    /// Pushes an image as the distribution registry does, in the second that is now.
    pub(crate) fn push_to_old(&self, repository: &str, tag: &str, seed: usize) -> Vec<u8> {
        let old = Old::new();
        let manifest = old.push_image(repository, tag, seed);
        self.put_all(&old);
        manifest
    }

    /// Puts the link of a layer as the distribution registry does now.
    pub(crate) fn put_link(&self, repository: &str, content: &[u8]) {
        let digest = sha256(content);
        let (folder, encoded) = (format!("{ROOT}/docker/registry/v2"), digest.parts().1);
        let link = format!("{folder}/repositories/{repository}/_layers/sha256/{encoded}/link");
        self.double.put(&link, digest.to_string().into());
        let data = format!("{folder}/blobs/sha256/{}/{encoded}/data", &encoded[..2]);
        self.double.put(&data, content.to_vec().into());
    }

    pub(crate) fn store(&self) -> Store<ObjectStoreBackend> {
        Store::new(self.double.backend(ROOT).unwrap())
    }

    /// A store whose clock stands at a time after some day of 2023: that of the bucket says 2025.
    pub(crate) fn store_at(&self, time: Duration) -> Store<ObjectStoreBackend> {
        let clock = Arc::new(ManualClock::default());
        clock.advance(time);
        let backend = Arc::new(self.double.backend(ROOT).unwrap());
        Store::with_options(backend, clock, StoreOptions::default())
    }

    /// Returns the objects of the tree, by what follows its folder.
    pub(crate) fn tree(&self) -> BTreeMap<String, Bytes> {
        let prefix = format!("{ROOT}/docker/registry/v2/");
        let objects = self.double.objects().into_iter();
        objects
            .filter_map(|(key, content)| Some((key.strip_prefix(&prefix)?.to_owned(), content)))
            .collect()
    }

    pub(crate) fn content_in_tree(&self) -> Vec<Digest> {
        let keys = self.tree().into_keys();
        let digests = keys.filter_map(|key| {
            let hex = key.strip_prefix("blobs/sha256/")?.split('/').nth(1)?.to_owned();
            format!("sha256:{hex}").parse().ok()
        });
        digests.collect()
    }
}

pub(crate) async fn adopt(store: &Store<ObjectStoreBackend>) -> (AdoptReport, Defects) {
    let observed = Observed::default();
    let report = adopt_in_place(store, &AdoptOptions::new(), &observed)
        .await
        .unwrap();
    (report, Defects::of(observed))
}

pub(crate) async fn collect_and_sweep(store: &Store<ObjectStoreBackend>) {
    let options = CollectOptions::new()
        .grace(Duration::ZERO)
        .full(true)
        .forget_deleted(true);
    for _ in 0..4 {
        store.collect(&options, &()).await.unwrap();
        store.sweep(&SweepOptions::new().full(true)).await.unwrap();
    }
}

pub(crate) async fn push_blob(store: &Store<ObjectStoreBackend>, repository: &str, content: &[u8]) -> Digest {
    let digest = sha256(content);
    push(store, repository, &digest, content).await;
    digest
}

pub(crate) const IMAGES: usize = 4;

pub(crate) fn images() -> Old {
    let old = Old::new();
    for seed in 0..IMAGES {
        let repository = format!("app/{seed}");
        old.push_blob(&repository, &content(seed, SMALL));
        for layer in layers(seed) {
            old.push_blob(&repository, &layer);
        }
        old.push_manifest(&repository, &["v1"], &manifest(seed));
    }
    old
}

/// Two large layers, of which all images have the second, and a small one.
pub(crate) fn layers(seed: usize) -> [Vec<u8>; 3] {
    [
        content(seed + 10_000, LARGE + seed),
        content(77, LARGE),
        content(seed + 20_000, SMALL),
    ]
}

pub(crate) fn manifest(seed: usize) -> Vec<u8> {
    image(&content(seed, SMALL), &layers(seed), "")
}

pub(crate) async fn expect_images(store: &Store<ObjectStoreBackend>) {
    expect_sound(store).await;
    for seed in 0..IMAGES {
        let repository = format!("app/{seed}");
        assert_eq!(get(store, &repository, "v1").await.unwrap().bytes, manifest(seed));
        for layer in layers(seed) {
            assert_eq!(read(store, &repository, &sha256(&layer)).await.unwrap(), layer);
        }
    }
}
