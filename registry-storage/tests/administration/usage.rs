//! What repositories have: what a cycle wrote down is what is there, and nothing of it stays of what is gone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use registry_core::storage::RestoreTag;
use registry_storage::{
    Backend, CollectOptions, Collector, CountedRepository, DeleteRepositoryOptions, Key, Maintenance as _,
    ObjectStoreBackend, RepositoryUsage, StoreOptions,
};
use tokio::time::timeout;

use crate::support::images::{
    IMAGE, digest, image, name, push_blob, push_image, push_index, push_referrer, put, tag, try_push,
};
use crate::support::poll_times;
use crate::support::tamper::put_raw;
use crate::support::world::World;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// Larger than what is kept in a record.
const LARGE: usize = 40_000;

fn world<B: Backend>(backend: B, _: Option<PathBuf>) -> World<B> {
    let options = StoreOptions {
        keep_deleted: 7 * DAY,
        ..StoreOptions::default()
    };
    World::with_options(backend, options)
}

impl<B: Backend> World<B> {
    async fn cycle(&self) {
        self.collect(&CollectOptions::new()).await;
    }

    /// What is written down; `None` if it is still to be counted.
    async fn try_counted(&self) -> Option<BTreeMap<String, CountedRepository>> {
        let (mut all, mut last) = (BTreeMap::new(), None);
        loop {
            let page = self.store.counted_repositories(last.as_ref()).await.unwrap()?;
            for counted in page.repositories {
                let name = counted.repository.to_string();
                assert!(all.insert(name, counted).is_none(), "each once");
            }
            last = Some(match page.next {
                Some(next) => next,
                None => return Some(all),
            });
        }
    }

    async fn counted(&self) -> BTreeMap<String, CountedRepository> {
        self.try_counted().await.unwrap()
    }

    /// Everything that is there, counted now.
    async fn exact(&self) -> BTreeMap<String, RepositoryUsage> {
        let (mut all, mut last) = (BTreeMap::new(), None);
        while let Some(repository) = self.store.next_repository(last.as_ref()).await.unwrap() {
            if let Ok(usage) = self.store.repository_usage(&repository, false).await
                && usage != RepositoryUsage::default()
            {
                all.insert(repository.to_string(), usage);
            }
            last = Some(repository);
        }
        all
    }

    /// What is written down is what is there, and none of it may have changed.
    async fn assert_counted(&self, when: &str) {
        let counted = self.counted().await;
        let unchanged = counted.values().all(|counted| !counted.is_changed);
        assert!(unchanged, "{when}: {counted:?}");
        let usage = counted.into_iter().map(|(repository, counted)| {
            let mut usage = counted.usage;
            usage.shared = None;
            (repository, usage)
        });
        let usage: BTreeMap<String, RepositoryUsage> = usage.collect();
        assert_eq!(usage, self.exact().await, "{when}");
    }

    /// The records of what was counted, visible or not, with their values.
    async fn records(&self) -> Vec<(Key, Bytes)> {
        let backend = self.store.backend();
        let listed = backend.list(&Key::all_usage(), None, 1000).await.unwrap();
        let mut records = Vec::new();
        for entry in listed {
            let value = backend.get(&entry.key).await.unwrap().unwrap().value;
            records.push((entry.key, value));
        }
        records
    }

    async fn delete(&self, repository: &str, purge: bool) {
        let options = DeleteRepositoryOptions::new().purge(purge);
        let deleted = self
            .store
            .delete_repository(&name(repository), &options, &())
            .await;
        assert!(deleted.unwrap().is_gone);
    }
}

on_each_backend! {
    the_first_cycle_counts_everything
    every_change_is_counted_by_the_next_cycle
    what_changed_since_it_was_counted_is_named
    nothing_stays_of_a_repository_that_is_gone
    an_unchanged_repository_is_not_written
    the_largest_repositories_are_found
    what_is_counted_is_what_is_there
    both_lists_have_the_order_of_the_catalog
}

