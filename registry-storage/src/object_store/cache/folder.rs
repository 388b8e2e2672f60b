//! The folder of a cache: `blobs/` with a file for each blob, named by its digest, and `filling/` with those that are
//! being written.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use registry_core::Digest;

use super::fill::Room;
use super::index::Evicted;
use crate::clock::{Clock as _, SystemClock};
use crate::unique::unique;

const BLOBS: &str = "blobs";
const FILLING: &str = "filling";
const LOCK: &str = "lock";

/// Tells backup programs to leave a folder out, by <https://bford.info/cachedir/>.
const TAG: (&str, &str) = (
    "CACHEDIR.TAG",
    "Signature: 8a477f597d28d172789f06886806bc55\n# A cache of a container registry's blobs, which are in a bucket. It may be deleted while the registry is stopped.\n",
);

/// Why a folder cannot be a cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobCacheError {
    /// Another process has it.
    #[error("another process uses it as its cache; give each its own folder")]
    InUse,
    /// It cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A folder that this process has.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) root: PathBuf,
    /// It is locked until the process ends, in any way.
    _lock: File,
}

/// A file that was found in a folder.
pub(super) struct FoundFile {
    pub(super) digest: Digest,
    pub(super) size: u64,
    used: SystemTime,
}

impl Folder {
    /// Creates a folder unless there is one, and takes it. Returns also its files, in the order of their last use.
    pub(super) fn open(root: &Path) -> Result<(Self, Vec<FoundFile>), BlobCacheError> {
        create_folder(root)?;
        let lock = private_file()
            .create(true)
            .truncate(false)
            .open(root.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BlobCacheError::InUse),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        for folder in [BLOBS, FILLING] {
            create_folder(&root.join(folder))?;
        }
        let (tag, text) = TAG;
        fs::write(root.join(tag), text)?;
        // Those of a process that was killed.
        for file in fs::read_dir(root.join(FILLING))? {
            fs::remove_file(file?.path())?;
        }
        let mut found = Vec::new();
        for file in fs::read_dir(root.join(BLOBS))? {
            let file = file?;
            let metadata = file.metadata()?;
            let digest = file.file_name().to_str().and_then(digest_of);
            if let Some(digest) = digest.filter(|_| metadata.is_file()) {
                let (size, used) = (metadata.len(), metadata.modified()?);
                found.push(FoundFile { digest, size, used });
            }
        }
        found.sort_by_key(|file| file.used);
        let root = root.to_owned();
        Ok((Self { root, _lock: lock }, found))
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let (algorithm, encoded) = digest.parts();
        self.root.join(BLOBS).join(format!("{algorithm}-{encoded}"))
    }

    /// Opens the file of a blob, and notes when; `None` if there is none of this size.
    pub(super) fn open_blob(&self, digest: &Digest, size: u64) -> io::Result<Option<File>> {
        let file = match File::open(self.path(digest)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() != size {
            return Ok(None);
        }
        // A full disk, or another owner's file, is no reason not to read it.
        let now = Duration::from_millis(SystemClock.now().0);
        file.set_modified(SystemTime::UNIX_EPOCH + now).ok();
        Ok(Some(file))
    }

    /// Removes files. Those that are open stay readable.
    pub(super) fn remove(&self, digests: &[Digest]) -> io::Result<()> {
        for digest in digests {
            remove_if_there(&self.path(digest))?;
        }
        Ok(())
    }

    /// Removes files as [`remove`](Self::remove) does.
    pub(super) fn remove_evicted(&self, evicted: &[Evicted]) -> io::Result<()> {
        evicted
            .iter()
            .try_for_each(|evicted| remove_if_there(&self.path(&evicted.digest)))
    }

    /// Creates a file for a blob.
    pub(super) fn create(self: &Arc<Self>, room: Room) -> io::Result<Unfinished> {
        let path = self.root.join(FILLING).join(unique().to_string());
        let file = private_file().create_new(true).open(&path)?;
        Ok(Unfinished {
            folder: Arc::clone(self),
            file: Arc::new(file),
            path,
            room: Some(room),
        })
    }
}

/// A file that is being written. It is removed unless it is finished.
#[derive(Debug)]
pub(super) struct Unfinished {
    folder: Arc<Folder>,
    pub(super) file: Arc<File>,
    path: PathBuf,
    /// `None` once the file is finished.
    room: Option<Room>,
}

impl Unfinished {
    /// Makes the file that of a blob. It is durable before it has its name, so that a loss of power leaves no name of a torn file.
    pub(super) fn finish(mut self, digest: &Digest) -> io::Result<()> {
        self.file.sync_data()?;
        fs::rename(&self.path, self.folder.path(digest))?;
        if let Some(room) = self.room.take() {
            room.keep(digest, &self.file);
        }
        Ok(())
    }

    /// Removes it, and gives its room back.
    pub(super) fn discard(mut self) {
        discard(&self.path, self.room.take());
    }

    /// Makes room for more bytes, as [`Room::grow`] does.
    pub(super) fn grow(&mut self, bytes: u64) -> io::Result<bool> {
        self.room.as_mut().map_or(Ok(false), |room| room.grow(bytes))
    }
}

/// The next start removes what cannot be removed now.
fn discard(path: &Path, room: Option<Room>) {
    remove_if_there(path).ok();
    drop(room);
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(room) = self.room.take() else { return };
        let path = std::mem::take(&mut self.path);
        let remove = move || discard(&path, Some(room));
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

fn digest_of(name: &str) -> Option<Digest> {
    let (algorithm, encoded) = name.split_once('-')?;
    let digest: Digest = format!("{algorithm}:{encoded}").parse().ok()?;
    digest.supported_algorithm().ok().map(|_| digest)
}

fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
