//! Deleting a whole repository: everything goes, other repositories stay, and a push at the same time is refused or whole.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use registry_core::manifest::ManifestView;
use registry_core::storage::{PageRequest, ReferrersRequest, RepositoryDeleted, Storage, TagFilter};
use registry_core::{Error, ErrorCode, Reference};
use registry_storage::check::CheckOptions;
use registry_storage::testing::faulty::Fault;
use registry_storage::{Backend, CollectOptions, DeleteRepositoryOptions, Finding, Key, Maintenance as _};

use crate::support::images::{
    IMAGE, INDEX, Image, digest, image, name, parsed_manifest, push_image, push_index, push_referrer, put,
    start_upload, tag, try_push,
};
use crate::support::poll_times;
use crate::support::tamper::put_raw;
use crate::support::world::{World, world};

/// Larger than what is kept in a record.
const LARGE: usize = 40_000;

impl<B: Backend> World<B> {
    async fn try_delete(&self, repository: &str) -> Result<RepositoryDeleted, Error> {
        self.store
            .delete_repository(&name(repository), &DeleteRepositoryOptions::new(), &())
            .await
    }

    async fn delete(&self, repository: &str) -> RepositoryDeleted {
        let deleted = self.try_delete(repository).await.unwrap();
        assert!(deleted.is_gone && deleted.manifests_left == 0, "{deleted:?}");
        self.assert_gone(repository).await;
        deleted
    }

    async fn assert_gone(&self, repository: &str) {
        assert!(!self.catalog().await.contains(&repository.to_owned()));
        assert_eq!(self.tags(repository).await, Err(ErrorCode::NameUnknown));
        let error = self.try_delete(repository).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::NameUnknown, "{error}");
        self.assert_sound(repository).await;
    }

    /// Returns how many byte strings are left when the collector and the sweeper have done what they can.
    async fn bytes_left(&self) -> usize {
        for _ in 0..5 {
            self.clock.advance(Duration::from_hours(24 * 30));
            self.collect_and_sweep(&CollectOptions::new().grace(Duration::ZERO))
                .await;
        }
        self.byte_strings().await
    }
}

/// Fills a repository with some of everything.
async fn fill(storage: &dyn Storage, repository: &str, seed: u64) -> Image {
    let first = push_image(storage, repository, Some("first"), seed, LARGE).await;
    let second = push_image(storage, repository, None, seed + 1, 100).await;
    push_index(storage, repository, "index", &[&first, &second]).await;
    push_referrer(storage, repository, &first, seed + 2).await;
    start_upload(storage, repository, &Bytes::from(vec![seed as u8; LARGE])).await;
    first
}

on_each_backend! {
    everything_goes_and_other_repositories_stay
    an_index_of_many_and_indexes_of_indexes_go
    an_immutable_tag_keeps_the_repository_as_it_is
    what_is_pushed_after_the_delete_is_a_new_repository
    what_another_repository_has_stays_there
    a_delete_that_fails_at_any_call_is_repeated_until_it_is_done
    pushes_beside_deletes_are_refused_or_whole
    a_manifest_that_cannot_be_read_is_told
}

