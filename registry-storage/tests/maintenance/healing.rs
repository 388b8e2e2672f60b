//! Content that the medium lost: nobody is told that it is there, and a push of it brings it back.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use registry_core::storage::{PageRequest, Storage, UploadKey};
use registry_core::{Error, ErrorCode, Reference};
use registry_storage::Maintenance as _;
use registry_storage::backend::{Durability, RecordTransaction, StagedBytes, Transaction};
use registry_storage::check::CheckOptions;
use registry_storage::testing::Faulty;
use registry_storage::testing::Observed;
use registry_storage::testing::faulty::Fault;
use registry_storage::{Backend, BytesName, Key, ObjectStoreBackend, Store, SweepOptions};

use crate::support::images::{IMAGE, digest, name, push_blob, push_image, put, start_upload, try_push};
use crate::support::poll_times;
use crate::support::tamper::put_raw;

/// Larger than what is kept in a record.
const LARGE: usize = 40_000;

/// Content that is kept in a record.
const SMALL: usize = 100;

fn content(fill: u8, size: usize) -> Bytes {
    vec![fill; size].into()
}

/// A store whose bytes a test can change.
struct World<B> {
    store: Arc<Store<B>>,
    /// Where the bytes are files.
    files: Option<PathBuf>,
}

fn world<B: Backend>(backend: B, files: Option<PathBuf>) -> World<B> {
    World {
        store: Arc::new(Store::new(backend)),
        files,
    }
}

impl<B: Backend> World<B> {
    fn storage(&self) -> &dyn Storage {
        &*self.store
    }

    async fn names(&self) -> Vec<BytesName> {
        self.store.backend().list_bytes(None, 1000).await.unwrap()
    }

    /// Puts other bytes, or none, in the place of bytes.
    async fn damage(&self, name: &BytesName, bytes: Option<&Bytes>) {
        match (bytes, &self.files) {
            (None, _) => self.store.backend().delete_bytes(name).await.unwrap(),
            (Some(bytes), Some(files)) => std::fs::write(files.join(name.as_str()), bytes).unwrap(),
            (Some(bytes), None) => {
                let overwrite = Overwrite(name.clone(), bytes.clone());
                self.store
                    .backend()
                    .transact(Durability::Synced, overwrite)
                    .await
                    .unwrap();
            }
        }
    }

    /// Asks for a blob as a client does before it sends one, and reads it. Both must say the same.
    async fn read(&self, repository: &str, content: &Bytes) -> Result<Bytes, Error> {
        let (repository, digest) = (name(repository), digest(content));
        let size = self.storage().stat_blob(&repository, &digest).await;
        let blob = self.storage().open_blob(&repository, &digest).await;
        assert_eq!(
            size.as_ref().err().map(Error::code),
            blob.as_ref().err().map(Error::code)
        );
        let blob = blob?;
        assert_eq!(size?, blob.size);
        let mut chunks = blob.content.read(0..blob.size);
        let mut read = Vec::new();
        while let Some(chunk) = chunks.next().await {
            read.extend_from_slice(&chunk?);
        }
        Ok(read.into())
    }

    async fn assert_lost(&self, repository: &str, content: &Bytes) {
        let error = self.read(repository, content).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::BlobUnknown, "{error:?}");
    }

    async fn assert_whole(&self, repository: &str, content: &Bytes) {
        assert!(self.read(repository, content).await.unwrap() == *content);
    }

    async fn mount(&self, from: &str, to: &str, content: &Bytes) -> bool {
        self.storage()
            .mount_blob(&name(from), &name(to), &digest(content))
            .await
            .unwrap()
    }

    async fn assert_sound(&self) {
        let options = CheckOptions::new()
            .verify_content(true)
            .settle(std::time::Duration::ZERO);
        let observed = Observed::default();
        self.store.check(&options, &observed).await.unwrap();
        assert_eq!(observed.lines(), [""; 0]);
    }
}

struct Overwrite(BytesName, Bytes);

impl Transaction for Overwrite {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        let bytes = StagedBytes {
            name: self.0,
            token: None,
        };
        records.complete_bytes(&bytes, &[], self.1).await
    }
}

on_each_backend! {
    bytes_that_are_gone_or_of_another_length_are_404_and_a_push_heals_them
    a_blob_is_healed_by_each_way_of_pushing_it
    a_mount_of_lost_bytes_is_refused_and_the_upload_heals
    an_upload_whose_answer_was_lost_is_not_told_that_lost_bytes_are_there
    a_small_blob_whose_record_rotted_is_404_and_a_push_heals_it
    a_manifest_whose_record_rotted_is_404_and_a_push_heals_it_with_its_tags
    pushes_at_once_heal_once
    a_manifest_over_lost_content_is_refused_until_that_was_sent_again
}

