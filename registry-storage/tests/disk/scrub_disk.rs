//! Scrubbing reads what the disk has, not what memory has of it, and stops on a disk that cannot be read.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use registry_storage::check::CheckOptions;
use registry_storage::filesystem::disk::DiskFile;
use registry_storage::filesystem::{FilesystemBackend, FilesystemOptions};
use registry_storage::{Backend as _, Maintenance as _, ScrubCounts, ScrubOptions, Store};
use tempfile::TempDir;

use crate::intercepted::{Intercept, InterceptedDisk};
use crate::support::images::push_blob;

/// Larger than what is kept in a record, and than what is read at once.
const LARGE: usize = 3_000_000;

/// Reads fill this, and are answered from it.
#[derive(Debug, Default)]
struct Cache {
    files: Mutex<HashMap<PathBuf, Vec<u8>>>,
    /// The medium returns wrong bytes once.
    errs_once: AtomicBool,
    /// Files cannot be opened.
    refuses: AtomicBool,
    /// Files cannot be read.
    fails: AtomicBool,
}

impl Intercept for Cache {
    fn before_open(&self, _: &Path) -> io::Result<()> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(())
    }

    fn read_at(&self, path: &Path, file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Other.into());
        }
        let mut files = self.files.lock().unwrap();
        if !files.contains_key(path) {
            let mut content = vec![0; usize::try_from(file.length()?).unwrap()];
            file.read_at(&mut content, 0)?;
            if self.errs_once.swap(false, Ordering::Relaxed) {
                content[LARGE / 2] ^= 1;
            }
            files.insert(path.to_owned(), content);
        }
        let start = usize::try_from(offset).unwrap();
        let cached = files[path].get(start..start + buffer.len());
        buffer.copy_from_slice(cached.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn forget_cached(&self, path: &Path, _: &dyn DiskFile, range: Range<u64>) -> io::Result<()> {
        if !range.is_empty() {
            self.files.lock().unwrap().remove(path);
        }
        Ok(())
    }
}

/// A store on a caching disk with one blob, and the path of its bytes.
struct World {
    store: Store<FilesystemBackend>,
    cache: Arc<Cache>,
    path: PathBuf,
    _folder: TempDir,
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let cache = Arc::<Cache>::default();
    let disk = Arc::new(InterceptedDisk(Arc::clone(&cache)));
    let options = FilesystemOptions::new().disk(disk);
    let backend = options.open(folder.path()).await.unwrap();
    let store = Store::new(backend);
    push_blob(&store, "a/b", &Bytes::from(vec![1; LARGE])).await;
    let name = store.backend().list_bytes(None, 1).await.unwrap().remove(0);
    let path = folder.path().join("bytes").join(name.as_str());
    World {
        store,
        cache,
        path,
        _folder: folder,
    }
}

impl World {
    async fn scrub(&self) -> ScrubCounts {
        let options = ScrubOptions::new()
            .bytes_per_second(u64::MAX)
            .every(Duration::ZERO)
            .settle(Duration::ZERO);
        self.store.scrub(&options, &()).await.unwrap().counts
    }

    /// Returns how many broken things a check finds.
    async fn check(&self) -> u64 {
        let options = CheckOptions::new().verify_content(true).settle(Duration::ZERO);
        self.store.check(&options, &()).await.unwrap().broken
    }

    /// Changes a byte of the medium.
    fn rot(&self) {
        let mut content = std::fs::read(&self.path).unwrap();
        content[LARGE / 2] ^= 1;
        std::fs::write(&self.path, content).unwrap();
    }
}

#[tokio::test]
async fn rot_below_what_memory_has_is_found() {
    let world = world().await;
    let cached = std::fs::read(&world.path).unwrap();
    let fill = || {
        let mut files = world.cache.files.lock().unwrap();
        files.insert(world.path.clone(), cached.clone());
    };
    fill();
    world.rot();
    assert_eq!(world.check().await, 1);
    fill();
    let counts = world.scrub().await;
    assert_eq!((counts.broken, counts.quarantined), (1, 1));
}

#[tokio::test]
async fn bytes_that_were_read_wrong_once_stay() {
    let world = world().await;
    for _ in 0..2 {
        world.cache.errs_once.store(true, Ordering::Relaxed);
        let counts = world.scrub().await;
        assert_eq!(
            (counts.bytes, counts.broken),
            (2 * LARGE as u64, 0),
            "it is read twice"
        );
        world.cache.errs_once.store(true, Ordering::Relaxed);
        assert_eq!(world.check().await, 0);
    }
}

#[tokio::test]
async fn a_round_leaves_nothing_in_memory() {
    let world = world().await;
    world.scrub().await;
    assert_eq!(world.cache.files.lock().unwrap().len(), 0);
}

/// Small blobs are in their records, and say nothing about the disk.
#[tokio::test]
async fn a_disk_that_cannot_be_read_stops_the_round() {
    let world = world().await;
    for fill in 0..60 {
        push_blob(&world.store, "a/b", &Bytes::from(vec![fill; 100])).await;
    }
    for fill in 0..20 {
        push_blob(&world.store, "a/b", &Bytes::from(vec![fill; 20_000])).await;
    }
    let Cache { refuses, fails, .. } = &*world.cache;
    let options = ScrubOptions::new()
        .bytes_per_second(u64::MAX)
        .settle(Duration::ZERO);
    for what in [refuses, fails] {
        let before = world.store.scrubbed();
        what.store(true, Ordering::Relaxed);
        world.store.scrub(&options, &()).await.unwrap_err();
        what.store(false, Ordering::Relaxed);
        let counts = world.store.scrubbed();
        assert_eq!(
            (counts.unreadable - before.unreadable, counts.broken),
            (17, 0),
            "{counts:?}"
        );
    }
    // A round whose failures are not in a row goes to its end.
    let report = world.store.scrub(&options, &()).await.unwrap();
    assert!(report.is_finished);
    assert_eq!((report.counts.blobs, report.counts.unreadable), (81, 0));
}
