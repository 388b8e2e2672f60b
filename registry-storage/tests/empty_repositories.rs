//! Empty repositories leave the catalog if the operator says so, and whatever is pushed meanwhile stays.
#![expect(clippy::unwrap_used, reason = "test code")]

#[macro_use]
#[path = "support/backends.rs"]
mod backends;
#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use registry_core::storage::{PageRequest, Storage};
use registry_core::{ErrorCode, Reference};
use registry_storage::testing::faulty::Fault;
use registry_storage::testing::{Faulty, ManualClock};
use registry_storage::{
    Backend, CollectOptions, CollectReport, Maintenance as _, ObjectStoreBackend, Store, StoreOptions,
};

use crate::support::images::{Image, digest, name, push_image, start_upload, tag, try_push};
use crate::support::poll_times;

const DAY: Duration = Duration::from_hours(24);

struct World<B> {
    store: Arc<Store<B>>,
    clock: Arc<ManualClock>,
}

fn world<B: Backend>(backend: B, _: Option<PathBuf>) -> World<B> {
    let clock = Arc::new(ManualClock::default());
    let options = StoreOptions::default();
    let store = Store::with_options(Arc::new(backend), Arc::clone(&clock) as _, options);
    World {
        store: Arc::new(store),
        clock,
    }
}

fn options() -> CollectOptions {
    CollectOptions::new()
        .grace(Duration::ZERO)
        .remove_empty_repositories(true)
}

impl<B: Backend> World<B> {
    fn storage(&self) -> &dyn Storage {
        &*self.store
    }

    async fn collect(&self, options: CollectOptions) -> CollectReport {
        self.clock.advance(Duration::from_secs(1));
        self.store.collect(&options, &()).await.unwrap()
    }

    async fn delete(&self, repository: &str, image: &Image) {
        let repository = name(repository);
        let deleted = self
            .storage()
            .delete_manifest(&repository, &image.digest, None, None);
        deleted.await.unwrap();
    }

    async fn catalog(&self) -> Vec<String> {
        let page = PageRequest {
            last: None,
            limit: 100,
        };
        let page = self.storage().list_repositories(page).await.unwrap();
        page.items.iter().map(ToString::to_string).collect()
    }
}

on_each_backend! {
    an_emptied_repository_leaves_when_its_blobs_are_gone
    what_is_not_empty_stays
}

async fn an_emptied_repository_leaves_when_its_blobs_are_gone<B: Backend>(world: World<B>) {
    let image = push_image(world.storage(), "a", Some("v1"), 1, 100).await;
    push_image(world.storage(), "a/b", Some("v1"), 1, 100).await;
    world.delete("a", &image).await;
    for _ in 0..3 {
        let kept = CollectOptions::new().grace(Duration::ZERO);
        assert_eq!(world.collect(kept).await.empty_repositories, 0);
    }
    assert_eq!(world.catalog().await, ["a", "a/b"], "that is the default");
    let dry = world.collect(options().dry_run(true)).await;
    assert_eq!((dry.empty_repositories, world.catalog().await.len()), (1, 2));
    assert_eq!(world.collect(options()).await.empty_repositories, 1);
    assert_eq!(world.catalog().await, ["a/b"]);
    let page = PageRequest { last: None, limit: 1 };
    let tags = world.storage().list_tags(&name("a"), page).await;
    assert_eq!(tags.unwrap_err().code(), ErrorCode::NameUnknown);
    assert_eq!(world.collect(options()).await.empty_repositories, 0);
    // It is a new one when something is pushed, also if the blobs are found elsewhere.
    push_image(world.storage(), "a", Some("v2"), 1, 100).await;
    assert_eq!(world.collect(options()).await.empty_repositories, 0);
    assert_eq!(world.catalog().await, ["a", "a/b"]);
}

async fn what_is_not_empty_stays<B: Backend>(world: World<B>) {
    // Without a tag.
    push_image(world.storage(), "untagged", None, 1, 100).await;
    // Its blobs were promised to clients for a day.
    let image = push_image(world.storage(), "blobs", Some("v1"), 2, 100).await;
    world.delete("blobs", &image).await;
    // The layer of the next image is on its way.
    let image = push_image(world.storage(), "uploads", Some("v1"), 3, 100).await;
    world.delete("uploads", &image).await;
    let content = Bytes::from_static(b"a new layer");
    let upload = start_upload(world.storage(), "uploads", &content).await;
    let all = ["blobs", "untagged", "uploads"];
    for _ in 0..3 {
        assert_eq!(world.collect(options().grace(DAY)).await.empty_repositories, 0);
    }
    assert_eq!(world.catalog().await, all);
    let mut removed = 0;
    for _ in 0..3 {
        removed += world.collect(options()).await.empty_repositories;
    }
    assert_eq!(
        (removed, world.catalog().await),
        (1, vec!["untagged".to_owned(), "uploads".to_owned()])
    );
    let digest = digest(&content);
    world.storage().commit_upload(&upload, &digest).await.unwrap();
    world.collect(options()).await;
    assert_eq!(world.catalog().await, ["untagged", "uploads"]);
}

/// A cycle is cut at any call, a push that begins then comes whole, and the cycle goes on: the image is there and listed.
#[tokio::test]
async fn a_push_beside_the_removal_stays_and_is_listed() {
    for cut in 1.. {
        let world = world(Faulty::new(ObjectStoreBackend::memory()), None);
        let image = push_image(world.storage(), "a", Some("v1"), 1, 100).await;
        world.delete("a", &image).await;
        for _ in 0..2 {
            world.collect(CollectOptions::new().grace(Duration::ZERO)).await;
        }
        for call in 0..1000 {
            let backend = world.store.backend();
            backend.fault_at(backend.calls() + call, Fault::Delay(1));
        }
        let cycle = options();
        let mut collect = pin!(world.store.collect(&cycle, &()));
        let mut outcome = poll_times(collect.as_mut(), cut).await;
        let is_cut = outcome.is_none();
        let pushed = try_push(world.storage(), "a", Some("v2"), &image).await;
        while outcome.is_none() {
            outcome = poll_times(collect.as_mut(), 1).await;
        }
        outcome.unwrap().unwrap();
        let when = format!("cut at {cut}");
        pushed.expect(&when);
        let by_tag = Reference::Tag(tag("v2"));
        let found = world.storage().get_manifest(&name("a"), &by_tag).await;
        assert_eq!(found.expect(&when).digest, image.digest);
        assert_eq!(world.catalog().await, ["a"], "{when}");
        if !is_cut {
            assert!(cut > 10, "{when}");
            break;
        }
    }
}
