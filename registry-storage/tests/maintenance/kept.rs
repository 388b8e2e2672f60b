//! What is kept of what was moved or deleted has bounds, is checked, and is restored only if all of it is there.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use registry_core::quota::Quota;
use registry_core::storage::{
    EndReason, PageRequest, RepositoryDeleted, RestoreTag, RestoredTag, Storage, TagValue,
};
use registry_core::{Digest, Error, ErrorCode, Reference};
use registry_storage::check::{CheckOptions, CheckReport};
use registry_storage::testing::faulty::Fault;
use registry_storage::testing::{Faulty, ManualClock};
use registry_storage::{
    Backend, CollectOptions, DeleteRepositoryOptions, Finding, Key, Maintenance as _, Store, StoreOptions,
};

use crate::support::images::{
    IMAGE, digest, name, push_blob, push_image, push_index, push_referrer, put, tag,
};
use crate::support::tamper::put_raw;

/// Larger than what is kept in a record.
const LARGE: usize = 40_000;

const HOUR: Duration = Duration::from_hours(1);

/// Two servers of one store. The clock of the second is ahead if a test advances it.
struct World<B> {
    store: Arc<Store<Faulty<B>>>,
    clock: Arc<ManualClock>,
    ahead: Arc<Store<Faulty<B>>>,
    clock_ahead: Arc<ManualClock>,
    files: Option<PathBuf>,
}

fn world<B: Backend>(backend: B, files: Option<PathBuf>) -> World<B> {
    let backend = Arc::new(Faulty::new(backend));
    let server = || {
        let clock = Arc::<ManualClock>::default();
        clock.advance(24 * HOUR);
        let options = StoreOptions {
            keep_deleted: 7 * 24 * HOUR,
            ..StoreOptions::default()
        };
        let store = Store::with_options(Arc::clone(&backend), Arc::clone(&clock) as _, options);
        (Arc::new(store), clock)
    };
    let ((store, clock), (ahead, clock_ahead)) = (server(), server());
    World {
        store,
        clock,
        ahead,
        clock_ahead,
        files,
    }
}

impl<B: Backend> World<B> {
    fn storage(&self) -> &dyn Storage {
        &*self.store
    }

    async fn named(&self, text: &str) -> Option<Digest> {
        let by_tag = Reference::Tag(tag(text));
        let found = self.storage().get_manifest(&name("a"), &by_tag).await;
        found.ok().map(|manifest| manifest.digest)
    }

    async fn has(&self, digest: &Digest) -> bool {
        let by_digest = Reference::Digest(digest.clone());
        let found = self.storage().get_manifest(&name("a"), &by_digest).await;
        found.is_ok()
    }

    async fn restore(&self, text: &str, digest: Option<&Digest>) -> Result<RestoredTag, Error> {
        let restore = RestoreTag {
            digest: digest.cloned(),
            ..RestoreTag::new(tag(text))
        };
        self.storage().restore_tag(&name("a"), restore).await
    }

    async fn history_in_pages(&self, text: Option<&str>, limit: usize) -> Vec<TagValue> {
        let (mut values, mut last) = (Vec::new(), None);
        loop {
            let page = PageRequest { last, limit };
            let text = text.map(tag);
            let page = self
                .storage()
                .list_tag_history(&name("a"), text.as_ref(), page)
                .await
                .unwrap();
            assert!(page.items.len() <= limit, "{page:?}");
            values.extend(page.items);
            match page.next {
                Some(next) => last = Some(next),
                None => return values,
            }
        }
    }

    async fn history(&self, text: &str) -> Vec<TagValue> {
        self.history_in_pages(Some(text), 100).await
    }

    /// Returns for each past value whether it can be restored.
    async fn restorable(&self, text: &str) -> Vec<bool> {
        let ends = self.history(text).await.into_iter().filter_map(|value| value.end);
        ends.map(|end| end.restorable_until.is_some()).collect()
    }

