//! Retention by the last pull: what is pulled stays, whichever process saw it, and nothing goes for lack of knowledge.

use std::sync::Arc;
use std::time::Duration;

use registry_core::retention::{KeepRule, Retention, RetentionPolicy, Verdicts};
use registry_core::{Reference, Timestamp};
use registry_storage::{
    Backend, CollectOptions, Key, Maintenance as _, PullRecorder, RetainOptions, RetainReport,
};

use crate::support::images::{Image, name, push_image, push_index, tag};
use crate::support::tamper::put_raw;
use crate::support::world::{World, world};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// Keeps what was used in ten days; manifests without a tag for a day.
fn retention() -> Retention {
    let policy = RetentionPolicy {
        repositories: vec!["**".parse().unwrap()],
        tags: vec!["*".parse().unwrap()],
        keep: vec![KeepRule {
            pulled_within: Some(10 * DAY),
            ..KeepRule::default()
        }],
        untagged: Some(DAY),
        pulled_within: Some(10 * DAY),
    };
    Retention {
        policies: vec![policy],
        immutable: Vec::new(),
    }
}

fn options() -> RetainOptions {
    let options = CollectOptions::new().grace(Duration::ZERO);
    RetainOptions::new(Arc::new(retention()), &options)
}

impl<B: Backend> World<B> {
    /// Returns a server that began to record pulls, and misses none until it is dropped.
    async fn serve(&self) -> PullRecorder {
        let recorder = self.recorder();
        recorder.flush().await.unwrap();
        recorder
    }

    fn recorder(&self) -> PullRecorder {
        PullRecorder::start(Arc::clone(&self.store) as _, Arc::new(retention()), DAY)
    }

    /// A process of its own pulls what is named, by GET or HEAD, and ends.
    async fn pull(&self, by_get: bool, references: &[Reference]) {
        let recorder = self.recorder();
        let storage = recorder.observe(Arc::clone(&self.store) as _);
        for reference in references {
            let pulled = if by_get {
                storage.pull_manifest(&name("a"), reference).await
            } else {
                storage.stat_manifest(&name("a"), reference).await
            };
            pulled.unwrap();
        }
        recorder.shutdown().await;
    }

    async fn retain(&self) -> RetainReport {
        self.store.retain(&options(), &()).await.unwrap()
    }

    async fn judge(&self) -> Verdicts {
        let judged = self.store.judge_retention(&name("a"), &options()).await;
        judged.unwrap().unwrap()
    }

    async fn kept_tags(&self) -> Vec<String> {
        let verdicts = self.judge().await.tags;
        let kept = verdicts.iter().filter(|(_, verdict)| !verdict.is_dropped());
        kept.map(|(tag, _)| tag.tag.as_str().to_owned()).collect()
    }

    /// Returns the record of the pulls of `a`, unless it is gone or empty.
    async fn record(&self) -> Option<String> {
        let stored = self
            .store
            .backend()
            .get(&Key::from_stored("pulled/a!"))
            .await
            .unwrap()?;
        let text = String::from_utf8(stored.value.to_vec()).unwrap();
        let (_, content) = text.split_once('\n').unwrap();
        (!content.is_empty()).then(|| content.to_owned())
    }
}

fn by_tag(text: &str) -> Reference {
    Reference::Tag(tag(text))
}

fn by_digest(image: &Image) -> Reference {
    Reference::Digest(image.digest.clone())
}

on_each_backend! {
    what_is_pulled_stays_and_the_rest_goes
    what_counts_as_a_pull
    nothing_goes_while_pulls_are_not_recorded
    a_server_goes_on_after_one_without_the_policy
    with_other_repositories_recording_begins_anew
    of_two_processes_the_newest_pull_counts
    after_a_gap_recording_begins_anew
    one_of_several_that_record_is_enough
    a_pull_counts_before_it_is_written
    a_pull_of_what_came_back_counts
    what_is_gone_is_forgotten
    a_record_that_cannot_be_read_makes_nothing_seem_older
}

