//! What holds at any moment, and what holds once nobody writes.

use std::sync::atomic::Ordering;

use registry_core::quota::Amount;
use registry_core::{Digest, RepositoryName};
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

impl World {
    /// Reads a record that clients see.
    async fn visible(&self, key: &Key) -> Option<Record> {
        let stored = self.bucket.get(key).await.unwrap()?;
        let header = stored.value.split(|&byte| byte == b'\n').next().unwrap();
        Some(Record(serde_json::from_slice(header).unwrap())).filter(Record::is_visible)
    }

    async fn grant(&self, digest: &Digest, repository: &RepositoryName) -> Option<Record> {
        self.visible(&Key::grant(digest, repository)).await
    }

    /// Looks at everything at one moment: no read of the bucket waits.
    pub(super) async fn assert_snapshot(&self) {
        let mut bytes = 0;
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

    /// What is there was counted, and is not more than the quota.
    async fn assert_counted(&self, bytes: u64, manifests: u64) {
        for usage in self
            .processes
            .last()
            .unwrap()
            .quota_usage(&self.quotas)
            .await
            .unwrap()
        {
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
