//! What holds at the end, and once everything that may go is gone.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt as _;
use registry_core::storage::{BlobStorage as _, ManifestStorage as _, PageRequest};
use registry_core::{ErrorCode, Reference, RepositoryName, Storage};
use registry_storage::{Backend as _, Maintenance as _, SweepOptions};

use super::{Simulation, Trouble};
use crate::contents::{Blob, Image};
use crate::{assert_cycles_find_all, collecting};

impl Simulation {
    /// What no manifest names goes, and only that.
    pub(super) async fn assert_collected(&self) {
        let process = &self.processes[0];
        if self.trouble == Trouble::None {
            assert_cycles_find_all(process).await;
        }
        self.clock.advance(Duration::from_hours(24 * 30));
        for _ in 0..5 {
            process.sweep(&SweepOptions::default()).await.unwrap();
            process.collect(&collecting(), &()).await.unwrap();
        }
        process.sweep(&SweepOptions::default()).await.unwrap();
        self.assert_invariants().await;
        let mut large = BTreeSet::new();
        for repository in &self.repositories {
            let mut named = BTreeSet::new();
            for image in &*self.images {
                let by_digest = Reference::Digest(image.new.manifest.digest.clone());
                if process.get_manifest(repository, &by_digest).await.is_ok() {
                    named.extend(image.new.children.iter().map(|child| child.digest.clone()));
                }
            }
            for blob in &*self.blobs {
                let is_there = process.stat_blob(repository, &blob.digest).await.is_ok();
                assert!(
                    !is_there || named.contains(&blob.digest),
                    "{} was not collected",
                    blob.digest
                );
                if is_there && blob.content.len() > 16 * 1024 {
                    large.insert(blob.digest.clone());
                }
            }
        }
        let kept = self.backend.list_bytes(None, 100).await.unwrap().len();
        assert_eq!(kept, large.len(), "byte strings are left over");
        let report = process.collect(&collecting(), &()).await.unwrap();
        assert!(!report.has_more(), "{report:?}");
    }

    pub(super) async fn assert_invariants(&self) {
        let storage: &dyn Storage = &*self.processes[0];
        for repository in &self.repositories {
            for blob in &*self.blobs {
                assert_readable(storage, repository, blob).await;
            }
            for image in &*self.images {
                self.assert_image(storage, repository, image).await;
            }
            self.assert_referrers(storage, repository).await;
            self.assert_tags(storage, repository).await;
        }
        let acknowledged = self.acknowledged.lock().unwrap().clone();
        for (repository, digest) in acknowledged {
            let read = storage
                .get_manifest(&repository, &Reference::Digest(digest))
                .await;
            read.unwrap_or_else(|error| panic!("an acknowledged push is gone: {error}"));
        }
    }

    /// A visible manifest has its children, unless a user deleted them.
    pub(super) async fn assert_image(
        &self,
        storage: &dyn Storage,
        repository: &RepositoryName,
        image: &Image,
    ) {
        let by_digest = Reference::Digest(image.new.manifest.digest.clone());
        let Ok(read) = storage.get_manifest(repository, &by_digest).await else {
            return;
        };
        assert_eq!(read, image.new.manifest);
        if image.is_whole {
            for child in &image.new.children {
                let size = storage.stat_blob(repository, &child.digest).await;
                size.unwrap_or_else(|error| panic!("a visible manifest lacks a child: {error}"));
            }
        }
    }

    pub(super) async fn assert_referrers(&self, storage: &dyn Storage, repository: &RepositoryName) {
        let subject = &self.images[0].new.manifest.digest;
        let page = PageRequest {
            last: None,
            limit: 100,
        };
        let listed = storage
            .list_referrers(repository, subject, page.into())
            .await
            .unwrap()
            .items;
        let mut expected = Vec::new();
        for image in &*self.images {
            let by_digest = Reference::Digest(image.new.manifest.digest.clone());
            if let Some((_, descriptor)) = &image.new.subject
                && storage.get_manifest(repository, &by_digest).await.is_ok()
            {
                expected.push(descriptor.clone());
            }
        }
        expected.sort_by(|a, b| a.digest.cmp(&b.digest));
        assert_eq!(listed, expected);
    }

    pub(super) async fn assert_tags(&self, storage: &dyn Storage, repository: &RepositoryName) {
        let page = PageRequest {
            last: None,
            limit: 100,
        };
        let Ok(tags) = storage.list_tags(repository, page).await else {
            return;
        };
        for tag in tags.items {
            let read = storage
                .get_manifest(repository, &Reference::Tag(tag.clone()))
                .await;
            if self.trouble == Trouble::None {
                let read = read.unwrap_or_else(|error| panic!("the tag {tag} dangles: {error}"));
                let refused = self.refused.lock().unwrap().contains(&read.digest);
                assert!(!refused, "the tag {tag} names what was refused");
            }
        }
    }
}

async fn assert_readable(storage: &dyn Storage, repository: &RepositoryName, blob: &Blob) {
    let opened = match storage.open_blob(repository, &blob.digest).await {
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
