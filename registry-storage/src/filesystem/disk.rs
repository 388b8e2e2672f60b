//! The calls to the file system for bytes and folders, as one narrow trait, so that a test can drop what was not synced
//! and make any call fail.

use std::fmt;
use std::fs::{self, File};
use std::io;
#[cfg(target_os = "linux")]
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

#[cfg(target_os = "linux")]
use rustix::{
    fs::{Advice, fadvise},
    io::Errno,
};

use super::rights;

/// A file system. Every method blocks, and its errors are those of the named system call.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Creates a folder with a mode, whatever the umask. Its parent exists.
    ///
    /// # Errors
    /// `AlreadyExists`, and those of mkdir(2).
    fn create_folder(&self, path: &Path, mode: u32) -> io::Result<()>;

    /// Opens a folder, so that the names in it can be made durable.
    ///
    /// # Errors
    /// Those of open(2). An error loses nothing.
    fn open_folder(&self, path: &Path) -> io::Result<Box<dyn DiskFolder>>;

    /// Returns the names in a folder, in no particular order. A name that is not UTF-8 is left out.
    ///
    /// # Errors
    /// Those of readdir(3).
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Creates an empty file for reading and writing, with a mode, whatever the umask.
    ///
    /// # Errors
    /// `AlreadyExists`, and those of open(2).
    fn create(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file.
    ///
    /// # Errors
    /// `NotFound`, and those of open(2).
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;

    /// Removes the name of a file.
    ///
    /// # Errors
    /// `NotFound`, and those of unlink(2).
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder, if nothing is in it.
    ///
    /// # Errors
    /// `NotFound`, `DirectoryNotEmpty`, and those of rmdir(2).
    fn remove_folder(&self, path: &Path) -> io::Result<()>;

    /// Gives a file a second name, which must be free.
    ///
    /// # Errors
    /// `NotFound` if the file, or the folder of the new name, does not exist, and those of link(2).
    fn link(&self, file: &Path, name: &Path) -> io::Result<()>;

    /// Returns the identifier of the running system, if it is known: what was written but not synced exists for as long
    /// as it stays the same.
    fn epoch(&self) -> Option<String>;

    /// Is called when the record store has synced its files, the one at `path` and those next to it, as they are now.
    fn records_synced(&self, path: &Path);
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    Read,
    /// Reading and writing.
    Write,
}

/// An open folder.
pub trait DiskFolder: fmt::Debug {
    /// Makes the names in the folder durable.
    ///
    /// # Errors
    /// Those of fsync(2). After an error the names must be considered lost, even if a later sync succeeds.
    fn sync(&self) -> io::Result<()>;
}

/// An open file. It is closed when the last handle is dropped.
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// Reads `buffer.len()` bytes from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before, and those of pread(2).
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Drops what the operating system keeps of a range in memory, so that the next read of it comes from the medium. What
    /// was written and not synced stays. The default does nothing.
    ///
    /// # Errors
    /// Those of `posix_fadvise(2)`.
    fn forget_cached(&self, _range: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    /// Writes all of `content` at `offset`.
    ///
    /// # Errors
    /// Those of pwrite(2); a part may have been written.
    fn write_at(&self, content: &[u8], offset: u64) -> io::Result<()>;

    /// Returns the length in bytes.
    ///
    /// # Errors
    /// Those of fstat(2).
    fn length(&self) -> io::Result<u64>;

    /// Cuts or extends the file.
    ///
    /// # Errors
    /// Those of ftruncate(2).
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// Makes the content durable.
    ///
    /// # Errors
    /// Those of fdatasync(2). After an error the content must be considered lost, even if a later sync succeeds.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes content and attributes durable.
    ///
    /// # Errors
    /// Those of fsync(2), as for [`sync_data`](Self::sync_data).
    fn sync_all(&self) -> io::Result<()>;
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_folder(&self, path: &Path, mode: u32) -> io::Result<()> {
        rights::create_folder(path, mode)
    }

    fn open_folder(&self, path: &Path) -> io::Result<Box<dyn DiskFolder>> {
        Ok(Box::new(File::open(path)?))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(rights::create_file(path, mode)?))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let file = File::options()
            .read(true)
            .write(access == Access::Write)
            .open(path)?;
        Ok(Arc::new(file))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn link(&self, file: &Path, name: &Path) -> io::Result<()> {
        fs::hard_link(file, name)
    }

    fn epoch(&self) -> Option<String> {
        let identifier = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(identifier.trim().to_owned())
    }

    fn records_synced(&self, _path: &Path) {}
}

impl DiskFolder for File {
    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    #[cfg(target_os = "linux")]
    fn forget_cached(&self, range: Range<u64>) -> io::Result<()> {
        // No length means to the end of the file.
        let Some(length) = NonZeroU64::new(range.end.saturating_sub(range.start)) else {
            return Ok(());
        };
        match fadvise(self, range.start, Some(length), Advice::DontNeed) {
            // A kernel may be built without it.
            Err(Errno::NOSYS) => Ok(()),
            done => Ok(done?),
        }
    }

    fn write_at(&self, content: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(content, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        Self::sync_all(self)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::IoSliceMut;
    use std::time::{Duration, Instant};

    use rustix::fs::statfs;
    use rustix::io::{ReadWriteFlags, preadv2};

    use super::*;

    const SIZE: usize = 1 << 20;

    /// Returns whether memory has the first page; `None` if the file system does not say.
    fn is_cached(file: &File) -> Option<bool> {
        let mut buffer = [0; 1];
        match preadv2(
            file,
            &mut [IoSliceMut::new(&mut buffer)],
            0,
            ReadWriteFlags::NOWAIT,
        ) {
            Ok(_) => Some(true),
            Err(Errno::AGAIN) => Some(false),
            Err(_) => None,
        }
    }

    #[test]
    fn what_was_forgotten_is_read_from_the_medium() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, vec![1; SIZE]).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        file.read_exact_at(&mut vec![0; SIZE], 0).unwrap();
        // A tmpfs has no medium but memory.
        let is_in_memory = statfs(&path).unwrap().f_type == 0x0102_1994;
        if is_in_memory || is_cached(&file) != Some(true) {
            println!("skipped: the file system does not say what is in memory");
            return;
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while is_cached(&file) == Some(true) {
            assert!(Instant::now() < deadline, "it stays in memory");
            file.forget_cached(0..SIZE as u64).unwrap();
        }
        file.read_exact_at(&mut vec![0; SIZE], 0).unwrap();
        file.forget_cached(0..0).unwrap();
        assert_eq!(is_cached(&file), Some(true), "an empty range is nothing, not all");
    }
}
