//! The real disk, with a test between the store and its files.
#![cfg(all(feature = "filesystem", unix))]

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use registry_storage::filesystem::disk::{Access, Disk, DiskFile, DiskFolder, RealDisk};

/// What a test does to the calls for files, which are named by their paths.
pub(crate) trait Intercept: Debug + Send + Sync + 'static {
    /// Comes before a file is opened. If this fails, it is not.
    fn before_open(&self, path: &Path) -> io::Result<()>;

    /// Comes before each call for an open file. If this fails, the call is not made.
    fn before_call(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, _path: &Path, file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        file.read_at(buffer, offset)
    }

    fn forget_cached(&self, _path: &Path, file: &dyn DiskFile, range: Range<u64>) -> io::Result<()> {
        file.forget_cached(range)
    }
}

/// Everything but what [`Intercept`] names goes to the real disk.
#[derive(Debug)]
pub(crate) struct InterceptedDisk<I>(pub(crate) Arc<I>);

#[derive(Debug)]
struct InterceptedFile<I> {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    intercept: Arc<I>,
}

impl<I: Intercept> InterceptedDisk<I> {
    fn wrap(&self, path: &Path, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(InterceptedFile {
            path: path.to_owned(),
            file,
            intercept: Arc::clone(&self.0),
        })
    }
}

impl<I: Intercept> Disk for InterceptedDisk<I> {
    fn create_folder(&self, path: &Path, mode: u32) -> io::Result<()> {
        RealDisk.create_folder(path, mode)
    }

    fn open_folder(&self, path: &Path) -> io::Result<Box<dyn DiskFolder>> {
        RealDisk.open_folder(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(path)
    }

    fn create(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(path, RealDisk.create(path, mode)?))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.0.before_open(path)?;
        Ok(self.wrap(path, RealDisk.open(path, access)?))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        RealDisk.unlink(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_folder(path)
    }

    fn link(&self, file: &Path, name: &Path) -> io::Result<()> {
        RealDisk.link(file, name)
    }

    fn epoch(&self) -> Option<String> {
        RealDisk.epoch()
    }

    fn records_synced(&self, path: &Path) {
        RealDisk.records_synced(path);
    }
}

impl<I: Intercept> DiskFile for InterceptedFile<I> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.intercept.before_call(&self.path)?;
        self.intercept.read_at(&self.path, &*self.file, buffer, offset)
    }

    fn forget_cached(&self, range: Range<u64>) -> io::Result<()> {
        self.intercept.before_call(&self.path)?;
        self.intercept.forget_cached(&self.path, &*self.file, range)
    }

    fn write_at(&self, content: &[u8], offset: u64) -> io::Result<()> {
        self.intercept.before_call(&self.path)?;
        self.file.write_at(content, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.intercept.before_call(&self.path)?;
        self.file.length()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.intercept.before_call(&self.path)?;
        self.file.set_length(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.intercept.before_call(&self.path)?;
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.intercept.before_call(&self.path)?;
        self.file.sync_all()
    }
}
