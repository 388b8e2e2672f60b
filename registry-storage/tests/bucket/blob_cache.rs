//! A folder that keeps the blobs of a bucket: what it spares, and that nothing wrong comes from it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::images::{digest, name, push_blob, push_image, tag};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use registry_core::ErrorCode;
use registry_core::storage::{BlobStorage as _, ManifestStorage as _, RestoreTag};
use registry_storage::filesystem::FilesystemBackend;
use registry_storage::object_store::{BlobCache, BlobCacheError};
use registry_storage::testing::S3Double;
use registry_storage::testing::small_disk::SmallDisk;
use registry_storage::{ObjectStoreBackend, Store, StoreOptions, SystemClock};

/// More than what is kept in a record.
const LARGE: usize = 3_000_000;

fn layer(seed: u8) -> Bytes {
    Bytes::from(
        (0..LARGE)
            .map(|at| (at * 31 % 251) as u8 ^ seed)
            .collect::<Vec<u8>>(),
    )
}

/// A bucket, and a registry on it with a folder.
struct Setting {
    double: S3Double,
    store: Store<ObjectStoreBackend>,
    folder: tempfile::TempDir,
}

impl Setting {
    async fn new(layers: u8, size: u64) -> Self {
        let double = S3Double::start().await.unwrap();
        let plain = Store::new(double.backend("").unwrap());
        for seed in 0..layers {
            push_blob(&plain, "app", &layer(seed)).await;
        }
        let folder = tempfile::tempdir().unwrap();
        let store = open(&double, folder.path(), size).await.unwrap();
        drop(double.faults().take_seen());
        Self {
            double,
            store,
            folder,
        }
    }

    /// Starts the registry once more, with what is in the folder.
    async fn reopen(self, size: u64) -> Self {
        let Self {
            double,
            store,
            folder,
        } = self;
        drop(store);
        // The last call to the disk may end a little later.
        let deadline = Instant::now() + Duration::from_secs(20);
        let store = loop {
            match open(&double, folder.path(), size).await {
                Err(BlobCacheError::InUse) if Instant::now() < deadline => tokio::task::yield_now().await,
                opened => break opened.unwrap(),
            }
        };
        drop(double.faults().take_seen());
        Self {
            double,
            store,
            folder,
        }
    }

    async fn pull(&self, seed: u8) {
        assert!(read(&self.store, &layer(seed)).await == layer(seed), "{seed}");
    }

    /// Pulls until the blob is in the folder: a client has its last byte before the file has its name.
    async fn pull_into_cache(&self, seed: u8) {
        self.pull(seed).await;
        let file = self.file(seed);
        wait_for("the file", || file.exists()).await;
    }

    fn file(&self, seed: u8) -> PathBuf {
        let (algorithm, encoded) = ("sha256", digest(&layer(seed)));
        let name = format!("{algorithm}-{}", encoded.encoded());
        self.folder.path().join("blobs").join(name)
    }

    /// Returns how often bytes were asked for since the last call.
    fn bytes_requests(&self) -> usize {
        let seen = self.double.faults().take_seen();
        let of_bytes = |request: &&String| request.starts_with("GET /bucket/bytes/");
        seen.iter().filter(of_bytes).count()
    }