    async fn delete_manifest(&self, digest: &Digest) {
        let repository = name("a");
        let deleted = self.storage().delete_manifest(&repository, digest, None, None);
        deleted.await.unwrap();
    }

    async fn delete_blob(&self, content: &Bytes) {
        let (repository, digest) = (name("a"), digest(content));
        let deleted = self.storage().delete_blob(&repository, &digest, None);
        deleted.await.unwrap();
    }

    async fn delete_repository(&self) -> RepositoryDeleted {
        let options = DeleteRepositoryOptions::new();
        let deleted = self.store.delete_repository(&name("a"), &options, &()).await;
        deleted.unwrap()
    }

    /// Returns the keys and the sizes of what is kept.
    async fn kept(&self, prefix: &str) -> Vec<(Key, u64)> {
        let prefix = Key::from_stored(prefix);
        let listed = self.store.backend().list(&prefix, None, 1000).await.unwrap();
        listed.into_iter().map(|entry| (entry.key, entry.size)).collect()
    }

    async fn limit(&self, quota: Quota) {
        self.store.set_quotas(vec![quota]);
        let counted = self
            .store
            .count_for_quotas(Duration::ZERO, Duration::ZERO, &())
            .await;
        counted.unwrap();
    }

    async fn check(&self, repair: bool) -> (CheckReport, Vec<String>) {
        let findings = Mutex::new(Vec::new());
        let found = |finding: Finding| findings.lock().unwrap().push(finding.to_string());
        let options = CheckOptions::new().repair(repair).settle(Duration::ZERO);
        let report = self.store.check(&options, &found).await.unwrap();
        (report, findings.into_inner().unwrap())
    }

    async fn assert_sound(&self) {
        let (report, findings) = self.check(false).await;
        assert!(report.is_sound(), "{report:?} {findings:?}");
    }
}

fn of_a(bytes: Option<u64>, manifests: Option<u64>) -> Quota {
    Quota {
        repositories: vec!["a".parse().unwrap()],
        bytes,
        manifests,
        tags: None,
    }
}

/// Content that no manifest has to have anything for.
fn padded(seed: u64, size: usize) -> Bytes {
    let config = digest(b"{}");
    let padding = "x".repeat(size);
    Bytes::from(format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{IMAGE}\",\"config\":{{\"mediaType\":\"application/vnd.oci.empty.v1+json\",\
         \"digest\":\"{config}\",\"size\":2}},\"layers\":[],\"annotations\":{{\"seed\":\"{seed}\",\"padding\":\"{padding}\"}}}}"
    ))
}

on_each_backend! {
    one_copy_of_a_manifest_is_kept
    what_is_kept_gives_way_to_a_quota
    a_cycle_gives_up_what_several_repositories_have_too_much
    a_hundred_values_of_a_tag_are_kept
    the_value_that_was_replaced_last_comes_back_whatever_the_clocks_say
    what_cannot_be_pulled_is_not_restored
    what_is_missing_of_an_image_that_is_there_comes_back
    a_restore_without_room_leaves_nothing_and_one_that_is_cut_is_repeated
    a_check_reads_what_is_kept
    a_tag_that_a_delete_did_not_reach_is_history
    a_delete_of_a_repository_says_only_what_is_kept
    what_a_server_pushed_whose_clock_is_ahead_is_deleted
    a_page_of_history_has_at_most_so_many_values
}

async fn one_copy_of_a_manifest_is_kept<B: Backend>(world: World<B>) {
    push_blob(world.storage(), "a", &Bytes::from_static(b"{}")).await;
    let manifest = padded(1, LARGE);
    for _ in 0..5 {
        world.clock.advance(HOUR);
        put(world.storage(), "a", Some("t"), IMAGE, &manifest)
            .await
            .unwrap();
        world.delete_manifest(&digest(&manifest)).await;
    }
    assert_eq!(world.kept("kept/a!/manifests/").await.len(), 1);
    let values = world.history("t").await;
    assert_eq!(values.len(), 5);
    let untils = values.into_iter().filter_map(|value| value.end?.restorable_until);
    assert!(untils.is_sorted());
    assert_eq!(world.restore("t", None).await.unwrap().manifests, 1);
    world.assert_sound().await;
}

