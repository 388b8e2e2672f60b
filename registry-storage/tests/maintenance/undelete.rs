//! What was moved or deleted comes back as it was, while collectors and sweepers run; and goes when its time is over.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use registry_core::retention::{Retention, RetentionPolicy};
use registry_core::storage::{
    EndReason, NewManifest, PageRequest, ReferrersRequest, RestoreTag, RestoredTag, TagValue,
};
use registry_core::{Digest, Error, ErrorCode, Reference};
use registry_storage::testing::faulty::Fault;
use registry_storage::{
    Backend, CollectOptions, DeleteRepositoryOptions, Key, Maintenance as _, ObjectStoreBackend,
    RetainOptions, StoreOptions,
};

use crate::support::images::{
    IMAGE, digest, name, parsed_manifest, push_image, push_index, push_referrer, put, tag, try_push,
};
use crate::support::poll_times;
use crate::support::world::World;

/// Larger than what is kept in a record.
const LARGE: usize = 40_000;

const DAY: Duration = Duration::from_hours(24);

/// How long the stores keep what is deleted.
const KEPT: Duration = Duration::from_hours(7 * 24);

fn world<B: Backend>(backend: B, _: Option<PathBuf>) -> World<B> {
    world_that_keeps(backend, KEPT)
}

fn world_that_keeps<B: Backend>(backend: B, keep_deleted: Duration) -> World<B> {
    let options = StoreOptions {
        keep_deleted,
        ..StoreOptions::default()
    };
    World::with_options(backend, options)
}

impl<B: Backend> World<B> {
    /// Lets collectors without a grace and sweepers do what they can within less than a day.
    async fn settle(&self) {
        for _ in 0..5 {
            self.clock.advance(Duration::from_hours(4));
            self.collect_and_sweep(&CollectOptions::new().grace(Duration::ZERO))
                .await;
        }
    }

    async fn try_restore(
        &self,
        repository: &str,
        text: &str,
        digest: Option<&Digest>,
    ) -> Result<RestoredTag, Error> {
        let restore = RestoreTag {
            digest: digest.cloned(),
            ..RestoreTag::new(tag(text))
        };
        self.storage().restore_tag(&name(repository), restore).await
    }

    async fn restore(&self, repository: &str, text: &str, digest: Option<&Digest>) -> RestoredTag {
        let restored = self.try_restore(repository, text, digest).await.unwrap();
        assert_eq!(
            self.named(repository, text).await.as_ref(),
            Some(&restored.manifest.digest)
        );
        self.assert_sound(repository).await;
        restored
    }

    async fn history(&self, repository: &str, text: Option<&str>) -> Vec<TagValue> {
        let mut values = Vec::new();
        let mut last = None;
        loop {
            let page = PageRequest { last, limit: 2 };
            let text = text.map(tag);
            let page = self
                .storage()
                .list_tag_history(&name(repository), text.as_ref(), page)
                .await
                .unwrap();
            values.extend(page.items);
            match page.next {
                Some(next) => last = Some(next),
                None => return values,
            }
        }
    }

    async fn records(&self, prefix: &str) -> usize {
        let prefix = Key::from_stored(prefix);
        let listed = self.store.backend().list(&prefix, None, 1000).await.unwrap();
        listed.len()
    }
}

fn reasons(values: &[TagValue]) -> Vec<Option<EndReason>> {
    values
        .iter()
        .map(|value| value.end.as_ref().map(|end| end.reason))
        .collect()
}

on_each_backend! {
    a_moved_tag_comes_back_and_what_it_named_then_too
    a_deleted_tag_and_a_deleted_manifest_come_back
    an_index_comes_back_with_its_manifests_and_signatures
    what_retention_dropped_comes_back
    a_deleted_repository_comes_back_tag_by_tag
    a_repository_is_purged
    after_the_time_everything_is_freed
    what_is_given_up_is_freed_at_once
    a_blob_that_was_deleted_by_itself_is_named
    an_immutable_tag_comes_back_and_does_not_move
    a_refused_push_leaves_no_history
    a_delete_that_fails_at_any_call_loses_nothing
    a_restore_that_fails_at_any_call_is_repeated
    two_restores_at_once_are_one
    restores_beside_collectors_that_give_everything_up_are_whole_or_refused
    a_restore_that_is_refused_takes_nothing_from_another_one
    the_history_is_listed_in_pages
}

