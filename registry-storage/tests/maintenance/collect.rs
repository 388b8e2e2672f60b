//! The collector: what no manifest names goes, what one names stays, whatever happens at the same time.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use registry_core::storage::Storage;
use registry_core::{ErrorCode, Reference};
use registry_storage::{Backend, CollectOptions, CollectReport, Key, Maintenance as _};

use crate::support::images::{
    IMAGE, digest, image, name, push_blob, push_image, push_index, push_referrer, put, start_upload, try_push,
};
use crate::support::poll_times;
use crate::support::tamper::{edit_header, put_raw};
use crate::support::world::{World, world};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// Larger than what is kept in a record, and hashed in place: a thread would make it chance where a test stops.
const LARGE: usize = 30_000;

impl<B: Backend> World<B> {
    async fn cycle(&self, grace: Duration) -> CollectReport {
        self.collect(&CollectOptions::new().grace(grace)).await
    }

    /// Runs a cycle, and returns how many repositories and manifests it read.
    async fn read_by(&self, options: &CollectOptions) -> (u64, u64) {
        let report = self.collect(options).await;
        (report.repositories, report.manifests)
    }

    /// Runs cycles and sweeps, a day apart, until nothing is left to do.
    async fn collect_all(&self) {
        for _ in 0..6 {
            self.clock.advance(DAY);
            let report = self.collect_and_sweep(&CollectOptions::new().grace(DAY)).await;
            if !report.has_more() {
                return;
            }
        }
        panic!("the collector has never done enough");
    }
}

on_each_backend! {
    an_image_that_is_deleted_frees_its_bytes
    what_is_young_stays_and_the_grace_counts_twice
    whatever_a_manifest_names_stays
    a_blob_that_a_head_found_stays_for_the_grace
    a_push_between_two_cycles_keeps_what_it_names
    a_push_beside_a_cycle_without_a_grace_is_whole_or_refused
    without_a_grace_a_disk_needs_one_cycle
    what_two_repositories_have_goes_when_neither_needs_it
    a_dry_run_changes_nothing
    an_unchanged_repository_is_not_read_again
    what_no_mark_tells_of_is_found_within_a_week
    a_clock_that_was_ahead_does_not_end_the_passes
    a_manifest_that_cannot_be_read_keeps_its_repository
    an_upload_in_progress_is_left_alone
    names_of_repositories_that_begin_alike
    nothing_goes_while_an_adoption_is_to_be_ended
}

async fn an_image_that_is_deleted_frees_its_bytes<B: Backend>(world: World<B>) {
    let kept = push_image(world.storage(), "a", Some("kept"), 1, LARGE).await;
    let gone = push_image(world.storage(), "a", Some("gone"), 2, LARGE).await;
    world.delete_manifest("a", &gone.digest).await;
    assert_eq!(world.byte_strings().await, 2);
    world.clock.advance(DAY);
    let first = world.cycle(DAY).await;
    assert_eq!((first.condemned.blobs, first.removed.blobs), (2, 0), "{first:?}");
    assert_eq!(
        first.condemned.bytes,
        (gone.layer.len() + gone.config.len()) as u64
    );
    assert!(
        world.has_blob("a", &gone.layer).await,
        "a condemned blob is still read"
    );
    world.clock.advance(DAY);
    let second = world.cycle(DAY).await;
    assert_eq!(
        (second.condemned.blobs, second.removed.blobs),
        (0, 2),
        "{second:?}"
    );
    assert!(!world.has_blob("a", &gone.layer).await);
    world.collect_all().await;
    assert_eq!(world.byte_strings().await, 1);
    assert!(world.has_blob("a", &kept.layer).await && world.has_blob("a", &kept.config).await);
    // It can be pushed again.
    try_push(world.storage(), "a", Some("gone"), &gone).await.unwrap();
    world.collect_all().await;
    assert!(world.has_blob("a", &gone.layer).await);
}

async fn what_is_young_stays_and_the_grace_counts_twice<B: Backend>(world: World<B>) {
    let content = Bytes::from(vec![1; LARGE]);
    push_blob(world.storage(), "a", &content).await;
    world.clock.advance(DAY - HOUR);
    assert_eq!(world.cycle(DAY).await.young.blobs, 1);
    world.clock.advance(HOUR);
    assert_eq!(world.cycle(DAY).await.condemned.blobs, 1);
    world.clock.advance(DAY - HOUR);
    let waiting = world.cycle(DAY).await.waiting;
    assert_eq!((waiting.blobs, waiting.bytes), (1, LARGE as u64));
    assert!(world.has_blob("a", &content).await);
    world.clock.advance(HOUR);
    assert_eq!(world.cycle(DAY).await.removed.blobs, 1);
    assert!(!world.has_blob("a", &content).await);
}

