//! Retention: what no policy keeps goes, what one keeps stays, whatever happens at the same time.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use registry_core::policy::{Glob, ImmutableTagRule};
use registry_core::retention::{KeepRule, Keeper, Retention, RetentionPolicy, Verdict, Verdicts};
use registry_core::storage::Storage;
use registry_core::{Digest, ErrorCode, Reference};
use registry_storage::testing::S3Double;
use registry_storage::{
    Backend, CollectOptions, Key, Maintenance as _, ObjectStoreBackend, RetainOptions, RetainReport, Store,
    StoreOptions,
};

use crate::support::images::{
    IMAGE, INDEX, digest, image, name, push_blob, push_image, push_index, push_referrer, put, tag, try_push,
};
use crate::support::poll_times;
use crate::support::tamper::{put_raw, remove};
use crate::support::world::{World, world};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

fn globs(texts: &[&str]) -> Vec<Glob> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Keeps the newest tags, and manifests without a tag for a day.
fn newest(number: u32) -> Retention {
    Retention {
        policies: vec![RetentionPolicy {
            repositories: globs(&["**"]),
            tags: globs(&["*"]),
            keep: vec![KeepRule {
                newest: NonZeroU32::new(number),
                ..KeepRule::default()
            }],
            untagged: Some(DAY),
            pulled_within: None,
        }],
        immutable: Vec::new(),
    }
}

fn options(retention: &Retention, grace: Duration) -> RetainOptions {
    let options = CollectOptions::new().grace(grace);
    RetainOptions::new(Arc::new(retention.clone()), &options)
}

impl<B: Backend> World<B> {
    async fn judge(&self, retention: &Retention) -> Verdicts {
        let judged = self
            .store
            .judge_retention(&name("a"), &options(retention, HOUR))
            .await;
        judged.unwrap().unwrap()
    }

    /// Applies retention, after it was explained. Nothing else goes than what was said to.
    async fn retain(&self, retention: &Retention) -> RetainReport {
        let said = self.judge(retention).await;
        let before = (self.tags("a").await.unwrap(), self.manifests(&said).await);
        let report = self.store.retain(&options(retention, HOUR), &()).await.unwrap();
        let is_said = |tag: &String| {
            let mut dropped = said.tags.iter().filter(|(_, verdict)| verdict.is_dropped());
            dropped.any(|(facts, _)| facts.tag.as_str() == tag)
        };
        let tags = self.tags("a").await.unwrap();
        for tag in &before.0 {
            assert_eq!(is_said(tag), !tags.contains(tag), "{tag} {said:?}");
        }
        let after = self.manifests(&said).await;
        for gone in before.1.difference(&after) {
            let verdict = said.manifests.iter().find(|(digest, _)| digest == gone).unwrap();
            assert!(verdict.1.is_dropped(), "{verdict:?}");
        }
        report
    }

    /// Applies retention often and long enough for everything to go that may go.
    async fn retain_all(&self, retention: &Retention) {
        for _ in 0..8 {
            self.clock.advance(DAY);
            self.retain(retention).await;
        }
    }

    /// Returns which of the judged manifests exist.
    async fn manifests(&self, judged: &Verdicts) -> BTreeSet<Digest> {
        let mut there = BTreeSet::new();
        for (digest, _) in &judged.manifests {
            if self.has_manifest("a", digest).await {
                there.insert(digest.clone());
            }
        }
        there
    }
}

on_each_backend! {
    what_no_rule_keeps_goes_with_its_bytes
    what_is_needed_stays
    a_signature_goes_after_its_image
    a_condemned_manifest_that_is_needed_again_stays
    an_immutable_tag_and_what_it_reaches_stay
    a_dry_run_changes_nothing
    without_untagged_only_tags_go
    what_cannot_be_read_keeps_its_repository
    a_tag_of_a_manifest_that_is_gone_does_not_count
    nothing_goes_while_an_adoption_is_to_be_ended
}