async fn everything_goes_and_other_repositories_stay<B: Backend>(world: World<B>) {
    for repository in ["a", "a/b", "a-b", "ab"] {
        let seed = repository.len() as u64 * 10 + u64::from(repository == "a-b") * 100;
        fill(world.storage(), repository, seed).await;
    }
    let other = fill(world.storage(), "a/b", 30).await;
    let storage = world.storage();
    let upload = start_upload(storage, "a", &Bytes::from(vec![1; LARGE])).await;
    let image = push_image(storage, "a", Some("moved"), 90, LARGE).await;
    let image_digest = image.digest.clone();
    push_image(storage, "a", Some("moved"), 91, 100).await;
    let deleted = world.delete("a").await;
    assert_eq!(
        (deleted.tags, deleted.manifests, deleted.cancelled_uploads),
        (3, 6, 2),
        "{deleted:?}"
    );
    assert_eq!(deleted.blobs, 10, "{deleted:?}");
    assert_eq!(world.catalog().await, ["a-b", "a/b", "ab"]);
    assert!(!world.has_manifest("a", &image_digest).await && !world.has_blob("a", &image.layer).await);
    let referrers = ReferrersRequest::from(PageRequest {
        last: None,
        limit: 10,
    });
    let listed = storage.list_referrers(&name("a"), &image_digest, referrers).await;
    assert!(listed.is_ok_and(|page| page.items.is_empty()));
    let status = storage.upload_status(&upload).await.unwrap_err();
    assert_eq!(status.code(), ErrorCode::BlobUploadUnknown);
    world.assert_whole("a/b", &other).await;
    for repository in ["a/b", "a-b", "ab"] {
        assert_eq!(world.tags(repository).await.unwrap(), ["first", "index"]);
        world.delete(repository).await;
    }
    assert!(world.catalog().await.is_empty());
    assert_eq!(world.bytes_left().await, 0);
    let unknown = world.try_delete("never").await.unwrap_err();
    assert_eq!(unknown.code(), ErrorCode::NameUnknown);
}

/// What another delete removed is not left.
#[tokio::test]
async fn deletes_at_once_say_what_is_left_when_they_end() {
    let world = World::stepped();
    for seed in 0..30 {
        push_image(world.storage(), "a", Some(&format!("t{seed}")), seed, 100).await;
    }
    let deletes = [(); 4].map(|()| world.try_delete("a"));
    for deleted in futures_util::future::join_all(deletes)
        .await
        .into_iter()
        .flatten()
    {
        assert!(deleted.manifests_left == 0 || !deleted.is_gone, "{deleted:?}");
    }
    assert!(!world.catalog().await.contains(&"a".to_owned()));
}

async fn an_index_of_many_and_indexes_of_indexes_go<B: Backend>(world: World<B>) {
    let storage = world.storage();
    let mut children = Vec::new();
    for seed in 0..70 {
        children.push(push_image(storage, "a", None, seed, 100).await);
    }
    push_index(storage, "a", "many", &children.iter().collect::<Vec<_>>()).await;
    // An index of an index of an index.
    let mut inner = children[0].bytes.clone();
    for depth in 0..3 {
        let media_type = if depth == 0 { IMAGE } else { INDEX };
        let entry = format!(
            "{{\"mediaType\":\"{media_type}\",\"digest\":\"{}\",\"size\":{}}}",
            digest(&inner),
            inner.len()
        );
        inner = format!("{{\"schemaVersion\":2,\"mediaType\":\"{INDEX}\",\"manifests\":[{entry}]}}").into();
        put(storage, "a", Some(&format!("depth{depth}")), INDEX, &inner)
            .await
            .unwrap();
    }
    let deleted = world.delete("a").await;
    assert_eq!((deleted.tags, deleted.manifests), (4, 74), "{deleted:?}");
    assert_eq!(world.bytes_left().await, 0);
}

async fn an_immutable_tag_keeps_the_repository_as_it_is<B: Backend>(world: World<B>) {
    let first = fill(world.storage(), "a", 1).await;
    let immutable: TagFilter = Arc::new(|tag| tag.as_str() == "index");
    let repository = name("a");
    let keeping = DeleteRepositoryOptions::new().immutable(Some(immutable));
    let refused = world.store.delete_repository(&repository, &keeping, &());
    let refused = refused.await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::TagConflict);
    assert!(
        refused.to_string().contains("the tag index is immutable"),
        "{refused}"
    );
    assert_eq!(world.tags("a").await.unwrap(), ["first", "index"]);
    world.assert_whole("a", &first).await;
    let other: TagFilter = Arc::new(|tag| tag.as_str() == "none");
    world
        .store
        .delete_repository(
            &name("a"),
            &DeleteRepositoryOptions::new().immutable(Some(other)),
            &(),
        )
        .await
        .unwrap();
    world.assert_gone("a").await;
}

