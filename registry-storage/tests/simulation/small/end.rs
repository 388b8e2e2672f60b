//! What holds once nobody writes, and once everything that may go is gone.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt as _;
use registry_core::storage::{BlobStorage as _, ListStorage as _, ManifestStorage as _, PageRequest};
use registry_core::{ErrorCode, Reference, RepositoryName};
use registry_storage::{Backend as _, Key, Maintenance as _, SweepOptions};

use super::World;
use crate::contents::{Blob, Image};
use crate::{Process, assert_cycles_find_all, collecting};

impl World {
    pub(super) async fn assert_end(&self, collects: bool) {
        self.assert_snapshot().await;
        self.assert_contents().await;
        for repository in &self.repositories {
            if self.is_cut_off {
                self.read_tags(repository).await;
            }
            self.assert_tags(repository).await;
        }
        if !self.is_cut_off {
            self.assert_catalog().await;
            self.assert_exact().await;
        }
        if collects {
            self.assert_collected().await;
            self.assert_snapshot().await;
            self.assert_contents().await;
        }
    }

    /// The process that never waits.
    pub(super) fn process(&self) -> &Process {
        self.processes.last().unwrap()
    }

    async fn assert_contents(&self) {
        for repository in &self.repositories {
            for blob in &self.blobs {
                self.assert_readable(repository, blob).await;
            }
        }
    }

    async fn assert_readable(&self, repository: &RepositoryName, blob: &Blob) {
        let opened = match self.process().open_blob(repository, &blob.digest).await {
            Ok(opened) => opened,
            Err(error) => return assert_eq!(error.code(), ErrorCode::BlobUnknown, "{error:?}"),
        };
        let mut read = BytesMut::new();
        let mut content = opened.content.read(0..opened.size);
        while let Some(chunk) = content.next().await {
            read.extend_from_slice(&chunk.unwrap());
        }
        assert!(read == blob.content, "a visible blob has other bytes");
    }

    async fn has(&self, repository: &RepositoryName, image: &Image) -> bool {
        let by_digest = Reference::Digest(image.new.manifest.digest.clone());
        self.process().get_manifest(repository, &by_digest).await.is_ok()
    }

    /// Reads all tags: one that a push left when it was cut off, and whose manifest is gone, is deleted by that.
    async fn read_tags(&self, repository: &RepositoryName) {
        let page = PageRequest {
            last: None,
            limit: 100,
        };
        if let Ok(tags) = self.process().list_tags(repository, page).await {
            for tag in tags.items {
                drop(
                    self.process()
                        .get_manifest(repository, &Reference::Tag(tag))
                        .await,
                );
            }
        }
    }

    async fn assert_tags(&self, repository: &RepositoryName) {
        let page = PageRequest {
            last: None,
            limit: 100,
        };
        let mut named = BTreeSet::new();
        if let Ok(tags) = self.process().list_tags(repository, page).await {
            for tag in tags.items {
                let read = self
                    .process()
                    .get_manifest(repository, &Reference::Tag(tag.clone()))
                    .await;
                let read = read.unwrap_or_else(|error| panic!("the tag {tag} dangles: {error}"));
                named.insert(read.digest);
            }
        }
        for image in self.images.iter().filter(|_| self.work.keeps_own_tags()) {
            assert!(
                named.contains(&image.new.manifest.digest) || !self.has(repository, image).await,
                "an acknowledged tag was lost while its manifest lives"
            );
        }
    }

    /// A repository that has a manifest is in the catalog.
    async fn assert_catalog(&self) {
        let page = PageRequest {
            last: None,
            limit: 100,
        };
        let listed = self.process().list_repositories(page).await.unwrap().items;
        for repository in &self.repositories {
            for image in &self.images {
                assert!(
                    listed.contains(repository) || !self.has(repository, image).await,
                    "a repository that has a manifest is not in the catalog"
                );
            }
        }
    }

    /// A count finds what was counted already.
    async fn assert_exact(&self) {
        let used = async || {
            self.process()
                .quota_usage(&self.quotas)
                .await
                .unwrap()
                .into_iter()
                .map(|usage| usage.used)
        };
        self.process()
            .count_for_quotas(Duration::MAX, Duration::ZERO, &())
            .await
            .unwrap();
        let before: Vec<_> = used().await.collect();
        self.process()
            .count_for_quotas(Duration::ZERO, Duration::ZERO, &())
            .await
            .unwrap();
        assert_eq!(before, used().await.collect::<Vec<_>>(), "a count was not exact");
    }

    /// Sweeps of what was written down find all there is without a sweep of everything.
    async fn assert_sweeps_find_all(&self) {
        let swept = self.process().sweep(&SweepOptions::new()).await.unwrap();
        assert!(!swept.is_full, "the first sweep was before");
        let full = SweepOptions::new().full(true);
        let left = self.process().sweep(&full).await.unwrap().deleted_bytes;
        assert_eq!(left, 0, "bytes that nothing names were not written down");
    }

    /// What no manifest names goes, and only that.
    async fn assert_collected(&self) {
        let process = self.process();
        if !(self.is_cut_off || self.work.cuts_off_requests() || self.work.keeps_deleted()) {
            assert_cycles_find_all(process).await;
            self.assert_sweeps_find_all().await;
        }
        self.clock.advance(Duration::from_hours(24 * 30));
        for _ in 0..5 {
            process.sweep(&SweepOptions::default()).await.unwrap();
            process.collect(&collecting(), &()).await.unwrap();
        }
        process.sweep(&SweepOptions::default()).await.unwrap();
        let mut large = BTreeSet::new();
        for repository in &self.repositories {
            let mut named = BTreeSet::new();
            for image in &self.images {
                if self.has(repository, image).await {
                    named.extend(image.new.children.iter().map(|child| child.digest.clone()));
                }
            }
            for blob in &self.blobs {
                let is_there = process.stat_blob(repository, &blob.digest).await.is_ok();
                assert!(
                    !is_there || named.contains(&blob.digest),
                    "a blob was not collected"
                );
                if is_there && blob.content.len() > 16 * 1024 {
                    large.insert(blob.digest.clone());
                }
            }
        }
        let kept = self.bucket.list_bytes(None, 100).await.unwrap().len();
        assert_eq!(kept, large.len(), "byte strings are left over");
        let deleted = self.bucket.list(&Key::all_kept(), None, 100).await.unwrap();
        assert!(
            deleted.is_empty(),
            "what was deleted is kept for ever: {deleted:?}"
        );
    }
}