async fn a_moved_tag_comes_back_and_what_it_named_then_too<B: Backend>(world: World<B>) {
    let first = push_image(world.storage(), "a", Some("t"), 1, LARGE).await;
    world.clock.advance(DAY);
    let second = push_image(world.storage(), "a", Some("t"), 2, LARGE).await;
    world.settle().await;
    let values = world.history("a", Some("t")).await;
    assert_eq!(reasons(&values), [Some(EndReason::Moved), None]);
    assert_eq!(
        (&values[0].digest, &values[1].digest),
        (&first.digest, &second.digest)
    );
    let end = values[0].end.as_ref().unwrap();
    assert_eq!(end.at.since(values[0].since), DAY);
    assert_eq!(end.restorable_until.unwrap().since(end.at), KEPT);
    let restored = world.restore("a", "t", None).await;
    assert_eq!(restored.manifest.digest, first.digest);
    assert_eq!(
        (restored.replaced, restored.manifests),
        (Some(second.digest.clone()), 0)
    );
    // And back again.
    world.clock.advance(DAY);
    assert_eq!(world.restore("a", "t", None).await.manifest.digest, second.digest);
    assert_eq!(world.history("a", Some("t")).await.len(), 4);
    // A push that does not move it is no history, nor is a first one.
    put(world.storage(), "a", Some("t"), IMAGE, &second.bytes)
        .await
        .unwrap();
    push_image(world.storage(), "a", Some("new"), 3, 10).await;
    assert_eq!(world.history("a", None).await.len(), 4);
    assert_eq!(reasons(&world.history("a", Some("new")).await), [None]);
    assert!(world.history("a", Some("never")).await.is_empty() && world.history("b", None).await.is_empty());
    let unknown = world.try_restore("a", "new", None).await.unwrap_err();
    assert_eq!(unknown.code(), ErrorCode::ManifestUnknown);
}

async fn a_deleted_tag_and_a_deleted_manifest_come_back<B: Backend>(world: World<B>) {
    let image = push_image(world.storage(), "a", Some("t"), 1, LARGE).await;
    put(world.storage(), "a", Some("also"), IMAGE, &image.bytes)
        .await
        .unwrap();
    world
        .storage()
        .delete_tag(&name("a"), &tag("t"), None)
        .await
        .unwrap();
    world.settle().await;
    assert_eq!(world.restore("a", "t", None).await.manifests, 0);
    world.clock.advance(DAY);
    world.delete_manifest("a", &image.digest).await;
    world.settle().await;
    assert_eq!(world.byte_strings().await, 1);
    let values = world.history("a", None).await;
    let expected = [
        Some(EndReason::ManifestDeleted),
        Some(EndReason::TagDeleted),
        Some(EndReason::ManifestDeleted),
    ];
    assert_eq!(reasons(&values), expected);
    let restored = world.restore("a", "t", None).await;
    assert_eq!((restored.manifests, restored.referrers), (1, 0));
    world.assert_whole("a", &image).await;
    assert_eq!(world.named("a", "also").await, None);
    world.restore("a", "also", None).await;
    // Any tag may name it.
    world.delete_manifest("a", &image.digest).await;
    world.restore("a", "another", Some(&image.digest)).await;
    world.settle().await;
    world.assert_whole("a", &image).await;
}