async fn what_no_rule_keeps_goes_with_its_bytes<B: Backend>(world: World<B>) {
    let mut images = Vec::new();
    for number in 0..4 {
        images.push(push_image(world.storage(), "a", Some(&format!("t{number}")), number, 40_000).await);
        world.clock.advance(HOUR);
    }
    let retention = newest(2);
    let report = world.retain(&retention).await;
    assert_eq!(
        (report.dropped_tags, report.condemned_manifests),
        (2, 0),
        "{report:?}"
    );
    assert_eq!(world.tags("a").await.unwrap(), ["t2", "t3"]);
    assert!(
        world.has_manifest("a", &images[0].digest).await,
        "it is younger than a day"
    );
    world.clock.advance(DAY);
    let report = world.retain(&retention).await;
    assert_eq!(
        (report.condemned_manifests, report.removed_manifests),
        (2, 0),
        "{report:?}"
    );
    let report = world.retain(&retention).await;
    assert_eq!(
        (report.waiting_manifests, report.removed_manifests),
        (2, 0),
        "{report:?}"
    );
    world.clock.advance(HOUR);
    let report = world.retain(&retention).await;
    assert_eq!(report.removed_manifests, 2, "{report:?}");
    assert!(!world.retain(&retention).await.has_more());
    for _ in 0..4 {
        world.clock.advance(DAY);
        world.collect_and_sweep(&CollectOptions::new()).await;
    }
    assert_eq!(world.byte_strings().await, 2);
    assert!(
        world.has_manifest("a", &images[2].digest).await && world.has_manifest("a", &images[3].digest).await
    );
    world.assert_sound("at the end").await;
}

async fn what_is_needed_stays<B: Backend>(world: World<B>) {
    // The child has a tag of its own, which goes.
    let child = push_image(world.storage(), "a", Some("child"), 1, 100).await;
    let other = push_image(world.storage(), "a", None, 2, 100).await;
    world.clock.advance(HOUR);
    let index = push_index(world.storage(), "a", "index", &[&child, &other]).await;
    let retention = newest(1);
    world.retain_all(&retention).await;
    assert_eq!(world.tags("a").await.unwrap(), ["index"]);
    assert!(world.has_manifest("a", &child.digest).await && world.has_manifest("a", &other.digest).await);
    let verdicts = world.judge(&retention).await;
    assert!(
        verdicts.manifests.iter().all(|(_, verdict)| {
            *verdict
                == Verdict::Kept {
                    by: Keeper::Parent(index.clone()),
                    until: None,
                }
        }),
        "{verdicts:?}"
    );
    // Once the index goes, they follow.
    push_image(world.storage(), "a", Some("newer"), 3, 100).await;
    world.retain_all(&retention).await;
    for gone in [&index, &child.digest, &other.digest] {
        assert!(!world.has_manifest("a", gone).await, "{gone}");
    }
    world.assert_sound("at the end").await;
}

async fn a_signature_goes_after_its_image<B: Backend>(world: World<B>) {
    let old = push_image(world.storage(), "a", Some("old"), 1, 100).await;
    let signature = push_referrer(world.storage(), "a", &old, 11).await;
    // As cosign signs.
    let by_tag = image(12, 100, None);
    let tag = format!("{}.sig", old.digest.as_str().replace(':', "-"));
    try_push(world.storage(), "a", Some(&tag), &by_tag).await.unwrap();
    world.clock.advance(HOUR);
    let new = push_image(world.storage(), "a", Some("new"), 2, 100).await;
    let of_new = push_referrer(world.storage(), "a", &new, 13).await;
    let retention = newest(1);
    while world.has_manifest("a", &old.digest).await {
        assert!(
            world.has_manifest("a", &signature.digest).await && world.has_manifest("a", &by_tag.digest).await
        );
        world.clock.advance(DAY);
        world.retain(&retention).await;
    }
    world.retain_all(&retention).await;
    assert!(
        !world.has_manifest("a", &signature.digest).await && !world.has_manifest("a", &by_tag.digest).await
    );
    assert!(world.has_manifest("a", &new.digest).await && world.has_manifest("a", &of_new.digest).await);
    assert_eq!(world.tags("a").await.unwrap(), ["new"]);
    world.assert_sound("at the end").await;
}

async fn a_condemned_manifest_that_is_needed_again_stays<B: Backend>(world: World<B>) {
    let storage = world.storage();
    let [tagged, child, asked, gone] = [1, 2, 3, 4].map(|seed| image(seed, 100, None));
    for image in [&tagged, &child, &asked, &gone] {
        try_push(storage, "a", None, image).await.unwrap();
    }
    let retention = newest(5);
    world.clock.advance(DAY);
    let report = world.retain(&retention).await;
    assert_eq!(report.condemned_manifests, 4, "{report:?}");
    put(storage, "a", Some("t"), IMAGE, &tagged.bytes).await.unwrap();
    push_index(storage, "a", "index", &[&child]).await;
    let reference = Reference::Digest(asked.digest.clone());
    storage.stat_manifest(&name("a"), &reference).await.unwrap();
    world.clock.advance(HOUR);
    let report = world.retain(&retention).await;
    assert_eq!(report.removed_manifests, 1, "{report:?}");
    assert!(!world.has_manifest("a", &gone.digest).await);
    for image in [&tagged, &child, &asked] {
        assert!(world.has_manifest("a", &image.digest).await);
    }
    world.assert_sound("at the end").await;
}

