//! Scrubbing reads what the disk has, not what memory has of it, and stops on a disk that cannot be read.
#![expect(clippy::unwrap_used, reason = "test code")]

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use registry_storage::check::CheckOptions;
use registry_storage::filesystem::disk::{Access, Disk, DiskFile, DiskFolder, RealDisk};
use registry_storage::filesystem::{FilesystemBackend, FilesystemOptions};
use registry_storage::{Backend as _, Maintenance as _, ScrubCounts, ScrubOptions, Store};
use tempfile::TempDir;

use crate::support::images::push_blob;

/// Larger than what is kept in a record, and than what is read at once.
const LARGE: usize = 3_000_000;

/// A disk whose reads fill a cache, and are answered from it.
#[derive(Clone, Debug, Default)]
struct CachingDisk(Arc<Cache>);

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

#[derive(Debug)]
struct CachedFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    cache: Arc<Cache>,
}

impl CachingDisk {
    fn wrap(&self, path: &Path, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(CachedFile {
            path: path.to_owned(),
            file,
            cache: Arc::clone(&self.0),
        })
    }

    fn cached(&self) -> usize {
        self.0.files.lock().unwrap().len()
    }
}

impl Disk for CachingDisk {
    fn create_folder(&self, path: &Path, mode: u32) -> io::Result<()> {
        RealDisk.create_folder(path, mode)
    }

    fn open_folder(&self, path: &Path) -> io::Result<Box<dyn DiskFolder>> {
        RealDisk.open_folder(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(path)
    }

    fn create(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(path, RealDisk.create(path, mode)?))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        if self.0.refuses.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(self.wrap(path, RealDisk.open(path, access)?))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        RealDisk.unlink(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_folder(path)
    }

    fn link(&self, file: &Path, name: &Path) -> io::Result<()> {
        RealDisk.link(file, name)
    }

    fn epoch(&self) -> Option<String> {
        RealDisk.epoch()
    }

    fn records_synced(&self, path: &Path) {
        RealDisk.records_synced(path);
    }
}

impl DiskFile for CachedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if self.cache.fails.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Other.into());
        }
        let mut files = self.cache.files.lock().unwrap();
        if !files.contains_key(&self.path) {
            let mut content = vec![0; usize::try_from(self.file.length()?).unwrap()];
            self.file.read_at(&mut content, 0)?;
            if self.cache.errs_once.swap(false, Ordering::Relaxed) {
                content[LARGE / 2] ^= 1;
            }
            files.insert(self.path.clone(), content);
        }
        let start = usize::try_from(offset).unwrap();
        let cached = files[&self.path].get(start..start + buffer.len());
        buffer.copy_from_slice(cached.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn forget_cached(&self, range: Range<u64>) -> io::Result<()> {
        if !range.is_empty() {
            self.cache.files.lock().unwrap().remove(&self.path);
        }
        Ok(())
    }

    fn write_at(&self, content: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(content, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.file.set_length(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

/// A store on a caching disk with one blob, and the path of its bytes.
struct World {
    store: Store<FilesystemBackend>,
    disk: CachingDisk,
    path: PathBuf,
    _folder: TempDir,
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let disk = CachingDisk::default();
    let options = FilesystemOptions::new().disk(Arc::new(disk.clone()));
    let backend = options.open(folder.path()).await.unwrap();
    let store = Store::new(backend);
    push_blob(&store, "a/b", &Bytes::from(vec![1; LARGE])).await;
    let name = store.backend().list_bytes(None, 1).await.unwrap().remove(0);
    let path = folder.path().join("bytes").join(name.as_str());
    World {
        store,
        disk,
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
        let mut files = world.disk.0.files.lock().unwrap();
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
        world.disk.0.errs_once.store(true, Ordering::Relaxed);
        let counts = world.scrub().await;
        assert_eq!(
            (counts.bytes, counts.broken),
            (2 * LARGE as u64, 0),
            "it is read twice"
        );
        world.disk.0.errs_once.store(true, Ordering::Relaxed);
        assert_eq!(world.check().await, 0);
    }
}

#[tokio::test]
async fn a_round_leaves_nothing_in_memory() {
    let world = world().await;
    world.scrub().await;
    assert_eq!(world.disk.cached(), 0);
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
    let Cache { refuses, fails, .. } = &*world.disk.0;
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