async fn what_is_pulled_stays_and_the_rest_goes<B: Backend>(world: World<B>) {
    let _server = world.serve().await;
    for (seed, tag) in [(1, "v1"), (2, "v2"), (3, "v3")] {
        push_image(world.storage(), "a", Some(tag), seed, 100).await;
    }
    let untagged = [
        push_image(world.storage(), "a", None, 4, 100).await,
        push_image(world.storage(), "a", None, 5, 100).await,
    ];
    world.clock.advance(5 * DAY);
    world.pull(true, &[by_tag("v1"), by_digest(&untagged[0])]).await;
    assert_eq!(world.retain().await.dropped_tags, 0);
    world.clock.advance(6 * DAY);
    assert_eq!(world.retain().await.dropped_tags, 2);
    assert_eq!(world.kept_tags().await, ["v1"]);
    for _ in 0..2 {
        world.clock.advance(Duration::from_hours(1));
        world.retain().await;
    }
    assert!(!world.has_manifest("a", &untagged[1].digest).await);
    assert!(world.has_manifest("a", &untagged[0].digest).await);
    // It is pulled once more.
    world.pull(true, &[by_tag("v1")]).await;
    world.clock.advance(9 * DAY);
    world.retain().await;
    assert_eq!(world.kept_tags().await, ["v1"]);
    let is_there = world.has_manifest("a", &untagged[0].digest).await;
    assert!(is_there, "it was condemned just now");
    world.clock.advance(2 * DAY);
    world.retain().await;
    assert_eq!(world.kept_tags().await, [""; 0]);
    world.assert_sound("at the end").await;
}

async fn what_counts_as_a_pull<B: Backend>(world: World<B>) {
    let _server = world.serve().await;
    let mut images = Vec::new();
    for (seed, tag) in [(1, "get"), (2, "head"), (3, "digest-get"), (4, "digest-head")] {
        images.push(push_image(world.storage(), "a", Some(tag), seed, 100).await);
    }
    let child = push_image(world.storage(), "a", None, 5, 100).await;
    push_index(world.storage(), "a", "index", &[&child]).await;
    world.clock.advance(8 * DAY);
    world
        .pull(true, &[by_tag("get"), by_digest(&images[2]), by_digest(&child)])
        .await;
    // Clients that have the image resolve its tag like this, and those that push look for a digest like that.
    world.pull(false, &[by_tag("head"), by_digest(&images[3])]).await;
    world.clock.advance(4 * DAY);
    assert_eq!(world.kept_tags().await, ["digest-get", "get", "head", "index"]);
}

async fn nothing_goes_while_pulls_are_not_recorded<B: Backend>(world: World<B>) {
    push_image(world.storage(), "a", Some("v1"), 1, 100).await;
    world.clock.advance(100 * DAY);
    assert_eq!(
        (world.judge().await.pulls_since, world.kept_tags().await.len()),
        (None, 1)
    );
    let server = world.serve().await;
    world.pull(true, &[by_tag("v1")]).await;
    world.clock.advance(9 * DAY);
    assert_eq!(world.kept_tags().await, ["v1"]);
    server.shutdown().await;
    // A server without such a policy serves, so pulls are missed.
    let off = PullRecorder::start(Arc::clone(&world.store) as _, Arc::default(), DAY);
    let storage = off.observe(Arc::clone(&world.store) as _);
    storage.pull_manifest(&name("a"), &by_tag("v1")).await.unwrap();
    off.shutdown().await;
    world.store.end_recording_pulls().await.unwrap();
    assert_eq!(world.record().await, None);
    world.clock.advance(9 * DAY);
    assert_eq!(
        (world.judge().await.pulls_since, world.kept_tags().await.len()),
        (None, 1)
    );
    let _server = world.serve().await;
    world.clock.advance(9 * DAY);
    assert_eq!(world.kept_tags().await, ["v1"]);
    world.clock.advance(2 * DAY);
    assert_eq!(world.kept_tags().await, [""; 0]);
    // Too much was pulled.
    world
        .store
        .begin_recording_pulls(&retention(), true)
        .await
        .unwrap();
    assert_eq!(world.kept_tags().await, ["v1"]);
    world.assert_sound("at the end").await;
}

async fn a_server_goes_on_after_one_without_the_policy<B: Backend>(world: World<B>) {
    let recorder = world.recorder();
    recorder.flush().await.unwrap();
    push_image(world.storage(), "a", Some("v1"), 1, 100).await;
    world.clock.advance(20 * DAY);
    assert_eq!(world.kept_tags().await, [""; 0]);
    assert!(world.store.end_recording_pulls().await.unwrap());
    assert!(!world.store.end_recording_pulls().await.unwrap());
    assert_eq!(world.kept_tags().await, ["v1"]);
    recorder.flush().await.unwrap();
    world.clock.advance(9 * DAY);
    assert_eq!(
        world.kept_tags().await,
        ["v1"],
        "nobody knows about what came in between"
    );
    world.clock.advance(2 * DAY);
    assert_eq!(world.kept_tags().await, [""; 0]);
    recorder.shutdown().await;
}