async fn what_is_pushed_after_the_delete_is_a_new_repository<B: Backend>(world: World<B>) {
    let storage = world.storage();
    for _ in 0..3 {
        let first = fill(storage, "a", 1).await;
        world.clock.advance(Duration::from_secs(1));
        world.delete("a").await;
        world.clock.advance(Duration::from_secs(1));
        try_push(storage, "a", Some("again"), &first).await.unwrap();
        assert_eq!(world.tags("a").await.unwrap(), ["again"]);
        assert_eq!(world.catalog().await, ["a"]);
        world.bytes_left().await;
        world.assert_whole("a", &first).await;
        world.assert_sound("pushed again").await;
    }
}

async fn what_another_repository_has_stays_there<B: Backend>(world: World<B>) {
    let storage = world.storage();
    let image = push_image(storage, "a", Some("t"), 1, LARGE).await;
    for content in [&image.layer, &image.config] {
        assert!(
            storage
                .mount_blob(&name("a"), &name("b"), &digest(content))
                .await
                .unwrap()
        );
    }
    try_push(storage, "b", Some("t"), &image).await.unwrap();
    world.delete("a").await;
    assert_eq!(world.bytes_left().await, 1);
    world.assert_whole("b", &image).await;
}

async fn a_delete_that_fails_at_any_call_is_repeated_until_it_is_done<B: Backend>(world: World<B>) {
    let backend = world.store.backend();
    for cut in (0..).step_by(5) {
        let repository = format!("r{cut}");
        fill(world.storage(), &repository, 1).await;
        let fault = if cut % 2 == 0 {
            Fault::Fail
        } else {
            Fault::LoseAnswer
        };
        let first = backend.calls();
        backend.fault_at(first + cut, fault);
        let outcome = world.try_delete(&repository).await;
        let is_cut = backend.calls() > first + cut;
        backend.heal();
        match outcome {
            Ok(deleted) => assert!(deleted.is_gone || is_cut, "{deleted:?}"),
            Err(error) => assert_eq!(error.code(), ErrorCode::Unavailable, "{error}"),
        }
        let found = |finding: Finding| {
            let text = finding.to_string();
            assert!(text.contains("Clients notice: nothing"), "cut at {cut}: {text}");
        };
        world.store.check(&CheckOptions::new(), &found).await.unwrap();
        match world.try_delete(&repository).await {
            Ok(deleted) => assert!(deleted.is_gone, "cut at {cut}: {deleted:?}"),
            Err(error) => assert_eq!(error.code(), ErrorCode::NameUnknown, "{error}"),
        }
        world.assert_gone(&repository).await;
        if !is_cut {
            assert!(cut > 20, "{cut} cuts");
            break;
        }
    }
    assert_eq!(world.bytes_left().await, 0);
}

/// Four clients push the same and different images again and again while the repository is deleted: what the last push of each
/// said is true.
async fn pushes_beside_deletes_are_refused_or_whole<B: Backend>(world: World<B>) {
    let clients = (0..4_u64).map(|client| {
        let (store, clock) = (Arc::clone(&world.store), Arc::clone(&world.clock));
        tokio::spawn(async move {
            let mut accepted = 0;
            for round in 0..6 {
                clock.advance(Duration::from_millis(1));
                let image = image(client / 2 * 10 + round % 2, LARGE, None);
                match try_push(&*store, "a", Some(&format!("t{client}")), &image).await {
                    Ok(()) => accepted += 1,
                    Err(error) => assert!(
                        matches!(
                            error.code(),
                            ErrorCode::ManifestBlobUnknown
                                | ErrorCode::BlobUploadUnknown
                                | ErrorCode::BlobUploadInvalid
                                | ErrorCode::Unavailable
                        ),
                        "{error:?}"
                    ),
                }
            }
            accepted
        })
    });
    let clients: Vec<_> = clients.collect();
    for _ in 0..8 {
        if let Err(error) = world.try_delete("a").await {
            assert_eq!(error.code(), ErrorCode::NameUnknown, "{error}");
        }
        world.assert_sound("beside pushes").await;
        tokio::task::yield_now().await;
    }
    let mut accepted = 0;
    for client in clients {
        accepted += client.await.unwrap();
    }
    assert!(accepted > 0);
    world.assert_sound("at the end").await;
    // Each tag that is listed can be pulled with everything.
    for listed in world.tags("a").await.unwrap_or_default() {
        let by_tag = Reference::Tag(tag(&listed));
        let manifest = world.storage().get_manifest(&name("a"), &by_tag).await.unwrap();
        let view = ManifestView::parse(&manifest.bytes, Some(&manifest.media_type)).unwrap();
        for child in view.children() {
            world
                .storage()
                .open_blob(&name("a"), &child.digest)
                .await
                .unwrap();
        }
    }
    // At rest, everything goes.
    world.clock.advance(Duration::from_secs(1));
    if !world.catalog().await.is_empty() {
        world.delete("a").await;
    }
    assert_eq!(world.bytes_left().await, 0);
}

