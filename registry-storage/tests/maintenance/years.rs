//! A year of pushes, moves and deletes of tags, with the collector, the sweeper and the scrubber: what is there at the end
//! is what was there after a month.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use registry_core::storage::{ManifestStorage as _, Storage};
use registry_storage::testing::ManualClock;
use registry_storage::{
    Backend, Clock, CollectOptions, Key, Maintenance as _, ScrubOptions, Store, StoreOptions, SweepOptions,
};

use crate::support::images::{Image, name, push_image, push_referrer, start_upload, tag};

const DAY: Duration = Duration::from_hours(24);

/// Larger than what is kept in a record.
const LARGE: usize = 20_000;

/// How many images are there at a time.
const KEPT: u64 = 7;

struct World<B> {
    backend: Arc<B>,
    store: Store<B>,
    clock: Arc<ManualClock>,
    /// Where the bytes are files.
    files: Option<PathBuf>,
}

fn world<B: Backend>(backend: B, files: Option<PathBuf>) -> World<B> {
    let clock = Arc::new(ManualClock::default());
    let backend = Arc::new(backend);
    World {
        store: Store::with_options(
            Arc::clone(&backend),
            Arc::clone(&clock) as Arc<dyn Clock>,
            StoreOptions::default(),
        ),
        backend,
        clock,
        files,
    }
}

impl<B: Backend> World<B> {
    /// A day: a build is pushed, `latest` moves to it, it is signed, an upload breaks off, and the oldest build is
    /// deleted by its digest, its tag before that.
    async fn live(&self, day: u64, images: &mut Vec<(String, [Image; 2])>) {
        let storage: &dyn Storage = &self.store;
        let repository = if day.is_multiple_of(2) { "app" } else { "team/app" };
        let build = format!("build-{day}");
        let image = push_image(storage, repository, Some(&build), day, LARGE).await;
        push_image(storage, repository, Some("latest"), day, LARGE).await;
        let signature = push_referrer(storage, repository, &image, day + 100_000).await;
        start_upload(storage, repository, &Bytes::from(vec![day as u8; LARGE])).await;
        images.push((repository.to_owned(), [image, signature]));
        if images.len() as u64 > KEPT {
            let (repository, gone) = images.remove(0);
            let repository = name(&repository);
            let build = tag(&format!("build-{}", day - KEPT));
            if day.is_multiple_of(3) {
                self.store.delete_tag(&repository, &build, None).await.unwrap();
            }
            for manifest in gone {
                self.store
                    .delete_manifest(&repository, &manifest.digest, None, None)
                    .await
                    .unwrap();
            }
        }
        self.clock.advance(DAY);
        self.store.collect(&CollectOptions::new(), &()).await.unwrap();
        self.store.sweep(&SweepOptions::default()).await.unwrap();
        let scrub = ScrubOptions::new().bytes_per_second(u64::MAX);
        self.store.scrub(&scrub, &()).await.unwrap();
    }

    /// Returns how many of each kind there are.
    async fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        let (prefix, mut after) = (Key::from_stored(""), None);
        loop {
            let page = self
                .store
                .backend()
                .list(&prefix, after.as_ref(), 1000)
                .await
                .unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            for entry in page {
                let text = entry.key.as_str();
                let kind = match text.split_once("/!/") {
                    Some((_, below)) => below.split('/').next().unwrap(),
                    None if text.contains("/in/") => "grants",
                    None => text.split('/').next().unwrap(),
                };
                *counts.entry(format!("{kind} {}", entry.size % 8)).or_default() += 1;
            }
        }
        let bytes = self.store.backend().list_bytes(None, 1000).await.unwrap();
        counts.insert("byte strings".to_owned(), bytes.len() as u64);
        if let Some(files) = &self.files {
            counts.insert(
                "days".to_owned(),
                std::fs::read_dir(files).unwrap().count() as u64,
            );
            let records = files.with_file_name("records.sqlite");
            // A page more or less is how the records happen to lie.
            counts.insert(
                "records in 16 KiB".to_owned(),
                std::fs::metadata(records).unwrap().len().div_ceil(16 * 1024),
            );
        }
        counts
    }
}

on_memory_and_disk! { nothing_grows_in_a_year nothing_grows_in_a_year_that_keeps_what_is_deleted }
// On one that does not delete on condition, records of what was deleted stay.
on_a_purging_bucket! { nothing_grows_in_a_year }

async fn nothing_grows_in_a_year<B: Backend>(world: World<B>) {
    let mut images = Vec::new();
    let mut after_a_month = BTreeMap::new();
    for day in 1..=365 {
        world.live(day, &mut images).await;
        // Weeks, so that the day of the week and whether the tag was deleted before are the same as at the end.
        if day == 365 - 7 * 42 {
            after_a_month = world.counts().await;
        }
    }
    assert_eq!(world.counts().await, after_a_month);
}

async fn nothing_grows_in_a_year_that_keeps_what_is_deleted<B: Backend>(mut world: World<B>) {
    let options = StoreOptions {
        keep_deleted: 7 * DAY,
        ..StoreOptions::default()
    };
    let clock = Arc::clone(&world.clock) as Arc<dyn Clock>;
    world.store = Store::with_options(Arc::clone(&world.backend), clock, options);
    nothing_grows_in_a_year(world).await;
}