async fn whatever_a_manifest_names_stays<B: Backend>(world: World<B>) {
    let storage = world.storage();
    let one = push_image(storage, "a", None, 1, LARGE).await;
    let two = push_image(storage, "a", None, 2, LARGE).await;
    push_index(storage, "a", "index", &[&one, &two]).await;
    let signature = push_referrer(storage, "a", &one, 3).await;
    // A manifest without a tag is not collected: only what no manifest names is.
    let untagged = push_image(storage, "b", None, 4, LARGE).await;
    for _ in 0..5 {
        world.clock.advance(30 * DAY);
        let report = world.cycle(Duration::ZERO).await;
        assert!(!report.has_more(), "{report:?}");
        world.sweep().await;
    }
    for (repository, image) in [("a", &one), ("a", &two), ("a", &signature), ("b", &untagged)] {
        assert!(world.has_blob(repository, &image.layer).await);
        assert!(world.has_blob(repository, &image.config).await);
        let read = storage
            .get_manifest(&name(repository), &Reference::Digest(image.digest.clone()))
            .await;
        assert_eq!(read.unwrap().bytes, image.bytes);
    }
}

async fn a_blob_that_a_head_found_stays_for_the_grace<B: Backend>(world: World<B>) {
    let content = Bytes::from(vec![1; LARGE]);
    push_blob(world.storage(), "a", &content).await;
    world.clock.advance(DAY);
    world.cycle(DAY).await;
    world.clock.advance(DAY);
    world
        .storage()
        .stat_blob(&name("a"), &digest(&content))
        .await
        .unwrap();
    // Condemned again, as it is older than that; but the day counts anew.
    let report = world.cycle(DAY).await;
    assert_eq!((report.young.blobs, report.removed.blobs), (1, 0), "{report:?}");
    world.clock.advance(DAY);
    assert_eq!(world.cycle(DAY).await.condemned.blobs, 1);
    // A manifest that names it comes just in time.
    let seed = image(1, LARGE, None);
    try_push(world.storage(), "a", Some("t"), &seed).await.unwrap();
    world.clock.advance(DAY);
    let report = world.cycle(DAY).await;
    assert_eq!(report.removed.blobs, 1, "{report:?}");
}

async fn a_push_between_two_cycles_keeps_what_it_names<B: Backend>(world: World<B>) {
    let image = push_image(world.storage(), "a", Some("t"), 1, LARGE).await;
    world.delete_manifest("a", &image.digest).await;
    world.clock.advance(HOUR);
    assert_eq!(world.cycle(HOUR).await.condemned.blobs, 2);
    // The client was told that the blobs are there.
    put(world.storage(), "a", Some("t"), IMAGE, &image.bytes)
        .await
        .unwrap();
    for _ in 0..3 {
        world.clock.advance(HOUR);
        let report = world.cycle(HOUR).await;
        assert_eq!(report.removed.blobs + report.condemned.blobs, 0, "{report:?}");
        world.sweep().await;
    }
    assert!(world.has_blob("a", &image.layer).await && world.has_blob("a", &image.config).await);
}

/// A cycle of a disk needs no second one, unless something was pushed since it read the manifests.
async fn a_push_beside_a_cycle_without_a_grace_is_whole_or_refused<B: Backend>(world: World<B>) {
    let options = CollectOptions::new().grace(Duration::ZERO);
    let (mut whole, mut refused) = (0, 0);
    for stop in 1.. {
        let repository = format!("r{stop}");
        let image = push_image(world.storage(), &repository, Some("t"), stop, LARGE).await;
        world.delete_manifest(&repository, &image.digest).await;
        let backend = world.store.backend();
        let first = backend.listings();
        backend.delay_listing(first + stop - 1, 1);
        let mut cycle = pin!(world.store.collect(&options, &()));
        let mut ended = None;
        while ended.is_none() && backend.listings() - first < stop {
            ended = poll_times(cycle.as_mut(), 1).await;
        }
        let pushed = put(world.storage(), &repository, Some("t"), IMAGE, &image.bytes).await;
        let is_over = ended.is_some();
        if !is_over {
            cycle.await.unwrap();
        }
        world.sweep().await;
        match pushed {
            Ok(()) => {
                world.assert_whole(&repository, &image).await;
                whole += 1;
            }
            Err(error) => {
                assert_eq!(error.code(), ErrorCode::ManifestBlobUnknown, "{stop}");
                refused += 1;
            }
        }
        if is_over {
            break;
        }
    }
    let is_disk = refused > 0;
    assert!(whole > 2, "{whole} whole, {refused} refused");
    assert_eq!(is_disk, world.store.backend().is_atomic());
}

