//! What holds at any moment, and what holds once nobody writes.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use registry_core::quota::Amount;
use registry_core::storage::ManifestStorage as _;
use registry_core::{Digest, Reference, RepositoryName};
use registry_storage::{Backend as _, Key, Maintenance as _};
use serde_json::Value;

use super::World;

/// A record, as JSON.
struct Record(Value);

impl Record {
    fn is_visible(&self) -> bool {
        matches!(self.0["state"].as_str(), Some("live" | "condemned"))
    }
}

/// The first line of a record.
fn header(value: &[u8]) -> Value {
    let line = value.split(|&byte| byte == b'\n').next().unwrap();
    serde_json::from_slice(line).unwrap()
}

impl World {
    /// Reads a record that clients see.
    async fn visible(&self, key: &Key) -> Option<Record> {
        let stored = self.bucket.get(key).await.unwrap()?;
        Some(Record(header(&stored.value))).filter(Record::is_visible)
    }

    async fn grant(&self, digest: &Digest, repository: &RepositoryName) -> Option<Record> {
        self.visible(&Key::grant(digest, repository)).await
    }

    /// Looks at everything at one moment: no read of the bucket waits.
    pub(super) async fn assert_snapshot(&self) {
        let mut bytes = 0;
        self.assert_offered_once().await;
        for blob in &self.blobs {
            let record = self.visible(&Key::blob(&blob.digest)).await;
            let named = record.as_ref().map(|record| &record.0["blob"]);
            if let Some(name) = named.and_then(|named| named["bytes"].as_str()) {
                let all = self.bucket.list_bytes(None, 100).await.unwrap();
                assert!(
                    all.iter().any(|bytes| bytes.as_str() == name),
                    "a visible blob has no bytes"
                );
            }
            for repository in &self.repositories {
                let Some(grant) = self.grant(&blob.digest, repository).await else {
                    continue;
                };
                assert!(record.is_some(), "a visible grant has no blob");
                assert_eq!(
                    Some(&grant.0["blob"]),
                    named,
                    "a visible grant names other bytes than its blob"
                );
                bytes += blob.content.len() as u64;
            }
        }
        self.assert_kept().await;
        self.assert_pushed().await;
        let mut manifests = 0;
        for image in &self.images {
            let manifest = &image.new.manifest;
            for repository in &self.repositories {
                if self
                    .visible(&Key::manifest(repository, &manifest.digest))
                    .await
                    .is_none()
                {
                    continue;
                }
                (manifests, bytes) = (manifests + 1, bytes + manifest.bytes.len() as u64);
                for child in image.new.children.iter().filter(|_| image.is_whole) {
                    let grant = self.grant(&child.digest, repository).await;
                    assert!(grant.is_some(), "a visible manifest lacks a child");
                }
            }
        }
        // Who adds in one epoch and writes in another adds once more, a moment later.
        if !self.has_counted.load(Ordering::Relaxed) {
            self.assert_counted(bytes, manifests).await;
        }
    }

    /// Bytes are offered to one blob at most.
    async fn assert_offered_once(&self) {
        let mut named = BTreeSet::new();
        for blob in &self.blobs {
            let Some(stored) = self.bucket.get(&Key::blob(&blob.digest)).await.unwrap() else {
                continue;
            };
            let Value::Object(record) = header(&stored.value) else {
                panic!()
            };
            let bytes = record.get("blob").and_then(|blob| blob["bytes"].as_str());
            let proposals = record.get("proposals").and_then(Value::as_array);
            let names = proposals.into_iter().flatten().filter_map(Value::as_str);
            for name in names.chain(bytes) {
                assert!(named.insert(name.to_owned()), "two blobs name the same bytes");
            }
        }
    }

    /// What a deleted manifest names that is kept is kept with it.
    async fn assert_kept(&self) {
        for image in self.images.iter().filter(|_| self.work.keeps_deleted()) {
            for repository in &self.repositories {
                let deleted = Key::deleted_manifest_of(repository, &image.new.manifest.digest);
                let is_kept = !self.bucket.list(&deleted, None, 1).await.unwrap().is_empty();
                for child in image.new.children.iter().filter(|_| is_kept) {
                    let grant = self.grant(&child.digest, repository).await;
                    assert!(grant.is_some(), "a deleted manifest that is kept lacks a child");
                }
            }
        }
    }

    /// The tags of pushes that were acknowledged, and that nobody deletes.
    async fn assert_pushed(&self) {
        let pushed = self.pushed.lock().unwrap().clone();
        for (repository, tag, digest) in pushed {
            let read = self
                .process()
                .get_manifest(&repository, &Reference::Tag(tag))
                .await;
            let read = read.unwrap_or_else(|error| panic!("an acknowledged tag was dropped: {error}"));
            assert_eq!(read.digest, digest);
        }
    }

    /// What is there was counted, and is not more than the quota.
    async fn assert_counted(&self, bytes: u64, manifests: u64) {
        for usage in self.process().quota_usage(&self.quotas).await.unwrap() {
            let Amount {
                bytes: counted,
                manifests: counted_manifests,
                ..
            } = usage.used;
            assert!(
                bytes <= counted,
                "{bytes} bytes are there, and {counted} are counted"
            );
            assert!(
                manifests <= counted_manifests,
                "{manifests} manifests are there, and {counted_manifests} are counted"
            );
            assert!(Some(bytes) <= usage.quota.bytes, "there is more than the quota");
            assert!(
                Some(manifests) <= usage.quota.manifests,
                "there are more manifests than the quota"
            );
        }
    }
}