async fn an_immutable_tag_and_what_it_reaches_stay<B: Backend>(world: World<B>) {
    let child = push_image(world.storage(), "a", None, 1, 100).await;
    push_index(world.storage(), "a", "v1", &[&child]).await;
    world.clock.advance(HOUR);
    push_image(world.storage(), "a", Some("new"), 2, 100).await;
    let mut retention = newest(1);
    retention.immutable.push(ImmutableTagRule {
        repositories: globs(&["**"]),
        tags: globs(&["v*"]),
    });
    world.retain_all(&retention).await;
    assert_eq!(world.tags("a").await.unwrap(), ["new", "v1"]);
    assert!(world.has_manifest("a", &child.digest).await);
}

async fn a_dry_run_changes_nothing<B: Backend>(world: World<B>) {
    for number in 0..3 {
        push_image(world.storage(), "a", Some(&format!("t{number}")), number, 100).await;
    }
    world.clock.advance(DAY);
    let dry = RetainOptions::new(Arc::new(newest(1)), &CollectOptions::new().dry_run(true));
    for _ in 0..2 {
        let report = world.store.retain(&dry, &()).await.unwrap();
        assert_eq!(
            (report.dropped_tags, report.condemned_manifests),
            (2, 2),
            "{report:?}"
        );
    }
    assert_eq!(world.tags("a").await.unwrap().len(), 3);
}

async fn without_untagged_only_tags_go<B: Backend>(world: World<B>) {
    let old = push_image(world.storage(), "a", Some("old"), 1, 100).await;
    world.clock.advance(HOUR);
    push_image(world.storage(), "a", Some("new"), 2, 100).await;
    let mut retention = newest(1);
    retention.policies[0].untagged = None;
    world.retain_all(&retention).await;
    assert_eq!(world.tags("a").await.unwrap(), ["new"]);
    assert!(world.has_manifest("a", &old.digest).await);
}

async fn what_cannot_be_read_keeps_its_repository<B: Backend>(world: World<B>) {
    let old = push_image(world.storage(), "a", Some("old"), 1, 100).await;
    world.clock.advance(HOUR);
    push_image(world.storage(), "a", Some("new"), 2, 100).await;
    let key = Key::manifest(&name("a"), &old.digest);
    let sound = world.store.backend().get(&key).await.unwrap().unwrap().value;
    put_raw(&world.store, &key, Bytes::from_static(b"{}")).await;
    let retention = newest(1);
    world.clock.advance(DAY);
    let report = world.store.retain(&options(&retention, HOUR), &()).await.unwrap();
    assert_eq!(
        (report.unreadable_repositories, report.dropped_tags),
        (1, 0),
        "{report:?}"
    );
    let judged = world
        .store
        .judge_retention(&name("a"), &options(&retention, HOUR))
        .await;
    assert_eq!(judged.unwrap(), None);
    put_raw(&world.store, &key, sound).await;
    assert_eq!(world.retain(&retention).await.dropped_tags, 1);
}

/// A delete that was cut off leaves the tag of its manifest for a while. It must not push another one out of the newest.
async fn a_tag_of_a_manifest_that_is_gone_does_not_count<B: Backend>(world: World<B>) {
    push_image(world.storage(), "a", Some("old"), 1, 100).await;
    world.clock.advance(HOUR);
    let gone = push_image(world.storage(), "a", Some("gone"), 2, 100).await;
    let key = Key::tag(&name("a"), &"gone".parse().unwrap());
    let left = world.store.backend().get(&key).await.unwrap().unwrap().value;
    world.delete_manifest("a", &gone.digest).await;
    put_raw(&world.store, &key, left).await;
    let report = world.store.retain(&options(&newest(1), HOUR), &()).await.unwrap();
    assert_eq!(report.dropped_tags, 0, "{report:?}");
    assert!(world.named("a", "old").await.is_some());
}

async fn nothing_goes_while_an_adoption_is_to_be_ended<B: Backend>(world: World<B>) {
    for number in 0..2 {
        push_image(world.storage(), "a", Some(&format!("t{number}")), number, 100).await;
    }
    let record = "{\"begun\":1,\"nonce\":\"00000000-0000-0000-0000-000000000000\",\"written\":1}\n";
    put_raw(&world.store, &Key::adoption(), record.into()).await;
    let report = world.store.retain(&options(&newest(1), HOUR), &()).await.unwrap();
    assert_eq!(report, RetainReport::default());
}