async fn without_a_grace_a_disk_needs_one_cycle<B: Backend>(world: World<B>) {
    let image = push_image(world.storage(), "a", Some("t"), 1, LARGE).await;
    let other = push_image(world.storage(), "b", Some("t"), 1, LARGE).await;
    world.delete_manifest("a", &image.digest).await;
    let dry_run = CollectOptions::new().grace(Duration::ZERO).dry_run(true);
    let told = world.collect(&dry_run).await;
    let report = world.cycle(Duration::ZERO).await;
    let expected = if world.store.backend().is_atomic() {
        (0, 2)
    } else {
        (2, 0)
    };
    assert_eq!((report.condemned.blobs, report.removed.blobs), expected);
    assert_eq!((told.condemned, told.removed), (report.condemned, report.removed));
    // A later cycle reads the repository again only if something is left to do.
    let is_left = report.condemned.blobs > 0;
    assert_eq!(world.cycle(Duration::ZERO).await.repositories, u64::from(is_left));
    world.assert_whole("b", &other).await;
}

async fn what_two_repositories_have_goes_when_neither_needs_it<B: Backend>(world: World<B>) {
    let image = push_image(world.storage(), "a", Some("t"), 1, LARGE).await;
    let (a, b) = (name("a"), name("b"));
    for content in [&image.layer, &image.config] {
        assert!(
            world
                .storage()
                .mount_blob(&a, &b, &digest(content))
                .await
                .unwrap()
        );
    }
    try_push(world.storage(), "b", Some("t"), &image).await.unwrap();
    world.delete_manifest("a", &image.digest).await;
    world.collect_all().await;
    assert!(!world.has_blob("a", &image.layer).await);
    assert!(world.has_blob("b", &image.layer).await);
    assert_eq!(world.byte_strings().await, 1);
    world.delete_manifest("b", &image.digest).await;
    world.collect_all().await;
    assert_eq!(world.byte_strings().await, 0);
}

async fn a_dry_run_changes_nothing<B: Backend>(world: World<B>) {
    let image = push_image(world.storage(), "a", Some("t"), 1, LARGE).await;
    world.delete_manifest("a", &image.digest).await;
    world.clock.advance(DAY);
    let dry = CollectOptions::new().dry_run(true);
    for _ in 0..3 {
        world.clock.advance(DAY);
        let report = world.collect(&dry).await;
        assert_eq!(
            (report.condemned.blobs, report.removed.blobs),
            (2, 0),
            "{report:?}"
        );
    }
    world.cycle(DAY).await;
    for _ in 0..3 {
        world.clock.advance(DAY);
        let report = world.collect(&dry).await;
        assert_eq!(
            (report.condemned.blobs, report.removed.blobs),
            (0, 2),
            "{report:?}"
        );
    }
    assert!(world.has_blob("a", &image.layer).await);
}

async fn an_unchanged_repository_is_not_read_again<B: Backend>(world: World<B>) {
    for at in 0..3 {
        push_image(world.storage(), &format!("r{at}"), Some("t"), at, 100).await;
    }
    assert_eq!(world.read_by(&CollectOptions::new()).await, (3, 3));
    assert_eq!(world.read_by(&CollectOptions::new()).await, (0, 0));
    let pushed = push_image(world.storage(), "r1", Some("u"), 9, 100).await;
    assert_eq!(world.read_by(&CollectOptions::new()).await, (1, 2));
    assert_eq!(world.read_by(&CollectOptions::new()).await, (0, 0));
    // Until what a delete left is gone, its repository is read.
    world.delete_manifest("r1", &pushed.digest).await;
    for _ in 0..2 {
        world.clock.advance(DAY);
        assert_eq!(world.read_by(&CollectOptions::new()).await.0, 1);
    }
    assert!(!world.has_blob("r1", &pushed.layer).await);
    assert_eq!(world.read_by(&CollectOptions::new()).await, (0, 0));
    assert_eq!(world.read_by(&CollectOptions::new().full(true)).await, (3, 3));
}

