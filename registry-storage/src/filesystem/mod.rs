//! One disk: records in SQLite, bytes in plain files, owned by one process.
//!
//! ```text
//! <root>/registry.lock              held by the process that owns the root, and says which one it is
//! <root>/records.sqlite             records, with SQLite's log beside it
//! <root>/bytes/<yyyymmdd>/<uuid>    bytes
//! ```
//! A sequence of record steps is one savepoint in a transaction that concurrent sequences share. Bytes and the names
//! of their files are synced before the commit that makes them visible, and a sequence is answered after its commit.

pub mod backup;
mod cache;
mod content;
pub mod disk;
mod file_writer;
mod files;
mod health;
mod lock;
mod migration;
mod options;
mod queries;
mod readers;
mod reads;
mod records;
#[cfg(test)]
mod tests;
mod transaction;
#[cfg(feature = "testing")]
pub mod volatile;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use registry_core::Error;
use registry_core::storage::BlobContent;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use self::content::FileContent;
use self::file_writer::FileWriter;
use self::files::{Files, blocking};
use self::health::{Health, closed};
use self::lock::RootLock;
use self::reads::Reads;
use self::records::RecordStore;
use crate::backend::{
    Backend, BytesWriter, Durability, Entry, Expect, MemoryPermit, Sequence, Stored, Unfinished, WriteGuard,
};
use crate::bytes_name::BytesName;
use crate::key::Key;

pub(crate) use self::files::LinkError;
pub use self::lock::Holder;
pub use self::options::{FilesystemOptions, OpenError};
pub use self::reads::READ_THREADS;

const LOCK_FILE: &str = "registry.lock";
const RECORDS_FILE: &str = "records.sqlite";
/// The folder of bytes below a root.
pub(crate) const BYTES_FOLDER: &str = "bytes";

/// The size of an upload's part in bytes: what one write takes, and what an upload has in memory.
const PART_SIZE: usize = 256 * 1024;
/// The size of a part in bytes where the memory for uploads is used up.
const SMALL_PART: usize = 32 * 1024;
/// The largest blob in bytes that is kept in its record.
const TAIL_LIMIT: usize = 16 * 1024;

/// Tells whether there is a store below `root`.
#[must_use]
pub fn is_root(root: &Path) -> bool {
    root.join(RECORDS_FILE).is_file()
}

/// A store on one disk. This process owns the root for as long as the value lives and until [`close`](Backend::close).
#[derive(Debug)]
pub struct FilesystemBackend {
    records: RecordStore,
    /// None once the store was closed, so that the root is released when the last write ends.
    files: RwLock<Option<Arc<Files>>>,
    reads: Arc<Reads>,
    /// Memory for parts, in kibibytes.
    upload_memory: Arc<Semaphore>,
    epoch: Option<String>,
    root: PathBuf,
    /// Deletes of bytes share it; a backup has it alone.
    deletes: Arc<tokio::sync::RwLock<()>>,
}

impl FilesystemBackend {
    /// Opens the store below `root` with the default [`FilesystemOptions`], and makes it if there is none.
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

