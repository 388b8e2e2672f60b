//! How a root is opened.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::disk::{Disk, RealDisk};
use super::lock::{Holder, RootLock};
use super::open_error::OpenError;
use super::{FilesystemBackend, LOCK_FILE, create_private_folder};

/// The interval at which a root that another process holds is tried.
const WAIT_INTERVAL: Duration = Duration::from_millis(15);

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
