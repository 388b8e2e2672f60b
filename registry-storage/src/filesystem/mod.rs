//! One disk: records in SQLite, bytes in plain files, owned by one process.
//!
//! ```text
//! <root>/registry.lock              held by the process that owns the root, and says which one it is
//! <root>/records.sqlite             records, with SQLite's log next to it
//! <root>/bytes/<yyyymmdd>/<uuid>    bytes
//! <root>/reserve                    space that deletes may use on a full disk
//! ```
//! A transaction is one savepoint in a transaction of SQLite, which concurrent transactions share. Bytes and the names
//! of their files are synced before the commit that makes them visible, and a transaction is answered after its commit.

pub mod backup;
mod cache;
mod chunk_memory;
mod command;
mod content;
pub mod disk;
mod failure;
mod file_writer;
mod files;
mod health;
mod last_change;
mod linked;
mod lock;
mod migration;
mod open_error;
mod opened;
mod options;
mod origin;
mod queries;
mod read_only;
mod readers;
mod reads;
mod records;
mod reopen;
mod reserve;
mod rights;
mod store_id;
#[cfg(test)]
mod tests;
mod transaction;
#[cfg(feature = "testing")]
pub mod volatile;
mod writer;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};

use registry_core::Error;
use registry_core::storage::BlobContent;
use rusqlite::Connection;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use self::chunk_memory::ChunkMemory;
use self::content::FileContent;
use self::failure::lacks_space;
use self::file_writer::FileWriter;
use self::files::{Files, blocking};
use self::health::{WriteHealth, closed};
use self::lock::RootLock;
use self::opened::OpenedFiles;
use self::queries::Medium;
use self::reads::Reads;
use self::records::{Opened, RecordStore, WriterParts};
use self::reserve::Reserve;
pub use self::rights::create_private_folder;
use self::rights::{Rights, create_file_if_missing};
use crate::backend::{
    Backend, BytesWriter, Durability, Expect, MemoryPermit, RecordEntry, StagedBytes, Transaction,
    VersionedRecord, WriteGuard, WriteState,
};
use crate::bytes_name::BytesName;
use crate::key::Key;
use crate::seen_bytes::SeenBytes;
use crate::sqlite_head;

pub(crate) use self::files::LinkError;
pub use self::lock::Holder;
pub use self::open_error::OpenError;
pub use self::options::FilesystemOptions;
pub use self::read_only::{check_records, is_writable, own_files, require_usable, unusable};
pub use self::reads::FILE_THREADS;

const LOCK_FILE: &str = "registry.lock";
/// Names the records that belong to the root.
const ID_FILE: &str = "registry.id";
const RECORDS_FILE: &str = "records.sqlite";
/// The file of the reserve.
const RESERVE_FILE: &str = "reserve";
/// A file that exists while a probe finds out whether there is space.
const SPACE_PROBE: &str = "space-probe";
/// The folder of bytes below a root.
pub(crate) const BYTES_FOLDER: &str = "bytes";

/// The size of an upload's part in bytes: what one write takes, and what an upload holds in memory.
const PART_BYTES: usize = 256 * 1024;
/// The size of a part in bytes when the memory for uploads is used up.
const SMALL_PART_BYTES: usize = 24 * 1024;
/// A part takes at most 1/`PART_SHARE_DIVISOR` of the free memory for uploads.
const PART_SHARE_DIVISOR: usize = 8;
/// The largest blob in bytes that is kept in its record.
const TAIL_BYTES: usize = 16 * 1024;

