//! Empty repositories leave the catalog if the operator says so, and whatever is pushed meanwhile stays.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use registry_core::ErrorCode;
use registry_core::storage::PageRequest;
use registry_storage::{Backend, CollectOptions, CollectReport, Maintenance as _, ObjectStoreBackend};

use crate::support::images::{digest, name, push_image, start_upload, try_push};
use crate::support::poll_times;
use crate::support::world::{World, world};

const DAY: Duration = Duration::from_hours(24);

fn options() -> CollectOptions {
    CollectOptions::new()
        .grace(Duration::ZERO)
        .remove_empty_repositories(true)
}

/// Runs a cycle a second later.
async fn cycle<B: Backend>(world: &World<B>, options: CollectOptions) -> CollectReport {
    world.clock.advance(Duration::from_secs(1));
    world.collect(&options).await
}

on_each_backend! {
    an_emptied_repository_leaves_when_its_blobs_are_gone
    what_is_not_empty_stays
}

async fn an_emptied_repository_leaves_when_its_blobs_are_gone<B: Backend>(world: World<B>) {
    let image = push_image(world.storage(), "a", Some("v1"), 1, 100).await;
    push_image(world.storage(), "a/b", Some("v1"), 1, 100).await;
    world.delete_manifest("a", &image.digest).await;
    for _ in 0..3 {
        let kept = CollectOptions::new().grace(Duration::ZERO);
        assert_eq!(cycle(&world, kept).await.empty_repositories, 0);
    }
    assert_eq!(world.catalog().await, ["a", "a/b"], "that is the default");
    let dry = cycle(&world, options().dry_run(true)).await;
    assert_eq!((dry.empty_repositories, world.catalog().await.len()), (1, 2));
    assert_eq!(cycle(&world, options()).await.empty_repositories, 1);
    assert_eq!(world.catalog().await, ["a/b"]);
    let page = PageRequest { last: None, limit: 1 };
    let tags = world.storage().list_tags(&name("a"), page).await;
    assert_eq!(tags.unwrap_err().code(), ErrorCode::NameUnknown);
    assert_eq!(cycle(&world, options()).await.empty_repositories, 0);
    // It is a new one when something is pushed, also if the blobs are found elsewhere.
    push_image(world.storage(), "a", Some("v2"), 1, 100).await;
    assert_eq!(cycle(&world, options()).await.empty_repositories, 0);
    assert_eq!(world.catalog().await, ["a", "a/b"]);
}

async fn what_is_not_empty_stays<B: Backend>(world: World<B>) {
    // Without a tag.
    push_image(world.storage(), "untagged", None, 1, 100).await;
    // Its blobs were promised to clients for a day.
    let image = push_image(world.storage(), "blobs", Some("v1"), 2, 100).await;
    world.delete_manifest("blobs", &image.digest).await;
    // The layer of the next image is on its way.
    let image = push_image(world.storage(), "uploads", Some("v1"), 3, 100).await;
    world.delete_manifest("uploads", &image.digest).await;
    let content = Bytes::from_static(b"a new layer");
    let upload = start_upload(world.storage(), "uploads", &content).await;
    let all = ["blobs", "untagged", "uploads"];
    for _ in 0..3 {
        assert_eq!(cycle(&world, options().grace(DAY)).await.empty_repositories, 0);
    }
    assert_eq!(world.catalog().await, all);
    let mut removed = 0;
    for _ in 0..3 {
        removed += cycle(&world, options()).await.empty_repositories;
    }
    assert_eq!(
        (removed, world.catalog().await),
        (1, vec!["untagged".to_owned(), "uploads".to_owned()])
    );
    let digest = digest(&content);
    world.storage().commit_upload(&upload, &digest).await.unwrap();
    cycle(&world, options().grace(DAY)).await;
    assert_eq!(world.catalog().await, ["untagged", "uploads"]);
}

/// A cycle is cut at any call, a push that begins then comes whole, and the cycle goes on: the image is there and listed.
#[tokio::test]
async fn a_push_beside_the_removal_stays_and_is_listed() {
    for cut in 1.. {
        let world = world(ObjectStoreBackend::memory(), None);
        let image = push_image(world.storage(), "a", Some("v1"), 1, 100).await;
        world.delete_manifest("a", &image.digest).await;
        for _ in 0..2 {
            cycle(&world, CollectOptions::new().grace(Duration::ZERO)).await;
        }
        world.step();
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
        assert_eq!(
            world.named("a", "v2").await.as_ref(),
            Some(&image.digest),
            "{when}"
        );
        assert_eq!(world.catalog().await, ["a"], "{when}");
        if !is_cut {
            assert!(cut > 10, "{when}");
            break;
        }
    }
}