async fn what_is_kept_gives_way_to_a_quota<B: Backend>(world: World<B>) {
    let limit = 5 * LARGE as u64;
    world.limit(of_a(Some(limit), None)).await;
    push_blob(world.storage(), "a", &Bytes::from_static(b"{}")).await;
    let mut last = None;
    for seed in 0..12 {
        world.clock.advance(HOUR);
        let manifest = padded(seed, LARGE);
        put(world.storage(), "a", Some("t"), IMAGE, &manifest)
            .await
            .unwrap();
        world.delete_manifest(&digest(&manifest)).await;
        let bytes: u64 = world.kept("kept/").await.iter().map(|(_, size)| size).sum();
        assert!(bytes <= limit, "{bytes}");
        last = Some(digest(&manifest));
    }
    // The oldest went, with the manifest of the last value that is listed still.
    let restorable = world.restorable("t").await;
    assert!(
        restorable.len() > 3 && restorable[1..].iter().all(|is| *is),
        "{restorable:?}"
    );
    let restored = world.restore("t", None).await.unwrap();
    assert_eq!(Some(restored.manifest.digest), last);
    // Tags alone, too.
    for number in 0..10 {
        put(
            world.storage(),
            "a",
            Some(&format!("u{number}")),
            IMAGE,
            &padded(11, LARGE),
        )
        .await
        .unwrap();
    }
    world.limit(of_a(Some(LARGE as u64 + 1500), None)).await;
    for number in 0..10 {
        let tag = tag(&format!("u{number}"));
        world.storage().delete_tag(&name("a"), &tag, None).await.unwrap();
    }
    let kept = world.kept("kept/").await.len();
    assert!(0 < kept && kept < 10, "{kept}");
    world.assert_sound().await;
}

async fn a_cycle_gives_up_what_several_repositories_have_too_much<B: Backend>(world: World<B>) {
    let quota = Quota {
        repositories: vec!["team/*".parse().unwrap()],
        bytes: Some(3 * LARGE as u64),
        ..Quota::default()
    };
    world.limit(quota).await;
    for seed in 0..6 {
        world.clock.advance(HOUR);
        // The first in the order of names is deleted last.
        let repository = format!("team/r{}", 6 - seed);
        push_blob(world.storage(), &repository, &Bytes::from_static(b"{}")).await;
        let manifest = padded(seed, LARGE);
        put(world.storage(), &repository, None, IMAGE, &manifest)
            .await
            .unwrap();
        let (repository, manifest) = (name(&repository), digest(&manifest));
        let deleted = world
            .storage()
            .delete_manifest(&repository, &manifest, None, None);
        deleted.await.unwrap();
    }
    assert_eq!(world.kept("kept/").await.len(), 6);
    world.store.collect(&CollectOptions::new(), &()).await.unwrap();
    let kept = world.kept("kept/").await;
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(kept.iter().all(|(key, _)| {
        let key = key.as_str();
        key.starts_with("kept/team/r1!") || key.starts_with("kept/team/r2!")
    }));
    world.assert_sound().await;
}

async fn a_hundred_values_of_a_tag_are_kept<B: Backend>(world: World<B>) {
    push_blob(world.storage(), "a", &Bytes::from_static(b"{}")).await;
    let manifests = [padded(0, 1), padded(1, 1)];
    for at in 0..130 {
        world.clock.advance(Duration::from_secs(1));
        put(world.storage(), "a", Some("t"), IMAGE, &manifests[at % 2])
            .await
            .unwrap();
    }
    let values = world.history("t").await;
    assert_eq!(values.iter().filter(|value| value.end.is_some()).count(), 100);
    assert!(values.iter().is_sorted_by_key(|value| value.since));
    // 129 ended.
    let second = Duration::from_secs(1);
    assert_eq!(values[100].since.since(values[0].since), 100 * second);
}

