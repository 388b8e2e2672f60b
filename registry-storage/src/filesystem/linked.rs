//! Second names of files, kept only in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Access, Disk, DiskFile, DiskFolder};

/// A read-only disk. What is linked on it has its second name in the memory of this process.
#[derive(Debug)]
pub(super) struct LinkedFiles {
    disk: Arc<dyn Disk>,
    /// The files by folder and name.
    folders: Mutex<Folders>,
}

type Folders = BTreeMap<PathBuf, BTreeMap<Box<str>, Box<Path>>>;

impl LinkedFiles {
    pub(super) fn over(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            folders: Mutex::default(),
        }
    }

    fn folders(&self) -> MutexGuard<'_, Folders> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn split(path: &Path) -> io::Result<(&Path, &str)> {
    let name = path.file_name().and_then(|name| name.to_str());
    path.parent()
        .zip(name)
        .ok_or_else(|| io::ErrorKind::InvalidFilename.into())
}

fn read_only<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for LinkedFiles {
    fn create_folder(&self, path: &Path, _mode: u32) -> io::Result<()> {
        self.folders().entry(path.to_owned()).or_default();
        Ok(())
    }

    fn open_folder(&self, _path: &Path) -> io::Result<Box<dyn DiskFolder>> {
        Ok(Box::new(NoFolder))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let folders = self.folders();
        let files = folders.get(path).into_iter().flatten();
        let below = folders
            .keys()
            .filter(|folder| folder.parent() == Some(path))
            .filter_map(|folder| folder.file_name()?.to_str());
        let names: BTreeSet<&str> = files.map(|(name, _)| &**name).chain(below).collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    fn create(&self, _path: &Path, _mode: u32) -> io::Result<Arc<dyn DiskFile>> {
        read_only()
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let (folder, name) = split(path)?;
        let file = self
            .folders()
            .get(folder)
            .and_then(|files| files.get(name).cloned());
        match (file, access) {
            (None, _) => Err(io::ErrorKind::NotFound.into()),
            (Some(_), Access::Write) => read_only(),
            (Some(file), Access::Read) => self.disk.open(&file, access),
        }
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let (folder, name) = split(path)?;
        let mut folders = self.folders();
        let removed = folders.get_mut(folder).and_then(|files| files.remove(name));
        removed.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        let mut folders = self.folders();
        match folders.get(path) {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(files) if !files.is_empty() => Err(io::ErrorKind::DirectoryNotEmpty.into()),
            Some(_) => {
                folders.remove(path);
                Ok(())
            }
        }
    }

    fn link(&self, file: &Path, name: &Path) -> io::Result<()> {
        let (folder, name) = split(name)?;
        let mut folders = self.folders();
        let files = folders.get_mut(folder).ok_or(io::ErrorKind::NotFound)?;
        files.insert(name.into(), file.into());
        Ok(())
    }

    fn epoch(&self) -> Option<String> {
        self.disk.epoch()
    }

    fn records_synced(&self, _path: &Path) {}
}

/// A folder in memory.
#[derive(Debug)]
struct NoFolder;

impl DiskFolder for NoFolder {
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