async fn a_manifest_that_cannot_be_read_is_told<B: Backend>(world: World<B>) {
    let first = fill(world.storage(), "a", 1).await;
    let key = Key::manifest(&name("a"), &first.digest);
    let sound = world.store.backend().get(&key).await.unwrap().unwrap().value;
    let mut rotten = sound.to_vec();
    *rotten.last_mut().unwrap() ^= 1;
    put_raw(&world.store, &key, rotten.into()).await;
    let error = world.try_delete("a").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert!(error.to_string().contains("check --repair"), "{error}");
    let repair = CheckOptions::new().repair(true).verify_content(true);
    world.store.check(&repair, &()).await.unwrap();
    world.delete("a").await;
}

/// What is pushed while the repository is deleted.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pushed {
    /// The image that is there, with its tag.
    TheImage,
    /// Another image with a layer that is there.
    AnotherOfTheLayer,
    /// Another index of a manifest that is there.
    AnIndexOfTheImage,
    /// The same with an immutable tag.
    AnImmutableTag,
}

fn pushed(what: Pushed, first: &Image) -> (&'static str, Bytes) {
    let entry = |media_type: &str, bytes: &Bytes| {
        format!(
            "{{\"mediaType\":\"{media_type}\",\"digest\":\"{}\",\"size\":{}}}",
            digest(bytes),
            bytes.len()
        )
    };
    match what {
        Pushed::TheImage => (IMAGE, first.bytes.clone()),
        Pushed::AnotherOfTheLayer => {
            let config = entry("application/vnd.oci.image.config.v1+json", &first.config);
            let layer = entry("application/vnd.oci.image.layer.v1.tar", &first.layer);
            let text = format!(
                "{{\"schemaVersion\":2,\"mediaType\":\"{IMAGE}\",\"config\":{config},\"layers\":[{layer},{layer}]}}"
            );
            (IMAGE, text.into())
        }
        Pushed::AnIndexOfTheImage | Pushed::AnImmutableTag => {
            let entry = entry(IMAGE, &first.bytes);
            let text =
                format!("{{\"schemaVersion\":2,\"mediaType\":\"{INDEX}\",\"manifests\":[{entry},{entry}]}}");
            (INDEX, text.into())
        }
    }
}

/// What the pushed manifest needs is there.
async fn assert_needed<B: Backend>(world: &World<B>, what: Pushed, first: &Image) {
    if what == Pushed::AnotherOfTheLayer {
        assert!(world.has_blob("a", &first.layer).await && world.has_blob("a", &first.config).await);
    } else {
        world.assert_whole("a", first).await;
    }
}

async fn put_with<B: Backend>(world: &World<B>, what: Pushed, first: &Image) -> Result<(), Error> {
    let (media_type, bytes) = pushed(what, first);
    let mut new = parsed_manifest(media_type, &bytes);
    new.tags.push(tag("pushed"));
    if what == Pushed::AnImmutableTag {
        new.immutable_tags.push(tag("pushed"));
    }
    world.storage().put_manifest(&name("a"), new).await
}