    fn kept(&self) -> u64 {
        let files = fs::read_dir(self.folder.path().join("blobs")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    }
}

async fn open(
    double: &S3Double,
    folder: &Path,
    size: u64,
) -> Result<Store<ObjectStoreBackend>, BlobCacheError> {
    let cache = BlobCache::open(folder, size).await?;
    Ok(Store::new(double.backend("").unwrap().with_blob_cache(cache)))
}

async fn read(store: &Store<ObjectStoreBackend>, content: &[u8]) -> Vec<u8> {
    let blob = store.pull_blob(&name("app"), &digest(content)).await.unwrap();
    read_range(&blob, 0, blob.size).await
}

async fn read_range(blob: &registry_core::storage::Blob, start: u64, end: u64) -> Vec<u8> {
    let mut stream = blob.content.read(start..end);
    let mut gathered = Vec::new();
    while let Some(chunk) = stream.next().await {
        gathered.extend_from_slice(&chunk.unwrap());
    }
    gathered
}

async fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} does not come");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_fetched_once_by_however_many_clients_and_outlives_the_process() {
    let setting = Setting::new(1, 1 << 30).await;
    // Made once: a disk does not seem slow because the processor is busy.
    let content = layer(0);
    let (repository, digest_of_all) = (name("app"), digest(&content));
    let pulls = (0..64).map(async |_| {
        let blob = setting
            .store
            .pull_blob(&repository, &digest_of_all)
            .await
            .unwrap();
        assert!(read_range(&blob, 0, blob.size).await == content);
    });
    join_all(pulls).await;
    assert_eq!(setting.bytes_requests(), 1);
    setting.pull_into_cache(0).await;
    drop(setting.double.faults().take_seen());

    setting.pull(0).await;
    // The grant, and nothing of the bytes.
    assert_eq!(setting.double.faults().take_seen().len(), 1);
    let setting = setting.reopen(1 << 30).await;
    setting.pull(0).await;
    assert_eq!(setting.double.faults().take_seen().len(), 1);

    let blob = setting
        .store
        .pull_blob(&repository, &digest_of_all)
        .await
        .unwrap();
    for (start, end) in [(0, 1), (LARGE - 5, LARGE), (70_000, 2_000_000)] {
        assert!(read_range(&blob, start as u64, end as u64).await == content[start..end]);
    }
    assert_eq!(setting.bytes_requests(), 0);
}

#[tokio::test]
async fn a_client_may_still_be_sent_to_the_bucket_but_not_for_what_is_lost_there() {
    let setting = Setting::new(1, 1 << 30).await;
    let blob = setting
        .store
        .pull_blob(&name("app"), &digest(&layer(0)))
        .await
        .unwrap();
    assert!(blob.content.signed_url().await.is_some());
    assert_eq!(
        setting.kept(),
        0,
        "a client that is sent to the bucket fills no cache"
    );
    drop(blob);
    setting.pull_into_cache(0).await;

    let setting = setting.reopen(1 << 30).await;
    setting.double.lose("bytes/");
    let blob = setting
        .store
        .pull_blob(&name("app"), &digest(&layer(0)))
        .await
        .unwrap();
    assert!(blob.content.signed_url().await.is_none());
    setting.pull(0).await;
}

#[tokio::test]
async fn a_deleted_blob_is_not_served_although_it_is_in_the_cache() {
    let setting = Setting::new(1, 1 << 30).await;
    setting.pull_into_cache(0).await;
    let (repository, digest) = (name("app"), digest(&layer(0)));
    setting
        .store
        .delete_blob(&repository, &digest, None)
        .await
        .unwrap();
    let refused = setting.store.pull_blob(&repository, &digest).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::BlobUnknown);
    let other = setting
        .store
        .pull_blob(&name("other"), &digest)
        .await
        .unwrap_err();
    assert_eq!(other.code(), ErrorCode::BlobUnknown);
    assert!(setting.file(0).exists());
    // A push of the same content to another repository reads it from here.
    push_blob(&setting.store, "app", &layer(0)).await;
    drop(setting.double.faults().take_seen());
    setting.pull(0).await;
    assert_eq!(setting.bytes_requests(), 0);
}

#[tokio::test]
async fn a_torn_file_is_never_served() {
    let setting = Setting::new(2, 1 << 30).await;
    for seed in 0..2 {
        setting.pull_into_cache(seed).await;
    }
    // One is cut while the registry runs, the other one while it does not; and one was being written.
    let cut = |seed: u8| {
        let file = File::options().write(true).open(setting.file(seed)).unwrap();
        file.set_len(1000).unwrap();
    };
    cut(0);
    setting.pull_into_cache(0).await;
    let _pulled = setting.bytes_requests();
    setting.pull(0).await;
    assert_eq!(setting.bytes_requests(), 0, "it was fetched once more");
    cut(1);
    let leftover = setting.folder.path().join("filling/leftover");
    fs::write(&leftover, "half").unwrap();
    fs::write(
        setting.folder.path().join("blobs/notes.txt"),
        "not of this program",
    )
    .unwrap();
    let setting = setting.reopen(1 << 30).await;
    assert!(!leftover.exists());
    setting.pull_into_cache(1).await;
    let _pulled = setting.bytes_requests();
    for seed in 0..2 {
        setting.pull(seed).await;
    }
    assert_eq!(setting.bytes_requests(), 0);
}

