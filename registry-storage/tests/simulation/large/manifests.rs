//! Requests for manifests and tags.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use registry_core::storage::{
    BlobStorage as _, ListStorage as _, ManifestStorage as _, PageRequest, TagCondition,
};
use registry_core::{ErrorCode, Reference, RepositoryName, Tag};

use super::Work;
use super::client::{Client, attempt, is_unknown};
use crate::contents::{Image, digest};

impl Client {
    pub(super) async fn push_image(&mut self) {
        let repository = self.repository();
        let images = Arc::clone(&self.world.images);
        let image = &images[match self.world.work {
            Work::Manifests => 1 + self.random.below(2),
            _ => self.random.below(images.len()),
        }];
        // Pushed before or not at all; the more so where pushes and deletes of manifests are to meet.
        let has_children = self.random.below(4) > if self.world.work == Work::Manifests { 2 } else { 0 };
        if has_children {
            self.push_children(&repository, image).await;
        }
        let process = Arc::clone(self.process());
        let mut new = image.new.clone();
        for number in 0..8 {
            if self.random.below(4) == 0 {
                new.tags.push(format!("t{number}").parse().unwrap());
            }
        }
        match self.random.below(6) {
            0 => new.immutable_tags.clone_from(&new.tags),
            1 => new.condition = TagCondition::Absent,
            2 => {
                let digests = images.iter().take(3).map(|image| &image.new.manifest.digest);
                new.condition = TagCondition::Matches(digests.cloned().collect());
            }
            _ => {}
        }
        match self
            .request(|| process.put_manifest(&repository, new.clone()))
            .await
        {
            Ok(()) => {
                if !(image.is_deleted || self.is_collecting()) {
                    let acknowledged = (repository, new.manifest.digest);
                    self.world.acknowledged.lock().unwrap().insert(acknowledged);
                }
            }
            Err(error) => {
                let is_known = match error.code() {
                    ErrorCode::TagConflict | ErrorCode::PreconditionFailed => {
                        new.condition != TagCondition::Any || !new.immutable_tags.is_empty()
                    }
                    ErrorCode::ManifestBlobUnknown => {
                        image.is_deleted || self.is_collecting() || !has_children
                    }
                    _ => false,
                };
                assert!(is_known, "{error:?}");
            }
        }
    }

    /// Pushes the blobs of an image that nobody deletes, and sometimes the others.
    pub(super) async fn push_children(&mut self, repository: &RepositoryName, image: &Image) {
        let blobs = Arc::clone(&self.world.blobs);
        for (at, blob) in blobs.iter().enumerate() {
            let is_child = image.new.children.iter().any(|child| child.digest == blob.digest);
            if is_child && (!blob.is_deleted || self.random.below(2) == 0) {
                self.ensure_blob(repository, at).await;
            }
        }
    }

    pub(super) async fn delete_image(&mut self) {
        let repository = self.repository();
        let images = Arc::clone(&self.world.images);
        let image = &images[match self.world.work {
            Work::Manifests | Work::Collector => 2,
            _ => 2 + self.random.below(images.len() - 2),
        }];
        assert!(image.is_deleted);
        let process = Arc::clone(self.process());
        let digest = &image.new.manifest.digest;
        // Even while none is in progress, and another number after each.
        self.world.deletes.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self
            .request(|| process.delete_manifest(&repository, digest, None, None))
            .await
        {
            assert!(is_unknown(&error), "{error:?}");
        }
        self.world.deletes.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) async fn delete_tag(&mut self) {
        let repository = self.repository();
        let tag: Tag = ["t0", "t1"][self.random.below(2)].parse().unwrap();
        let process = Arc::clone(self.process());
        if let Err(error) = self.request(|| process.delete_tag(&repository, &tag, None)).await {
            assert!(is_unknown(&error), "{error:?}");
        }
    }