async fn an_index_comes_back_with_its_manifests_and_signatures<B: Backend>(world: World<B>) {
    let storage = world.storage();
    let first = push_image(storage, "a", None, 1, LARGE).await;
    let second = push_image(storage, "a", None, 2, LARGE).await;
    let index = push_index(storage, "a", "t", &[&first, &second]).await;
    let signature = push_referrer(storage, "a", &first, 3).await;
    let of_signature = push_referrer(storage, "a", &signature, 4).await;
    let other = push_referrer(storage, "a", &push_image(storage, "a", Some("u"), 5, 10).await, 6).await;
    for digest in [
        &of_signature.digest,
        &index,
        &signature.digest,
        &second.digest,
        &first.digest,
        &other.digest,
    ] {
        world.delete_manifest("a", digest).await;
        world.settle().await;
    }
    let restored = world.restore("a", "t", None).await;
    assert_eq!(restored.manifest.digest, index);
    assert_eq!(
        (
            restored.manifests,
            restored.referrers,
            restored.referrers_left_out
        ),
        (5, 2, 0)
    );
    world.settle().await;
    for image in [&first, &second, &signature, &of_signature] {
        world.assert_whole("a", image).await;
    }
    let request = ReferrersRequest::from(PageRequest {
        last: None,
        limit: 10,
    });
    let referrers = storage.list_referrers(&name("a"), &first.digest, request).await;
    assert_eq!(referrers.unwrap().items[0].digest, signature.digest);
    assert_eq!(world.history("a", Some("t")).await.len(), 2);
    // One that was not restored is kept still.
    assert_eq!(
        world.restore("a", "other", Some(&other.digest)).await.manifests,
        1
    );
}

async fn what_retention_dropped_comes_back<B: Backend>(world: World<B>) {
    let image = push_image(world.storage(), "ci/a", Some("t"), 1, LARGE).await;
    let policies = vec![RetentionPolicy {
        repositories: vec!["ci/**".parse().unwrap()],
        tags: vec!["*".parse().unwrap()],
        keep: Vec::new(),
        untagged: Some(Duration::from_secs(1)),
        pulled_within: None,
    }];
    let retention = Retention {
        policies,
        ..Retention::default()
    };
    let options = CollectOptions::new().grace(Duration::ZERO);
    let options = RetainOptions::new(Arc::new(retention), &options);
    for _ in 0..3 {
        world.clock.advance(Duration::from_secs(2));
        world.store.retain(&options, &()).await.unwrap();
        world.settle().await;
    }
    let by_digest = Reference::Digest(image.digest.clone());
    world
        .storage()
        .get_manifest(&name("ci/a"), &by_digest)
        .await
        .unwrap_err();
    let values = world.history("ci/a", None).await;
    assert_eq!(reasons(&values), [Some(EndReason::Retention(0))]);
    assert_eq!(world.restore("ci/a", "t", None).await.manifests, 1);
    world.assert_whole("ci/a", &image).await;
}

async fn a_deleted_repository_comes_back_tag_by_tag<B: Backend>(world: World<B>) {
    let storage = world.storage();
    let first = push_image(storage, "a", Some("t"), 1, LARGE).await;
    let second = push_image(storage, "a", None, 2, LARGE).await;
    push_index(storage, "a", "index", &[&first, &second]).await;
    let signature = push_referrer(storage, "a", &first, 3).await;
    let options = DeleteRepositoryOptions::new();
    let deleted = world
        .store
        .delete_repository(&name("a"), &options, &())
        .await
        .unwrap();
    assert!(deleted.is_gone && deleted.blobs == 0, "{deleted:?}");
    let kept = deleted.restorable_until.unwrap();
    assert!(kept.0 >= KEPT.as_millis() as u64);
    world.settle().await;
    let page = PageRequest {
        last: None,
        limit: 10,
    };
    let unknown = storage.list_tags(&name("a"), page).await.unwrap_err();
    assert_eq!(unknown.code(), ErrorCode::NameUnknown);
    let gone = Some(EndReason::RepositoryDeleted);
    assert_eq!(reasons(&world.history("a", None).await), [gone, gone]);
    let restored = world.restore("a", "index", None).await;
    assert_eq!((restored.manifests, restored.referrers), (4, 1));
    world.restore("a", "t", None).await;
    world.settle().await;
    for image in [&first, &second, &signature] {
        world.assert_whole("a", image).await;
    }
}