#[tokio::test]
async fn the_folder_stays_within_its_size_and_keeps_what_was_used_last() {
    let room = 2 * LARGE as u64 + 1000;
    let setting = Setting::new(3, room).await;
    for seed in [0, 1, 0, 2] {
        setting.pull_into_cache(seed).await;
        assert!(setting.kept() <= room, "{}", setting.kept());
    }
    let _pulled = setting.bytes_requests();
    setting.pull(0).await;
    assert_eq!(setting.bytes_requests(), 0);
    setting.pull_into_cache(1).await;
    assert_eq!(setting.bytes_requests(), 1);
    // With less room, the next start keeps what was used last; with less than a blob, nothing.
    let file = File::open(setting.file(1)).unwrap();
    let later = fs::metadata(setting.file(0)).unwrap().modified().unwrap() + Duration::from_secs(9);
    file.set_modified(later).unwrap();
    let setting = setting.reopen(LARGE as u64).await;
    assert_eq!(setting.kept(), LARGE as u64);
    setting.pull(1).await;
    assert_eq!(setting.bytes_requests(), 0);
    let setting = setting.reopen(LARGE as u64 - 1).await;
    assert_eq!(setting.kept(), 0);
    setting.pull(1).await;
    setting.pull(1).await;
    assert_eq!((setting.bytes_requests(), setting.kept()), (2, 0));
}

#[tokio::test]
async fn a_folder_that_is_removed_is_made_again_and_used() {
    let setting = Setting::new(2, 1 << 30).await;
    setting.pull_into_cache(0).await;
    fs::remove_dir_all(setting.folder.path()).unwrap();
    for seed in [0, 1] {
        setting.pull_into_cache(seed).await;
    }
    let _pulled = setting.bytes_requests();
    for seed in [0, 1] {
        setting.pull(seed).await;
    }
    assert_eq!(setting.bytes_requests(), 0);
    // It is taken, as before.
    let refused = BlobCache::open(setting.folder.path(), 1 << 30).await;
    assert!(matches!(refused, Err(BlobCacheError::InUse)));
}

/// Blobs that are written to the folder under a mount fill a disk that nobody meant.
#[tokio::test]
async fn a_folder_that_is_unmounted_is_used_when_it_is_back() {
    let setting = Setting::new(2, 1 << 30).await;
    setting.pull_into_cache(0).await;
    // As if another disk were there.
    let Some(disk) = SmallDisk::mount(setting.folder.path(), 16, 100) else {
        println!("skipped: a small disk cannot be mounted here");
        return;
    };
    for seed in [0, 1, 0, 1] {
        setting.pull(seed).await;
    }
    assert_eq!(fs::read_dir(setting.folder.path()).unwrap().count(), 0);
    drop(disk);
    // It was left alone for a minute. It is the one that was opened, which other pulls may have missed.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    setting.pull_into_cache(1).await;
    let _pulled = setting.bytes_requests();
    for seed in [0, 1] {
        setting.pull(seed).await;
    }
    assert_eq!(setting.bytes_requests(), 0, "what it had before is there again");
}