async fn both_lists_have_the_order_of_the_catalog<B: Backend>(world: World<B>) {
    world.cycle().await;
    let names = [
        "a", "a-b", "a-b-c", "a-b.c", "a-b/c", "a.b", "a/b", "a/b-c", "a0", "a_b", "aa", "b/c-d/e", "b/c/e",
        "c-d.e",
    ];
    for repository in names {
        push_image(world.storage(), repository, Some("1"), 1, 10).await;
    }
    assert_eq!(world.catalog().await.len(), names.len());
    let page = world.store.counted_repositories(None).await.unwrap().unwrap();
    let counted = page.repositories.into_iter();
    let counted: Vec<String> = counted.map(|counted| counted.repository.to_string()).collect();
    let (mut listed, mut last) = (Vec::new(), None);
    while let Some(repository) = world.store.next_repository(last.as_ref()).await.unwrap() {
        listed.push(repository.to_string());
        last = Some(repository);
    }
    assert_eq!(listed, counted);
    assert_eq!(listed, world.catalog().await);
}

async fn the_first_cycle_counts_everything<B: Backend>(world: World<B>) {
    let image = push_image(world.storage(), "a", Some("1"), 1, LARGE).await;
    push_blob(world.storage(), "b/c", &image.layer).await;
    assert!(world.try_counted().await.is_none(), "nobody counted it");
    world.cycle().await;
    let counted = world.counted().await;
    let usage = counted["a"].usage;
    assert_eq!((usage.blobs.blobs, usage.manifests, usage.tags), (2, 1, 1));
    assert_eq!(
        usage.amount().bytes,
        (image.layer.len() + image.config.len() + image.bytes.len()) as u64
    );
    assert_eq!(counted["b/c"].usage.blobs.bytes, LARGE as u64);
    assert_eq!((counted.len(), counted["a"].shared_counted), (2, None));
    world.assert_counted("after the first cycle").await;
}

async fn every_change_is_counted_by_the_next_cycle<B: Backend>(world: World<B>) {
    world.cycle().await;
    let storage = world.storage();
    let (one, two) = (
        push_image(storage, "a", Some("1"), 1, LARGE).await,
        push_image(storage, "a", None, 2, 10).await,
    );
    world.cycle().await;
    world.assert_counted("a push").await;
    // None of these brings a blob, or gives the collector anything to do.
    put(storage, "a", Some("2"), IMAGE, &one.bytes).await.unwrap();
    world.cycle().await;
    world.assert_counted("a tag").await;
    push_index(storage, "a", "index", &[&one, &two]).await;
    world.cycle().await;
    world.assert_counted("an index").await;
    push_referrer(storage, "a", &one, 1).await;
    world.cycle().await;
    world.assert_counted("a referrer").await;
    storage.delete_tag(&name("a"), &tag("1"), None).await.unwrap();
    world.cycle().await;
    world.assert_counted("a tag's delete").await;
    let layer = digest(&two.layer);
    storage.delete_blob(&name("a"), &layer, None).await.unwrap();
    world.cycle().await;
    world.assert_counted("a blob's delete").await;
    storage
        .mount_blob(&name("a"), &name("b"), &digest(&one.layer))
        .await
        .unwrap();
    world.cycle().await;
    world.assert_counted("a mount").await;
    storage
        .delete_manifest(&name("a"), &one.digest, None, None)
        .await
        .unwrap();
    world.cycle().await;
    world.assert_counted("a manifest's delete").await;
    // Its blobs are kept until now, and go after two graces; what nothing names goes in b, too.
    for day in 0..12 {
        world.clock.advance(DAY);
        world.cycle().await;
        world.assert_counted(&format!("day {day}")).await;
    }
    assert!(!world.counted().await.contains_key("b"));
}

