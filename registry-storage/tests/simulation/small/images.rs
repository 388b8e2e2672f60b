//! Requests for manifests and tags.

use registry_core::storage::{ManifestStorage as _, RestoreTag, TagCondition};
use registry_core::{ErrorCode, Tag};

use super::Client;
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
                Ok(()) => return,
                Err(error) => assert!(
                    matches!(error.code(), ErrorCode::ManifestBlobUnknown | ErrorCode::Denied),
                    "{error:?}"
                ),
            }
            has_children = true;
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
        let repository = self.repository();
        let mut new = self.world.images[0].new.clone();
        new.tags.push(shared_tag(self.random.below(2)));
        self.process.put_manifest(&repository, new).await.unwrap();
    }

    pub(super) async fn push_if_matches(&mut self) {
        let repository = self.repository();
        let [old, new] = &self.world.images[..] else {
            panic!()
        };
        let mut new = new.new.clone();
        new.tags = vec![shared_tag(0), shared_tag(1)];
        match self.random.below(4) {
            0 => new.condition = TagCondition::Absent,
            1 => new.condition = TagCondition::Matches(vec![old.new.manifest.digest.clone()]),
            _ => new.immutable_tags.push(shared_tag(1)),
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
