//! How a root is opened.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use registry_core::Error;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::disk::{Disk, RealDisk};
use super::lock::{Holder, RootLock};
use super::{FilesystemBackend, LOCK_FILE, create_private_folder};

/// The interval at which a root that another process holds is tried.
const WAIT_INTERVAL: Duration = Duration::from_millis(15);

/// Why a root was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process owns the root.
    #[error("{} is in use by {holder}; stop it, or wait for it", root.display())]
    Held {
        /// The root.
        root: PathBuf,
        /// The process that owns it.
        holder: Holder,
    },
    /// A newer version of this program wrote the records.
    #[error("{} has format {found}, and this program knows format {known}; use a newer one", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format that this program knows.
        known: i64,
    },
    /// The records have an older format, and the root is read-only.
    #[error("{} has format {found} of an older version; start this one once where it may write", path.display())]
    Older {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
    },
    /// The records have an older format, and could not all be brought to the current one.
    #[error(
        "the records in {} could not be brought to a newer format; nothing is lost, and the next start goes on: \
         where the disk is full, free {space} MB on it and start again",
        path.display(),
        space = super::migration::SPACE_MB
    )]
    Migration {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        #[source]
        cause: rusqlite::Error,
    },
    /// The file system returned an error.
    #[error("{}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// The error.
        #[source]
        cause: io::Error,
    },
    /// Another process has the records open, and held them for ten seconds.
    #[error("{} is open in another process, such as a shell of SQLite; end that, and start again", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// There are bytes of blobs, but the records that name them were removed or emptied.
    #[error(
        "{} is gone or has nothing in it, and {} has blobs: nothing was changed. Restore a backup into another folder, or move this one \
         away to begin an empty registry",
        path.display(),
        bytes.display()
    )]
    RecordsLost {
        /// The file of the records.
        path: PathBuf,
        /// The folder of the bytes.
        bytes: PathBuf,
    },
    /// The records are not those that the root names: they were taken from elsewhere, or are older than its identifier.
    #[error(
        "{} is of another registry than {} says: nothing was changed. Put back the one that belongs here, or restore a backup \
         into another folder; without {} it is taken as it is, and the next sweep deletes all bytes that it does not name",
        path.display(),
        file.display(),
        file.display()
    )]
    RecordsOfAnother {
        /// The file of the records.
        path: PathBuf,
        /// The file that names the records which belong here.
        file: PathBuf,
    },
    /// The records cannot be read.
    #[error("{}", path.display())]
    Records {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        #[source]
        cause: rusqlite::Error,
    },
    /// The runtime is shutting down.
    #[error("the runtime is shutting down")]
    Stopped,
}

impl From<OpenError> for Error {
    fn from(cause: OpenError) -> Self {
        Self::internal(cause)
    }
}

/// How a root is opened, with defaults for everything.
#[derive(Clone, Debug)]
pub struct FilesystemOptions {
    wait: Duration,
    pub(super) read_only: bool,
    pub(super) record_cache: u64,
    pub(super) upload_memory: usize,
    pub(super) open_files: usize,
    pub(super) reserve: u64,
    pub(super) download_memory: usize,
    pub(super) disk: Arc<dyn Disk>,
}

impl Default for FilesystemOptions {
    fn default() -> Self {
        Self {
            wait: Duration::ZERO,
            read_only: false,
            record_cache: 8 << 20,
            upload_memory: 12 << 20,
            download_memory: 24 << 20,
            open_files: 512,
            reserve: 8 << 20,
            disk: Arc::new(RealDisk),
        }
    }
}

impl FilesystemOptions {
    /// Returns the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits at most `limit` until the root is free; [`Duration::MAX`] waits for ever. By default it does not wait.
    #[must_use]
    pub fn wait(mut self, limit: Duration) -> Self {
        self.wait = limit;
        self
    }

    /// Writes nothing below the root, so that it may be on a read-only medium. Any number of processes may read it this
    /// way, and none may write to it meanwhile. If the root has no records, they are kept in memory and are empty at
    /// first; an adoption of a [`Tree`](crate::distribution::Tree) fills them. The default is to write.
    #[must_use]
    pub fn read_only(mut self, is_read_only: bool) -> Self {
        self.read_only = is_read_only;
        self
    }