/// Returns whether there is a store below `root`.
///
/// # Errors
/// Those of the file system, such as `PermissionDenied` if this process may not enter the folder.
pub fn is_root(root: &Path) -> io::Result<bool> {
    match fs::metadata(root.join(RECORDS_FILE)) {
        Ok(found) => Ok(found.is_file()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Fails if there are bytes but no records: the store would begin anew, and its first sweep would delete all the bytes.
/// The file may be gone, be empty, or be a database to which nothing was written, such as one whose log was removed.
fn require_records(root: &Path) -> Result<(), OpenError> {
    let path = root.join(RECORDS_FILE);
    let [_, log, ..] = sqlite_head::with_logs(&path);
    let has_log = || log.metadata().is_ok_and(|log| log.len() > 0);
    let has_records = path.metadata().is_ok_and(|file| file.len() > 0)
        && (has_log() || !matches!(sqlite_head::user_version(&path), Ok(0)));
    if has_records || !has_bytes(root) {
        Ok(())
    } else {
        Err(OpenError::RecordsLost {
            path,
            bytes: root.join(BYTES_FOLDER),
        })
    }
}

/// Returns whether there are bytes of blobs. A start that was killed before it made records may have left folders.
fn has_bytes(root: &Path) -> bool {
    let has_some = |folder: &Path| fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    let days = fs::read_dir(root.join(BYTES_FOLDER))
        .into_iter()
        .flatten()
        .flatten();
    days.into_iter()
        .any(|day| day.file_type().is_ok_and(|kind| kind.is_file()) || has_some(&day.path()))
}

/// A store on one disk. This process owns the root for as long as the value lives and until [`close`](Backend::close).
///
/// What was answered survives a kill and a loss of power.
///
/// ```
/// use std::sync::Arc;
///
/// use registry_storage::filesystem::FilesystemBackend;
/// use registry_storage::{Maintenance, Store};
///
/// async fn open(folder: &std::path::Path) -> Result<Arc<dyn Maintenance>, Box<dyn std::error::Error>> {
///     Ok(Arc::new(Store::new(FilesystemBackend::open(folder).await?)))
/// }
/// ```
#[derive(Debug)]
pub struct FilesystemBackend {
    records: RecordStore,
    health: Arc<WriteHealth>,
    /// `None` once the store was closed, so that the root is released when the last write ends.
    files: RwLock<Option<Arc<Files>>>,
    reads: Arc<Reads>,
    writes: Arc<Reads>,
    /// Memory for parts, in kibibytes.
    upload_memory: Arc<Semaphore>,
    download_memory: ChunkMemory,
    seen: SeenBytes,
    epoch: Option<String>,
    root: PathBuf,
    is_read_only: bool,
    /// The folder is a copy of the one in which the records were written.
    is_copy: AtomicBool,
    /// Deletes of bytes share it; a backup holds it alone.
    deletes: Arc<tokio::sync::RwLock<()>>,
}

impl FilesystemBackend {
    /// Opens the store below `root` with the default [`FilesystemOptions`], and creates it if there is none.
    ///
    /// If another process has it open, this fails with [`OpenError::Held`]; [`FilesystemOptions::wait`] waits for it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(root: impl AsRef<Path>) -> Result<Self, OpenError> {
        FilesystemOptions::new().open(root).await
    }

    /// Returns the root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns how many commits the records had since the store was opened. Concurrent transactions share a commit.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.records.commits()
    }

    /// Opens a root that this process owns. Blocks.
    fn open_locked(root: &Path, lock: RootLock, options: &FilesystemOptions) -> Result<Self, OpenError> {
        let lock = Arc::new(lock);
        let disk = &options.disk;
        let folder = root.join(BYTES_FOLDER);
        let failed = |cause| OpenError::Disk {
            path: root.to_owned(),
            cause,
        };
        let path = root.join(RECORDS_FILE);
        sqlite_head::require_place(&path).map_err(|cause| OpenError::Disk {
            path: path.clone(),
            cause,
        })?;
        require_records(root)?;
        let rights = Rights::below(root).map_err(failed)?;
        rights.tighten(root);
        match disk.create_folder(&folder, rights.folder()) {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {
                return Err(OpenError::Disk { path: folder, cause });
            }
            _ => {}
        }
        lock.hold_bytes()
            .map_err(failed)?
            .map_err(|holder| OpenError::Held {
                root: root.to_owned(),
                holder,
            })?;
        // SQLite gives its other files the mode of this file.
        create_file_if_missing(&path, rights.file()).map_err(failed)?;
        let connection = open_records(root)?;
        store_id::bind(root, &connection, rights)?;
        let reserve = Reserve::new(root, options.reserve);
        if !reserve.is_held() {
            // Copying the log back, which mostly needs no space, may free enough for the reserve.
            drop(queries::checkpoint(&connection));
            reserve.make();
        }
        lock.know_records().map_err(failed)?;
        let parts = WriterParts {
            health: Arc::default(),
            disk: Arc::clone(disk),
            lock,
            reserve: Arc::new(reserve),
        };
        let path = root.join(RECORDS_FILE);
        // A full disk on which this cannot be found out or recorded is no reason not to start.
        let is_copy = origin::is_copy(&connection, &path).unwrap_or_default();
        origin::claim_if_free(&connection, &path).unwrap_or_default();
        let records = Opened {
            connection,
            medium: Medium::Files,
            path,
            is_copy,
        };
        let backend = Self::start(root, records, rights, parts, options)?;
        let synced = disk.open_folder(root).and_then(|folder| folder.sync());
        synced.map_err(failed)?;
        Ok(backend)
    }

    /// Starts the threads that read and write records that were opened.
    fn start(
        root: &Path,
        records: Opened,
        rights: Rights,
        parts: WriterParts,
        options: &FilesystemOptions,
    ) -> Result<Self, OpenError> {
        let (health, epoch) = (Arc::clone(&parts.health), parts.disk.epoch());
        let files = Files::new(
            &parts,
            OpenedFiles::new(options.open_files),
            rights,
            root.join(BYTES_FOLDER),
        );
        let is_read_only = options.read_only;
        let is_copy = records.is_copy;
        if is_copy {
            tracing::warn!(
                root = %root.display(),
                "this folder is a copy of the one that its records were written in: one that was made while a server wrote \
                 there may be broken, or lack what came last; run `registry-bin check`, which takes it for the original where \
                 nothing is broken"
            );
        }
        Ok(Self {
            records: RecordStore::start(records, options.record_cache, parts)?,
            health,
            files: RwLock::new(Some(Arc::new(files))),
            reads: Arc::new(Reads::new()),
            writes: Arc::new(Reads::of_writes()),
            upload_memory: Arc::new(Semaphore::new(in_units(options.upload_memory))),
            download_memory: ChunkMemory::new(options.download_memory),
            seen: SeenBytes::default(),
            epoch,
            root: root.to_owned(),
            is_read_only,
            is_copy: AtomicBool::new(is_copy),
            deletes: Arc::default(),
        })
    }

    /// Gives files of the same file system names of bytes, durably.
    pub(crate) async fn link_bytes(&self, links: Vec<(BytesName, PathBuf)>) -> Result<(), LinkError> {
        let files = self.files()?;
        spawn_blocking(move || files.link(&links))
            .await
            .unwrap_or_else(|cause| Err(Error::internal(cause).into()))
    }

    fn files(&self) -> Result<Arc<Files>, Error> {
        self.files
            .read()
            .ok()
            .and_then(|files| files.clone())
            .ok_or_else(closed)
    }
}

impl Backend for FilesystemBackend {
    async fn get(&self, key: &Key) -> Result<Option<VersionedRecord>, Error> {
        self.records.get(key).await
    }

    async fn get_all(&self, keys: &[Key]) -> Result<Vec<Option<VersionedRecord>>, Error> {
        self.records.get_all(keys).await
    }

    async fn sizes(&self, keys: &[Key]) -> Result<Vec<Option<u64>>, Error> {
        self.records.sizes(keys).await
    }

    async fn list(&self, prefix: &Key, after: Option<&Key>, limit: usize) -> Result<Vec<RecordEntry>, Error> {
        self.records.list(prefix, after, limit).await
    }

    async fn transact<S: Transaction>(
        &self,
        durability: Durability,
        transaction: S,
    ) -> Result<S::Output, Error> {
        self.records.transact(durability, transaction).await
    }

    fn epoch(&self) -> Option<&str> {
        self.epoch.as_deref()
    }

    fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    fn is_atomic(&self) -> bool {
        true
    }

    fn is_short_of_space(&self) -> bool {
        self.files().is_ok_and(|files| files.reserve.is_short())
    }

    /// After a failed sync the store writes again by itself once its records were reopened and are whole. If writing
    /// ended for another reason, an operator has to act.
    fn write_state(&self) -> WriteState {
        let files = self.files().ok();
        WriteState {
            is_read_only: self.is_read_only,
            stopped: self.health.reason(),
            lacks_space: files.as_ref().and_then(|files| files.reserve.shortage()),
            space: files.and_then(|files| files.reserve.space()),
        }
    }

    fn part_size(&self, _offset: u64) -> usize {
        PART_BYTES
    }

    fn tail_limit(&self, offset: u64) -> usize {
        if offset == 0 { TAIL_BYTES } else { 0 }
    }

    fn must_record_parts(&self) -> bool {
        false
    }

    fn can_read_staged_bytes(&self) -> bool {
        true
    }

    async fn reserve_memory(&self, size: usize) -> MemoryPermit {
        // A client that stops in the middle of a part holds it. The less memory is free, the less each part gets, so
        // that clients that send nothing never use it up.
        let free = self.upload_memory.available_permits().saturating_mul(1024);
        let size = size.min((free / PART_SHARE_DIVISOR).max(SMALL_PART_BYTES));
        let units = u32::try_from(in_units(size)).unwrap_or(u32::MAX);
        match Arc::clone(&self.upload_memory).try_acquire_many_owned(units) {
            Ok(permit) => MemoryPermit::new(size, Some(permit)),
            Err(_) => MemoryPermit::new(size.min(SMALL_PART_BYTES), None),
        }
    }

    async fn begin_bytes(&self, _name: &BytesName) -> Result<Option<String>, Error> {
        Ok(None)
    }

    async fn write_bytes(
        &self,
        bytes: &StagedBytes,
        guard: WriteGuard,
    ) -> Result<Box<dyn BytesWriter>, Error> {
        Ok(Box::new(FileWriter::new(
            self.files()?,
            Arc::clone(&self.writes),
            bytes.name.clone(),
            guard,
        )))
    }

    async fn seal_bytes(&self, bytes: &StagedBytes, size: u64) -> Result<(), Error> {
        let (files, name) = (self.files()?, bytes.name.clone());
        let path = Arc::new(files.path(&name));
        self.writes.begin(&path, move || files.seal(&name, size)).await?;
        self.seen.insert(&bytes.name);
        Ok(())
    }

    async fn shorten_bytes(&self, bytes: &StagedBytes, size: u64, guard: WriteGuard) -> Result<(), Error> {
        let (files, name) = (self.files()?, bytes.name.clone());
        let path = Arc::new(files.path(&name));
        let shorten = move || {
            let _guard = guard;
            files.shorten(&name, size)
        };
        self.writes.begin(&path, shorten).await
    }

    async fn open_bytes(
        &self,
        name: &BytesName,
        expect: Expect,
    ) -> Result<Option<Arc<dyn BlobContent>>, Error> {
        let files = self.files()?;
        let reads = Arc::clone(&self.reads);
        let (path, name, lost) = (Arc::new(files.path(name)), name.clone(), name);
        let size = match expect {
            Expect::Nothing => None,
            Expect::Size(size) | Expect::SizeNow(size) => Some(size),
        };
        // A file that is being read still exists for new readers after its name is gone.
        let shared = match expect {
            Expect::SizeNow(_) => None,
            Expect::Nothing | Expect::Size(_) => files.opened.find(&name),
        };
        let opened = match (shared, size) {
            (Some(opened), None) => Some(opened),
            (Some(opened), Some(size)) => {
                let check = move || {
                    let length = files.length(&name, &*opened.file)?;
                    Ok((length == size).then_some(opened))
                };
                self.reads.begin(&path, check).await?
            }
            (None, size) => {
                let permit = files.opened.may_read().await?;
                let open = move || files.open_shared(&name, size, permit);
                self.reads.begin(&path, open).await?
            }
        };
        let memory = self.download_memory.clone();
        if opened.is_none() {
            self.seen.remove(lost);
        }
        let content = |opened| FileContent {
            opened,
            reads,
            memory,
        };
        Ok(opened.map(|opened| Arc::new(content(opened)) as _))
    }

    async fn bytes_size(&self, name: &BytesName) -> Result<Option<u64>, Error> {
        let (files, name) = (self.files()?, name.clone());
        let path = Arc::new(files.path(&name));
        self.reads.begin(&path, move || files.size(&name)).await
    }

    fn has_near_bytes(&self) -> bool {
        true
    }

    async fn are_whole(&self, bytes: &[(BytesName, u64)]) -> Result<Vec<bool>, Error> {
        let is_unseen = |(name, _): &&(BytesName, u64)| !self.seen.contains(name);
        let unseen: Vec<(BytesName, u64)> = bytes.iter().filter(is_unseen).cloned().collect();
        let mut lost = BTreeSet::new();
        if let Some((first, _)) = unseen.first() {
            let files = self.files()?;
            let path = Arc::new(files.path(first));
            let look = move || {
                let mut looked = Vec::with_capacity(unseen.len());
                for (name, size) in unseen {
                    let is_whole = files.size(&name)? == Some(size);
                    looked.push((name, is_whole));
                }
                Ok(looked)
            };
            for (name, is_whole) in self.reads.begin(&path, look).await? {
                if is_whole {
                    self.seen.insert(&name);
                } else {
                    lost.insert(name);
                }
            }
        }
        Ok(bytes.iter().map(|(name, _)| !lost.contains(name)).collect())
    }

    async fn forget_cached(&self, name: &BytesName, range: Range<u64>) -> Result<(), Error> {
        let (files, name) = (self.files()?, name.clone());
        let path = Arc::new(files.path(&name));
        let forget = move || files.forget_cached(&name, range);
        self.reads.begin(&path, forget).await
    }

    /// Does nothing: the file is deleted as bytes are.
    async fn abort_bytes(&self, _bytes: &StagedBytes) -> Result<(), Error> {
        Ok(())
    }

    async fn delete_bytes(&self, name: &BytesName) -> Result<(), Error> {
        let (files, name) = (self.files()?, name.clone());
        let shared = Arc::clone(&self.deletes).read_owned().await;
        let delete = move || {
            let deleted = files.delete(&name);
            drop(shared);
            deleted
        };
        blocking(delete).await
    }

    async fn list_bytes(&self, after: Option<&BytesName>, limit: usize) -> Result<Vec<BytesName>, Error> {
        let (files, after) = (self.files()?, after.cloned());
        blocking(move || files.list(after.as_ref(), limit)).await
    }

    /// Reads a record and a byte from their files, and asks the writer thread whether it writes.
    async fn probe(&self) -> Result<(), Error> {
        self.health.check()?;
        self.records.probe().await?;
        let files = self.files()?;
        let probe = move || {
            files.reserve.look();
            files.probe()
        };
        self.reads.begin(&Arc::new(self.root.clone()), probe).await
    }

    async fn close(&self) -> Result<(), Error> {
        if let Ok(mut files) = self.files.write() {
            *files = None;
        }
        self.records.close().await
    }
}

/// Opens the records; on a full disk, with the space that is reserved for deletes.
fn open_records(root: &Path) -> Result<Connection, OpenError> {
    let path = root.join(RECORDS_FILE);
    let open = || records::open(&path, Medium::Files, !has_bytes(root));
    match open() {
        Err(cause @ (OpenError::Records { .. } | OpenError::Migration { .. }))
            if lacks_space(root) && Reserve::remove(root) =>
        {
            tracing::warn!(%cause, "the disk is full; the space that was kept for deletes is used to open the records");
            open()
        }
        opened => opened,
    }
}

/// Returns how many kibibytes hold `bytes`, at least one.
fn in_units(bytes: usize) -> usize {
    bytes.div_ceil(1024).clamp(1, Semaphore::MAX_PERMITS)
}
