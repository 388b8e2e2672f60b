//! A deterministic simulation: clients of two processes on one bucket, each call of which waits for a random number of
//! turns. A seed says who does what and who waits how long, so a seed that fails fails again.
//!
//! `SIMULATION_SEEDS=from..to` runs other seeds than the four hundred that every run of the tests does, which are more than a million
//! calls of the bucket.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]
#![expect(clippy::unwrap_used, reason = "test code")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, future::join_all, stream};
use registry_core::retention::{KeepRule, Retention, RetentionPolicy};
use registry_core::storage::{
    BlobStorage as _, ChildKind, ListStorage as _, Manifest, ManifestChild, ManifestStorage as _,
    NewManifest, PageRequest, TagCondition, UploadKey, UploadStorage as _,
};
use registry_core::{
    Algorithm, Annotations, Descriptor, Digest, Error, ErrorCode, Hasher, Reference, RepositoryName, Storage,
    Tag,
};
use registry_storage::Maintenance as _;
use registry_storage::testing::faulty::Fault;
use registry_storage::testing::storage_conformance::Random;
use registry_storage::testing::{Faulty, ManualClock};
use registry_storage::{
    Backend as _, CollectOptions, DeleteRepositoryOptions, ObjectStoreBackend, RetainOptions, Store,
    StoreOptions, SweepOptions,
};

type Process = Store<Faulty<ObjectStoreBackend>>;

/// Names the seeds to run.
const SEEDS: &str = "SIMULATION_SEEDS";
const TASKS: u64 = 6;
const STEPS: usize = 10;
const CALLS: u64 = 6000;

#[test]
fn nothing_breaks_under_any_schedule() {
    let mut steps = 0;
    for seed in seeds() {
        // Printed only where the test fails, as all output of a test is.
        println!("seed {seed}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let simulation = Simulation::new(seed);
        let backend = Arc::clone(&simulation.backend);
        runtime.block_on(simulation.run());
        steps += backend.calls();
    }
    println!("{steps} calls of the bucket");
    if std::env::var_os(SEEDS).is_none() {
        assert!(steps >= 1_000_000, "too little is done to be a test: {steps}");
    }
}

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var(SEEDS) else {
        return 0..400;
    };
    let (from, to) = text.split_once("..").unwrap();
    from.parse().unwrap()..to.parse().unwrap()
}

/// What a seed does beside waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Nothing.
    None,
    /// One call of the bucket fails.
    Fault,
    /// Clients go away in the middle of requests, and come back.
    Drops,
}

/// What clients do: anything, or what meets often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    All,
    /// Pushes and deletes of few manifests and tags in one repository.
    Manifests,
    /// Uploads, cancels and sweeps of few blobs.
    Uploads,
    /// Pushes, mounts and deletes beside cycles of the collector that keep nothing for a while.
    Collector,
    /// The same beside retention, which keeps only the tags of which each client has one.
    Retention,
    /// The same beside deletes of the whole repository `b`.
    Repository,
}

const WORKS: [Work; 6] = [
    Work::All,
    Work::Manifests,
    Work::Uploads,
    Work::Collector,
    Work::Retention,
    Work::Repository,
];

#[derive(Clone)]
struct Simulation {
    seed: u64,
    work: Work,
    trouble: Trouble,
    backend: Arc<Faulty<ObjectStoreBackend>>,
    clock: Arc<ManualClock>,
    processes: [Arc<Process>; 2],
    repositories: [RepositoryName; 2],
    blobs: Arc<[Blob]>,
    images: Arc<[Image]>,
    /// What was acknowledged and may not go: manifests that nobody deletes.
    acknowledged: Arc<Mutex<BTreeSet<(RepositoryName, Digest)>>>,
    /// What was refused after it may have written a tag: no tag may name it.
    refused: Arc<Mutex<BTreeSet<Digest>>>,
    /// How many deletes of images have begun, and how many have ended, together.
    deletes: Arc<AtomicUsize>,
}

struct Blob {
    content: Bytes,
    digest: Digest,
    is_deleted: bool,
}