async fn a_repository_is_purged<B: Backend>(world: World<B>) {
    let storage = world.storage();
    let image = push_image(storage, "a", Some("t"), 1, LARGE).await;
    push_image(storage, "a/b", Some("t"), 2, LARGE).await;
    push_image(storage, "a/b", Some("t"), 3, LARGE).await;
    world.delete_manifest("a", &image.digest).await;
    push_image(storage, "a", Some("t"), 4, LARGE).await;
    world.clock.advance(DAY);
    let options = DeleteRepositoryOptions::new().purge(true);
    let deleted = world
        .store
        .delete_repository(&name("a"), &options, &())
        .await
        .unwrap();
    assert_eq!(
        (deleted.is_gone, deleted.restorable_until, deleted.blobs),
        (true, None, 4)
    );
    assert_eq!(
        (world.records("kept/a!/").await, world.records("kept/a/b!/").await),
        (0, 1)
    );
    world.settle().await;
    assert_eq!(world.byte_strings().await, 2);
    // What is kept of a repository that is gone is purged, too.
    let options = DeleteRepositoryOptions::new();
    world
        .store
        .delete_repository(&name("a/b"), &options, &())
        .await
        .unwrap();
    world.settle().await;
    assert_eq!(world.byte_strings().await, 2);
    let options = options.purge(true);
    world
        .store
        .delete_repository(&name("a/b"), &options, &())
        .await
        .unwrap();
    world.settle().await;
    assert_eq!((world.byte_strings().await, world.records("kept/").await), (0, 0));
}

async fn after_the_time_everything_is_freed<B: Backend>(world: World<B>) {
    let storage = world.storage();
    let image = push_image(storage, "a", Some("t"), 1, LARGE).await;
    push_referrer(storage, "a", &image, 2).await;
    push_image(storage, "a", Some("t"), 3, LARGE).await;
    let options = DeleteRepositoryOptions::new();
    world
        .store
        .delete_repository(&name("a"), &options, &())
        .await
        .unwrap();
    world.settle().await;
    let kept = world.collect_and_sweep(&CollectOptions::new()).await.deleted;
    assert_eq!((kept.manifests, kept.tags, kept.forgotten_manifests), (3, 2, 0));
    assert_eq!(world.byte_strings().await, 2);
    world.clock.advance(KEPT);
    let dry = world
        .collect_and_sweep(&CollectOptions::new().dry_run(true))
        .await
        .deleted;
    assert_eq!(
        (dry.manifests, dry.forgotten_manifests, dry.forgotten_tags),
        (0, 3, 2)
    );
    world.settle().await;
    assert_eq!((world.byte_strings().await, world.records("kept/").await), (0, 0));
    for prefix in ["repositories/a/!/blobs/", "repositories/a/!/manifests/"] {
        let dead = world.store.backend().is_atomic();
        assert!(!dead || world.records(prefix).await == 0, "{prefix}");
    }
    let gone = world.try_restore("a", "t", None).await.unwrap_err();
    assert_eq!(gone.code(), ErrorCode::ManifestUnknown);
    let gone = world
        .try_restore("a", "t", Some(&image.digest))
        .await
        .unwrap_err();
    assert_eq!(gone.code(), ErrorCode::ManifestUnknown);
}

async fn what_is_given_up_is_freed_at_once<B: Backend>(world: World<B>) {
    let image = push_image(world.storage(), "a", Some("t"), 1, LARGE).await;
    world.delete_manifest("a", &image.digest).await;
    world.settle().await;
    assert_eq!(world.byte_strings().await, 1);
    let options = CollectOptions::new().grace(Duration::ZERO).forget_deleted(true);
    let first = world.collect_and_sweep(&options).await;
    assert_eq!(
        (first.deleted.forgotten_manifests, first.deleted.forgotten_tags),
        (1, 1)
    );
    assert!(first.has_more(), "{first:?}");
    for _ in 0..4 {
        world.collect_and_sweep(&options).await;
    }
    assert_eq!((world.byte_strings().await, world.records("kept/").await), (0, 0));
}