/// A process that died after it took the last name of a blob told nobody.
async fn what_no_mark_tells_of_is_found_within_a_week<B: Backend>(world: World<B>) {
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let mut images = Vec::new();
    for (seed, name) in (0..).zip(names) {
        images.push(push_image(world.storage(), name, Some("t"), seed, LARGE).await);
    }
    world.collect_all().await;
    for (name, image) in names.into_iter().zip(&images) {
        world.delete_manifest(name, &image.digest).await;
        put_raw(
            &world.store,
            &Key::changed(&name.parse().unwrap()),
            Bytes::from("{} \n"),
        )
        .await;
    }
    let mut reads = Vec::new();
    for _ in 0..8 {
        world.clock.advance(DAY);
        reads.push(world.cycle(DAY).await.repositories);
        world.sweep().await;
    }
    // One more each day, which is read once more to remove what was condemned.
    assert_eq!(reads[..7], [1, 2, 2, 2, 2, 2, 2]);
    for (name, image) in names.into_iter().zip(&images) {
        assert!(!world.has_blob(name, &image.layer).await, "{name}");
    }
}

/// A pass that begins in the future would find nothing until then.
async fn a_clock_that_was_ahead_does_not_end_the_passes<B: Backend>(world: World<B>) {
    let image = push_image(world.storage(), "a", Some("t"), 1, LARGE).await;
    world.collect_all().await;
    world.delete_manifest("a", &image.digest).await;
    put_raw(&world.store, &Key::changed(&name("a")), Bytes::from("{} \n")).await;
    edit_header(&world.store, &Key::pass_over_repositories(), |header| {
        // The year 2100.
        header["begun"] = 4_102_444_800_000_u64.into();
    })
    .await;
    for _ in 0..8 {
        world.clock.advance(DAY);
        world.cycle(DAY).await;
    }
    assert!(!world.has_blob("a", &image.layer).await);
}

async fn a_manifest_that_cannot_be_read_keeps_its_repository<B: Backend>(world: World<B>) {
    let broken = push_image(world.storage(), "a", Some("t"), 1, LARGE).await;
    let gone = push_image(world.storage(), "a", Some("u"), 2, LARGE).await;
    let other = push_image(world.storage(), "b", Some("t"), 3, LARGE).await;
    world.delete_manifest("a", &gone.digest).await;
    world.delete_manifest("b", &other.digest).await;
    let key = Key::manifest(&name("a"), &broken.digest);
    let sound = world.store.backend().get(&key).await.unwrap().unwrap().value;
    let mut rotten = sound.to_vec();
    *rotten.last_mut().unwrap() ^= 1;
    put_raw(&world.store, &key, rotten.into()).await;
    for _ in 0..4 {
        world.clock.advance(DAY);
        let report = world.cycle(DAY).await;
        assert_eq!(report.unreadable_repositories, 1, "{report:?}");
    }
    assert!(world.has_blob("a", &gone.layer).await && world.has_blob("a", &broken.layer).await);
    assert!(!world.has_blob("b", &other.layer).await);
    put_raw(&world.store, &key, sound).await;
    world.collect_all().await;
    assert!(!world.has_blob("a", &gone.layer).await && world.has_blob("a", &broken.layer).await);
}

async fn an_upload_in_progress_is_left_alone<B: Backend>(world: World<B>) {
    let content = Bytes::from(vec![1; LARGE]);
    let upload = start_upload(world.storage(), "a", &content).await;
    for _ in 0..4 {
        world.clock.advance(HOUR);
        world.cycle(Duration::ZERO).await;
        world.sweep().await;
    }
    world
        .storage()
        .commit_upload(&upload, &digest(&content))
        .await
        .unwrap();
    assert!(world.has_blob("a", &content).await);
}