struct Image {
    new: NewManifest,
    is_deleted: bool,
    /// Nobody deletes its children.
    is_whole: bool,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let backend = Faulty::new(ObjectStoreBackend::memory());
        let trouble = [Trouble::None, Trouble::None, Trouble::Fault, Trouble::Drops][(seed % 4) as usize];
        let slowest = 1 + random.below(12);
        for call in 0..CALLS {
            backend.fault_at(call, Fault::Delay(random.below(slowest) as u32));
        }
        if trouble == Trouble::Fault {
            let fault = [Fault::Fail, Fault::LoseAnswer][random.below(2)];
            backend.fault_at(random.below(1500) as u64, fault);
        }
        let (backend, clock) = (Arc::new(backend), Arc::new(ManualClock::default()));
        let process = || {
            let options = StoreOptions::default();
            Arc::new(Store::with_options(
                Arc::clone(&backend),
                Arc::clone(&clock) as _,
                options,
            ))
        };
        let blobs: Vec<Blob> = [10, 20_000, 12, 18_000]
            .into_iter()
            .enumerate()
            .map(|(at, size)| {
                let content: Bytes = std::iter::repeat_n(b'a' + at as u8, size).collect();
                Blob {
                    digest: digest(&content),
                    content,
                    is_deleted: at >= 2,
                }
            })
            .collect();
        Self {
            seed,
            work: WORKS[(seed / 4) as usize % WORKS.len()],
            trouble,
            processes: [process(), process()],
            backend,
            clock,
            repositories: ["a".parse().unwrap(), "b".parse().unwrap()],
            images: images(&blobs),
            blobs: blobs.into(),
            acknowledged: Arc::default(),
            refused: Arc::default(),
            deletes: Arc::default(),
        }
    }

    async fn run(self) {
        let tasks: Vec<_> = (0..TASKS)
            .map(|number| {
                let client = Client {
                    world: self.clone(),
                    random: Random::new(self.seed << 8 | number),
                    number,
                    own_tag: BTreeMap::new(),
                };
                tokio::spawn(client.run())
            })
            .collect();
        for done in join_all(tasks).await {
            done.unwrap();
        }
        self.backend.heal();
        self.assert_invariants().await;
        if self.is_collecting() {
            return self.assert_collected().await;
        }
        // All that is swept later is what nothing needs.
        for process in &self.processes {
            self.clock.advance(Duration::from_hours(24 * 30));
            process.sweep(&SweepOptions::default()).await.unwrap();
        }
        self.clock.advance(Duration::from_hours(24 * 30));
        self.processes[0].sweep(&SweepOptions::default()).await.unwrap();
        self.assert_invariants().await;
        let kept = self.backend.list_bytes(None, 100).await.unwrap().len();
        // Each large blob once, and what Pending blobs name that nobody came back to.
        let most = if self.trouble == Trouble::None { 2 } else { 4 };
        assert!(kept <= most, "{kept} byte strings are left over");
    }

    /// A blob that no manifest names may be gone at any time.
    fn is_collecting(&self) -> bool {
        matches!(self.work, Work::Collector | Work::Retention | Work::Repository)
    }

    /// What no manifest names goes, and only that.
    async fn assert_collected(&self) {
        let process = &self.processes[0];
        // Without trouble, the cycles find all there is without a pass over everything; but for what is still Pending.
        if self.trouble == Trouble::None {
            for _ in 0..4 {
                process.collect(&collecting(), &()).await.unwrap();
            }
            let everything = process.collect(&collecting().dry_run(true), &()).await.unwrap();
            let found = [
                everything.young,
                everything.waiting,
                everything.condemned,
                everything.removed,
            ];
            assert!(found.iter().all(|found| found.blobs == 0), "{everything:?}");
            assert_eq!(
                (everything.blobs_left, everything.removed_blobs.blobs),
                (0, 0),
                "{everything:?}"
            );
        }
        self.clock.advance(Duration::from_hours(24 * 30));
        for _ in 0..5 {
            process.sweep(&SweepOptions::default()).await.unwrap();
            process.collect(&collecting(), &()).await.unwrap();
        }
        process.sweep(&SweepOptions::default()).await.unwrap();
        self.assert_invariants().await;
        let mut large = BTreeSet::new();
        for repository in &self.repositories {
            let mut named = BTreeSet::new();
            for image in &*self.images {
                let by_digest = Reference::Digest(image.new.manifest.digest.clone());
                if process.get_manifest(repository, &by_digest).await.is_ok() {
                    named.extend(image.new.children.iter().map(|child| child.digest.clone()));
                }
            }
            for blob in &*self.blobs {
                let is_there = process.stat_blob(repository, &blob.digest).await.is_ok();
                assert!(
                    !is_there || named.contains(&blob.digest),
                    "{} was not collected",
                    blob.digest
                );
                if is_there && blob.content.len() > 16 * 1024 {
                    large.insert(blob.digest.clone());
                }
            }
        }
        let kept = self.backend.list_bytes(None, 100).await.unwrap().len();
        assert_eq!(kept, large.len(), "byte strings are left over");
        let report = process.collect(&collecting(), &()).await.unwrap();
        assert!(!report.has_more(), "{report:?}");
    }

    async fn assert_invariants(&self) {
        let storage: &dyn Storage = &*self.processes[0];
        for repository in &self.repositories {
            for blob in &*self.blobs {
                assert_readable(storage, repository, blob).await;
            }
            for image in &*self.images {
                self.assert_image(storage, repository, image).await;
            }
            self.assert_referrers(storage, repository).await;
            self.assert_tags(storage, repository).await;
        }
        let acknowledged = self.acknowledged.lock().unwrap().clone();
        for (repository, digest) in acknowledged {
            let read = storage
                .get_manifest(&repository, &Reference::Digest(digest))
                .await;
            read.unwrap_or_else(|error| panic!("an acknowledged push is gone: {error}"));
        }
    }

    /// A visible manifest has its children, unless a user deleted them.
    async fn assert_image(&self, storage: &dyn Storage, repository: &RepositoryName, image: &Image) {
        let by_digest = Reference::Digest(image.new.manifest.digest.clone());
        let Ok(read) = storage.get_manifest(repository, &by_digest).await else {
            return;
        };
        assert_eq!(read, image.new.manifest);
        if image.is_whole {
            for child in &image.new.children {
                let size = storage.stat_blob(repository, &child.digest).await;
                size.unwrap_or_else(|error| panic!("a visible manifest lacks a child: {error}"));
            }
        }
    }

    async fn assert_referrers(&self, storage: &dyn Storage, repository: &RepositoryName) {
        let subject = &self.images[0].new.manifest.digest;
        let page = PageRequest {
            last: None,
            limit: 100,
        };
        let listed = storage
            .list_referrers(repository, subject, page.into())
            .await
            .unwrap()
            .items;
        let mut expected = Vec::new();
        for image in &*self.images {
            let by_digest = Reference::Digest(image.new.manifest.digest.clone());
            if let Some((_, descriptor)) = &image.new.subject
                && storage.get_manifest(repository, &by_digest).await.is_ok()
            {
                expected.push(descriptor.clone());
            }
        }
        expected.sort_by(|a, b| a.digest.cmp(&b.digest));
        assert_eq!(listed, expected);
    }

    async fn assert_tags(&self, storage: &dyn Storage, repository: &RepositoryName) {
        let page = PageRequest {
            last: None,
            limit: 100,
        };
        let Ok(tags) = storage.list_tags(repository, page).await else {
            return;
        };
        for tag in tags.items {
            let read = storage
                .get_manifest(repository, &Reference::Tag(tag.clone()))
                .await;
            if self.trouble == Trouble::None {
                let read = read.unwrap_or_else(|error| panic!("the tag {tag} dangles: {error}"));
                let refused = self.refused.lock().unwrap().contains(&read.digest);
                assert!(!refused, "the tag {tag} names what was refused");
            }
        }
    }
}