async fn the_value_that_was_replaced_last_comes_back_whatever_the_clocks_say<B: Backend>(world: World<B>) {
    world.clock_ahead.advance(HOUR);
    let first = push_image(world.storage(), "a", Some("t"), 1, 10).await;
    // Moved by a clock that is ahead.
    let second = push_image(&*world.ahead, "a", Some("t"), 2, 10).await;
    let third = push_image(world.storage(), "a", Some("t"), 3, 10).await;
    let fourth = push_image(world.storage(), "a", Some("t"), 4, 10).await;
    let values = world.history("t").await;
    let digests: Vec<&Digest> = values.iter().map(|value| &value.digest).collect();
    assert_eq!(
        digests,
        [&first.digest, &second.digest, &third.digest, &fourth.digest]
    );
    let restored = world.restore("t", None).await.unwrap();
    assert_eq!(restored.manifest.digest, third.digest);
}

async fn what_cannot_be_pulled_is_not_restored<B: Backend>(world: World<B>) {
    let first = push_image(world.storage(), "a", Some("t"), 1, LARGE).await;
    let second = push_image(world.storage(), "a", Some("t"), 2, LARGE).await;
    assert_eq!(world.restorable("t").await, [true]);
    // The manifest is there, and a layer of it is not.
    world.delete_blob(&first.layer).await;
    let refused = world.restore("t", None).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::ManifestBlobUnknown);
    assert!(
        refused.to_string().contains(&digest(&first.layer).to_string()),
        "{refused}"
    );
    assert_eq!(world.named("t").await, Some(second.digest.clone()));
    assert_eq!(world.restorable("t").await, [false]);
    push_blob(world.storage(), "a", &first.layer).await;
    assert_eq!(world.restorable("t").await, [true]);
    // The medium lost the bytes.
    let Some(files) = &world.files else { return };
    let named = |entry: walk::Entry| entry.size == LARGE as u64 && entry.content == first.layer;
    let lost: Vec<PathBuf> = walk::files(files)
        .into_iter()
        .filter_map(|entry| {
            let path = entry.path.clone();
            named(entry).then_some(path)
        })
        .collect();
    assert!(!lost.is_empty());
    for path in lost {
        std::fs::remove_file(path).unwrap();
    }
    assert_eq!(world.restorable("t").await, [false]);
    let refused = world.restore("t", None).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::ManifestBlobUnknown);
    assert_eq!(world.named("t").await, Some(second.digest));
}

async fn what_is_missing_of_an_image_that_is_there_comes_back<B: Backend>(world: World<B>) {
    let image = push_image(world.storage(), "a", None, 1, LARGE).await;
    let other = push_image(world.storage(), "a", None, 2, LARGE).await;
    let index = push_index(world.storage(), "a", "t", &[&image, &other]).await;
    let signature = push_referrer(world.storage(), "a", &image, 3).await;
    for deleted in [&image.digest, &signature.digest] {
        world.delete_manifest(deleted).await;
    }
    let restored = world.restore("t", Some(&index)).await.unwrap();
    assert_eq!((restored.manifests, restored.referrers), (2, 1));
    for digest in [&image.digest, &signature.digest, &index] {
        assert!(world.has(digest).await);
    }
    // Nothing more comes back, and nothing goes.
    let again = world.restore("t", Some(&index)).await.unwrap();
    assert_eq!((again.manifests, again.referrers), (0, 0));
    // One that is gone for good is said.
    world.delete_manifest(&image.digest).await;
    world.delete_blob(&image.layer).await;
    let refused = world.restore("u", Some(&index)).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::ManifestBlobUnknown);
    assert_eq!(world.named("u").await, None);
    world.assert_sound().await;
}

