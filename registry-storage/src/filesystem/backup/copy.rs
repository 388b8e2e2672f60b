//! Giving bytes a second place: through a link, or a copy if there can be none.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::{BackupError, BackupReport, check_wanted, disk, sync};
use crate::bytes_name::BytesName;
use crate::filesystem::rights::{Rights, create_folder};
use crate::observer::{MaintenanceObserver, Step};

/// How many bytes are copied between two checks whether the backup is still wanted.
const PIECE_BYTES: u64 = 32 << 20;

/// How much there is to take over, in all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Total {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// Takes bytes from one folder to another.
pub(super) struct Copier<'a> {
    from: PathBuf,
    to: PathBuf,
    days: BTreeSet<String>,
    rights: Rights,
    report: BackupReport,
    total: Total,
    /// Files cannot have second names there, so their content is copied.
    copies: bool,
    observer: &'a dyn MaintenanceObserver,
    is_wanted: &'a AtomicBool,
}

impl<'a> Copier<'a> {
    /// Creates the folder `to`, whose parent exists.
    pub(super) fn new(
        (from, to): (PathBuf, PathBuf),
        rights: Rights,
        total: Total,
        (observer, is_wanted): (&'a dyn MaintenanceObserver, &'a AtomicBool),
    ) -> Result<Self, BackupError> {
        create_folder(&to, rights.folder()).map_err(disk(&to))?;
        Ok(Self {
            copies: !is_on_one_file_system(&from, &to),
            from,
            to,
            rights,
            days: BTreeSet::new(),
            report: BackupReport::default(),
            total,
            observer,
            is_wanted,
        })
    }

    /// Reports the progress: in bytes if they are copied, of which `more` belong to an unfinished file.
    fn tell(&self, more: u64) {
        let (step, done, total) = if self.copies {
            (Step::Copying, self.report.size + more, self.total.bytes)
        } else {
            (
                Step::Files,
                self.report.linked + self.report.copied,
                self.total.files,
            )
        };
        self.observer.step(step, done, Some(total.max(done)));
    }

    /// Takes over the bytes of a name, once; returns `false` if there are none.
    pub(super) fn copy(&mut self, name: &BytesName) -> Result<bool, BackupError> {
        check_wanted(self.is_wanted)?;
        if self.days.insert(name.day().to_owned()) {
            let day = self.to.join(name.day());
            create_folder(&day, self.rights.folder()).map_err(disk(&day))?;
        }
        let (from, to) = (self.from.join(name.as_str()), self.to.join(name.as_str()));
        match fs::hard_link(&from, &to) {
            Ok(()) => {
                self.report.linked += 1;
                self.report.size += fs::metadata(&to).map_err(disk(&to))?.len();
            }
            // More than one record names what goes into quarantine.
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                self.report.missing += 1;
                return Ok(false);
            }
            // Another file system, too many links, or no support for links.
            Err(_) => {
                let size = self.copy_content(&from, &to)?;
                sync(&to)?;
                self.report.copied += 1;
                self.report.size += size;
            }
        }
        self.tell(0);
        Ok(true)
    }

    /// Copies a file with its mode, as far as the system can without reading it.
    fn copy_content(&self, from: &Path, to: &Path) -> Result<u64, BackupError> {
        let mut source = File::open(from).map_err(disk(from))?;
        let mode = source.metadata().map_err(disk(from))?.permissions();
        let mut target = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(self.rights.file())
            .open(to)
            .map_err(disk(to))?;
        target.set_permissions(mode).map_err(disk(to))?;
        let mut size = 0;
        loop {
            check_wanted(self.is_wanted)?;
            let piece = io::copy(&mut (&mut source).take(PIECE_BYTES), &mut target).map_err(disk(to))?;
            size += piece;
            if piece == 0 {
                return Ok(size);
            }
            if self.copies {
                self.tell(size);
            }
        }
    }

    /// Makes all names durable.
    pub(super) fn finish(self) -> Result<BackupReport, BackupError> {
        for day in &self.days {
            sync(&self.to.join(day))?;
        }
        sync(&self.to)?;
        Ok(self.report)
    }
}

/// Returns whether files of one folder may get second names in the other. If that cannot be found out, it is tried.
fn is_on_one_file_system(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().map(|found| found.dev());
    device(one) == device(other)
}