async fn what_changed_since_it_was_counted_is_named<B: Backend>(world: World<B>) {
    let image = push_image(world.storage(), "a", Some("1"), 1, LARGE).await;
    push_image(world.storage(), "b", Some("1"), 2, LARGE).await;
    world.clock.advance(HOUR);
    world.cycle().await;
    let first = world.counted().await;
    world.clock.advance(HOUR);
    put(world.storage(), "a", Some("2"), IMAGE, &image.bytes)
        .await
        .unwrap();
    // It appeared since, so it is counted now.
    push_image(world.storage(), "c", Some("1"), 3, LARGE).await;
    let counted = world.counted().await;
    let changed: Vec<bool> = counted.values().map(|counted| counted.is_changed).collect();
    assert_eq!(changed, [true, false, false]);
    assert_eq!(counted["a"].usage, first["a"].usage);
    assert_eq!(
        counted["c"].counted.0 - counted["a"].counted.0,
        HOUR.as_millis() as u64
    );
    // Nothing was new, so nothing changed.
    put(world.storage(), "b", Some("1"), IMAGE, &image_of(2))
        .await
        .unwrap();
    assert!(!world.counted().await["b"].is_changed);
    world.cycle().await;
    world.assert_counted("afterwards").await;
}

fn image_of(seed: u64) -> Bytes {
    image(seed, LARGE, None).bytes
}

async fn nothing_stays_of_a_repository_that_is_gone<B: Backend>(world: World<B>) {
    for repository in ["a", "b", "c"] {
        push_image(world.storage(), repository, Some("1"), 1, LARGE).await;
    }
    push_blob(world.storage(), "d", &Bytes::from_static(b"alone")).await;
    world.cycle().await;
    assert_eq!(world.counted().await.len(), 4);
    world.delete("a", true).await;
    assert!(!world.counted().await.contains_key("a"), "it is gone at once");
    world.delete("b", false).await;
    world.cycle().await;
    // What can be restored takes space.
    let counted = world.counted().await;
    assert_eq!(
        (counted["b"].usage.manifests, counted["b"].usage.blobs.blobs),
        (0, 2)
    );
    world.assert_counted("it can be restored").await;
    for _ in 0..12 {
        world.clock.advance(DAY);
        world.cycle().await;
    }
    let counted: Vec<String> = world.counted().await.into_keys().collect();
    assert_eq!(counted, ["c"]);
    let visible = |(key, value): &(Key, Bytes)| (value.len() % 8 == 2).then(|| key.to_string());
    let records: Vec<String> = world.records().await.iter().filter_map(visible).collect();
    assert_eq!(records, ["usage/c!"]);
    // A dead record is not counted, and a new repository of the name is.
    try_push(world.storage(), "a", Some("1"), &image(1, LARGE, None))
        .await
        .unwrap();
    world.cycle().await;
    world.assert_counted("pushed again").await;
}

async fn an_unchanged_repository_is_not_written<B: Backend>(world: World<B>) {
    for number in 0..5 {
        push_image(world.storage(), &format!("a{number}"), Some("1"), number, LARGE).await;
    }
    world.clock.advance(2 * DAY);
    world.cycle().await;
    let before = world.records().await;
    assert_eq!(before.len(), 5);
    push_image(world.storage(), "a3", Some("2"), 9, LARGE).await;
    world.clock.advance(HOUR);
    world.cycle().await;
    let after = world.records().await;
    let written = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before != after);
    let written: Vec<String> = written.map(|(before, _)| before.0.to_string()).collect();
    assert_eq!(written, ["usage/a3!"]);
    // One that reads everything writes nothing new either, and so does a dry run.
    for options in [
        CollectOptions::new().full(true),
        CollectOptions::new().dry_run(true),
    ] {
        world.clock.advance(HOUR);
        world.collect(&options).await;
        assert_eq!(world.records().await, after);
    }
}

