//! A small file system that is really full when it is full.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The size of a file system with a quota, in bytes: far more than the quota.
const QUOTA_DISK: u64 = 400 << 20;

/// A small file system that is mounted over a folder until this is dropped. Mounting requires root.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts a file system of this many megabytes and files over an empty folder; returns `None` if that is not
    /// allowed.
    #[must_use]
    pub fn mount(folder: &Path, megabytes: u32, files: u32) -> Option<Self> {
        let options = format!("size={megabytes}m,nr_inodes={files}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder)
            .status();
        mounted.is_ok_and(|status| status.success()).then(|| Self {
            folder: folder.to_owned(),
        })
    }

    /// Mounts a btrfs over an empty folder, whose subfolder `quota` may hold this many megabytes; returns `None` if
    /// that is not allowed or not available.
    #[must_use]
    pub fn mount_quota(folder: &Path, megabytes: u32) -> Option<Self> {
        // The mount hides the image.
        let image = folder.join("image");
        File::create(&image)
            .and_then(|file| file.set_len(QUOTA_DISK))
            .ok()?;
        let run = |program: &str, arguments: &[&str], path: &Path| {
            let status = Command::new(program).args(arguments).arg(path).status();
            status.is_ok_and(|status| status.success()).then_some(())
        };
        run("mkfs.btrfs", &["-q"], &image)?;
        run("mount", &["-o", "loop", image.to_str()?], folder)?;
        let disk = Self {
            folder: folder.to_owned(),
        };
        let quota = folder.join("quota");
        run("btrfs", &["-q", "subvolume", "create"], &quota)?;
        run("btrfs", &["-q", "quota", "enable"], folder)?;
        run(
            "btrfs",
            &["-q", "qgroup", "limit", &format!("{megabytes}M")],
            &quota,
        )?;
        Some(disk)
    }

    /// Uses up all space except `free` bytes.
    ///
    /// # Errors
    /// Those of the file system, except for a full disk.
    pub fn fill(&self, free: u64) -> io::Result<()> {
        let path = self.folder.join("filler");
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        loop {
            match file.write_all(&[7; 4096]) {
                Ok(()) => {}
                Err(cause) if cause.kind() == io::ErrorKind::StorageFull => break,
                Err(cause) => return Err(cause),
            }
        }
        let length = file.metadata()?.len();
        file.set_len(length.saturating_sub(free))
    }

    /// Frees what [`fill`](Self::fill) used up.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn clear(&self) -> io::Result<()> {
        fs::remove_file(self.folder.join("filler"))
    }

    /// Creates empty files until no more can be created.
    ///
    /// # Errors
    /// Those of the file system, except for a full disk.
    pub fn take_all_files(&self) -> io::Result<()> {
        let folder = self.folder.join("files");
        fs::create_dir(&folder)?;
        for number in 0_u64.. {
            match File::create(folder.join(number.to_string())) {
                Ok(_) => {}
                Err(cause) if cause.kind() == io::ErrorKind::StorageFull => break,
                Err(cause) => return Err(cause),
            }
        }
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.folder).status());
    }
}