    /// Pushes an image as a client does that was told that the blobs are there, and uploads what is not.
    pub(super) async fn push_again(&mut self) {
        let repository = self.repository();
        let images = Arc::clone(&self.world.images);
        // The one that is deleted too: otherwise its blobs would be named for ever.
        let image = &images[2];
        let process = Arc::clone(self.process());
        for _ in 0..5 {
            let deletes = self.world.deletes.load(Ordering::Relaxed);
            let pushed = self
                .request(|| process.put_manifest(&repository, image.new.clone()))
                .await;
            if let Err(error) = pushed {
                assert_eq!(error.code(), ErrorCode::ManifestBlobUnknown, "{error:?}");
                self.push_children(&repository, image).await;
                continue;
            }
            for child in &image.new.children {
                let opened = attempt(&self.world, || process.open_blob(&repository, &child.digest)).await;
                let is_deleted =
                    self.world.deletes.load(Ordering::Relaxed) != deletes || !deletes.is_multiple_of(2);
                assert!(
                    opened.is_ok() || is_deleted,
                    "a child of a manifest that was just pushed is gone"
                );
            }
            return;
        }
    }

    pub(super) async fn read(&mut self) {
        let repository = self.repository();
        let process = Arc::clone(self.process());
        let page = || PageRequest { last: None, limit: 2 };
        if let Err(error) = self.request(|| process.list_tags(&repository, page())).await {
            assert_eq!(error.code(), ErrorCode::NameUnknown);
        }
        let tag = Reference::Tag(["t0", "t1", "t2"][self.random.below(3)].parse().unwrap());
        match self.request(|| process.stat_manifest(&repository, &tag)).await {
            Ok(read) => assert_eq!(read.digest, digest(&read.bytes)),
            Err(error) => assert!(is_unknown(&error), "{error:?}"),
        }
        let blobs = Arc::clone(&self.world.blobs);
        let at = self.blob();
        match self
            .request(|| process.open_blob(&repository, &blobs[at].digest))
            .await
        {
            Ok(opened) => assert_eq!(opened.size, blobs[at].content.len() as u64),
            Err(error) => assert_eq!(error.code(), ErrorCode::BlobUnknown, "{error:?}"),
        }
    }

    /// Pushes what nobody else pushes, by several tags that may not be there: all of them are written, or none.
    pub(super) async fn push_own_image(&mut self) {
        let repository = self.repository();
        let process = Arc::clone(self.process());
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[],"annotations":{{"name":"{} {}"}}}}"#,
            self.number,
            self.random.next()
        );
        let mut new = self.world.images[0].new.clone();
        new.manifest.digest = digest(text.as_bytes());
        new.manifest.bytes = text.into();
        new.manifest.media_type = "application/vnd.oci.image.index.v1+json".parse().unwrap();
        new.children.clear();
        new.tags = ["t0", "t1", "t2"].map(|name| name.parse().unwrap()).into();
        match self.random.below(2) {
            0 => new.immutable_tags.clone_from(&new.tags),
            _ => new.condition = TagCondition::Absent,
        }
        match self
            .request(|| process.put_manifest(&repository, new.clone()))
            .await
        {
            Ok(()) => {
                let acknowledged = (repository, new.manifest.digest);
                self.world.acknowledged.lock().unwrap().insert(acknowledged);
            }
            Err(error) => {
                let known = [ErrorCode::TagConflict, ErrorCode::PreconditionFailed];
                assert!(known.contains(&error.code()), "{error:?}");
                self.world.refused.lock().unwrap().insert(new.manifest.digest);
            }
        }
    }

    pub(super) fn own_tag_name(&self) -> Tag {
        format!("own-{}", self.number).parse().unwrap()
    }

    /// Moves a tag that nobody else writes between manifests that nobody deletes.
    pub(super) async fn push_own_tag(&mut self) {
        let repository = match self.world.work {
            Work::Repository => self.world.repositories[0].clone(),
            _ => self.repository(),
        };
        let images = Arc::clone(&self.world.images);
        let image = &images[self.random.below(2)];
        let process = Arc::clone(self.process());
        let mut new = image.new.clone();
        new.tags.push(self.own_tag_name());
        loop {
            self.push_children(&repository, image).await;
            match self
                .request(|| process.put_manifest(&repository, new.clone()))
                .await
            {
                Ok(()) => break,
                Err(error) => assert!(
                    self.is_collecting() && error.code() == ErrorCode::ManifestBlobUnknown,
                    "{error:?}"
                ),
            }
        }
        self.own_tag.insert(repository, new.manifest.digest);
    }
}