async fn with_other_repositories_recording_begins_anew<B: Backend>(world: World<B>) {
    let mut others = retention();
    others.policies[0].repositories = vec!["b".parse().unwrap()];
    let recorder = PullRecorder::start(Arc::clone(&world.store) as _, Arc::new(others.clone()), DAY);
    recorder.flush().await.unwrap();
    push_image(world.storage(), "a", Some("v1"), 1, 100).await;
    world.clock.advance(20 * DAY);
    let storage = recorder.observe(Arc::clone(&world.store) as _);
    storage.pull_manifest(&name("a"), &by_tag("v1")).await.unwrap();
    recorder.shutdown().await;
    assert_eq!(world.record().await, None, "no policy asks for it");
    assert_eq!(world.kept_tags().await, ["v1"]);
    let recorder = world.recorder();
    recorder.flush().await.unwrap();
    world.clock.advance(9 * DAY);
    assert_eq!(world.kept_tags().await, ["v1"]);
    recorder.shutdown().await;
    // What is behind does not matter, or not to what is recorded.
    let mut more = retention();
    others.policies[0].pulled_within = None;
    others.policies[0].keep.clear();
    more.policies.extend(others.policies);
    more.policies[0].untagged = None;
    assert!(!world.store.begin_recording_pulls(&more, false).await.unwrap());
    more.policies.reverse();
    assert!(world.store.begin_recording_pulls(&more, false).await.unwrap());
}

async fn of_two_processes_the_newest_pull_counts<B: Backend>(world: World<B>) {
    let _server = world.serve().await;
    let tags: Vec<String> = (0..8).map(|seed| format!("v{seed}")).collect();
    for (seed, tag) in tags.iter().enumerate() {
        push_image(world.storage(), "a", Some(tag), seed as u64, 100).await;
    }
    let recorders = [
        world.recorder(),
        world.recorder(),
        world.recorder(),
        world.recorder(),
    ];
    for (at, tag) in tags.iter().enumerate() {
        let storage = recorders[at % 4].observe(Arc::clone(&world.store) as _);
        storage.pull_manifest(&name("a"), &by_tag(tag)).await.unwrap();
    }
    world.clock.advance(DAY);
    let [a, b, c, d] = &recorders;
    let (a, b, c, d) = tokio::join!(a.flush(), b.flush(), c.flush(), d.flush());
    a.and(b).and(c).and(d).unwrap();
    let verdicts = world.judge().await;
    let pulled: Vec<Option<Timestamp>> = verdicts.tags.iter().map(|(tag, _)| tag.pulled).collect();
    let now = Timestamp(verdicts.pulls_since.unwrap().0 + 24 * 3_600_000);
    assert_eq!(pulled, [Some(now); 8]);
    for recorder in recorders {
        recorder.shutdown().await;
    }
    world.assert_sound("at the end").await;
}

async fn after_a_gap_recording_begins_anew<B: Backend>(world: World<B>) {
    let server = world.serve().await;
    push_image(world.storage(), "a", Some("v1"), 1, 100).await;
    let begun = world.judge().await.pulls_since;
    world.clock.advance(20 * DAY);
    server.shutdown().await;
    // A restart.
    world.clock.advance(HOUR / 2);
    let server = world.serve().await;
    assert_eq!(
        (world.judge().await.pulls_since, world.kept_tags().await.len()),
        (begun, 0)
    );
    server.shutdown().await;
    // Perhaps a server that cannot write serves now. It is not known to a command that runs alone.
    world.clock.advance(2 * HOUR);
    assert_eq!(
        (world.judge().await.pulls_since, world.kept_tags().await.len()),
        (None, 1)
    );
    assert_eq!(world.retain().await.dropped_tags, 0);
    let server = world.serve().await;
    let since = world.judge().await.pulls_since.unwrap();
    assert_eq!(since.since(begun.unwrap()), 20 * DAY + HOUR / 2 + 2 * HOUR);
    world.clock.advance(9 * DAY);
    assert_eq!(world.kept_tags().await, ["v1"]);
    world.clock.advance(2 * DAY);
    assert_eq!(world.kept_tags().await, [""; 0]);
    server.shutdown().await;
}

async fn one_of_several_that_record_is_enough<B: Backend>(world: World<B>) {
    push_image(world.storage(), "a", Some("v1"), 1, 100).await;
    // Each call is of another process, which knows nothing of the pulls before.
    let policies = retention();
    let begin = || world.store.begin_recording_pulls(&policies, false);
    assert!(begin().await.unwrap());
    let begun = world.judge().await.pulls_since;
    for _ in 0..12 * 24 {
        world.clock.advance(HOUR);
        assert!(!begin().await.unwrap());
    }
    assert_eq!(
        (world.judge().await.pulls_since, world.kept_tags().await.len()),
        (begun, 0)
    );
    world.clock.advance(HOUR + Duration::from_millis(1));
    assert!(begin().await.unwrap());
    assert_eq!(world.kept_tags().await, ["v1"]);
}