    /// Keeps at most about `bytes` of records in memory. The default is 8 MiB.
    #[must_use]
    pub fn record_cache(mut self, bytes: u64) -> Self {
        self.record_cache = bytes;
        self
    }

    /// Limits the memory for the chunks of all downloads together to `bytes`; once that is used up, each download gets
    /// 16 KiB. The less is left, the smaller the chunks are, so that clients that stall do not keep others from
    /// reading. The default is 24 MiB.
    #[must_use]
    pub fn download_memory(mut self, bytes: usize) -> Self {
        self.download_memory = bytes;
        self
    }

    /// Limits the memory for the parts of all uploads together to `bytes`; once that is used up, each upload gets 24
    /// KiB. The less is left, the smaller the parts are. The default is 12 MiB.
    #[must_use]
    pub fn upload_memory(mut self, bytes: usize) -> Self {
        self.upload_memory = bytes;
        self
    }

    /// Limits the files of bytes that are open at once to `limit`, a quarter of them for writing. All readers of the
    /// same bytes share one file. A request that needs one more waits for at most five seconds and then fails with
    /// [`Unavailable`](registry_core::ErrorCode::Unavailable). The default is 512, which fits a process that may have
    /// 1024 files open; some 32 more are opened briefly or permanently.
    #[must_use]
    pub fn open_files(mut self, limit: usize) -> Self {
        self.open_files = limit;
        self
    }

    /// Reserves `bytes` of the disk for deletes, which have to write before they free anything. Once the disk is full
    /// and they use the reserve, nothing else may write until there is room for it again. The default is 8 MiB; 0
    /// reserves nothing.
    #[must_use]
    pub fn reserve(mut self, bytes: u64) -> Self {
        self.reserve = bytes;
        self
    }

    /// Sends the calls for bytes and folders to `disk`. Lock and records are always files of the machine.
    #[must_use]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = disk;
        self
    }

    /// Opens the store below `root`, and creates it if there is none.
    ///
    /// Cancel safety: a dropped future gives up waiting, and releases the root if it has it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(self, root: impl AsRef<Path>) -> Result<FilesystemBackend, OpenError> {
        let root = root.as_ref().to_owned();
        let lock = self.take_lock(&root).await?;
        let open = move || match self.read_only {
            true => FilesystemBackend::open_read_only(&root, lock, &self),
            false => FilesystemBackend::open_locked(&root, lock, &self),
        };
        spawn_blocking(open).await.unwrap_or(Err(OpenError::Stopped))
    }

    async fn take_lock(&self, root: &Path) -> Result<RootLock, OpenError> {
        // If the deadline overflows, there is none.
        let deadline = Instant::now().checked_add(self.wait);
        let mut is_announced = false;
        loop {
            let (path, is_read_only) = (root.to_owned(), self.read_only);
            let take = move || {
                if is_read_only {
                    try_share(&path)
                } else {
                    try_take(&path)
                }
            };
            let taken = spawn_blocking(take).await.unwrap_or(Err(OpenError::Stopped))?;
            let holder = match taken {
                Ok(lock) => return Ok(lock),
                Err(holder) => holder,
            };
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(OpenError::Held {
                    root: root.to_owned(),
                    holder,
                });
            }
            if !is_announced {
                tracing::info!(root = %root.display(), %holder, "waiting for the root");
                is_announced = true;
            }
            sleep(WAIT_INTERVAL).await;
        }
    }
}

pub(super) fn try_take(root: &Path) -> Result<Result<RootLock, Holder>, OpenError> {
    create_private_folder(root).map_err(|cause| OpenError::Disk {
        path: root.to_owned(),
        cause,
    })?;
    RootLock::try_take(root).map_err(|cause| OpenError::Disk {
        path: root.join(LOCK_FILE),
        cause,
    })
}

fn try_share(root: &Path) -> Result<Result<RootLock, Holder>, OpenError> {
    RootLock::try_share(root).map_err(|cause| OpenError::Disk {
        path: root.to_owned(),
        cause,
    })
}