async fn a_blob_that_was_deleted_by_itself_is_named<B: Backend>(world: World<B>) {
    let image = push_image(world.storage(), "a", Some("t"), 1, LARGE).await;
    let signature = push_referrer(world.storage(), "a", &image, 2).await;
    for deleted in [&signature, &image] {
        world.delete_manifest("a", &deleted.digest).await;
    }
    let config = digest(&signature.config);
    world
        .storage()
        .delete_blob(&name("a"), &config, None)
        .await
        .unwrap();
    let restored = world.restore("a", "t", None).await;
    assert_eq!((restored.referrers, restored.referrers_left_out), (0, 1));
    world.delete_manifest("a", &image.digest).await;
    let layer = digest(&image.layer);
    world
        .storage()
        .delete_blob(&name("a"), &layer, None)
        .await
        .unwrap();
    world.settle().await;
    let refused = world.try_restore("a", "t", None).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::ManifestBlobUnknown);
    assert!(refused.to_string().contains(&layer.to_string()), "{refused}");
    let values = world.history("a", Some("t")).await;
    let ends = values.iter().filter_map(|value| value.end.as_ref());
    assert!(ends.clone().count() == 2 && ends.clone().all(|end| end.restorable_until.is_none()));
    assert_eq!(world.named("a", "t").await, None);
    world.assert_sound("a refused restore").await;
}

async fn an_immutable_tag_comes_back_and_does_not_move<B: Backend>(world: World<B>) {
    let first = push_image(world.storage(), "a", Some("t"), 1, LARGE).await;
    world.delete_manifest("a", &first.digest).await;
    let immutable = |digest: &Digest| RestoreTag {
        digest: Some(digest.clone()),
        is_immutable: true,
        ..RestoreTag::new(tag("t"))
    };
    let restored = world
        .storage()
        .restore_tag(&name("a"), immutable(&first.digest))
        .await;
    assert_eq!(restored.unwrap().manifests, 1);
    let second = push_image(world.storage(), "a", Some("u"), 2, LARGE).await;
    world.delete_manifest("a", &second.digest).await;
    let refused = world
        .storage()
        .restore_tag(&name("a"), immutable(&second.digest))
        .await;
    assert_eq!(refused.unwrap_err().code(), ErrorCode::TagConflict);
    assert_eq!(world.named("a", "t").await, Some(first.digest));
    // Nothing was stored for it.
    let by_digest = Reference::Digest(second.digest);
    world
        .storage()
        .get_manifest(&name("a"), &by_digest)
        .await
        .unwrap_err();
}

async fn a_refused_push_leaves_no_history<B: Backend>(world: World<B>) {
    let first = push_image(world.storage(), "a", Some("t"), 1, LARGE).await;
    let second = push_image(world.storage(), "a", None, 2, LARGE).await;
    let layer = digest(&second.layer);
    world
        .storage()
        .delete_blob(&name("a"), &layer, None)
        .await
        .unwrap();
    // The manifest is there, so that its layer is gone is found only because of the immutable tag.
    let push = NewManifest {
        tags: vec![tag("t"), tag("immutable")],
        immutable_tags: vec![tag("immutable")],
        ..parsed_manifest(IMAGE, &second.bytes)
    };
    let refused = world.storage().put_manifest(&name("a"), push).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::ManifestBlobUnknown);
    assert_eq!(world.named("a", "t").await, Some(first.digest));
    assert_eq!(reasons(&world.history("a", Some("t")).await), [None]);
    assert_eq!(world.records("kept/").await, 0);
}