async fn assert_readable(storage: &dyn Storage, repository: &RepositoryName, blob: &Blob) {
    let opened = match storage.open_blob(repository, &blob.digest).await {
        Ok(opened) => opened,
        Err(error) => return assert_eq!(error.code(), ErrorCode::BlobUnknown, "{error:?}"),
    };
    let mut read = BytesMut::new();
    let mut content = opened.content.read(0..opened.size);
    while let Some(chunk) = content.next().await {
        read.extend_from_slice(&chunk.unwrap());
    }
    assert!(read == blob.content, "a visible blob has other bytes");
}

fn collecting() -> CollectOptions {
    CollectOptions::new().grace(Duration::ZERO)
}

fn digest(content: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(content);
    hasher.finish()
}

/// A manifest that names these children: the collector reads it.
fn manifest(name: &str, children: &[&Digest], kind: ChildKind) -> Manifest {
    let descriptors: Vec<String> = children
        .iter()
        .map(|digest| format!(r#"{{"mediaType":"application/octet-stream","digest":"{digest}","size":1}}"#))
        .collect();
    let (media_type, content) = match kind {
        ChildKind::Blob => (
            "application/vnd.oci.image.manifest.v1+json",
            format!(
                r#""config":{},"layers":[{}]"#,
                descriptors[0],
                descriptors[1..].join(",")
            ),
        ),
        ChildKind::Manifest => (
            "application/vnd.oci.image.index.v1+json",
            format!(r#""manifests":[{}]"#, descriptors.join(",")),
        ),
    };
    let bytes = format!(r#"{{"schemaVersion":2,"annotations":{{"name":"{name}"}},{content}}}"#);
    Manifest {
        digest: digest(bytes.as_bytes()),
        media_type: media_type.parse().unwrap(),
        bytes: bytes.into(),
    }
}

/// The manifests: two that nobody deletes, then two referrers and an index that come and go.
fn images(blobs: &[Blob]) -> Arc<[Image]> {
    let image = |text: &'static str, children: &[&Digest], kind: ChildKind| NewManifest {
        manifest: manifest(text, children, kind),
        children: children
            .iter()
            .map(|digest| ManifestChild {
                digest: (*digest).clone(),
                kind,
            })
            .collect(),
        allow_missing: false,
        optional_children: Vec::new(),
        subject: None,
        tags: Vec::new(),
        condition: TagCondition::Any,
        immutable_tags: Vec::new(),
        principal: String::new(),
    };
    let referring = |mut new: NewManifest, subject: &NewManifest| {
        let descriptor = Descriptor {
            media_type: new.manifest.media_type.clone(),
            digest: new.manifest.digest.clone(),
            size: new.manifest.bytes.len() as u64,
            artifact_type: None,
            annotations: Annotations::default(),
        };
        new.subject = Some((subject.manifest.digest.clone(), descriptor));
        new
    };
    let [a, b, c, d] = blobs else { panic!() };
    let base = image("base", &[&a.digest, &b.digest], ChildKind::Blob);
    let second = image("second", &[&b.digest], ChildKind::Blob);
    let referrer = referring(image("referrer", &[&a.digest], ChildKind::Blob), &base);
    let fragile = referring(image("fragile", &[&c.digest, &d.digest], ChildKind::Blob), &base);
    let index = image(
        "index",
        &[&referrer.manifest.digest, &base.manifest.digest],
        ChildKind::Manifest,
    );
    let of = |new, is_deleted, is_whole| Image {
        new,
        is_deleted,
        is_whole,
    };
    [
        of(base, false, true),
        of(second, false, true),
        of(referrer, true, true),
        of(fragile, true, false),
        of(index, true, false),
    ]
    .into()
}

/// Somebody who pushes, mounts, deletes, reads and sweeps.
struct Client {
    world: Simulation,
    random: Random,
    number: u64,
    /// What the client's own tag names in each repository.
    own_tag: BTreeMap<RepositoryName, Digest>,
}

impl Client {
    async fn run(mut self) {
        let steps = if self.is_collecting() { 4 * STEPS } else { STEPS };
        for _ in 0..steps {
            for _ in 0..self.random.below(10) {
                tokio::task::yield_now().await;
            }
            let steps: &[usize] = match self.world.work {
                Work::All => &[0, 0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 10],
                Work::Manifests => &[4, 4, 4, 5, 6, 6, 6, 7, 8],
                Work::Uploads => &[0, 1, 1, 1, 2, 3, 8, 8, 8, 9],
                Work::Collector if self.number < 2 => &[8, 11, 11, 11],
                Work::Collector => &[0, 2, 2, 6, 6, 6, 6, 9, 12, 12, 12, 12, 12],
                Work::Retention if self.number < 2 => &[8, 11, 11, 13, 13],
                Work::Retention => &[0, 2, 4, 6, 9, 10, 10, 10, 12, 12, 12],
                Work::Repository if self.number < 2 => &[8, 11, 11, 14],
                Work::Repository => &[0, 2, 2, 6, 9, 10, 10, 12, 12, 12, 12],
            };
            match steps[self.random.below(steps.len())] {
                0 => self.push_blob().await,
                1 => self.race_on_a_session().await,
                2 => self.mount().await,
                3 => self.delete_blob().await,
                4 => self.push_image().await,
                5 => self.push_own_image().await,
                6 => self.delete_image().await,
                7 => self.delete_tag().await,
                8 => self.sweep().await,
                9 => self.read().await,
                11 => self.collect().await,
                12 => self.push_again().await,
                13 => self.retain().await,
                14 => self.delete_repository().await,
                _ => self.push_own_tag().await,
            }
        }
        for (repository, digest) in &self.own_tag {
            let own = Reference::Tag(self.own_tag_name());
            let read = attempt(&self.world, || self.process().get_manifest(repository, &own)).await;
            assert_eq!(read.unwrap().digest, *digest, "an acknowledged tag was lost");
        }
    }

    fn process(&self) -> &Arc<Process> {
        &self.world.processes[(self.number % 2) as usize]
    }

    fn repository(&mut self) -> RepositoryName {
        let count = if self.world.work == Work::Manifests { 1 } else { 2 };
        self.world.repositories[self.random.below(count)].clone()
    }

    fn blob(&mut self) -> usize {
        match self.world.work {
            // The large ones, whose bytes have a name.
            Work::Uploads => 1 + 2 * self.random.below(2),
            _ => self.random.below(self.world.blobs.len()),
        }
    }

    /// Makes a request again until the bucket answers, and where clients go away, drops it first.
    async fn request<T, F>(&mut self, request: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        if self.world.trouble == Trouble::Drops && self.random.below(4) == 0 {
            let polls = 1 + self.random.below(40);
            if let Some(result) = poll_times(request(), polls).await {
                return result;
            }
        }
        attempt(&self.world, request).await
    }

    async fn push_blob(&mut self) {
        let (repository, at) = (self.repository(), self.blob());
        self.ensure_blob(&repository, at).await;
    }

    async fn ensure_blob(&mut self, repository: &RepositoryName, at: usize) {
        let process = Arc::clone(self.process());
        let blobs = Arc::clone(&self.world.blobs);
        let blob = &blobs[at];
        loop {
            let upload = self.upload(repository, &blob.content).await;
            match self
                .request(|| process.commit_upload(&upload, &blob.digest))
                .await
            {
                Ok(()) => break,
                Err(error) => assert!(
                    // What another's request did to the blob meanwhile, or a lost answer.
                    matches!(
                        error.code(),
                        ErrorCode::BlobUploadInvalid | ErrorCode::BlobUploadUnknown
                    ) && (blob.is_deleted || self.is_collecting() || self.world.trouble != Trouble::None),
                    "{error:?}"
                ),
            }
        }
        if !(blob.is_deleted || self.is_collecting()) {
            let size = attempt(&self.world, || process.stat_blob(repository, &blob.digest)).await;
            assert_eq!(size.unwrap(), blob.content.len() as u64);
        }
    }

    /// Starts an upload and sends all of it, again if it was cancelled with its repository.
    async fn upload(&mut self, repository: &RepositoryName, content: &Bytes) -> UploadKey {
        loop {
            if let Some(upload) = self.try_upload(repository, content).await {
                return upload;
            }
            assert_eq!(self.world.work, Work::Repository);
        }
    }

    async fn try_upload(&mut self, repository: &RepositoryName, content: &Bytes) -> Option<UploadKey> {
        let process = Arc::clone(self.process());
        let id = self
            .request(|| process.create_upload(repository, "", Algorithm::Sha256))
            .await
            .unwrap();
        let upload = UploadKey {
            repository: repository.clone(),
            id,
            principal: String::new(),
        };
        loop {
            let at = match attempt(&self.world, || process.upload_status(&upload)).await {
                Err(error) if error.code() == ErrorCode::BlobUploadUnknown => return None,
                at => at.unwrap(),
            };
            let rest = content.slice(usize::try_from(at).unwrap()..);
            if rest.is_empty() {
                return Some(upload);
            }
            let append = self.request(|| async {
                let mut body = pin!(stream::iter([Ok(rest.clone())]));
                process.append_upload(&upload, Some(at), body.as_mut()).await
            });
            if let Err(error) = append.await {
                if error.code() == ErrorCode::BlobUploadUnknown {
                    return None;
                }
                if error.code() == ErrorCode::Unavailable && self.world.work == Work::Repository {
                    // A delete of the repository cancelled it meanwhile, as its status says now.
                    continue;
                }
                // The append before it was dropped or lost its answer, after it had its effect.
                assert_eq!(error.code(), ErrorCode::RangeInvalid, "{error:?}");
                assert_ne!(self.world.trouble, Trouble::None);
            }
        }
    }

    /// Commits twice, or commits and cancels, at once and from two processes.
    async fn race_on_a_session(&mut self) {
        let (repository, at) = (self.repository(), self.blob());
        let blobs = Arc::clone(&self.world.blobs);
        let blob = &blobs[at];
        let upload = self.upload(&repository, &blob.content).await;
        let [one, two] = &self.world.processes;
        let cancels = self.random.below(2) == 0;
        let turns = self.random.below(100);
        let commit = one.commit_upload(&upload, &blob.digest);
        let other = async {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            if cancels {
                two.cancel_upload(&upload).await
            } else {
                two.commit_upload(&upload, &blob.digest).await
            }
        };
        let (committed, other) = tokio::join!(commit, other);
        if cancels && self.world.trouble == Trouble::None {
            // A cancel is decided by the session alone.
            if let Err(error) = &other {
                assert_eq!(error.code(), ErrorCode::BlobUploadUnknown, "{error:?}");
            }
        }
        let is_committed = committed.is_ok() || !cancels && other.is_ok();
        for error in [committed.err(), other.err()].into_iter().flatten() {
            let known = [
                ErrorCode::BlobUploadUnknown,
                ErrorCode::BlobUploadInvalid,
                ErrorCode::Unavailable,
            ];
            assert!(known.contains(&error.code()), "{error:?}");
        }
        if is_committed && !(blob.is_deleted || self.is_collecting()) {
            attempt(&self.world, || one.stat_blob(&repository, &blob.digest))
                .await
                .unwrap();
        }
    }

    async fn mount(&mut self) {
        let (from, to, at) = (self.repository(), self.repository(), self.blob());
        let process = Arc::clone(self.process());
        let blobs = Arc::clone(&self.world.blobs);
        let mounted = self
            .request(|| process.mount_blob(&from, &to, &blobs[at].digest))
            .await
            .unwrap();
        if mounted && !(blobs[at].is_deleted || self.is_collecting()) {
            attempt(&self.world, || process.stat_blob(&to, &blobs[at].digest))
                .await
                .unwrap();
        }
    }

    async fn delete_blob(&mut self) {
        let (repository, at) = (self.repository(), 2 + self.random.below(2));
        let process = Arc::clone(self.process());
        let blobs = Arc::clone(&self.world.blobs);
        assert!(blobs[at].is_deleted);
        if let Err(error) = self
            .request(|| process.delete_blob(&repository, &blobs[at].digest, None))
            .await
        {
            assert_eq!(error.code(), ErrorCode::BlobUnknown, "{error:?}");
        }
    }

    async fn push_image(&mut self) {
        let repository = self.repository();
        let images = Arc::clone(&self.world.images);
        let image = &images[match self.world.work {
            Work::Manifests => 1 + self.random.below(2),
            _ => self.random.below(images.len()),
        }];
        // Pushed before or not at all; the more so where pushes and deletes of manifests are to meet.
        let has_children = self.random.below(4) > if self.world.work == Work::Manifests { 2 } else { 0 };
        if has_children {
            self.push_children(&repository, image).await;
        }
        let process = Arc::clone(self.process());
        let mut new = image.new.clone();
        for number in 0..8 {
            if self.random.below(4) == 0 {
                new.tags.push(format!("t{number}").parse().unwrap());
            }
        }
        match self.random.below(6) {
            0 => new.immutable_tags.clone_from(&new.tags),
            1 => new.condition = TagCondition::Absent,
            2 => {
                let digests = images.iter().take(3).map(|image| &image.new.manifest.digest);
                new.condition = TagCondition::Matches(digests.cloned().collect());
            }
            _ => {}
        }
        match self
            .request(|| process.put_manifest(&repository, new.clone()))
            .await
        {
            Ok(()) => {
                if !(image.is_deleted || self.is_collecting()) {
                    let acknowledged = (repository, new.manifest.digest);
                    self.world.acknowledged.lock().unwrap().insert(acknowledged);
                }
            }
            Err(error) => {
                let is_known = match error.code() {
                    ErrorCode::TagConflict | ErrorCode::PreconditionFailed => {
                        new.condition != TagCondition::Any || !new.immutable_tags.is_empty()
                    }
                    ErrorCode::ManifestBlobUnknown => {
                        image.is_deleted || self.is_collecting() || !has_children
                    }
                    _ => false,
                };
                assert!(is_known, "{error:?}");
            }
        }
    }

    /// Pushes the blobs of an image that nobody deletes, and sometimes the others.
    async fn push_children(&mut self, repository: &RepositoryName, image: &Image) {
        let blobs = Arc::clone(&self.world.blobs);
        for (at, blob) in blobs.iter().enumerate() {
            let is_child = image.new.children.iter().any(|child| child.digest == blob.digest);
            if is_child && (!blob.is_deleted || self.random.below(2) == 0) {
                self.ensure_blob(repository, at).await;
            }
        }
    }

    async fn delete_image(&mut self) {
        let repository = self.repository();
        let images = Arc::clone(&self.world.images);
        let image = &images[match self.world.work {
            Work::Manifests | Work::Collector => 2,
            _ => 2 + self.random.below(images.len() - 2),
        }];
        assert!(image.is_deleted);
        let process = Arc::clone(self.process());
        let digest = &image.new.manifest.digest;
        // Even while none is in progress, and another number after each.
        self.world.deletes.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self
            .request(|| process.delete_manifest(&repository, digest, None, None))
            .await
        {
            assert!(is_unknown(&error), "{error:?}");
        }
        self.world.deletes.fetch_add(1, Ordering::Relaxed);
    }

    async fn delete_tag(&mut self) {
        let repository = self.repository();
        let tag: Tag = ["t0", "t1"][self.random.below(2)].parse().unwrap();
        let process = Arc::clone(self.process());
        if let Err(error) = self.request(|| process.delete_tag(&repository, &tag)).await {
            assert!(is_unknown(&error), "{error:?}");
        }
    }

    async fn sweep(&mut self) {
        let process = Arc::clone(self.process());
        let options = SweepOptions::default();
        self.request(|| process.sweep(&options)).await.unwrap();
    }

    /// Pushes an image as a client does that was told that the blobs are there, and uploads what is not.
    async fn push_again(&mut self) {
        let repository = self.repository();
        let images = Arc::clone(&self.world.images);
        // The one that is deleted too: otherwise its blobs would be named for ever.
        let image = &images[2];
        let process = Arc::clone(self.process());
        for _ in 0..5 {
            let deletes = self.world.deletes.load(Ordering::Relaxed);
            let pushed = self
                .request(|| process.put_manifest(&repository, image.new.clone()))
                .await;
            if let Err(error) = pushed {
                assert_eq!(error.code(), ErrorCode::ManifestBlobUnknown, "{error:?}");
                self.push_children(&repository, image).await;
                continue;
            }
            for child in &image.new.children {
                let opened = attempt(&self.world, || process.open_blob(&repository, &child.digest)).await;
                let is_deleted =
                    self.world.deletes.load(Ordering::Relaxed) != deletes || !deletes.is_multiple_of(2);
                assert!(
                    opened.is_ok() || is_deleted,
                    "a child of a manifest that was just pushed is gone"
                );
            }
            return;
        }
    }

    /// Drops the tags of no client, and the manifests without a tag.
    async fn retain(&mut self) {
        let process = Arc::clone(self.process());
        self.world.clock.advance(Duration::from_millis(1));
        let keep = |tags: &str, rules: Vec<KeepRule>| RetentionPolicy {
            repositories: vec!["**".parse().unwrap()],
            tags: vec![tags.parse().unwrap()],
            keep: rules,
            untagged: Some(Duration::ZERO),
            pulled_within: None,
        };
        let newest = KeepRule {
            newest: NonZeroU32::new(TASKS as u32),
            ..KeepRule::default()
        };
        let retention = Arc::new(Retention {
            policies: vec![keep("own-*", vec![newest]), keep("t*", Vec::new())],
            immutable: Vec::new(),
        });
        let options = RetainOptions::new(retention, &collecting());
        self.world.deletes.fetch_add(1, Ordering::Relaxed);
        self.request(|| process.retain(&options, &())).await.unwrap();
        self.world.deletes.fetch_add(1, Ordering::Relaxed);
    }

    async fn delete_repository(&mut self) {
        let repository = self.world.repositories[1].clone();
        let process = Arc::clone(self.process());
        self.world.clock.advance(Duration::from_millis(1));
        self.world.deletes.fetch_add(1, Ordering::Relaxed);
        let options = DeleteRepositoryOptions::new();
        let deleted = self.request(|| process.delete_repository(&repository, &options, &()));
        if let Err(error) = deleted.await {
            assert_eq!(error.code(), ErrorCode::NameUnknown, "{error:?}");
        }
        self.world.deletes.fetch_add(1, Ordering::Relaxed);
    }

    async fn collect(&mut self) {
        let process = Arc::clone(self.process());
        // The time is part of what a record's age is.
        self.world.clock.advance(Duration::from_millis(1));
        let options = collecting();
        self.request(|| process.collect(&options, &())).await.unwrap();
    }

    fn is_collecting(&self) -> bool {
        self.world.is_collecting()
    }

    async fn read(&mut self) {
        let repository = self.repository();
        let process = Arc::clone(self.process());
        let page = || PageRequest { last: None, limit: 2 };
        if let Err(error) = self.request(|| process.list_tags(&repository, page())).await {
            assert_eq!(error.code(), ErrorCode::NameUnknown);
        }
        let tag = Reference::Tag(["t0", "t1", "t2"][self.random.below(3)].parse().unwrap());
        match self.request(|| process.stat_manifest(&repository, &tag)).await {
            Ok(read) => assert_eq!(read.digest, digest(&read.bytes)),
            Err(error) => assert!(is_unknown(&error), "{error:?}"),
        }
        let blobs = Arc::clone(&self.world.blobs);
        let at = self.blob();
        match self
            .request(|| process.open_blob(&repository, &blobs[at].digest))
            .await
        {
            Ok(opened) => assert_eq!(opened.size, blobs[at].content.len() as u64),
            Err(error) => assert_eq!(error.code(), ErrorCode::BlobUnknown, "{error:?}"),
        }
    }

    /// Pushes what nobody else pushes, by several tags that may not be there: all of them are written, or none.
    async fn push_own_image(&mut self) {
        let repository = self.repository();
        let process = Arc::clone(self.process());
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[],"annotations":{{"name":"{} {}"}}}}"#,
            self.number,
            self.random.next()
        );
        let mut new = self.world.images[0].new.clone();
        new.manifest.digest = digest(text.as_bytes());
        new.manifest.bytes = text.into();
        new.manifest.media_type = "application/vnd.oci.image.index.v1+json".parse().unwrap();
        new.children.clear();
        new.tags = ["t0", "t1", "t2"].map(|name| name.parse().unwrap()).into();
        match self.random.below(2) {
            0 => new.immutable_tags.clone_from(&new.tags),
            _ => new.condition = TagCondition::Absent,
        }
        match self
            .request(|| process.put_manifest(&repository, new.clone()))
            .await
        {
            Ok(()) => {
                let acknowledged = (repository, new.manifest.digest);
                self.world.acknowledged.lock().unwrap().insert(acknowledged);
            }
            Err(error) => {
                let known = [ErrorCode::TagConflict, ErrorCode::PreconditionFailed];
                assert!(known.contains(&error.code()), "{error:?}");
                self.world.refused.lock().unwrap().insert(new.manifest.digest);
            }
        }
    }

    fn own_tag_name(&self) -> Tag {
        format!("own-{}", self.number).parse().unwrap()
    }

    /// Moves a tag that nobody else writes between manifests that nobody deletes.
    async fn push_own_tag(&mut self) {
        let repository = match self.world.work {
            Work::Repository => self.world.repositories[0].clone(),
            _ => self.repository(),
        };
        let images = Arc::clone(&self.world.images);
        let image = &images[self.random.below(2)];
        let process = Arc::clone(self.process());
        let mut new = image.new.clone();
        new.tags.push(self.own_tag_name());
        loop {
            self.push_children(&repository, image).await;
            match self
                .request(|| process.put_manifest(&repository, new.clone()))
                .await
            {
                Ok(()) => break,
                Err(error) => assert!(
                    self.is_collecting() && error.code() == ErrorCode::ManifestBlobUnknown,
                    "{error:?}"
                ),
            }
        }
        self.own_tag.insert(repository, new.manifest.digest);
    }
}

fn is_unknown(error: &Error) -> bool {
    matches!(error.code(), ErrorCode::ManifestUnknown | ErrorCode::NameUnknown)
}

/// Makes a request, again where the bucket failed.
async fn attempt<T, F>(world: &Simulation, request: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    loop {
        match request().await {
            Err(error) if error.code() == ErrorCode::Unavailable => {
                // The delete of a repository cancels uploads.
                let is_expected = world.trouble == Trouble::Fault || world.work == Work::Repository;
                assert!(is_expected, "a request failed by itself: {error:?}");
            }
            result => return result,
        }
    }
}

/// Polls a future so often at most, then drops it.
async fn poll_times<F: Future>(future: F, mut times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if times == 0 => Poll::Ready(None),
        Poll::Pending => {
            times -= 1;
            Poll::Pending
        }
    })
    .await
}