async fn the_largest_repositories_are_found<B: Backend>(world: World<B>) {
    for (number, size) in [300, 100, 500, 200, 400].into_iter().enumerate() {
        let content = Bytes::from(vec![number as u8; size]);
        push_blob(world.storage(), &format!("a{number}"), &content).await;
    }
    world.cycle().await;
    let found = world.store.largest_repositories(2).await.unwrap();
    let largest: Vec<(String, u64)> = found
        .largest
        .iter()
        .map(|(repository, usage)| (repository.to_string(), usage.amount().bytes))
        .collect();
    assert_eq!(largest, [("a2".to_owned(), 500), ("a4".to_owned(), 400)]);
    assert_eq!(
        (found.others, found.other_bytes, found.other_own_bytes),
        (3, 600, None)
    );
    let all = world.store.largest_repositories(9).await.unwrap();
    assert_eq!(
        (
            all.largest.len(),
            all.others,
            all.other_bytes,
            all.other_own_bytes
        ),
        (5, 0, 0, Some(0))
    );
}

/// Whatever is done, the next cycle finds it, and one without a change finds nothing else.
async fn what_is_counted_is_what_is_there<B: Backend>(world: World<B>) {
    let repositories = ["a", "a/b", "c"];
    let mut random = 11_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    let mut done = BTreeMap::<u64, u32>::new();
    world.cycle().await;
    for step in 0..250 {
        let repository = name(repositories[next(3) as usize]);
        let other = name(repositories[next(3) as usize]);
        let text = repository.as_str();
        let sizes = [10, 500, 20_000];
        let (seed, size) = (next(6), sizes[next(3) as usize]);
        let image = image(seed, size, None);
        let version = ["1", "2", "3"][next(3) as usize];
        let storage = world.storage();
        let kind = next(10);
        let result = match kind {
            0..=2 => try_push(storage, text, Some(version), &image).await,
            3 => {
                let layer = digest(&image.layer);
                storage.mount_blob(&other, &repository, &layer).await.map(drop)
            }
            4 => storage.delete_tag(&repository, &tag(version), None).await,
            5 => {
                storage
                    .delete_manifest(&repository, &image.digest, None, None)
                    .await
            }
            6 => {
                storage
                    .delete_blob(&repository, &digest(&image.layer), None)
                    .await
            }
            7 => {
                let restore = RestoreTag::new(tag(version));
                storage.restore_tag(&repository, restore).await.map(drop)
            }
            8 if next(3) == 0 => {
                let options = DeleteRepositoryOptions::new().purge(next(2) == 0);
                world
                    .store
                    .delete_repository(&repository, &options, &())
                    .await
                    .map(drop)
            }
            _ => {
                world.clock.advance(DAY);
                Ok(())
            }
        };
        if result.is_ok() {
            *done.entry(kind).or_default() += 1;
        }
        if next(3) == 0 {
            world.cycle().await;
            world
                .assert_counted(&format!("step {step}, {kind}: {result:?}"))
                .await;
        }
    }
    assert_eq!(done.len(), 10, "{done:?}");
}

fn memory() -> World<ObjectStoreBackend> {
    world(ObjectStoreBackend::memory(), None)
}

#[tokio::test]
async fn pages_have_each_repository_once() {
    let world = memory();
    world.cycle().await;
    // Some are counted, some changed since, and some are new, over several pages of each kind.
    for number in 0..1300 {
        let content = Bytes::from(format!("{number}"));
        push_blob(world.storage(), &format!("counted{number}"), &content).await;
    }
    world.cycle().await;
    for number in 0..1300 {
        let content = Bytes::from(format!("again {number}"));
        push_blob(world.storage(), &format!("counted{}", number / 2), &content).await;
        push_blob(world.storage(), &format!("new{number}"), &content).await;
    }
    let counted = world.counted().await;
    assert_eq!(counted.len(), 2600);
    let changed = counted.values().filter(|counted| counted.is_changed).count();
    assert_eq!(changed, 650);
}