async fn a_restore_without_room_leaves_nothing_and_one_that_is_cut_is_repeated<B: Backend>(world: World<B>) {
    let storage = world.storage();
    let image = push_image(storage, "a", None, 1, LARGE).await;
    let other = push_image(storage, "a", None, 2, LARGE).await;
    let index = push_index(storage, "a", "t", &[&image, &other]).await;
    let signature = push_referrer(storage, "a", &image, 3).await;
    let all = [&index, &signature.digest, &other.digest, &image.digest];
    for deleted in all {
        world.delete_manifest(deleted).await;
    }
    push_image(storage, "a", Some("u"), 4, LARGE).await;
    world.limit(of_a(None, Some(4))).await;
    let refused = world.restore("t", None).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Denied);
    for digest in all {
        assert!(!world.has(digest).await);
    }
    world.limit(of_a(None, Some(5))).await;
    // Another push takes the room in the middle.
    let calls = world.store.backend().calls();
    assert_eq!(world.restore("t", None).await.unwrap().manifests, 4);
    let calls = world.store.backend().calls() - calls;
    for cut in [calls / 2, calls - 4] {
        for deleted in all {
            world.delete_manifest(deleted).await;
        }
        let first = world.store.backend().calls();
        world.store.backend().fault_at(first + cut, Fault::Fail);
        let outcome = world.restore("t", None).await;
        world.store.backend().heal();
        // What came back stays: another request may rely on it.
        if outcome.is_err() {
            let mut gone = 0;
            for digest in all {
                gone += u64::from(!world.has(digest).await);
            }
            let restored = world.restore("t", Some(&index)).await.unwrap();
            assert_eq!(restored.manifests, gone, "{cut}");
        }
        for digest in all {
            assert!(world.has(digest).await, "{cut}");
        }
        world.assert_sound().await;
    }
    world.assert_sound().await;
}

async fn a_check_reads_what_is_kept<B: Backend>(world: World<B>) {
    let image = push_image(world.storage(), "a", Some("t"), 1, LARGE).await;
    let other = push_image(world.storage(), "a", Some("t"), 2, LARGE).await;
    world.delete_manifest(&image.digest).await;
    world.delete_manifest(&other.digest).await;
    world.assert_sound().await;
    for (prefix, count) in [("kept/a!/tags/", 1), ("kept/a!/manifests/", 2)] {
        for (key, _) in world.kept(prefix).await.into_iter().take(count) {
            put_raw(&world.store, &key, Bytes::from_static(b"garbage")).await;
        }
    }
    // What is readable, and another manifest.
    let changed = push_image(world.storage(), "a", None, 3, LARGE).await;
    world.delete_manifest(&changed.digest).await;
    let hex = changed.digest.to_string().replace(':', "/");
    let (key, _) = world.kept(&format!("kept/a!/manifests/{hex}/")).await.remove(0);
    let stored = world.store.backend().get(&key).await.unwrap().unwrap().value;
    let mut value = stored.to_vec();
    let at = value.len() - 20;
    value[at] ^= 1;
    put_raw(&world.store, &key, value.into()).await;
    let (report, findings) = world.check(false).await;
    assert_eq!(report.broken, 4, "{findings:?}");
    let (report, findings) = world.check(true).await;
    assert_eq!((report.broken, report.repaired), (4, 4), "{findings:?}");
    world.assert_sound().await;
    assert_eq!(world.kept("kept/a!/manifests/").await.len(), 0);
    assert_eq!(world.kept("quarantine/kept/").await.len(), 4);
}

