//! Giving bytes a second place: by a link, or by a copy where there can be none.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use super::{BackupError, BackupReport, disk, sync};
use crate::bytes_name::BytesName;
use crate::filesystem::rights::{Rights, create_folder};

/// Takes bytes from one folder to another.
#[derive(Debug)]
pub(super) struct Copier {
    from: PathBuf,
    to: PathBuf,
    days: BTreeSet<String>,
    rights: Rights,
    report: BackupReport,
}

impl Copier {
    /// Makes the folder `to`, whose parent is there.
    pub(super) fn new(from: PathBuf, to: PathBuf, rights: Rights) -> Result<Self, BackupError> {
        create_folder(&to, rights.folder()).map_err(disk(&to))?;
        Ok(Self {
            from,
            to,
            rights,
            days: BTreeSet::new(),
            report: BackupReport::default(),
        })
    }

    pub(super) const fn done(&self) -> u64 {
        self.report.linked + self.report.copied
    }

    /// Takes the bytes of a name over, once; `false` where there are none.
    pub(super) fn copy(&mut self, name: &BytesName) -> Result<bool, BackupError> {
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
            // What goes into quarantine is named by more than one record.
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                self.report.missing += 1;
                return Ok(false);
            }
            // Another file system, too many links, or none at all.
            Err(_) => {
                let size = fs::copy(&from, &to).map_err(disk(&to))?;
                sync(&to)?;
                self.report.copied += 1;
                self.report.size += size;
            }
        }
        Ok(true)
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