#[tokio::test]
async fn a_cycle_that_was_overtaken_writes_nothing_about_a_repository_that_is_gone() {
    for stop in 1.. {
        let world = memory();
        world.step();
        push_blob(world.storage(), "a", &Bytes::from_static(b"alone")).await;
        world.cycle().await;
        push_blob(world.storage(), "a", &Bytes::from_static(b"another")).await;
        let mut cycle = pin!(world.cycle());
        let is_done = poll_times(cycle.as_mut(), stop).await.is_some();
        world.delete("a", true).await;
        if !is_done {
            cycle.await;
        }
        world.cycle().await;
        assert!(world.counted().await.is_empty(), "{stop}");
        let visible = |(_, value): &(Key, Bytes)| value.len() % 8 == 2;
        assert!(!world.records().await.iter().any(visible), "{stop}");
        if is_done {
            assert!(stop > 10);
            return;
        }
    }
}

/// A cycle is overtaken at each of its calls by a push and the cycle of another process, which counts more and removes the mark.
#[tokio::test]
async fn a_cycle_that_was_overtaken_by_another_one_does_not_have_the_last_word() {
    for stop in 1.. {
        let world = memory();
        world.step();
        push_blob(world.storage(), "a", &Bytes::from_static(b"one")).await;
        world.cycle().await;
        push_blob(world.storage(), "a", &Bytes::from_static(b"two")).await;
        let mut cycle = pin!(world.cycle());
        let is_done = poll_times(cycle.as_mut(), stop).await.is_some();
        let pushed = push_image(world.storage(), "a", Some("t"), 1, LARGE).await;
        world.cycle().await;
        if !is_done {
            cycle.await;
        }
        let counted = world.counted().await;
        let exact = world.exact().await;
        let counted = &counted["a"];
        assert!(
            counted.is_changed || counted.usage.blobs == exact["a"].blobs,
            "stopped at {stop}: {counted:?} {exact:?}"
        );
        world.cycle().await;
        world.assert_counted(&format!("stopped at {stop}")).await;
        world.delete_manifest("a", &pushed.digest).await;
        if is_done {
            assert!(stop > 10);
            return;
        }
    }
}