async fn a_pull_counts_before_it_is_written<B: Backend>(world: World<B>) {
    let server = world.serve().await;
    let storage = server.observe(Arc::clone(&world.store) as _);
    let untagged = push_image(world.storage(), "a", None, 2, 100).await;
    push_image(world.storage(), "a", Some("v1"), 1, 100).await;
    world.clock.advance(20 * DAY);
    for reference in [by_tag("v1"), by_digest(&untagged)] {
        storage.pull_manifest(&name("a"), &reference).await.unwrap();
    }
    assert_eq!(world.record().await, None);
    let report = world.retain().await;
    assert_eq!((report.dropped_tags, report.condemned_manifests), (0, 0));
    server.shutdown().await;
}

/// Manifests are deleted, and pushed again soon.
async fn a_pull_of_what_came_back_counts<B: Backend>(world: World<B>) {
    let server = world.serve().await;
    let storage = server.observe(Arc::clone(&world.store) as _);
    push_image(world.storage(), "a", Some("v1"), 1, 100).await;
    world.clock.advance(20 * DAY);
    for is_whole_repository in [false, true] {
        let image = push_image(world.storage(), "a", None, 2, 100).await;
        let pull = async || {
            storage
                .pull_manifest(&name("a"), &by_digest(&image))
                .await
                .unwrap();
            server.flush().await.unwrap();
        };
        pull().await;
        world.clock.advance(HOUR / 4);
        world.delete_manifest("a", &image.digest).await;
        if is_whole_repository {
            world.storage().delete_all(&name("a"), None).await.unwrap();
        } else {
            world.retain().await;
        }
        world.clock.advance(HOUR / 4);
        push_image(world.storage(), "a", None, 2, 100).await;
        world.clock.advance(HOUR / 4);
        pull().await;
        world.clock.advance(10 * DAY);
        for _ in 0..3 {
            world.retain().await;
        }
        assert!(
            world.has_manifest("a", &image.digest).await,
            "{is_whole_repository}"
        );
        world.clock.advance(20 * DAY);
        for _ in 0..3 {
            world.retain().await;
        }
        assert!(
            !world.has_manifest("a", &image.digest).await,
            "{is_whole_repository}"
        );
    }
    server.shutdown().await;
}

async fn what_is_gone_is_forgotten<B: Backend>(world: World<B>) {
    let _server = world.serve().await;
    let images = [
        push_image(world.storage(), "a", Some("v1"), 1, 100).await,
        push_image(world.storage(), "a", Some("v2"), 2, 100).await,
    ];
    world.pull(true, &[by_tag("v1"), by_tag("v2")]).await;
    assert_eq!(world.record().await.unwrap().lines().count(), 2);
    world.delete_manifest("a", &images[0].digest).await;
    world.retain().await;
    let record = world.record().await.unwrap();
    assert_eq!(
        record.lines().count(),
        2,
        "it may come back, and is not written again so soon"
    );
    world.clock.advance(2 * HOUR);
    world.retain().await;
    let record = world.record().await.unwrap();
    assert!(
        record.lines().count() == 1 && record.contains(images[1].digest.as_str()),
        "{record}"
    );
    world.clock.advance(Duration::from_secs(1));
    world.storage().delete_all(&name("a"), None).await.unwrap();
    assert_eq!(world.record().await, None);
    world.assert_sound("at the end").await;
}

async fn a_record_that_cannot_be_read_makes_nothing_seem_older<B: Backend>(world: World<B>) {
    let _server = world.serve().await;
    push_image(world.storage(), "a", Some("v1"), 1, 100).await;
    push_image(world.storage(), "a", Some("v2"), 2, 100).await;
    world.pull(true, &[by_tag("v1")]).await;
    world.clock.advance(20 * DAY);
    assert_eq!(world.kept_tags().await, [""; 0]);
    let key = Key::from_stored("pulled/a!");
    put_raw(&world.store, &key, "rotten".into()).await;
    assert_eq!(world.kept_tags().await, ["v1", "v2"]);
    world.pull(true, &[by_tag("v1")]).await;
    assert_eq!(world.kept_tags().await, ["v1", "v2"], "nobody knows about v2");
    world.clock.advance(11 * DAY);
    assert_eq!(world.kept_tags().await, [""; 0]);
}
