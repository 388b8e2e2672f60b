//! The folder of a cache: `blobs/` with a file for each blob, named by its digest, and `filling/` with those that are
//! being written.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
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

const TAG: &str = "CACHEDIR.TAG";

/// Tells backup programs to leave a folder out, by <https://bford.info/cachedir/>, and this one that it may have it.
const TAG_TEXT: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# A cache of a container registry's blobs, which are in a bucket. It may be deleted while the registry is stopped.\n";

/// A file system has it in its root.
const LOST_AND_FOUND: &str = "lost+found";

/// Why a folder cannot be a cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobCacheError {
    /// Another process has it.
    #[error("another process uses it as its cache; give each its own folder")]
    InUse,
    /// It has files and is no cache. One of them is named here.
    #[error(
        "it has other files, such as {0}, and a cache needs a folder of its own; name one that is empty, or that is not there yet"
    )]
    Foreign(String),
    /// It cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A folder that this process has.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) root: PathBuf,
    /// It is locked until the process ends, in any way.
    lock: File,
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
        require_own(root)?;
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
        let root = root.to_owned();
        let folder = Self { root, lock };
        let found = folder.prepare()?;
        Ok((folder, found))
    }

    /// Makes what is missing in it, and removes what was being written. Returns its files, in the order of their last use.
    pub(super) fn prepare(&self) -> io::Result<Vec<FoundFile>> {
        let root = &self.root;
        for folder in [BLOBS, FILLING] {
            create_folder(&root.join(folder))?;
        }
        if read_tag(root)? != TAG_TEXT {
            fs::write(root.join(TAG), TAG_TEXT)?;
        }
        // Those of a process that was killed.
        for file in fs::read_dir(root.join(FILLING))? {
            let file = file?;
            if !file.file_type()?.is_dir() {
                fs::remove_file(file.path())?;
            }
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
        Ok(found)
    }

    /// Returns whether the folder is the one that was opened: it may have been removed, replaced or unmounted since.
    pub(super) fn is_there(&self) -> io::Result<bool> {
        let held = self.lock.metadata()?;
        match fs::metadata(self.root.join(LOCK)) {
            Ok(found) => Ok((found.dev(), found.ino()) == (held.dev(), held.ino())),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes the folder again after it went away: a cache that is back, or an empty folder on the same file system. Where one was
    /// mounted that is not any more, blobs would fill another disk.
    pub(super) fn open_again(&self) -> Result<(Self, Vec<FoundFile>), BlobCacheError> {
        let device = self.lock.metadata()?.dev();
        let is_near = || {
            let there = self.root.ancestors().find_map(|there| fs::metadata(there).ok());
            there.is_some_and(|there| there.dev() == device)
        };
        if read_tag(&self.root)? != TAG_TEXT && !is_near() {
            let error = "the folder was unmounted; it is used again once it is back";
            return Err(io::Error::new(io::ErrorKind::NotFound, error).into());
        }
        Self::open(&self.root)
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

    /// Creates a file for a blob. Somebody may have removed what is in the folder.
    pub(super) fn create(self: &Arc<Self>, room: Room) -> io::Result<Unfinished> {
        if !self.is_there()? {
            return Err(io::ErrorKind::NotFound.into());
        }
        for folder in [BLOBS, FILLING] {
            create_folder(&self.root.join(folder))?;
        }
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

/// Refuses a folder that has files and is no cache: they would be left out of backups, and the cache removes files.
pub(super) fn require_own(root: &Path) -> Result<(), BlobCacheError> {
    let tag = read_tag(root)?;
    if tag == TAG_TEXT {
        return Ok(());
    }
    let files = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        files => files?,
    };
    for file in files {
        let file = file?;
        let name = file.file_name();
        // What a start left that was cut off.
        let is_begun = || {
            let is_empty = file
                .metadata()
                .is_ok_and(|file| file.is_file() && file.len() == 0);
            name == LOCK && is_empty || name == TAG && TAG_TEXT.starts_with(&tag)
        };
        if name != LOST_AND_FOUND && !is_begun() {
            return Err(BlobCacheError::Foreign(name.display().to_string()));
        }
    }
    Ok(())
}

/// Reads the beginning of what marks a folder; an empty text if nothing does.
fn read_tag(root: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    match File::open(root.join(TAG)) {
        Ok(tag) => tag.take(TAG_TEXT.len() as u64 + 1).read_to_end(&mut text)?,
        Err(error) if is_missing(&error) => 0,
        Err(error) => return Err(error),
    };
    // What is not text is not ours.
    Ok(String::from_utf8(text).unwrap_or_else(|_| "another".into()))
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::StaleNetworkFileHandle
    )
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
