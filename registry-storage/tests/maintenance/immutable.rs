//! The first push of an immutable tag against a delete of what it reaches, in every order that two cuts allow.

use std::sync::Arc;

use bytes::Bytes;
use registry_core::storage::{BlobStorage as _, ChildKind, ManifestStorage as _, NewManifest, TagFilter};
use registry_core::{Digest, Error, ErrorCode, Reference, RepositoryName, Tag};
use registry_storage::testing::faulty::Fault;
use registry_storage::testing::{Faulty, ManualClock};
use registry_storage::{ObjectStoreBackend, Store, StoreOptions};

use crate::support::images::{IMAGE, INDEX, digest, parsed_manifest, push_blob};

/// What is deleted while the tag is pushed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Deleted {
    LayerOfTheImage,
    ImageOfTheIndex,
    LayerBelowTheIndex,
    TheIndexItself,
}

struct World {
    store: Store<Faulty<ObjectStoreBackend>>,
    backend: Arc<Faulty<ObjectStoreBackend>>,
    repository: RepositoryName,
    layer: Digest,
    image: NewManifest,
    index: NewManifest,
    deleted: Deleted,
}

impl World {
    /// Makes a store with a layer and, where the index is tagged, its image. `is_pushed` says that what gets the tag is
    /// there already.
    async fn new(deleted: Deleted, is_pushed: bool) -> Self {
        let backend = Arc::new(Faulty::new(ObjectStoreBackend::memory()));
        let store = Store::with_options(
            Arc::clone(&backend),
            Arc::new(ManualClock::default()),
            StoreOptions::default(),
        );
        let layer = Bytes::from_static(b"layer");
        let image = format!(
            "{{\"schemaVersion\":2,\"config\":{0},\"layers\":[{0}]}}",
            descriptor(&digest(&layer))
        );
        let image = manifest(IMAGE, &image);
        let index = format!(
            "{{\"schemaVersion\":2,\"manifests\":[{}]}}",
            descriptor(&image.manifest.digest)
        );
        let world = Self {
            index: manifest(INDEX, &index),
            store,
            backend,
            repository: "a".parse().unwrap(),
            layer: digest(&layer),
            image,
            deleted,
        };
        push_blob(&world.store, "a", &layer).await;
        if deleted != Deleted::LayerOfTheImage {
            world.put(world.image.clone()).await.unwrap();
        }
        if is_pushed {
            world.put(world.tagged().clone()).await.unwrap();
        }
        world
    }

    fn tagged(&self) -> &NewManifest {
        match self.deleted {
            Deleted::LayerOfTheImage => &self.image,
            _ => &self.index,
        }
    }

    async fn put(&self, new: NewManifest) -> Result<(), Error> {
        self.store.put_manifest(&self.repository, new).await
    }

    async fn push(&self) -> Result<(), Error> {
        let new = NewManifest {
            tags: vec![tag()],
            immutable_tags: vec![tag()],
            ..self.tagged().clone()
        };
        self.put(new).await
    }

    async fn delete(&self) -> Result<(), Error> {
        let immutable: Option<TagFilter> = Some(Arc::new(|_| true));
        let manifest = match self.deleted {
            Deleted::LayerOfTheImage | Deleted::LayerBelowTheIndex => {
                let deleted = self.store.delete_blob(&self.repository, &self.layer, immutable);
                return deleted.await;
            }
            Deleted::ImageOfTheIndex => &self.image,
            Deleted::TheIndexItself => &self.index,
        };
        let digest = &manifest.manifest.digest;
        self.store
            .delete_manifest(&self.repository, digest, None, immutable)
            .await
    }

    /// Checks that the tag is whole, or that its push was refused as something was gone.
    async fn check(&self, pushed: Result<(), Error>, deleted: Result<(), Error>, order: &str) {
        let by_tag = Reference::Tag(tag());
        let read = self.store.get_manifest(&self.repository, &by_tag).await;
        if let Err(refusal) = pushed {
            assert_eq!(
                refusal.code(),
                ErrorCode::ManifestBlobUnknown,
                "{order}: {refusal}"
            );
            assert!(deleted.is_ok(), "{order}: both are refused, {deleted:?}");
            assert!(read.is_err(), "{order}: the tag of a refused push stays");
            return;
        }
        assert!(read.is_ok(), "{order}: {read:?}");
        if self.deleted != Deleted::LayerOfTheImage {
            let image = Reference::Digest(self.image.manifest.digest.clone());
            let image = self.store.get_manifest(&self.repository, &image).await;
            assert!(image.is_ok(), "{order}: the tag is hollow");
        }
        let layer = self.store.stat_blob(&self.repository, &self.layer).await;
        assert!(layer.is_ok(), "{order}: the tag is hollow");
        if let Err(error) = deleted {
            let codes = [
                ErrorCode::TagConflict,
                ErrorCode::ManifestUnknown,
                ErrorCode::NameUnknown,
            ];
            assert!(codes.contains(&error.code()), "{order}: {error:?}");
        } else {
            assert_eq!(self.deleted, Deleted::TheIndexItself, "{order}: both were done");
        }
    }
}

/// A delete and a push are one task each. The one that begins is cut at one of its calls, the other at one of its own, and
/// then the first goes on to its end.
#[tokio::test]
async fn an_immutable_tag_is_whole_in_every_order_of_its_push_and_a_delete() {
    for deleted in [
        Deleted::LayerOfTheImage,
        Deleted::ImageOfTheIndex,
        Deleted::LayerBelowTheIndex,
        Deleted::TheIndexItself,
    ] {
        for (is_pushed, delete_begins) in [(false, true), (false, false), (true, true), (true, false)] {
            let calls = |world: &World| world.backend.calls();
            let world = World::new(deleted, is_pushed).await;
            let start = calls(&world);
            drop(world.push().await);
            let push = calls(&world) - start;
            let world = World::new(deleted, is_pushed).await;
            drop(world.delete().await);
            let delete = calls(&world) - start;
            let (first, second) = if delete_begins {
                (delete, push)
            } else {
                (push, delete)
            };
            for cut in 0..first {
                // The second may do more than alone.
                for second_cut in 0..second + 20 {
                    let world = World::new(deleted, is_pushed).await;
                    assert_eq!(calls(&world), start);
                    world.backend.fault_at(start + cut, Fault::Delay(3));
                    world
                        .backend
                        .fault_at(start + cut + 1 + second_cut, Fault::Delay(6));
                    let (pushed, done) = if delete_begins {
                        let (done, pushed) = tokio::join!(biased; world.delete(), world.push());
                        (pushed, done)
                    } else {
                        tokio::join!(biased; world.push(), world.delete())
                    };
                    let order = format!("{deleted:?}, {is_pushed}, {delete_begins}, {cut}, {second_cut}");
                    world.check(pushed, done, &order).await;
                }
            }
        }
    }
}

fn tag() -> Tag {
    "v1".parse().unwrap()
}

fn descriptor(digest: &Digest) -> String {
    format!("{{\"mediaType\":\"application/vnd.test\",\"digest\":\"{digest}\",\"size\":1}}")
}

fn manifest(media_type: &str, text: &str) -> NewManifest {
    let new = parsed_manifest(media_type, &Bytes::copy_from_slice(text.as_bytes()));
    assert!(
        new.children
            .iter()
            .all(|child| media_type == INDEX || child.kind == ChildKind::Blob)
    );
    new
}