/// Missing, empty, cut and longer.
fn damages(content: &Bytes) -> [Option<Bytes>; 4] {
    let longer = [content.as_ref(), b"more"].concat();
    [
        None,
        Some(Bytes::new()),
        Some(content.slice(..content.len() - 1)),
        Some(longer.into()),
    ]
}

async fn bytes_that_are_gone_or_of_another_length_are_404_and_a_push_heals_them<B: Backend>(world: World<B>) {
    let content = content(1, LARGE);
    push_blob(world.storage(), "a", &content).await;
    assert!(world.mount("a", "other", &content).await);
    for damage in damages(&content) {
        world.store.sweep(&SweepOptions::default()).await.unwrap();
        let [name] = &world.names().await[..] else {
            panic!("one blob has bytes")
        };
        world.damage(name, damage.as_ref()).await;
        world.assert_lost("a", &content).await;
        world.assert_lost("other", &content).await;
        push_blob(world.storage(), "a", &content).await;
        world.assert_whole("a", &content).await;
        // Who did not push it reads it all the same.
        world.assert_whole("other", &content).await;
        world.assert_sound().await;
        world.store.sweep(&SweepOptions::default()).await.unwrap();
        assert!(
            !world.names().await.contains(name),
            "what is left of lost bytes is swept"
        );
        world.assert_whole("other", &content).await;
    }
}

/// A pull from a bucket relies on a check within the last minute. What was lost since is refused before a byte of it is sent, and
/// once that was seen, it is 404.
#[tokio::test]
async fn what_was_lost_since_a_check_sends_no_byte_of_another_length() {
    let double = registry_storage::testing::S3Double::start().await.unwrap();
    let world = world(double.backend("p").unwrap(), None);
    let content = content(1, LARGE);
    let (repository, digest) = (name("a"), digest(&content));
    for damage in damages(&content) {
        push_blob(world.storage(), "a", &content).await;
        for range in [0..LARGE as u64, 5..10, LARGE as u64 - 1..LARGE as u64] {
            world.store.sweep(&SweepOptions::default()).await.unwrap();
            let bytes = world.names().await.pop().unwrap();
            world.storage().stat_blob(&repository, &digest).await.unwrap();
            world.damage(&bytes, damage.as_ref()).await;
            let opened = world.storage().open_blob(&repository, &digest).await.unwrap();
            assert_eq!(opened.size, LARGE as u64, "the check is remembered");
            assert!(
                opened.content.read(range.clone()).next().await.unwrap().is_err(),
                "{range:?}"
            );
            let again = world.storage().open_blob(&repository, &digest).await;
            assert_eq!(again.unwrap_err().code(), ErrorCode::BlobUnknown, "{range:?}");
            push_blob(world.storage(), "a", &content).await;
        }
        world.assert_whole("a", &content).await;
    }
}

async fn a_blob_is_healed_by_each_way_of_pushing_it<B: Backend>(world: World<B>) {
    let content = content(2, LARGE);
    push_blob(world.storage(), "a", &content).await;
    for (index, pushed_to) in ["a", "b", "a", "c"].into_iter().enumerate() {
        world.store.sweep(&SweepOptions::default()).await.unwrap();
        let name = world.names().await.pop().unwrap();
        world.damage(&name, None).await;
        if index % 2 == 0 {
            push_blob(world.storage(), pushed_to, &content).await;
        } else {
            let upload = start_upload(world.storage(), pushed_to, &content.slice(..30_000)).await;
            let mut rest = pin!(stream::iter([Ok(content.slice(30_000..))]));
            world
                .storage()
                .append_upload(&upload, Some(30_000), rest.as_mut())
                .await
                .unwrap();
            world
                .storage()
                .commit_upload(&upload, &digest(&content))
                .await
                .unwrap();
        }
        world.assert_whole("a", &content).await;
        world.assert_whole(pushed_to, &content).await;
        world.assert_sound().await;
    }
}

async fn a_mount_of_lost_bytes_is_refused_and_the_upload_heals<B: Backend>(world: World<B>) {
    for size in [SMALL, LARGE] {
        let content = content(3, size);
        push_blob(world.storage(), "a", &content).await;
        assert!(world.mount("a", "mounted", &content).await);
        match world.names().await.pop() {
            Some(name) => world.damage(&name, None).await,
            None => rot(&world, &Key::blob(&digest(&content)), b'x').await,
        }
        for to in ["new", "mounted"] {
            assert!(!world.mount("a", to, &content).await, "there is nothing to mount");
        }
        push_blob(world.storage(), "new", &content).await;
        for repository in ["a", "mounted", "new"] {
            world.assert_whole(repository, &content).await;
        }
        assert!(world.mount("a", "mounted", &content).await);
        world.assert_sound().await;
    }
}

