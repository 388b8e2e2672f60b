//! The storage that a server uses, of any kind.

use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use registry_core::Storage;
use registry_core::quota::Quota;
use registry_core::retention::Retention;
use registry_storage::filesystem::{FilesystemOptions, create_private_folder};
use registry_storage::object_store::BlobCache;
use registry_storage::{
    Backend, Collector, LargestRepositories, Maintenance, ObjectStoreBackend, PullRecorder, QuotaCounter,
    QuotaUsage, ScrubOptions, Scrubber, Store, StoreOptions, Sweeper, SystemClock,
};
use tokio::sync::watch;

use crate::blob_cache::with_cache;
use crate::bucket::Bucket;
use crate::config::Configuration;
use crate::config::sections::quotas::quotas;
use crate::config::sections::storage;
use crate::failure::Failure;
use crate::kernel_files;
use crate::ownership::{self, WithOwner as _};
use crate::redirects::Redirects;

/// Where a registry stores its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StorageLocation {
    Memory,
    Folder(PathBuf),
    Bucket(Box<Bucket>),
}

impl StorageLocation {
    /// Returns the location that the configuration names.
    ///
    /// # Errors
    /// If it names none.
    pub(crate) fn of(storage: &storage::Storage) -> Result<Self, Failure> {
        if let Some(filesystem) = &storage.filesystem {
            return Ok(Self::Folder(filesystem.root.to_path_buf()));
        }
        if let Some(bucket) = Bucket::of(storage) {
            return Ok(Self::Bucket(Box::new(bucket)));
        }
        if storage.in_memory.is_some() {
            return Ok(Self::Memory);
        }
        Err(Failure::new("the configuration names no storage"))
    }
}

impl StorageLocation {
    /// Returns the same text for two names of one place: a folder may be named through links.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::Folder(path) => {
                let canonical = path.canonicalize().or_else(|_| std::path::absolute(path));
                canonical.unwrap_or_else(|_| path.clone()).display().to_string()
            }
            other => other.to_string(),
        }
    }

    /// Returns the name of the driver, as in distribution.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Memory => "inmemory",
            Self::Folder(_) => "filesystem",
            Self::Bucket(bucket) => bucket.kind(),
        }
    }
}

impl fmt::Display for StorageLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory (gone when the server ends)"),
            Self::Folder(path) => path.display().fmt(f),
            Self::Bucket(bucket) => bucket.fmt(f),
        }
    }
}

/// How often a store is swept, and collected. Both look only at what changed.
const USUAL_INTERVAL: Duration = Duration::from_hours(1);

/// How often what was pulled is written down, if retention uses it.
const PULLS_INTERVAL: Duration = Duration::from_mins(1);

/// What is applied to a storage, now and after each change.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    pub(crate) retention: watch::Receiver<Arc<Retention>>,
    pub(crate) quotas: watch::Receiver<Arc<[Quota]>>,
}

/// An open storage.
pub(crate) struct OpenStorage {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) store: Arc<dyn Maintenance>,
    /// `None` if nothing is written.
    recorder: Option<PullRecorder>,
    /// `None` if nothing is written.
    sweeper: Option<Sweeper>,
    /// `None` if nothing is written, or nothing is to be collected without being asked.
    collector: Option<Collector>,
    /// `None` if nothing is written, or nothing is to be scrubbed.
    scrubber: Option<Scrubber>,
    /// `None` if nothing is written.
    quota_counter: Option<QuotaCounter>,
    /// `None` if all content comes from this server.
    pub(crate) redirects: Option<Redirects>,
    /// `None` unless blobs of a bucket are kept.
    pub(crate) blob_cache: Option<BlobCache>,
}

impl OpenStorage {
    /// Opens a storage, to which `applied` is applied, and which may keep `open_files` files of blobs open. With `wait`,
    /// waits for another process that has the folder, or until the bucket can be used.
    pub(crate) async fn open(
        location: &StorageLocation,
        configuration: &Configuration,
        applied: Applied,
        open_files: usize,
        wait: bool,
    ) -> Result<Self, Failure> {
        let maintenance = &configuration.storage.maintenance;
        match location {
            StorageLocation::Memory => {
                let store = store(ObjectStoreBackend::memory(), configuration);
                Ok(Self::over(store, configuration, applied, false))
            }
            StorageLocation::Bucket(bucket) => {
                let cache = &configuration.storage.cache;
                let (backend, blob_cache) = with_cache(bucket.open()?, cache, wait).await?;
                let store = store(backend.clone(), configuration);
                let is_written = !maintenance.read_only.enabled;
                bucket.reach(&backend, is_written, wait).await?;
                let redirects = Redirects::decide(&configuration.storage, &backend).await;
                Ok(Self {
                    redirects,
                    blob_cache,
                    ..Self::over(store, configuration, applied, true)
                })
            }
            StorageLocation::Folder(root) => {
                let is_read_only = !require_writable(root, maintenance)?;
                if !is_read_only {
                    ownership::warn_of_root(root);
                    create_private_folder(root)
                        .map_err(|cause| cannot_store(root).because(ownership::with_owner(root, cause)))?;
                    ownership::log_unusable_files(root);
                }
                let options = FilesystemOptions::new()
                    .open_files(open_files)
                    .read_only(is_read_only)
                    .wait(if wait { Duration::MAX } else { Duration::ZERO });
                let backend = options
                    .open(root)
                    .await
                    .map_err(|cause| cannot_store(root).because(cause.with_owner()))?;
                let store = store(backend, configuration);
                Ok(Self::over(store, configuration, applied, false))
            }
        }
    }