#[tokio::test]
async fn a_folder_with_other_files_is_refused_and_stays_as_it_is() {
    let text = "Signature: 8a477f597d28d172789f06886806bc55\n# Another program's.\n";
    for (name, content) in [
        ("notes.txt", ""),
        ("CACHEDIR.TAG", text),
        ("lock", "1234"),
        ("blobs/a", ""),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, content).unwrap();
        let refused = BlobCache::open(folder.path(), 1 << 30).await.unwrap_err();
        assert!(
            matches!(&refused, BlobCacheError::Foreign(found) if name.starts_with(found)),
            "{name}: {refused}"
        );
        assert!(BlobCache::check_folder(folder.path()).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{name}");
        assert_eq!(fs::read_to_string(&file).unwrap(), content);
    }
    // The folder of a store.
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(FilesystemBackend::open(folder.path()).await.unwrap());
    push_blob(&store, "app", &layer(0)).await;
    let refused = BlobCache::open(folder.path(), 1 << 30).await;
    assert!(matches!(refused, Err(BlobCacheError::Foreign(_))));
}

#[tokio::test]
async fn an_empty_folder_is_taken_and_what_a_start_left_that_was_cut_off() {
    for left in [&[][..], &["lost+found"], &["lock"], &["lock", "CACHEDIR.TAG"]] {
        let folder = tempfile::tempdir().unwrap();
        for name in left {
            fs::write(folder.path().join(name), "").unwrap();
        }
        BlobCache::check_folder(folder.path()).unwrap();
        drop(BlobCache::open(folder.path(), 1 << 30).await.unwrap());
        fs::write(folder.path().join("notes.txt"), "put there later").unwrap();
        drop(BlobCache::open(folder.path(), 1 << 30).await.unwrap());
    }
    let missing = tempfile::tempdir().unwrap().path().join("a/b");
    BlobCache::check_folder(&missing).unwrap();
    drop(BlobCache::open(&missing, 1 << 30).await.unwrap());
    fs::remove_dir_all(missing.parent().unwrap()).unwrap();
}

#[tokio::test]
async fn a_full_disk_fails_no_pull_and_makes_room() {
    let setting = Setting::new(2, 1 << 30).await;
    let Setting {
        double,
        store,
        folder,
    } = setting;
    drop(store);
    let place = folder.path().join("small");
    fs::create_dir(&place).unwrap();
    let Some(_disk) = SmallDisk::mount(&place, 4, 100) else {
        println!("skipped: a small disk cannot be mounted here");
        return;
    };
    let store = open(&double, &place, 1 << 30).await.unwrap();
    for seed in [0, 1, 0, 1] {
        assert!(read(&store, &layer(seed)).await == layer(seed));
    }
    // The first one was removed when the second one did not fit.
    let left = fs::read_dir(place.join("blobs")).unwrap().count();
    assert!(left <= 1, "{left}");
}

#[tokio::test]
async fn two_processes_cannot_have_one_folder() {
    let setting = Setting::new(1, 1 << 30).await;
    let refused = open(&setting.double, setting.folder.path(), 1 << 30).await;
    assert!(matches!(refused, Err(BlobCacheError::InUse)));
    setting.reopen(1 << 30).await.pull(0).await;
}

/// What the folder still has is no reason to restore what the bucket lost.
#[tokio::test]
async fn what_only_the_folder_has_is_not_restored() {
    let double = S3Double::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cache = BlobCache::open(folder.path(), 1 << 30).await.unwrap();
    let backend = double.backend("").unwrap().with_blob_cache(cache);
    let options = StoreOptions {
        keep_deleted: Duration::from_hours(24),
        ..StoreOptions::default()
    };
    let backend = backend.with_record_age(Duration::from_hours(1));
    let store = Store::with_options(Arc::new(backend), Arc::new(SystemClock), options);
    let image = push_image(&store, "app", Some("1"), 1, LARGE).await;
    assert!(read(&store, &image.layer).await == image.layer);
    wait_for("the file", || {
        fs::read_dir(folder.path().join("blobs")).unwrap().count() == 1
    })
    .await;
    let repository = name("app");
    store.delete_tag(&repository, &tag("1"), None).await.unwrap();
    double.lose("bytes/");
    assert!(read(&store, &image.layer).await == image.layer);
    let refused = store.restore_tag(&repository, RestoreTag::new(tag("1"))).await;
    assert_eq!(refused.unwrap_err().code(), ErrorCode::ManifestBlobUnknown);
}