async fn an_upload_whose_answer_was_lost_is_not_told_that_lost_bytes_are_there<B: Backend>(world: World<B>) {
    let content = content(4, LARGE);
    let upload = start_upload(world.storage(), "a", &content).await;
    let digest = digest(&content);
    let commit = || world.storage().commit_upload(&upload, &digest);
    commit().await.unwrap();
    commit().await.unwrap();
    world.damage(&world.names().await[0], None).await;
    assert_eq!(commit().await.unwrap_err().code(), ErrorCode::BlobUploadUnknown);
}

/// Changes the last byte of a record's content.
async fn rot<B: Backend>(world: &World<B>, key: &Key, last: u8) {
    let mut value = world
        .store
        .backend()
        .get(key)
        .await
        .unwrap()
        .unwrap()
        .value
        .to_vec();
    *value.last_mut().unwrap() = last;
    put_raw(&world.store, key, value.into()).await;
}

async fn a_small_blob_whose_record_rotted_is_404_and_a_push_heals_it<B: Backend>(world: World<B>) {
    let content = content(5, SMALL);
    let key = Key::blob(&digest(&content));
    push_blob(world.storage(), "a", &content).await;
    assert!(world.mount("a", "other", &content).await);
    for pushed_to in ["a", "b", "a"] {
        rot(&world, &key, b'x').await;
        world.assert_lost("a", &content).await;
        world.assert_lost("other", &content).await;
        push_blob(world.storage(), pushed_to, &content).await;
        for repository in ["a", "other", pushed_to] {
            world.assert_whole(repository, &content).await;
        }
        world.assert_sound().await;
    }
}

async fn a_manifest_whose_record_rotted_is_404_and_a_push_heals_it_with_its_tags<B: Backend>(
    world: World<B>,
) {
    let image = push_image(world.storage(), "a", Some("v1"), 1, SMALL).await;
    let by_tag = Reference::Tag("v1".parse().unwrap());
    let by_digest = Reference::Digest(image.digest.clone());
    let key = Key::manifest(&name("a"), &image.digest);
    for tag in [None, Some("v1"), Some("v2")] {
        rot(&world, &key, b' ').await;
        for reference in [&by_tag, &by_digest] {
            let got = world.storage().get_manifest(&name("a"), reference).await;
            assert_eq!(got.unwrap_err().code(), ErrorCode::ManifestUnknown);
            let head = world.storage().stat_manifest(&name("a"), reference).await;
            assert_eq!(head.unwrap_err().code(), ErrorCode::ManifestUnknown);
        }
        try_push(world.storage(), "a", tag, &image).await.unwrap();
        for reference in [&by_tag, &by_digest] {
            let got = world.storage().get_manifest(&name("a"), reference).await.unwrap();
            assert_eq!(got.bytes, image.bytes);
        }
        world.assert_sound().await;
    }
}

/// A client that is told that its manifest is stored does not send what is missing.
async fn a_manifest_over_lost_content_is_refused_until_that_was_sent_again<B: Backend>(world: World<B>) {
    let image = push_image(world.storage(), "a", Some("v1"), 1, LARGE).await;
    let config = Key::blob(&digest(&image.config));
    let looks = world.store.backend().has_near_bytes();
    let put_manifest = async |tag: String| put(world.storage(), "a", Some(&tag), IMAGE, &image.bytes).await;
    let all = || PageRequest {
        last: None,
        limit: 100,
    };
    let tags = async || world.storage().list_tags(&name("a"), all()).await;
    for (number, damage) in damages(&image.layer).iter().enumerate() {
        for name in world.names().await {
            world.damage(&name, damage.as_ref()).await;
        }
        world.assert_lost("a", &image.layer).await;
        let answer = put_manifest(format!("new{number}")).await;
        assert_eq!(
            answer.is_err(),
            looks,
            "a bucket would need a request for each layer"
        );
        if let Err(error) = answer {
            assert_eq!(error.code(), ErrorCode::ManifestBlobUnknown, "{error:?}");
            let tags = tags().await.unwrap().items;
            assert_eq!(tags.len(), 1 + number, "nothing is left behind: {tags:?}");
        }
        // Another repository may have brought it back.
        let to = if number % 2 == 0 { "a" } else { "b" };
        push_blob(world.storage(), to, &image.layer).await;
        put_manifest(format!("new{number}")).await.unwrap();
    }
    rot(&world, &config, b'x').await;
    assert_eq!(put_manifest("rotten".to_owned()).await.is_err(), looks);
    push_blob(world.storage(), "a", &image.config).await;
    put_manifest("rotten".to_owned()).await.unwrap();
    world.store.sweep(&SweepOptions::new()).await.unwrap();
    world.assert_sound().await;
}

