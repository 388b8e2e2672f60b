//! Requests for manifests and tags.

use std::time::Duration;

use registry_core::storage::{ManifestStorage as _, RestoreTag, TagCondition};
use registry_core::{ErrorCode, Tag};

use registry_storage::Maintenance as _;

use super::Client;
use super::work::Work;
use crate::contents::Image;

/// The tag of the manifest with this number.
fn own_tag(at: usize) -> Tag {
    format!("own-{at}").parse().unwrap()
}

fn shared_tag(number: usize) -> Tag {
    format!("shared-{number}").parse().unwrap()
}

impl Client {
    fn image(&mut self) -> usize {
        self.random.below(self.world.images.len())
    }

    pub(super) async fn push_image(&mut self) {
        let (repository, at) = (self.repository(), self.image());
        let image = &self.world.images[at];
        if self.world.work == Work::Repository {
            // What is pushed after a delete began is not older.
            self.world.clock.advance(Duration::from_millis(1));
        }
        let mut new = image.new.clone();
        new.tags.push(if self.world.work.has_own_tags() {
            own_tag(at)
        } else {
            shared_tag(self.random.below(2))
        });
        // A client that was told that the blobs are there does not send them.
        let mut has_children = self.random.below(4) == 0;
        for _ in 0..3 {
            if has_children {
                self.push_children(&repository, image).await;
            }
            match self.process.put_manifest(&repository, new.clone()).await {
                Ok(()) if self.world.work.keeps_tags() => {
                    let pushed = (repository, own_tag(at), new.manifest.digest);
                    self.world.pushed.lock().unwrap().insert(pushed);
                    return;
                }
                Ok(()) => return,
                Err(error) => assert!(
                    matches!(error.code(), ErrorCode::ManifestBlobUnknown | ErrorCode::Denied),
                    "{error:?}"
                ),
            }
            has_children = true;
        }
    }

    pub(super) async fn push_all(&mut self) {
        let repository = self.repository();
        for (at, image) in self.world.images.iter().enumerate() {
            let mut new = image.new.clone();
            new.tags.push(own_tag(at));
            self.process.put_manifest(&repository, new).await.unwrap();
        }
    }

    /// Records a pull, after which retention keeps the tag.
    pub(super) async fn pull(&mut self, at: usize) {
        let repository = self.repository();
        let digest = self.world.images[at].new.manifest.digest.clone();
        let pulled = std::slice::from_ref(&digest);
        self.process.record_pulls(&repository, pulled).await.unwrap();
        let kept = (repository, own_tag(at), digest);
        self.world.pushed.lock().unwrap().insert(kept);
    }

    /// Pushes a manifest as a client does that does not send what is missing.
    pub(super) async fn push_incomplete(&mut self) {
        let (repository, at) = (self.repository(), self.image());
        let new = self.world.images[at].new.clone();
        if let Err(error) = self.process.put_manifest(&repository, new).await {
            assert_eq!(error.code(), ErrorCode::ManifestBlobUnknown, "{error:?}");
        }
    }

    async fn push_children(&self, repository: &registry_core::RepositoryName, image: &Image) {
        for (at, blob) in self.world.blobs.iter().enumerate() {
            if image.new.children.iter().any(|child| child.digest == blob.digest) {
                self.ensure_blob(repository, at).await;
            }
        }
    }

    pub(super) async fn push_old(&mut self) {
        let tag = self.random.below(2);
        self.push_old_to(tag).await;
    }

    pub(super) async fn push_old_to(&mut self, tag: usize) {
        let repository = self.repository();
        let mut new = self.world.images[0].new.clone();
        new.tags.push(shared_tag(tag));
        self.process.put_manifest(&repository, new).await.unwrap();
    }

    pub(super) async fn push_if_matches(&mut self) {
        let condition = match self.random.below(4) {
            0 => Some(TagCondition::Absent),
            1 => {
                let old = &self.world.images[0].new.manifest.digest;
                Some(TagCondition::Matches(vec![old.clone()]))
            }
            _ => None,
        };
        self.push_both_tags(condition).await;
    }

    /// Pushes the second manifest and both tags. Without a condition, the second tag is immutable.
    pub(super) async fn push_both_tags(&mut self, condition: Option<TagCondition>) {
        let repository = self.repository();
        let mut new = self.world.images[1].new.clone();
        new.tags = vec![shared_tag(0), shared_tag(1)];
        match condition {
            Some(condition) => new.condition = condition,
            None => new.immutable_tags.push(shared_tag(1)),
        }
        if let Err(error) = self.process.put_manifest(&repository, new).await {
            let known = [ErrorCode::TagConflict, ErrorCode::PreconditionFailed];
            assert!(known.contains(&error.code()), "{error:?}");
        }
    }

    pub(super) async fn delete_image(&mut self) {
        let at = self.image();
        self.delete(at).await;
    }

    pub(super) async fn delete(&mut self, at: usize) {
        let repository = self.repository();
        let digest = &self.world.images[at].new.manifest.digest;
        match self
            .process
            .delete_manifest(&repository, digest, None, None)
            .await
        {
            Ok(()) => {
                self.world.deleted.lock().unwrap().insert(digest.clone());
            }
            Err(error) => assert!(
                matches!(error.code(), ErrorCode::ManifestUnknown | ErrorCode::NameUnknown),
                "{error:?}"
            ),
        }
    }

    pub(super) async fn restore(&mut self) {
        let (repository, at) = (self.repository(), self.image());
        let digest = self.world.images[at].new.manifest.digest.clone();
        let is_deleted = self.world.deleted.lock().unwrap().contains(&digest);
        let restore = RestoreTag {
            digest: Some(digest),
            ..RestoreTag::new(shared_tag(0))
        };
        let restored = self.process.restore_tag(&repository, restore).await;
        match restored {
            Ok(_) => {}
            Err(error) => assert!(
                !is_deleted && error.code() == ErrorCode::ManifestUnknown,
                "what was deleted is not kept: {error:?}"
            ),
        }
    }
}
