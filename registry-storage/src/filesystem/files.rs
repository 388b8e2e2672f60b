//! Bytes as files, `bytes/<yyyymmdd>/<uuid>`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use registry_core::{Error, ErrorCode};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;

use super::disk::{Access, Disk, DiskFile, DiskFolder};
use super::failure::file_error;
use super::health::{Cure, WriteHealth};
use super::lock::RootLock;
use super::opened::{OpenedBytes, OpenedFiles};
use super::records::WriterParts;
use super::reserve::Reserve;
use super::rights::Rights;
use crate::bytes_name::BytesName;

/// How many days are remembered as durable; if there are more, they only cost a sync.
const REMEMBERED_DAYS: usize = 32;

/// The files of a root. Every method blocks; [`blocking`] runs it where blocking is allowed.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) health: Arc<WriteHealth>,
    pub(super) opened: OpenedFiles,
    pub(super) reserve: Arc<Reserve>,
    rights: Rights,
    /// The folder `bytes`.
    folder: PathBuf,
    /// Days whose folder is known to be named durably in `folder`. Held while a folder is removed, and while one is
    /// created and gets its first file.
    durable_days: Mutex<BTreeSet<Box<str>>>,
    /// Bytes that a probe found.
    probed: Mutex<Option<BytesName>>,
    /// Held while a write may be in progress.
    lock: Arc<RootLock>,
}

/// A folder with its path.
type OpenedFolder = (PathBuf, Box<dyn DiskFolder>);

/// Why files did not get second names.
#[derive(Debug)]
pub(crate) enum LinkError {
    /// The system does not allow a second name for this file.
    Refused { file: PathBuf, cause: io::Error },
    /// Anything else.
    Storage(Error),
}

impl From<Error> for LinkError {
    fn from(error: Error) -> Self {
        Self::Storage(error)
    }
}

/// A file that is being written, and whether it was created for that.
#[derive(Debug)]
pub(super) struct OpenedFile {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) is_new: bool,
}

impl Files {
    pub(super) fn new(parts: &WriterParts, opened: OpenedFiles, rights: Rights, folder: PathBuf) -> Self {
        Self {
            disk: Arc::clone(&parts.disk),
            health: Arc::clone(&parts.health),
            opened,
            reserve: Arc::clone(&parts.reserve),
            rights,
            folder,
            durable_days: Mutex::default(),
            probed: Mutex::default(),
            lock: Arc::clone(&parts.lock),
        }
    }

    pub(super) fn path(&self, name: &BytesName) -> PathBuf {
        self.folder.join(name.as_str())
    }