async fn a_tag_that_a_delete_did_not_reach_is_history<B: Backend>(world: World<B>) {
    let (repository, tags) = (name("a"), |number: usize| format!("t{number}"));
    for is_repaired in [false, true] {
        let image = push_image(world.storage(), "a", None, 1, LARGE).await;
        for number in 0..200 {
            put(world.storage(), "a", Some(&tags(number)), IMAGE, &image.bytes)
                .await
                .unwrap();
        }
        let backend = world.store.backend();
        // After the manifest went, and before all tags did.
        for cut in (40..).step_by(40) {
            backend.fault_at(backend.calls() + cut, Fault::Fail);
            let deleted = world
                .storage()
                .delete_manifest(&repository, &image.digest, None, None)
                .await;
            backend.heal();
            if !world.has(&image.digest).await {
                deleted.unwrap_err();
                break;
            }
        }
        let mut stays = None;
        for text in (0..200).map(tags) {
            let stored = backend.get(&Key::tag(&repository, &tag(&text))).await.unwrap();
            // A tombstone has another size.
            if stored.is_some_and(|stored| stored.value.len() % 8 == 2) {
                stays = Some(text);
            }
        }
        let stays = stays.unwrap();
        let ended = |values: &[TagValue]| {
            let end = values.last().unwrap().end.clone().unwrap();
            assert_eq!(end.reason, EndReason::ManifestDeleted);
            assert!(end.restorable_until.is_some());
        };
        ended(&world.history(&stays).await);
        if is_repaired {
            world.check(true).await;
            ended(&world.history(&stays).await);
        }
        let restored = world.restore(&stays, None).await.unwrap();
        assert_eq!(
            (restored.manifest.digest, restored.manifests),
            (image.digest.clone(), 1)
        );
        world.delete_manifest(&image.digest).await;
    }
}

async fn a_delete_of_a_repository_says_only_what_is_kept<B: Backend>(world: World<B>) {
    push_blob(world.storage(), "a", &Bytes::from_static(b"alone")).await;
    let deleted = world.delete_repository().await;
    assert_eq!((deleted.blobs, deleted.restorable_until), (1, None));
    push_image(world.storage(), "a", Some("t"), 1, LARGE).await;
    let deleted = world.delete_repository().await;
    assert!(
        deleted.is_gone && deleted.restorable_until.is_some(),
        "{deleted:?}"
    );
    // What was kept before is not what this one kept.
    world.clock.advance(HOUR);
    push_blob(world.storage(), "a", &Bytes::from_static(b"alone")).await;
    assert_eq!(world.delete_repository().await.restorable_until, None);
}

async fn what_a_server_pushed_whose_clock_is_ahead_is_deleted<B: Backend>(world: World<B>) {
    world.clock_ahead.advance(2 * HOUR);
    push_image(world.storage(), "a", Some("t"), 1, LARGE).await;
    let image = push_image(&*world.ahead, "a", Some("u"), 2, LARGE).await;
    push_index(&*world.ahead, "a", "v", &[&image]).await;
    let deleted = world.delete_repository().await;
    assert_eq!(
        (deleted.tags, deleted.manifests, deleted.manifests_left),
        (3, 3, 0)
    );
    assert!(deleted.is_gone, "{deleted:?}");
    world.assert_sound().await;
}

async fn a_page_of_history_has_at_most_so_many_values<B: Backend>(world: World<B>) {
    for seed in 0..4 {
        for text in ["t", "t2", "u"] {
            world.clock.advance(Duration::from_secs(1));
            push_image(world.storage(), "a", Some(text), seed, 10).await;
        }
    }
    world
        .storage()
        .delete_tag(&name("a"), &tag("t2"), None)
        .await
        .unwrap();
    let whole = world.history_in_pages(None, 100).await;
    assert_eq!(whole.len(), 12);
    for limit in 1..6 {
        assert_eq!(world.history_in_pages(None, limit).await, whole, "{limit}");
        let of_t: Vec<TagValue> = whole
            .iter()
            .filter(|value| value.tag == tag("t"))
            .cloned()
            .collect();
        assert_eq!(world.history_in_pages(Some("t"), limit).await, of_t, "{limit}");
    }
    push_image(world.storage(), "a", Some("new"), 9, 10).await;
    assert_eq!(world.history_in_pages(Some("new"), 1).await.len(), 1);
}

mod walk {
    use std::path::{Path, PathBuf};

    pub(super) struct Entry {
        pub(super) path: PathBuf,
        pub(super) size: u64,
        pub(super) content: Vec<u8>,
    }

    pub(super) fn files(folder: &Path) -> Vec<Entry> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(files(&path));
            } else {
                let content = std::fs::read(&path).unwrap();
                let size = content.len() as u64;
                found.push(Entry { path, size, content });
            }
        }
        found
    }
}