/// A push that was cut off leaves the grant of a blob, and nothing says that it has ended.
#[tokio::test]
async fn what_a_push_that_was_cut_off_left_stays_until_the_time_that_is_told() {
    let mut told = 0;
    for stop in 1.. {
        let world = World::stepped();
        let content = Bytes::from(vec![1; LARGE]);
        let upload = start_upload(world.storage(), "a", &content).await;
        let digest = digest(&content);
        {
            let commit = world.storage().commit_upload(&upload, &digest);
            if poll_times(pin!(commit), stop).await.is_some() {
                break;
            }
        }
        let report = world.cycle(Duration::ZERO).await;
        let Some(until) = report.pending_until else {
            assert_eq!(report.pending, 0);
            continue;
        };
        told += 1;
        assert_eq!((report.pending, report.undecided), (1, 0), "{report:?}");
        let left = until.since(world.store.now());
        world.clock.advance(left);
        assert_eq!(world.cycle(Duration::ZERO).await.pending, 1, "{stop}");
        world.clock.advance(Duration::from_millis(1));
        assert_eq!(world.cycle(Duration::ZERO).await.pending, 0, "{stop}");
    }
    assert!(told > 0);
}

/// An adoption that was cut off has made grants, and the manifests that name them are still to come.
async fn nothing_goes_while_an_adoption_is_to_be_ended<B: Backend>(world: World<B>) {
    let content = Bytes::from(vec![1; LARGE]);
    push_blob(world.storage(), "a", &content).await;
    let record = |finished: &str| {
        let nonce = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        format!("{{\"begun\":0,{finished}\"nonce\":\"{nonce}\",\"written\":0}}\n").into()
    };
    let key = Key::from_stored("adoption/distribution");
    put_raw(&world.store, &key, record("")).await;
    for _ in 0..4 {
        world.clock.advance(DAY);
        assert_eq!(world.cycle(Duration::ZERO).await, CollectReport::default());
    }
    put_raw(&world.store, &key, record("\"finished\":1,")).await;
    world.collect_all().await;
    assert!(!world.has_blob("a", &content).await);
}

/// A long component is split in keys, so the folders of one repository are between those of another.
async fn names_of_repositories_that_begin_alike<B: Backend>(world: World<B>) {
    let long = "m".repeat(200);
    let names = [
        "a".to_owned(),
        "a/b".to_owned(),
        "a/blobs".to_owned(),
        "a-b".to_owned(),
        long.clone(),
        format!("{long}a"),
        format!("{long}n"),
        format!("{long}z/blobs"),
        format!("{long}/z"),
    ];
    let mut gone = Vec::new();
    for (at, repository) in names.iter().enumerate() {
        push_image(world.storage(), repository, Some("t"), at as u64, 100).await;
        gone.push(push_image(world.storage(), repository, Some("u"), 100 + at as u64, 100).await);
        world.delete_manifest(repository, &gone[at].digest).await;
    }
    world.clock.advance(DAY);
    let report = world.cycle(DAY).await;
    assert_eq!(report.repositories, names.len() as u64);
    assert_eq!(report.condemned.blobs, 2 * names.len() as u64, "{report:?}");
    world.collect_all().await;
    for (repository, image) in names.iter().zip(&gone) {
        assert!(!world.has_blob(repository, &image.config).await, "{repository}");
    }
}

/// A push of a manifest is cut at any call, whole cycles run, and the push goes on: it is refused, or whole.
#[tokio::test]
async fn a_push_that_stops_anywhere_beside_cycles_is_whole_or_refused() {
    let mut refused = 0;
    for cut in 0.. {
        let world = World::stepped();
        let pushed = push_image(world.storage(), "a", Some("t"), 1, LARGE).await;
        world.delete_manifest("a", &pushed.digest).await;
        let store = Arc::clone(&world.store);
        let mut push = pin!(async { put(&*store, "a", Some("t"), IMAGE, &pushed.bytes).await });
        let mut outcome = poll_times(push.as_mut(), cut).await;
        let is_cut = outcome.is_none();
        for _ in 0..3 {
            world.cycle(Duration::ZERO).await;
        }
        world.sweep().await;
        while outcome.is_none() {
            outcome = poll_times(push.as_mut(), 1).await;
        }
        let is_whole = world.has_blob("a", &pushed.layer).await && world.has_blob("a", &pushed.config).await;
        match outcome.unwrap() {
            Ok(()) => assert!(is_whole, "cut at {cut}"),
            Err(error) => {
                assert_eq!(error.code(), ErrorCode::ManifestBlobUnknown, "{error:?}");
                refused += 1;
            }
        }
        if !is_cut {
            assert!(cut > 10 && refused > 0, "{cut} cuts, {refused} refused");
            return;
        }
    }
}