#[tokio::test]
async fn what_an_earlier_version_read_is_counted_by_the_first_cycle() {
    let world = memory();
    push_image(world.storage(), "a", Some("1"), 1, LARGE).await;
    world.clock.advance(2 * DAY);
    world.cycle().await;
    let key = Key::pass_over_repositories();
    let backend = world.store.backend();
    let pass = backend.get(&key).await.unwrap().unwrap().value;
    let before = String::from_utf8(pass.to_vec())
        .unwrap()
        .replace("\"counts_usage\":true,", "");
    put_raw(&world.store, &key, before.into()).await;
    for (key, _) in world.records().await {
        crate::support::tamper::remove(&world.store, &key).await;
    }
    assert!(world.try_counted().await.is_none());
    world.cycle().await;
    world.assert_counted("the first cycle").await;
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_counted_now_and_written_anew() {
    let world = memory();
    push_image(world.storage(), "a", Some("1"), 1, LARGE).await;
    world.cycle().await;
    let before = world.counted().await;
    put_raw(&world.store, &Key::usage(&name("a")), "rubbish!?!".into()).await;
    assert_eq!(world.counted().await["a"].usage, before["a"].usage);
    world.collect(&CollectOptions::new().full(true)).await;
    world.assert_counted("a full cycle").await;
    // Its size says that it is there.
    put_raw(&world.store, &Key::usage(&name("a")), "rubbish!?!".into()).await;
    world.delete("a", true).await;
    let visible = |(_, value): &(Key, Bytes)| value.len() % 8 == 2;
    assert!(!world.records().await.iter().any(visible));
}

#[cfg(all(feature = "filesystem", unix))]
mod shared {
    use registry_storage::filesystem::FilesystemBackend;

    use super::*;

    #[tokio::test]
    async fn the_pass_of_a_week_counts_what_others_have_too() {
        let folder = tempfile::tempdir().unwrap();
        let backend = FilesystemBackend::open(folder.path()).await.unwrap();
        let world = world(backend, None);
        let image = push_image(world.storage(), "a", Some("1"), 1, LARGE).await;
        try_push(world.storage(), "b", Some("1"), &image).await.unwrap();
        push_image(world.storage(), "c", Some("1"), 2, LARGE).await;
        world.cycle().await;
        assert!(world.counted().await["a"].usage.own_bytes().is_none());
        for day in 0..8 {
            world.clock.advance(DAY);
            // One that changes before each cycle is counted, too.
            put(
                world.storage(),
                "a",
                Some(&format!("day{day}")),
                IMAGE,
                &image.bytes,
            )
            .await
            .unwrap();
            world.cycle().await;
        }
        let counted = world.counted().await;
        let own = |repository: &str| counted[repository].usage.own_bytes().unwrap();
        assert_eq!(own("a"), image.bytes.len() as u64);
        assert_eq!(counted["b"].usage.shared.unwrap().blobs, 2);
        assert_eq!(own("c"), counted["c"].usage.amount().bytes);
        let shared_counted = counted["a"].shared_counted;
        // Another one is no longer there: the next pass says so, and nothing else does.
        world.delete("b", true).await;
        push_image(world.storage(), "a", Some("2"), 3, LARGE).await;
        world.cycle().await;
        let pushed = world.counted().await["a"].clone();
        assert_eq!(pushed.shared_counted, shared_counted);
        assert_eq!(pushed.usage.shared.unwrap().blobs, 2);
        for _ in 0..8 {
            world.clock.advance(DAY);
            world.cycle().await;
        }
        assert_eq!(world.counted().await["a"].usage.shared.unwrap().blobs, 0);
        world.assert_counted("the end").await;
    }

    #[tokio::test]
    async fn an_orderly_end_forgets_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let open = async || world(FilesystemBackend::open(folder.path()).await.unwrap(), None);
        let before = open().await;
        let image = push_image(before.storage(), "a", Some("1"), 1, LARGE).await;
        before.cycle().await;
        before.cycle().await;
        put(before.storage(), "a", Some("2"), IMAGE, &image.bytes)
            .await
            .unwrap();
        before.store.close().await.unwrap();
        drop(before);
        let after = open().await;
        assert!(after.counted().await["a"].is_changed);
        after.cycle().await;
        after.assert_counted("the next start").await;
    }
}

/// What a command counted between two cycles is published after the next one, which finds nothing to count, and what only another
/// process counted within hours.
#[tokio::test(start_paused = true)]
async fn the_largest_repositories_are_published_whoever_counted_them() {
    let backend = ObjectStoreBackend::memory();
    let world = world(backend.clone(), None);
    let none = tokio::sync::watch::channel(Arc::default()).1;
    let collector = Collector::start_with_retention(
        Arc::clone(&world.store) as _,
        CollectOptions::new(),
        HOUR,
        none,
        1,
    );
    let mut largest = collector.largest_repositories();
    largest.changed().await.unwrap();
    push_blob(world.storage(), "a", &Bytes::from_static(b"content")).await;
    world.cycle().await;
    timeout(HOUR + HOUR / 2, largest.changed())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(largest.borrow_and_update().largest.len(), 1);
    let is_read_again = timeout(2 * HOUR, largest.changed()).await;
    assert!(is_read_again.is_err(), "nothing was counted");

    let other = self::world(backend, None);
    push_blob(other.storage(), "b", &Bytes::from_static(b"more content")).await;
    other.cycle().await;
    timeout(8 * HOUR, largest.changed()).await.unwrap().unwrap();
    let found = Arc::clone(&largest.borrow_and_update());
    assert_eq!((found.largest[0].0.as_str(), found.others), ("b", 1));
    collector.shutdown().await;
}