/// A push is cut at any call, the repository is deleted, and the push goes on.
#[tokio::test]
async fn a_push_that_stops_anywhere_beside_a_delete_is_whole_or_refused() {
    for what in [
        Pushed::TheImage,
        Pushed::AnotherOfTheLayer,
        Pushed::AnIndexOfTheImage,
        Pushed::AnImmutableTag,
    ] {
        let (mut accepted, mut refused) = (0, 0);
        for cut in 0.. {
            let world = World::stepped();
            let first = push_image(world.storage(), "a", Some("first"), 1, LARGE).await;
            let mut push = pin!(put_with(&world, what, &first));
            let mut outcome = poll_times(push.as_mut(), cut).await;
            let is_cut = outcome.is_none();
            world.clock.advance(Duration::from_secs(1));
            world.try_delete("a").await.unwrap();
            while outcome.is_none() && is_cut {
                outcome = poll_times(push.as_mut(), 1).await;
            }
            let when = format!("{what:?}, cut at {cut}");
            world.assert_sound(&when).await;
            if !is_cut {
                // It was acknowledged before.
                world.assert_gone("a").await;
                assert!(
                    cut > 5 && refused > 5,
                    "{when}: {accepted} accepted, {refused} refused"
                );
                break;
            }
            match outcome.unwrap() {
                // It has to be whole, or, if the tag was written before the delete, gone.
                Ok(()) => {
                    accepted += 1;
                    let tags = world.tags("a").await.unwrap_or_default();
                    if tags.contains(&"pushed".to_owned()) {
                        let by_tag = Reference::Tag(tag("pushed"));
                        world
                            .storage()
                            .get_manifest(&name("a"), &by_tag)
                            .await
                            .expect(&when);
                        assert_needed(&world, what, &first).await;
                        assert_eq!(world.catalog().await, ["a"], "{when}");
                    }
                }
                Err(error) => {
                    refused += 1;
                    assert_eq!(error.code(), ErrorCode::ManifestBlobUnknown, "{when}: {error:?}");
                }
            }
        }
    }
}

/// A delete is cut at any call, a push that begins then comes whole, and the delete goes on: the push is refused, or is there
/// afterwards, with its tag and in the catalog.
#[tokio::test]
async fn a_delete_that_stops_anywhere_beside_a_push_keeps_it_whole() {
    for what in [
        Pushed::TheImage,
        Pushed::AnotherOfTheLayer,
        Pushed::AnIndexOfTheImage,
        Pushed::AnImmutableTag,
    ] {
        let (mut accepted, mut refused) = (0, 0);
        // The first turn takes the time.
        for cut in 1.. {
            let world = World::stepped();
            let first = push_image(world.storage(), "a", Some("first"), 1, LARGE).await;
            let repository = name("a");
            let options = DeleteRepositoryOptions::new();
            let mut delete = pin!(world.store.delete_repository(&repository, &options, &()));
            let mut outcome = poll_times(delete.as_mut(), cut).await;
            let is_cut = outcome.is_none();
            world.clock.advance(Duration::from_secs(1));
            let pushed = put_with(&world, what, &first).await;
            while outcome.is_none() && is_cut {
                outcome = poll_times(delete.as_mut(), 1).await;
            }
            let when = format!("{what:?}, cut at {cut}");
            world.assert_sound(&when).await;
            match pushed {
                Ok(()) => {
                    accepted += 1;
                    assert_eq!(world.tags("a").await, Ok(vec!["pushed".to_owned()]), "{when}");
                    assert_needed(&world, what, &first).await;
                    assert_eq!(world.catalog().await, ["a"], "{when}");
                }
                Err(error) => {
                    refused += 1;
                    assert_eq!(error.code(), ErrorCode::ManifestBlobUnknown, "{when}: {error:?}");
                }
            }
            if !is_cut {
                assert!(
                    cut > 20 && accepted > 10 && refused > 0,
                    "{when}: {accepted}, {refused}"
                );
                break;
            }
        }
    }
}