/// Retention is cut at any call, a client moves a tag that is judged already, or pushes an index of a manifest that is,
/// and retention goes on: what the client was told is there stays.
#[tokio::test]
async fn a_push_beside_retention_keeps_what_it_names() {
    let mut retention = newest(1);
    retention.policies[0].keep = vec![KeepRule {
        pushed_within: Some(DAY),
        ..KeepRule::default()
    }];
    for cut in 0.. {
        let world = World::stepped();
        let storage = world.storage();
        let [moved, child, other] = [1, 2, 3].map(|seed| image(seed, 100, None));
        try_push(storage, "a", None, &moved).await.unwrap();
        try_push(storage, "a", None, &child).await.unwrap();
        try_push(storage, "a", Some("t"), &other).await.unwrap();
        world.clock.advance(2 * DAY);
        push_image(storage, "a", Some("new"), 4, 100).await;
        // What has no tag is condemned already.
        let first = options(&newest(2), Duration::ZERO);
        world.store.retain(&first, &()).await.unwrap();
        let options = options(&retention, Duration::ZERO);
        let mut retain = pin!(world.store.retain(&options, &()));
        let cut_off = poll_times(retain.as_mut(), cut).await.is_none();
        let moved_tag = put(storage, "a", Some("t"), IMAGE, &moved.bytes).await;
        let index = Bytes::from(format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{INDEX}\",\"manifests\":[{{\"mediaType\":\"{IMAGE}\",\"digest\":\"{}\",\"size\":{}}}]}}",
            child.digest,
            child.bytes.len()
        ));
        let pushed_index = put(storage, "a", Some("index"), INDEX, &index).await;
        if cut_off {
            retain.await.unwrap();
        }
        for (pushed, tag, needed) in [
            (moved_tag, "t", &moved.digest),
            (pushed_index, "index", &child.digest),
        ] {
            // If it was removed before the push came, the push says so.
            if pushed.is_ok() {
                let reference = Reference::Tag(tag.parse().unwrap());
                storage.get_manifest(&name("a"), &reference).await.unwrap();
                assert!(world.has_manifest("a", needed).await, "{tag}, cut at {cut}");
            }
        }
        world.assert_sound(&format!("cut at {cut}")).await;
        if !cut_off {
            assert!(cut > 10, "{cut} cuts");
            return;
        }
    }
}

#[tokio::test]
async fn ten_thousand_tags_are_judged_and_dropped() {
    let world = world(ObjectStoreBackend::memory(), None);
    let image = push_image(world.storage(), "a", Some("first"), 1, 100).await;
    for number in 0..10_000 {
        world.clock.advance(Duration::from_secs(1));
        put(
            world.storage(),
            "a",
            Some(&format!("t{number}")),
            IMAGE,
            &image.bytes,
        )
        .await
        .unwrap();
    }
    let report = world.store.retain(&options(&newest(5), HOUR), &()).await.unwrap();
    assert_eq!(
        (report.dropped_tags, report.condemned_manifests),
        (9996, 0),
        "{report:?}"
    );
    assert_eq!(world.tags("a").await.unwrap().len(), 5);
    assert!(world.has_manifest("a", &image.digest).await);
}

/// A `HEAD` of what is condemned keeps it, and the read of a tag whose manifest is gone deletes the tag. Where nothing may be
/// written, both answer from what is there.
#[tokio::test]
async fn a_store_that_only_reads_answers_without_a_write() {
    let double = S3Double::start().await.unwrap();
    let backend = || double.backend("").unwrap();
    let written = world(backend(), None);
    let content = Bytes::from(vec![9; 20_000]);
    push_blob(written.storage(), "a", &content).await;
    let condemned = push_image(written.storage(), "a", None, 1, 20_000).await;
    let gone = push_image(written.storage(), "a", Some("gone"), 2, 20_000).await;
    written.clock.advance(2 * DAY);
    written.retain(&newest(1)).await;
    written.collect(&CollectOptions::new().grace(HOUR)).await;
    remove(&written.store, &Key::manifest(&name("a"), &gone.digest)).await;

    let options = StoreOptions {
        only_reads: true,
        ..StoreOptions::default()
    };
    let only_read = Store::with_options(Arc::new(backend()), Arc::clone(&written.clock) as _, options);
    for (store, writes) in [(&only_read as &dyn Storage, false), (written.storage(), true)] {
        let by_digest = Reference::Digest(condemned.digest.clone());
        let mut before = double.objects();
        let mut changes = || std::mem::replace(&mut before, double.objects()) != before;
        store.stat_manifest(&name("a"), &by_digest).await.unwrap();
        assert_eq!(changes(), writes, "a manifest");
        store.stat_blob(&name("a"), &digest(&content)).await.unwrap();
        assert_eq!(changes(), writes, "a blob");
        let by_tag = Reference::Tag(tag("gone"));
        let refused = store.get_manifest(&name("a"), &by_tag).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::ManifestUnknown);
        assert_eq!(changes(), writes, "a tag");
    }
}