/// Fails one call of `run` after the other, and then lets it run again. Returns how many calls it made.
async fn at_each_call<B: Backend>(
    world: &World<B>,
    mut prepare: impl AsyncFnMut(&str) -> Digest,
    run: impl AsyncFn(&str, &Digest) -> Result<(), Error>,
    check: impl AsyncFn(&str, &Digest, bool),
) -> u64 {
    let backend = world.store.backend();
    for cut in 0.. {
        let repository = format!("r{cut}");
        let digest = prepare(&repository).await;
        let fault = if cut % 2 == 0 {
            Fault::Fail
        } else {
            Fault::LoseAnswer
        };
        let first = backend.calls();
        backend.fault_at(first + cut, fault);
        let outcome = run(&repository, &digest).await;
        let is_cut = backend.calls() > first + cut;
        backend.heal();
        assert!(outcome.is_ok() || is_cut, "{cut}: {outcome:?}");
        check(&repository, &digest, outcome.is_ok()).await;
        if !is_cut {
            return cut;
        }
    }
    0
}

async fn a_delete_that_fails_at_any_call_loses_nothing<B: Backend>(world: World<B>) {
    let calls = at_each_call(
        &world,
        async |repository| {
            push_image(world.storage(), repository, Some("t"), 1, LARGE)
                .await
                .digest
        },
        async |repository, digest| world.try_delete_manifest(repository, digest).await,
        async |repository, digest, is_done| {
            let named = world.named(repository, "t").await;
            assert!(!is_done || named.is_none());
            world.settle().await;
            let values = world.history(repository, Some("t")).await;
            match named {
                // Nothing says that it ended.
                Some(_) => assert_eq!(reasons(&values), [None], "{repository}"),
                None => {
                    assert!(values.iter().all(|value| value.end.is_some()), "{values:?}");
                    let restored = world.restore(repository, "t", None).await;
                    assert_eq!((restored.manifests, &restored.manifest.digest), (1, digest));
                }
            }
        },
    );
    assert!(calls.await >= 1);
}

async fn a_restore_that_fails_at_any_call_is_repeated<B: Backend>(world: World<B>) {
    let calls = at_each_call(
        &world,
        async |repository| {
            let storage = world.storage();
            let first = push_image(storage, repository, None, 1, LARGE).await;
            let signature = push_referrer(storage, repository, &first, 2).await;
            let index = push_index(storage, repository, "t", &[&first, &first]).await;
            for digest in [&index, &signature.digest, &first.digest] {
                world.delete_manifest(repository, digest).await;
            }
            signature.digest
        },
        async |repository, _| world.try_restore(repository, "t", None).await.map(drop),
        async |repository, signature, _| {
            let index = world.history(repository, Some("t")).await[0].digest.clone();
            world.restore(repository, "t", Some(&index)).await;
            // It is whole, as if it had been deleted by one.
            let by_digest = Reference::Digest(signature.clone());
            let found = world.storage().get_manifest(&name(repository), &by_digest).await;
            found.expect(repository);
        },
    );
    assert!(calls.await >= 10);
    world.settle().await;
    world.assert_sound("at the end").await;
}

async fn two_restores_at_once_are_one<B: Backend>(world: World<B>) {
    for round in 0..4 {
        let image = push_image(world.storage(), "a", Some("t"), round, LARGE).await;
        let signature = push_referrer(world.storage(), "a", &image, round + 100).await;
        world.delete_manifest("a", &image.digest).await;
        world.delete_manifest("a", &signature.digest).await;
        let (first, second, _) = tokio::join!(
            world.try_restore("a", "t", Some(&image.digest)),
            world.try_restore("a", "t", Some(&image.digest)),
            world.settle()
        );
        assert_eq!(first.unwrap().manifest, second.unwrap().manifest);
        world.assert_whole("a", &image).await;
        world.assert_whole("a", &signature).await;
        world.assert_sound(&format!("round {round}")).await;
    }
}