    /// Returns how many commits the records had since the store was opened. Concurrent sequences share one.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.records.commits()
    }

    /// Opens a root that this process owns. Blocks.
    fn open_locked(root: &Path, lock: RootLock, options: &FilesystemOptions) -> Result<Self, OpenError> {
        let (lock, health) = (Arc::new(lock), Arc::new(Health::default()));
        let disk = &options.disk;
        let folder = root.join(BYTES_FOLDER);
        match disk.create_folder(&folder) {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {
                return Err(OpenError::Disk { path: folder, cause });
            }
            _ => {}
        }
        let records = RecordStore::open(
            root.join(RECORDS_FILE),
            options.record_cache,
            Arc::clone(&health),
            Arc::clone(disk),
            Arc::clone(&lock),
        )?;
        disk.sync_folder(root).map_err(|cause| OpenError::Disk {
            path: root.to_owned(),
            cause,
        })?;
        Ok(Self {
            records,
            files: RwLock::new(Some(Arc::new(Files::new(Arc::clone(disk), health, folder, lock)))),
            reads: Arc::default(),
            upload_memory: Arc::new(Semaphore::new(in_units(options.upload_memory))),
            epoch: disk.epoch(),
            root: root.to_owned(),
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
    async fn get(&self, key: &Key) -> Result<Option<Stored>, Error> {
        self.records.get(key).await
    }

    async fn get_all(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, Error> {
        self.records.get_all(keys).await
    }

    async fn sizes(&self, keys: &[Key]) -> Result<Vec<Option<u64>>, Error> {
        self.records.sizes(keys).await
    }

    async fn list(&self, prefix: &Key, after: Option<&Key>, limit: usize) -> Result<Vec<Entry>, Error> {
        self.records.list(prefix, after, limit).await
    }

    async fn transact<S: Sequence>(&self, durability: Durability, sequence: S) -> Result<S::Output, Error> {
        self.records.transact(durability, sequence).await
    }

    fn epoch(&self) -> Option<&str> {
        self.epoch.as_deref()
    }

    fn part_size(&self, _offset: u64) -> usize {
        PART_SIZE
    }

    fn tail_limit(&self, offset: u64) -> usize {
        if offset == 0 { TAIL_LIMIT } else { 0 }
    }

    fn must_reserve_parts(&self) -> bool {
        false
    }

    async fn reserve_memory(&self, size: usize) -> MemoryPermit {
        let units = u32::try_from(in_units(size)).unwrap_or(u32::MAX);
        match Arc::clone(&self.upload_memory).try_acquire_many_owned(units) {
            Ok(permit) => MemoryPermit::new(size, Some(permit)),
            Err(_) => MemoryPermit::new(size.min(SMALL_PART), None),
        }
    }

    async fn begin_bytes(&self, _name: &BytesName) -> Result<Option<String>, Error> {
        Ok(None)
    }

    async fn write_bytes(
        &self,
        bytes: &Unfinished,
        guard: WriteGuard,
    ) -> Result<Box<dyn BytesWriter>, Error> {
        Ok(Box::new(FileWriter::new(
            self.files()?,
            bytes.name.clone(),
            guard,
        )))
    }

    async fn seal_bytes(&self, bytes: &Unfinished, size: u64) -> Result<(), Error> {
        let (files, name) = (self.files()?, bytes.name.clone());
        blocking(move || files.seal(&name, size)).await
    }

    async fn open_bytes(
        &self,
        name: &BytesName,
        expect: Expect,
    ) -> Result<Option<Arc<dyn BlobContent>>, Error> {
        let (files, name) = (self.files()?, name.clone());
        let (path, reads) = (Arc::new(files.path(&name)), Arc::clone(&self.reads));
        let open = move || match (files.open(&name)?, expect) {
            (Some(file), Expect::Size(size) | Expect::SizeNow(size)) => {
                Ok((files.length(&name, &*file)? == size).then_some(file))
            }
            (file, _) => Ok(file),
        };
        let file = self.reads.begin(&path, open).await?;
        Ok(file.map(|file| Arc::new(FileContent { file, path, reads }) as Arc<dyn BlobContent>))
    }

    async fn bytes_size(&self, name: &BytesName) -> Result<Option<u64>, Error> {
        let (files, name) = (self.files()?, name.clone());
        blocking(move || files.size(&name)).await
    }

    /// Does nothing: the file is listed as bytes, and the sweeper deletes it.
    async fn abort_bytes(&self, _bytes: &Unfinished) -> Result<(), Error> {
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

    async fn close(&self) -> Result<(), Error> {
        if let Ok(mut files) = self.files.write() {
            *files = None;
        }
        self.records.close().await
    }
}

/// Returns how many kibibytes hold `bytes`, at least one.
fn in_units(bytes: usize) -> usize {
    bytes.div_ceil(1024).clamp(1, Semaphore::MAX_PERMITS)
}