async fn pushes_at_once_heal_once<B: Backend>(world: World<B>) {
    let content = content(6, LARGE);
    push_blob(world.storage(), "a", &content).await;
    world.damage(&world.names().await[0], None).await;
    let pushes = ["a", "b", "c", "d"].map(|repository| push_blob(world.storage(), repository, &content));
    let sweeps = async {
        for _ in 0..5 {
            world.store.sweep(&SweepOptions::default()).await.unwrap();
        }
    };
    futures_util::future::join(futures_util::future::join_all(pushes), sweeps).await;
    for repository in ["a", "b", "c", "d"] {
        world.assert_whole(repository, &content).await;
    }
    world.store.sweep(&SweepOptions::default()).await.unwrap();
    assert_eq!(world.names().await.len(), 1);
    world.assert_sound().await;
}

/// A commit that heals dies at each of its steps, with a sweep after it: the next push heals.
#[tokio::test]
async fn a_heal_that_dies_at_any_step_leaves_what_the_next_push_heals() {
    let content = content(7, LARGE);
    for steps in 0.. {
        let backend = Faulty::new(ObjectStoreBackend::memory());
        for call in 0..500 {
            // A request is polled once for each call.
            backend.fault_at(call, Fault::Delay(1));
        }
        let world = world(backend, None);
        push_blob(world.storage(), "a", &content).await;
        assert!(world.mount("a", "other", &content).await);
        world.damage(&world.names().await[0], None).await;
        let upload = start_upload(world.storage(), "a", &content).await;
        let is_done = {
            let digest = digest(&content);
            let commit = pin!(world.storage().commit_upload(&upload, &digest));
            poll_times(commit, steps).await.is_some()
        };
        world.store.sweep(&SweepOptions::default()).await.unwrap();
        // Whole or not there, whatever was done of it.
        for repository in ["a", "other"] {
            match world.read(repository, &content).await {
                Ok(read) => assert!(read == content),
                Err(error) => assert_eq!(
                    error.code(),
                    ErrorCode::BlobUnknown,
                    "after {steps} steps: {error:?}"
                ),
            }
        }
        if is_done {
            assert!(steps > 10);
            world.assert_whole("a", &content).await;
            return;
        }
        resume(&world, &upload, &content).await;
        world.assert_whole("a", &content).await;
        world.assert_whole("other", &content).await;
        world.store.sweep(&SweepOptions::default()).await.unwrap();
        world.assert_whole("other", &content).await;
    }
}

/// A push heals a manifest that rotted. At any of its steps the manifest is deleted and pushed again by others: the tag of that push
/// stays, and so does its own.
#[tokio::test]
async fn a_heal_does_not_write_over_what_was_pushed_meanwhile() {
    for steps in 0.. {
        let backend = Faulty::new(ObjectStoreBackend::memory());
        for call in 0..2000 {
            backend.fault_at(call, Fault::Delay(1));
        }
        let world = world(backend, None);
        let image = push_image(world.storage(), "a", Some("first"), 1, SMALL).await;
        let push = async |tag| put(world.storage(), "a", Some(tag), IMAGE, &image.bytes).await;
        rot(&world, &Key::manifest(&name("a"), &image.digest), b'x').await;
        let mut heal = pin!(push("healed"));
        let healed = poll_times(heal.as_mut(), steps).await;
        let repository = name("a");
        let deleted = world
            .storage()
            .delete_manifest(&repository, &image.digest, None, None);
        deleted.await.unwrap();
        push("again").await.unwrap();
        let is_done = healed.is_some();
        match healed {
            Some(healed) => healed.unwrap(),
            None => heal.await.unwrap(),
        };
        // What was deleted after the first push had ended is gone.
        for acknowledged in ["again", "healed"].iter().take(if is_done { 1 } else { 2 }) {
            let by_tag = Reference::Tag(acknowledged.parse().unwrap());
            let found = world.storage().get_manifest(&name("a"), &by_tag).await;
            let found = found.unwrap_or_else(|error| panic!("{acknowledged} after {steps} steps: {error:?}"));
            assert_eq!(found.bytes, image.bytes);
        }
        if is_done {
            assert!(steps > 5);
            return;
        }
    }
}

/// Goes on as a client: the same request again, and where that is refused, the blob once more.
async fn resume<B: Backend>(world: &World<B>, upload: &UploadKey, content: &Bytes) {
    if let Err(error) = world.storage().commit_upload(upload, &digest(content)).await {
        let refusals = [ErrorCode::BlobUploadInvalid, ErrorCode::BlobUploadUnknown];
        assert!(refusals.contains(&error.code()), "{error:?}");
        push_blob(world.storage(), "a", content).await;
    }
}