/// The commit of a blob is cut at any call, whole cycles run, and the commit goes on: nothing that is acknowledged lacks bytes.
#[tokio::test]
async fn a_commit_that_stops_anywhere_beside_cycles_leaves_a_whole_blob_or_none() {
    for had_blob in [false, true] {
        for cut in 0.. {
            let world = World::stepped();
            let content = Bytes::from(vec![1; LARGE]);
            if had_blob {
                push_blob(world.storage(), "b", &content).await;
            }
            let upload = start_upload(world.storage(), "a", &content).await;
            let (store, digest) = (Arc::clone(&world.store), digest(&content));
            let mut commit = pin!(async { (&*store as &dyn Storage).commit_upload(&upload, &digest).await });
            let mut outcome = poll_times(commit.as_mut(), cut).await;
            let is_cut = outcome.is_none();
            for _ in 0..4 {
                world.cycle(Duration::ZERO).await;
                world.sweep().await;
            }
            while outcome.is_none() {
                outcome = poll_times(commit.as_mut(), 1).await;
            }
            // Without a grace, a blob that no manifest names may be gone as soon as it is there.
            drop(outcome);
            world.assert_sound(&format!("cut at {cut}")).await;
            if !is_cut {
                assert!(cut > 5, "{cut} cuts");
                break;
            }
        }
    }
}

/// A cycle that stops before it is sealed is as if it had never been: the next ones begin anew.
#[tokio::test]
async fn a_cycle_that_stops_anywhere_is_continued_by_the_next() {
    for cut in 0.. {
        let world = World::stepped();
        let gone = push_image(world.storage(), "a", Some("t"), 1, LARGE).await;
        world.delete_manifest("a", &gone.digest).await;
        let options = CollectOptions::new().grace(Duration::ZERO);
        let is_cut = {
            let mut cycle = pin!(world.store.collect(&options, &()));
            poll_times(cycle.as_mut(), cut).await.is_none()
        };
        let report = world.cycle(Duration::ZERO).await;
        if is_cut {
            assert_eq!(report.removed.blobs, 0, "cut at {cut}");
        }
        world.collect_all().await;
        assert_eq!(world.byte_strings().await, 0, "cut at {cut}");
        if !is_cut {
            assert!(cut > 10, "{cut} cuts");
            return;
        }
    }
}

/// Two cycles and a push, cut at any two calls: a cycle removes only what was condemned before it began.
#[tokio::test]
async fn two_cycles_and_a_push_in_any_order() {
    let (mut cuts, mut is_done) = (0, false);
    for first in 0.. {
        if is_done {
            break;
        }
        for second in 0.. {
            let world = World::stepped();
            let pushed = push_image(world.storage(), "a", Some("t"), 1, LARGE).await;
            world.delete_manifest("a", &pushed.digest).await;
            let options = CollectOptions::new().grace(Duration::ZERO);
            let mut cycle = pin!(world.store.collect(&options, &()));
            let slow = poll_times(cycle.as_mut(), first).await;
            let store = Arc::clone(&world.store);
            let mut push = pin!(async { put(&*store, "a", Some("t"), IMAGE, &pushed.bytes).await });
            let mut outcome = poll_times(push.as_mut(), second).await;
            let is_cut = outcome.is_none();
            // Another process condemns meanwhile, in a cycle of its own, which a crash keeps from being sealed or not.
            let mut other = pin!(world.store.collect(&options, &()));
            let _stopped = poll_times(other.as_mut(), 60).await;
            if slow.is_none() {
                cycle.await.unwrap();
            } else {
                is_done = true;
            }
            while outcome.is_none() {
                outcome = poll_times(push.as_mut(), 1).await;
            }
            if outcome.unwrap().is_ok() {
                assert!(
                    world.has_blob("a", &pushed.layer).await,
                    "cut at {first}, {second}"
                );
                assert!(
                    world.has_blob("a", &pushed.config).await,
                    "cut at {first}, {second}"
                );
            }
            cuts += 1;
            if !is_cut {
                break;
            }
        }
    }
    assert!(cuts > 300, "{cuts} orders");
}