    /// Opens a file for writing at `offset`. A file that is begun is created, with the folder of its day. A file that
    /// is continued must have what was written before: after a failed sync it was removed, and a hole must not take its
    /// place.
    pub(super) fn open_for_writing(&self, name: &BytesName, offset: u64) -> Result<OpenedFile, Error> {
        let path = self.path(name);
        match self.disk.open(&path, Access::Write) {
            Ok(file) => {
                let length = file.length().map_err(|cause| file_error("stat", &path, cause))?;
                if length < offset {
                    return Err(ErrorCode::BlobUploadUnknown.into());
                }
                return Ok(OpenedFile { file, is_new: false });
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                if offset > 0 {
                    return Err(ErrorCode::BlobUploadUnknown.into());
                }
            }
            Err(cause) => return Err(file_error("open", &path, cause)),
        }
        let created = match self.disk.create(&path, self.rights.file()) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                let _days = self.durable_days();
                self.create_day(name)?;
                self.disk.create(&path, self.rights.file())
            }
            other => other,
        };
        let file = created.map_err(|cause| file_error("create", &path, cause))?;
        Ok(OpenedFile { file, is_new: true })
    }

    /// Gives files second names, and makes them and the names durable. The files are never written to.
    pub(super) fn link(&self, links: &[(BytesName, PathBuf)]) -> Result<(), LinkError> {
        self.health.check()?;
        for (name, source) in links {
            let path = self.path(name);
            let linked = match self.disk.link(source, &path) {
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                    let _days = self.durable_days();
                    self.create_day(name)?;
                    self.disk.link(source, &path)
                }
                other => other,
            };
            linked.map_err(|cause| LinkError::Refused {
                file: source.clone(),
                cause,
            })?;
            // Its writer may not have synced it. If it did, this costs next to nothing.
            let file = self
                .disk
                .open(&path, Access::Read)
                .map_err(|cause| file_error("open", &path, cause))?;
            file.sync_data()
                .map_err(|cause| self.health.sync_failed(&path, cause))?;
        }
        let days: BTreeMap<&str, &BytesName> = links.iter().map(|(name, _)| (name.day(), name)).collect();
        for name in days.into_values() {
            self.sync_folders(name, self.open_folders(name)?)?;
        }
        Ok(())
    }

    /// Undoes what a failed write left after `offset`, as far as the disk allows it.
    pub(super) fn roll_back(&self, name: &BytesName, opened: &OpenedFile, offset: u64) {
        let path = self.path(name);
        let (call, result) = if opened.is_new {
            ("unlink", self.unlink(name))
        } else {
            (
                "truncate",
                self.reserve.freeing(|| opened.file.set_length(offset)),
            )
        };
        if let Err(cause) = result {
            drop(file_error(call, &path, cause));
        }
    }

    /// Cuts a file at `size`, or removes it if nothing is left.
    pub(super) fn shorten(&self, name: &BytesName, size: u64) -> Result<(), Error> {
        self.health.check()?;
        if size == 0 {
            self.delete(name)?;
            self.reserve.note_freed();
            return Ok(());
        }
        let path = self.path(name);
        let file = match self.disk.open(&path, Access::Write) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(|cause| file_error("open", &path, cause))?,
        };
        if file.length().map_err(|cause| file_error("stat", &path, cause))? > size {
            self.reserve
                .freeing(|| file.set_length(size))
                .map_err(|cause| file_error("truncate", &path, cause))?;
            self.reserve.note_freed();
        }
        Ok(())
    }

    /// Cuts a file at `size` and makes it and its name durable.
    pub(super) fn seal(&self, name: &BytesName, size: u64) -> Result<(), Error> {
        self.health.check()?;
        let path = self.path(name);
        let failed = |call| {
            let path = path.clone();
            move |cause| file_error(call, &path, cause)
        };
        let unknown = || Error::from(ErrorCode::BlobUploadUnknown);
        // A file that has its size already is never opened for writing: it may be a link to a file that other programs
        // keep.
        let file = self.open(name)?.ok_or_else(unknown)?;
        let length = file.length().map_err(failed("stat"))?;
        let file = match length {
            _ if length < size => return Err(unknown()),
            _ if length == size => file,
            _ => {
                let file = self.disk.open(&path, Access::Write).map_err(failed("open"))?;
                file.set_length(size).map_err(failed("truncate"))?;
                file
            }
        };
        // Before the sync: a folder that cannot be opened is no reason to discard the bytes.
        let folders = self.open_folders(name)?;
        let synced = file
            .sync_all()
            .map_err(|cause| self.health.sync_failed(&path, cause));
        synced
            .and_then(|()| self.sync_folders(name, folders))
            .inspect_err(|_| self.discard(name))
    }

    /// Removes a file that could not be synced. It was not promised to any client, and a sync that succeeds later, in
    /// another process, would prove nothing.
    pub(super) fn discard(&self, name: &BytesName) {
        let path = self.path(name);
        self.opened.forget(name);
        if let Err(cause) = self.unlink(name) {
            drop(file_error("unlink", &path, cause));
            let reason = "a sync of uploaded bytes failed, and their file cannot be removed";
            self.health.end_writing(reason, Cure::Restart);
        }
    }

    /// Opens a file that all its readers share.
    pub(super) fn open_shared(
        &self,
        name: &BytesName,
        size: Option<u64>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Option<Arc<OpenedBytes>>, Error> {
        let file = match (self.open(name)?, size) {
            (Some(file), Some(size)) => (self.length(name, &*file)? == size).then_some(file),
            (file, _) => file,
        };
        Ok(file.map(|file| self.opened.keep(name, Arc::new(self.path(name)), file, permit)))
    }

    /// Reads a byte of some file, if there is any.
    pub(super) fn probe(&self) -> Result<(), Error> {
        let known = self.probed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let found = match known.as_ref().map(|name| self.open(name)).transpose()?.flatten() {
            Some(file) => known.zip(Some(file)),
            None => match self.list(None, 1)?.pop() {
                Some(name) => self.open(&name)?.map(|file| (name, file)),
                None => None,
            },
        };
        let Some((name, file)) = found else { return Ok(()) };
        let read = match file.length() {
            Ok(0) => Ok(()),
            Ok(_) => file.read_at(&mut [0], 0),
            Err(cause) => Err(cause),
        };
        read.map_err(|cause| file_error("read", &self.path(&name), cause))?;
        *self.probed.lock().unwrap_or_else(PoisonError::into_inner) = Some(name);
        Ok(())
    }

    /// Opens a file for reading.
    pub(super) fn open(&self, name: &BytesName) -> Result<Option<Arc<dyn DiskFile>>, Error> {
        let path = self.path(name);
        match self.disk.open(&path, Access::Read) {
            Ok(file) => Ok(Some(file)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(file_error("open", &path, cause)),
        }
    }

    pub(super) fn size(&self, name: &BytesName) -> Result<Option<u64>, Error> {
        self.open(name)?.map(|file| self.length(name, &*file)).transpose()
    }

    /// Returns the length of an open file.
    pub(super) fn length(&self, name: &BytesName, file: &dyn DiskFile) -> Result<u64, Error> {
        file.length()
            .map_err(|cause| file_error("stat", &self.path(name), cause))
    }

    /// Drops what the operating system keeps of a file in memory.
    pub(super) fn forget_cached(&self, name: &BytesName, range: Range<u64>) -> Result<(), Error> {
        let Some(file) = self.open(name)? else {
            return Ok(());
        };
        file.forget_cached(range)
            .map_err(|cause| file_error("fadvise", &self.path(name), cause))
    }

    pub(super) fn delete(&self, name: &BytesName) -> Result<(), Error> {
        self.health.check()?;
        // Where another folder is in the place of the one that was opened, what is in it is none of this store's.
        if let Err(lost) = self.lock.check() {
            self.health.end_writing(lost.reason(), Cure::Restart);
            return Err(self.health.refusal());
        }
        let path = self.path(name);
        self.opened.forget(name);
        match self.unlink(name) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(file_error("unlink", &path, cause)),
            _ => Ok(()),
        }
    }

    /// Removes a file, and the folder of its day if that was the last one in it.
    fn unlink(&self, name: &BytesName) -> io::Result<()> {
        self.disk.unlink(&self.path(name))?;
        let mut days = self.durable_days();
        let removed = self.disk.remove_folder(&self.folder.join(name.day()));
        if removed.is_ok() {
            // The next folder of that name is to be synced again. A folder that stays for whatever reason does no harm.
            days.remove(name.day());
        }
        Ok(())
    }

    /// Lists names in order. The names of one day are in memory at once.
    pub(super) fn list(&self, after: Option<&BytesName>, limit: usize) -> Result<Vec<BytesName>, Error> {
        let first_day = after.map_or("", BytesName::day);
        let days = self
            .disk
            .list(&self.folder)
            .map_err(|cause| file_error("list", &self.folder, cause))?;
        let days: BTreeSet<String> = days.into_iter().filter(|day| day.as_str() >= first_day).collect();
        let mut names = Vec::new();
        for day in days {
            if names.len() >= limit {
                break;
            }
            let mut of_day = self.list_day(&day)?;
            of_day.retain(|name| after.is_none_or(|after| name > after));
            of_day.sort_unstable();
            of_day.truncate(limit.saturating_sub(names.len()));
            names.append(&mut of_day);
        }
        Ok(names)
    }

    fn list_day(&self, day: &str) -> Result<Vec<BytesName>, Error> {
        let path = self.folder.join(day);
        match self.disk.list(&path) {
            Ok(files) => Ok(files
                .iter()
                .filter_map(|file| BytesName::parse(&format!("{day}/{file}")))
                .collect()),
            // It was removed since, or is a file that is not this store's.
            Err(cause)
                if matches!(
                    cause.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(Vec::new())
            }
            Err(cause) => Err(file_error("list", &path, cause)),
        }
    }

    fn create_day(&self, name: &BytesName) -> Result<(), Error> {
        let path = self.folder.join(name.day());
        match self.disk.create_folder(&path, self.rights.folder()) {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {
                Err(file_error("mkdir", &path, cause))
            }
            _ => Ok(()),
        }
    }

    /// Opens the folder of a day, and the folder above it until the day's name is known to be durable.
    fn open_folders(&self, name: &BytesName) -> Result<Vec<OpenedFolder>, Error> {
        let mut paths = vec![self.folder.join(name.day())];
        if !self.durable_days().contains(name.day()) {
            paths.push(self.folder.clone());
        }
        let open = |path: PathBuf| match self.disk.open_folder(&path) {
            Ok(folder) => Ok((path, folder)),
            Err(cause) => Err(file_error("open", &path, cause)),
        };
        paths.into_iter().map(open).collect()
    }

    /// Makes the names in the folder of a day durable, and the name of that folder.
    fn sync_folders(&self, name: &BytesName, folders: Vec<OpenedFolder>) -> Result<(), Error> {
        for (path, folder) in folders {
            folder
                .sync()
                .map_err(|cause| self.health.folder_sync_failed(&path, cause))?;
        }
        let mut days = self.durable_days();
        if days.len() >= REMEMBERED_DAYS {
            days.clear();
        }
        days.insert(name.day().into());
        Ok(())
    }

    fn durable_days(&self) -> std::sync::MutexGuard<'_, BTreeSet<Box<str>>> {
        self.durable_days.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs what blocks on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    spawn_blocking(act)
        .await
        .unwrap_or_else(|cause| Err(Error::internal(cause)))
}