/// Two indexes share their manifests. One restore gets the immutable tag, and the other one is refused in the middle.
async fn a_restore_that_is_refused_takes_nothing_from_another_one<B: Backend>(world: World<B>) {
    for round in 0..6 {
        let mut images = Vec::new();
        for seed in 0..4 {
            images.push(push_image(world.storage(), "a", None, 10 * round + seed, 10).await);
        }
        let (one, all) = (format!("one{round}"), format!("all{round}"));
        let manifests: Vec<_> = images.iter().collect();
        let some = push_index(world.storage(), "a", &one, &manifests[1..]).await;
        let index = push_index(world.storage(), "a", &all, &manifests).await;
        for digest in [&some, &index]
            .into_iter()
            .chain(images.iter().map(|image| &image.digest))
        {
            world.delete_manifest("a", digest).await;
        }
        let restore = |digest: &Digest| RestoreTag {
            digest: Some(digest.clone()),
            is_immutable: true,
            ..RestoreTag::new(tag(&format!("v{round}")))
        };
        let repository = name("a");
        let first = async {
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            world.storage().restore_tag(&repository, restore(&some)).await
        };
        let second = world.storage().restore_tag(&repository, restore(&index));
        let (first, second) = tokio::join!(first, second);
        let whole = match (&first, &second) {
            (Ok(_), Err(error)) | (Err(error), Ok(_)) => {
                assert_eq!(error.code(), ErrorCode::TagConflict, "{error:?}");
                if first.is_ok() {
                    &manifests[1..]
                } else {
                    &manifests[..]
                }
            }
            both => panic!("one gets the tag: {both:?}"),
        };
        for image in whole {
            world.assert_whole("a", image).await;
        }
        world.assert_sound(&format!("round {round}")).await;
    }
}

async fn restores_beside_collectors_that_give_everything_up_are_whole_or_refused<B: Backend>(
    world: World<B>,
) {
    let give_up = CollectOptions::new().grace(Duration::ZERO).forget_deleted(true);
    let (mut restored, mut refused) = (0, 0);
    for round in 0..12 {
        world.clock.advance(Duration::from_secs(1));
        let image = push_image(world.storage(), "a", Some("t"), round, LARGE).await;
        world.delete_manifest("a", &image.digest).await;
        let collectors = async {
            for _ in 0..round % 4 {
                world.clock.advance(Duration::from_secs(1));
                world.collect_and_sweep(&give_up).await;
            }
        };
        let restore = async {
            for _ in 0..round / 4 {
                tokio::task::yield_now().await;
            }
            world.try_restore("a", "t", None).await
        };
        let (outcome, ()) = tokio::join!(restore, collectors);
        match outcome {
            Ok(_) => {
                restored += 1;
                world.settle().await;
                world.assert_whole("a", &image).await;
            }
            Err(error) => {
                refused += 1;
                assert!(
                    matches!(
                        error.code(),
                        ErrorCode::ManifestUnknown | ErrorCode::ManifestBlobUnknown
                    ),
                    "{error:?}"
                );
            }
        }
        world.assert_sound(&format!("round {round}")).await;
    }
    assert!(restored > 0, "{restored} {refused}");
}

/// A delete of a signature is cut at any call. The sweeper ends it, also if the signature was pushed again before.
#[tokio::test]
async fn a_delete_that_was_cut_leaves_no_entry_and_no_tag_of_what_is_gone() {
    for (cut, is_pushed_again) in (0..).flat_map(|cut| [(cut, false), (cut, true)]) {
        let world = world(ObjectStoreBackend::memory(), None);
        let image = push_image(world.storage(), "a", Some("t"), 1, 10).await;
        let signature = push_referrer(world.storage(), "a", &image, 2).await;
        for text in ["sig", "sig2"] {
            let tagged = put(world.storage(), "a", Some(text), IMAGE, &signature.bytes).await;
            tagged.unwrap();
        }
        world.step();
        let is_done = {
            let mut delete = pin!(world.try_delete_manifest("a", &signature.digest));
            poll_times(delete.as_mut(), cut).await.is_some()
        };
        if is_pushed_again {
            let again = push_referrer(world.storage(), "a", &image, 2).await;
            assert_eq!(again.digest, signature.digest);
        }
        world.settle().await;
        world.assert_sound(&format!("cut at {cut}")).await;
        if is_done && is_pushed_again {
            assert!(cut > 5);
            return;
        }
    }
}