    fn over(
        store: Arc<dyn Maintenance>,
        configuration: &Configuration,
        applied: Applied,
        is_bucket: bool,
    ) -> Self {
        let Configuration {
            storage,
            collector,
            scrub,
            ..
        } = configuration;
        let maintenance = &storage.maintenance;
        // Nothing else opens a storage that cannot be written.
        let is_read_only = maintenance.read_only.enabled;
        let sweeps = maintenance.upload_purging.interval;
        let interval = sweeps.map_or(USUAL_INTERVAL, |interval| interval.0);
        let policies = Arc::clone(&applied.retention.borrow());
        if is_read_only && policies.uses_pulls() {
            tracing::warn!(
                "nothing is written (`storage.maintenance.readonly`), so pulls are not recorded, and servers that write to this storage \
                 do not know of them; if none records for an hour, everything counts as pulled when pulls are recorded again"
            );
        }
        let recorder =
            (!is_read_only).then(|| PullRecorder::start(Arc::clone(&store), policies, PULLS_INTERVAL));
        let storage = Arc::clone(&store) as Arc<dyn Storage>;
        let sweeper = (!is_read_only).then(|| Sweeper::start(Arc::clone(&store), interval));
        let collector = (collector.enabled && !is_read_only).then(|| {
            let options = collector.options();
            let interval = collector.interval.filter(|interval| !interval.0.is_zero());
            let interval = interval.map_or(USUAL_INTERVAL, |interval| interval.0);
            let named = configuration.http.debug.named_repositories();
            Collector::start_with_retention(Arc::clone(&store), options, interval, applied.retention, named)
        });
        let quota_counter = (!is_read_only).then(|| QuotaCounter::start(Arc::clone(&store), applied.quotas));
        let scrubber = (scrub.enabled.unwrap_or(!is_bucket) && !is_read_only).then(|| {
            let options = ScrubOptions::new()
                .bytes_per_second(scrub.rate.0)
                .every(scrub.every.0);
            Scrubber::start(Arc::clone(&store), options)
        });
        Self {
            storage: match &recorder {
                Some(recorder) => recorder.observe(storage),
                None => storage,
            },
            recorder,
            sweeper,
            collector,
            scrubber,
            quota_counter,
            redirects: None,
            blob_cache: None,
            store,
        }
    }

    /// Returns what is used of the quotas, in their order; `None` if nothing is written.
    pub(crate) fn quota_usage(&self) -> Option<watch::Receiver<Arc<[QuotaUsage]>>> {
        self.quota_counter.as_ref().map(QuotaCounter::usage)
    }

    /// Returns the largest repositories; `None` if nothing is collected.
    pub(crate) fn largest_repositories(&self) -> Option<watch::Receiver<Arc<LargestRepositories>>> {
        self.collector.as_ref().map(Collector::largest_repositories)
    }

    /// Stops background work and makes everything durable.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        if let Some(counter) = self.quota_counter {
            counter.shutdown().await;
        }
        if let Some(recorder) = self.recorder {
            recorder.shutdown().await;
        }
        if let Some(scrubber) = self.scrubber {
            scrubber.shutdown().await;
        }
        if let Some(collector) = self.collector {
            collector.shutdown().await;
        }
        if let Some(sweeper) = self.sweeper {
            sweeper.shutdown().await;
        }
        close(&*self.store).await
    }
}

/// Stops the background work of a store and makes everything durable.
pub(crate) async fn close(store: &dyn Maintenance) -> Result<(), Failure> {
    let closed = store.close().await;
    closed.map_err(|cause| Failure::new("the storage was not closed in order").because(cause))
}

/// Returns whether this process can write in a folder.
///
/// # Errors
/// If it cannot, and the configuration does not allow serving pulls only.
pub(crate) fn require_writable(root: &Path, maintenance: &storage::Maintenance) -> Result<bool, Failure> {
    let may_write = kernel_files::require_storage(root).and_then(|()| ownership::require_writable(root));
    match may_write {
        Ok(()) => Ok(true),
        Err(_) if maintenance.read_only.enabled => Ok(false),
        Err(cause) if is_denied(&cause) => Err(cannot_store(root).because(format!(
            "{cause}; to serve pulls from it all the same, say `storage.maintenance.readonly.enabled: true`"
        ))),
        Err(cause) => Err(cannot_store(root).because(cause)),
    }
}

fn is_denied(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

fn cannot_store(root: &Path) -> Failure {
    let key = "storage.filesystem.rootdirectory";
    Failure::of(key, format!("cannot store in {}", root.display()))
}

/// Returns the store over a backend, as the configuration says.
pub(crate) fn store<B: Backend>(backend: B, configuration: &Configuration) -> Arc<dyn Maintenance> {
    let purging = &configuration.storage.maintenance.upload_purging;
    let is_purging = purging.enabled && !purging.dry_run;
    let options = StoreOptions {
        upload_idle_limit: if is_purging { purging.age.0 } else { Duration::MAX },
        empty_upload_idle_limit: if is_purging {
            StoreOptions::default().empty_upload_idle_limit
        } else {
            Duration::MAX
        },
        open_uploads_limit: usize::try_from(purging.most_open).unwrap_or(usize::MAX),
        keep_deleted: configuration.collector.keep_deleted.0,
        only_reads: configuration.storage.maintenance.read_only.enabled,
        ..StoreOptions::default()
    };
    let store = Store::with_options(Arc::new(backend), Arc::new(SystemClock), options);
    // The configuration was checked.
    store.set_quotas(quotas(&configuration.quotas).unwrap_or_default());
    Arc::new(store)
}
