//! The storage that a server was told to use, whatever its kind.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use registry_core::{Error, Storage};
use registry_storage::filesystem::FilesystemOptions;
use registry_storage::{Backend, ObjectStoreBackend, Store, Sweeper};

use crate::config::sections::storage;
use crate::failure::Failure;

/// Where a registry keeps its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StorageLocation {
    Memory,
    Folder(PathBuf),
    Bucket(String),
}

impl StorageLocation {
    /// What the configuration says.
    ///
    /// # Errors
    /// Where it names no storage.
    pub(crate) fn of(storage: &storage::Storage) -> Result<Self, Failure> {
        if let Some(filesystem) = &storage.filesystem {
            return Ok(Self::Folder(filesystem.root.clone()));
        }
        if let Some(s3) = &storage.s3 {
            let prefix = s3.root.as_deref().unwrap_or_default().trim_matches('/');
            return Ok(Self::Bucket(format!("s3://{}/{prefix}", s3.bucket)));
        }
        if storage.in_memory.is_some() {
            return Ok(Self::Memory);
        }
        Err(Failure::new("the configuration names no storage"))
    }
}

impl fmt::Display for StorageLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory (gone when the server ends)"),
            Self::Folder(path) => path.display().fmt(f),
            Self::Bucket(url) => f.write_str(url),
        }
    }
}

/// How often a disk is swept, and memory.
const SWEEP_INTERVAL: Duration = Duration::from_hours(1);

/// How often a bucket is swept: a sweep reads every blob's record, and each read costs.
const BUCKET_SWEEP_INTERVAL: Duration = Duration::from_hours(24);

/// A storage that is open.
pub(crate) struct OpenStorage {
    pub(crate) storage: Arc<dyn Storage>,
    sweeper: Sweeper,
    close: Box<dyn FnOnce() -> Closing + Send>,
}

type Closing = std::pin::Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

impl OpenStorage {
    /// Opens a storage. With `wait`, waits for another process that has it.
    pub(crate) async fn open(location: &StorageLocation, wait: bool) -> Result<Self, Failure> {
        match location {
            StorageLocation::Memory => Ok(Self::over(ObjectStoreBackend::memory(), SWEEP_INTERVAL)),
            StorageLocation::Bucket(url) => {
                let failed = || Failure::new(format!("cannot use {url}"));
                let backend = ObjectStoreBackend::from_url(url).map_err(|cause| failed().because(cause))?;
                Ok(Self::over(backend, BUCKET_SWEEP_INTERVAL))
            }
            StorageLocation::Folder(root) => {
                let failed = || Failure::new(format!("cannot store in {}", root.display()));
                std::fs::create_dir_all(root).map_err(|cause| failed().because(cause))?;
                let options =
                    FilesystemOptions::new().wait(if wait { Duration::MAX } else { Duration::ZERO });
                let backend = options
                    .open(root)
                    .await
                    .map_err(|cause| failed().because(cause))?;
                Ok(Self::over(backend, SWEEP_INTERVAL))
            }
        }
    }

    fn over<B: Backend>(backend: B, sweep_interval: Duration) -> Self {
        let store = Arc::new(Store::new(backend));
        let sweeper = Sweeper::start(Arc::clone(&store), sweep_interval);
        let storage = Arc::clone(&store) as Arc<dyn Storage>;
        Self {
            storage,
            sweeper,
            close: Box::new(move || Box::pin(async move { store.close().await })),
        }
    }

    /// Ends background work and makes everything durable.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        self.sweeper.shutdown().await;
        (self.close)()
            .await
            .map_err(|cause| Failure::new("the storage was not closed in order").because(cause))
    }
}