async fn the_history_is_listed_in_pages<B: Backend>(world: World<B>) {
    for (repository, moves) in [("a", 5_u64), ("a/b", 1)] {
        for seed in 0..=moves {
            for tag in ["t", "t2", "u"] {
                world.clock.advance(Duration::from_secs(1));
                push_image(world.storage(), repository, Some(tag), seed, 10).await;
            }
        }
    }
    world
        .storage()
        .delete_tag(&name("a"), &tag("t2"), None)
        .await
        .unwrap();
    let values = world.history("a", None).await;
    let of: Vec<(&str, bool)> = values
        .iter()
        .map(|value| (value.tag.as_str(), value.end.is_none()))
        .collect();
    let past = |tag: &'static str, count| std::iter::repeat_n((tag, false), count);
    let expected: Vec<(&str, bool)> = past("t", 5)
        .chain([("t", true)])
        .chain(past("t2", 6))
        .chain(past("u", 5))
        .chain([("u", true)])
        .collect();
    assert_eq!(of, expected);
    assert!(
        values
            .iter()
            .is_sorted_by_key(|value| (value.tag.clone(), value.since))
    );
    assert_eq!(world.history("a", Some("t")).await.len(), 6);
}

/// A store that keeps nothing writes nothing more.
#[tokio::test]
async fn without_a_time_nothing_is_kept() {
    let mut calls = Vec::new();
    for keep in [Duration::ZERO, KEPT] {
        let world = world_that_keeps(ObjectStoreBackend::memory(), keep);
        push_image(world.storage(), "a", Some("t"), 1, 10).await;
        let first = world.store.backend().calls();
        let second = push_image(world.storage(), "a", Some("t"), 2, 10).await;
        let pushed = world.store.backend().calls();
        world.delete_manifest("a", &second.digest).await;
        let deleted = world.store.backend().calls();
        calls.push((pushed - first, deleted - pushed));
        let is_kept = world.records("kept/").await > 0;
        assert_eq!(is_kept, !keep.is_zero());
    }
    // A listing and a write for the tag, for the manifest, and for its tag.
    assert_eq!(calls[1], (calls[0].0 + 2, calls[0].1 + 4));
}

/// A delete is cut at any call, and what was deleted comes back; a collector that runs in between does not matter.
#[tokio::test]
async fn a_delete_of_a_repository_that_stops_anywhere_loses_nothing() {
    for cut in 1.. {
        let world = world(ObjectStoreBackend::memory(), None);
        world.step();
        let image = push_image(world.storage(), "a", Some("t"), 1, LARGE).await;
        let index = push_index(world.storage(), "a", "index", &[&image, &image]).await;
        let (repository, options) = (name("a"), DeleteRepositoryOptions::new());
        let mut delete = pin!(world.store.delete_repository(&repository, &options, &()));
        let outcome = poll_times(delete.as_mut(), cut).await;
        world.settle().await;
        for (text, digest) in [("t", &image.digest), ("index", &index)] {
            if world.named("a", text).await.is_none() {
                let restored = world.try_restore("a", text, None).await;
                assert_eq!(&restored.unwrap().manifest.digest, digest, "cut at {cut}");
            }
        }
        world.assert_whole("a", &image).await;
        world.assert_sound(&format!("cut at {cut}")).await;
        if outcome.is_some() {
            assert!(cut > 20);
            break;
        }
    }
}

/// A push of the same manifest beside a restore.
#[tokio::test]
async fn a_push_of_what_is_restored_is_one_with_it() {
    let world = world(ObjectStoreBackend::memory(), None);
    let image = push_image(world.storage(), "a", Some("t"), 1, LARGE).await;
    world.delete_manifest("a", &image.digest).await;
    let push = try_push(world.storage(), "a", Some("u"), &image);
    let (restored, pushed) = tokio::join!(world.try_restore("a", "t", None), push);
    restored.unwrap();
    pushed.unwrap();
    assert_eq!(world.named("a", "t").await, world.named("a", "u").await);
    world.assert_sound("at the end").await;
}
