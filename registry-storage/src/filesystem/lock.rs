//! The locks through which one process owns a root.
//!
//! Two files are locked. `registry.lock` names the owner of the root, and an operator may take it for a leftover and
//! remove it. So the folder of bytes is locked too, and first: an operator who removes that does not expect the
//! registry to keep working.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::failure::is_full;
use super::queries::LOG_BYTES;
use super::rights::PRIVATE_FILE_MODE;
use super::{BYTES_FOLDER, LOCK_FILE, RECORDS_FILE};
use crate::clock::{Clock as _, SystemClock};
use crate::sqlite_head;

/// The longest description of a holder that is read.
const HOLDER_BYTES: u64 = 4096;

/// Ownership of a root. It ends when this is dropped, or the process ends in any way.
#[derive(Debug)]
pub(super) struct RootLock {
    root: PathBuf,
    /// `None` if the root is read-only.
    file: Option<Mutex<Locked>>,
    /// Keeps writers away, if the root is read-only.
    _shared: Vec<File>,
    bytes: OnceLock<Locked>,
    records: Mutex<Option<Seen>>,
    log: Mutex<Option<Seen>>,
}

/// A file of SQLite's, as it was seen last.
#[derive(Clone, Copy, Debug)]
struct Seen {
    identity: Identity,
    size: u64,
}

impl From<Metadata> for Seen {
    fn from(found: Metadata) -> Self {
        Self {
            size: found.len(),
            identity: found.into(),
        }
    }
}

/// What became of a root that another process changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The log of the records was removed or replaced. SQLite still has the one that it opened, so all of it can be copied back.
    Log,
    /// Something else is not what was opened, for this reason.
    Else(&'static str),
}

impl Lost {
    /// Returns why nothing may be written any more.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Log => "the log of its records (records.sqlite-wal) was removed or replaced",
            Self::Else(reason) => reason,
        }
    }
}

/// A file or folder that this process has locked.
#[derive(Debug)]
struct Locked {
    file: File,
    identity: Identity,
}

/// What distinguishes one file from another, whatever their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl From<Metadata> for Identity {
    fn from(metadata: Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// What another process wrote about itself when it took the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder(String);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() {
            "another process"
        } else {
            &self.0
        })
    }
}

impl RootLock {
    /// Takes the locks of a root if they are free, otherwise returns their holder. Does not wait.
    ///
    /// The folder of bytes is locked if it exists; [`hold_bytes`](Self::hold_bytes) locks one that was created later.
    pub(super) fn try_take(root: &Path) -> io::Result<Result<Self, Holder>> {
        let path = root.join(LOCK_FILE);
        let bytes = OnceLock::new();
        match lock_bytes(root)? {
            // Before the other owner's file is touched, which may not exist any more.
            Err(Taken) => return Ok(Err(holder(&path))),
            Ok(Some(locked)) => drop(bytes.set(locked)),
            Ok(None) => {}
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE_FILE_MODE)
            .open(&path)?;
        match lock(file)? {
            Err(Taken) => Ok(Err(holder(&path))),
            Ok(mut locked) => {
                describe(&mut locked)?;
                Ok(Ok(Self {
                    root: root.to_owned(),
                    file: Some(Mutex::new(locked)),
                    _shared: Vec::new(),
                    bytes,
                    records: Mutex::default(),
                    log: Mutex::default(),
                }))
            }
        }
    }

    /// Keeps writers away from a read-only root, and lets any number of other processes read it. If a process writes to
    /// it, returns that process. Does not wait, and writes nothing.
    ///
    /// A file system that cannot lock what is only read has no writer, or an operator who knows of it.
    pub(super) fn try_share(root: &Path) -> io::Result<Result<Self, Holder>> {
        let path = root.join(LOCK_FILE);
        let mut shared = Vec::new();
        for locked in [root.join(BYTES_FOLDER), path.clone()] {
            let file = match File::open(&locked) {
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            match file.try_lock_shared() {
                Err(TryLockError::WouldBlock) => return Ok(Err(holder(&path))),
                Err(TryLockError::Error(cause)) => {
                    tracing::debug!(path = %locked.display(), %cause, "this cannot be locked");
                }
                Ok(()) => shared.push(file),
            }
        }
        Ok(Ok(Self {
            root: root.to_owned(),
            file: None,
            _shared: shared,
            bytes: OnceLock::new(),
            records: Mutex::default(),
            log: Mutex::default(),
        }))
    }

    /// Locks the folder of bytes, which exists now.
    pub(super) fn hold_bytes(&self) -> io::Result<Result<(), Holder>> {
        if self.bytes.get().is_none() {
            match lock_bytes(&self.root)? {
                Err(Taken) => return Ok(Err(holder(&self.root.join(LOCK_FILE)))),
                Ok(Some(locked)) => drop(self.bytes.set(locked)),
                Ok(None) => {}
            }
        }
        Ok(Ok(()))
    }

    /// Notes which files the records and their log are, which are there now.
    pub(super) fn know_records(&self) -> io::Result<()> {
        let records = std::fs::metadata(self.root.join(RECORDS_FILE))?;
        *self.records.lock().unwrap_or_else(PoisonError::into_inner) = Some(records.into());
        self.forget_log();
        self.check_log().unwrap_or_default();
        Ok(())
    }

    /// Forgets the log, because another one is begun.
    pub(super) fn forget_log(&self) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Passes while the file of the records is the one that was opened, and did not shrink, as SQLite never lets it: an older one
    /// was written over it.
    fn check_records(&self) -> Result<(), Lost> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = *records else { return Ok(()) };
        let found = std::fs::metadata(self.root.join(RECORDS_FILE))
            .ok()
            .map(Seen::from);
        match found {
            Some(found) if found.identity != before.identity => {}
            Some(found) if found.size < before.size => {
                return Err(Lost::Else(
                    "something was written over the file of its records, or it was cut",
                ));
            }
            Some(_) => {
                *records = found;
                return Ok(());
            }
            None => {}
        }
        Err(Lost::Else("the file of its records was removed or replaced"))
    }

    /// Passes while the log is the one that was opened, and nobody cut it. SQLite itself cuts it to its limit alone.
    fn check_log(&self) -> Result<(), Lost> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let [_, path, ..] = sqlite_head::with_logs(&self.root.join(RECORDS_FILE));
        let found = std::fs::metadata(path).ok().map(Seen::from);
        match (*log, found) {
            (Some(before), Some(found)) if before.identity == found.identity => {
                if found.size < before.size.min(LOG_BYTES) {
                    return Err(Lost::Else("the log of its records (records.sqlite-wal) was cut"));
                }
            }
            (Some(_), _) => return Err(Lost::Log),
            (None, _) => {}
        }
        *log = found;
        Ok(())
    }

    /// Passes while the root is the one that was opened; otherwise returns what became of it. It costs four calls to the file
    /// system, and no file.
    ///
    /// A lock file that was removed is made again: the folder of bytes kept others out meanwhile.
    pub(super) fn check(&self) -> Result<(), Lost> {
        let is_same = |name: &str, expected: Option<Identity>| {
            expected.is_none_or(|expected| identity(&self.root.join(name)) == Some(expected))
        };
        if !is_same(BYTES_FOLDER, self.bytes.get().map(|bytes| bytes.identity)) {
            return Err(Lost::Else("its folder of bytes was removed or replaced"));
        }
        self.check_records()?;
        self.check_log()?;
        let Some(file) = &self.file else { return Ok(()) };
        let path = self.root.join(LOCK_FILE);
        let mut held = file.lock().unwrap_or_else(PoisonError::into_inner);
        match identity(&path) {
            Some(found) if found == held.identity => Ok(()),
            Some(_) => Err(Lost::Else(
                "its lock file was replaced, so another process may write to the same folder",
            )),
            None => match make_again(&path) {
                Ok(locked) => {
                    tracing::warn!(
                        path = %path.display(),
                        "the lock file was removed, and is made again; nobody else could take the folder meanwhile"
                    );
                    *held = locked;
                    Ok(())
                }
                Err(cause) => {
                    tracing::error!(path = %path.display(), %cause, "the lock file was removed and cannot be made again");
                    Err(Lost::Else("its lock file was removed"))
                }
            },
        }
    }
}

/// Another process has the lock.
struct Taken;

fn lock(file: File) -> io::Result<Result<Locked, Taken>> {
    match file.try_lock() {
        Ok(()) => {
            let identity = file.metadata()?.into();
            Ok(Ok(Locked { file, identity }))
        }
        Err(TryLockError::WouldBlock) => Ok(Err(Taken)),
        Err(TryLockError::Error(cause)) => Err(cause),
    }
}

/// Locks the folder of bytes, if it exists. Some network file systems cannot lock a folder; there the file must
/// suffice.
fn lock_bytes(root: &Path) -> io::Result<Result<Option<Locked>, Taken>> {
    let path = root.join(BYTES_FOLDER);
    let folder = match File::open(&path) {
        Ok(folder) => folder,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Ok(None)),
        Err(cause) => return Err(cause),
    };
    match folder.try_lock() {
        Err(TryLockError::WouldBlock) => return Ok(Err(Taken)),
        Err(TryLockError::Error(cause)) => {
            tracing::debug!(path = %path.display(), %cause, "this folder cannot be locked");
        }
        Ok(()) => {}
    }
    let identity = folder.metadata()?.into();
    Ok(Ok(Some(Locked {
        file: folder,
        identity,
    })))
}

fn make_again(path: &Path) -> io::Result<Locked> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(PRIVATE_FILE_MODE)
        .open(path)?;
    let mut locked = lock(file)?.map_err(|Taken| io::Error::from(io::ErrorKind::WouldBlock))?;
    describe(&mut locked)?;
    Ok(locked)
}

fn identity(path: &Path) -> Option<Identity> {
    std::fs::metadata(path).ok().map(Identity::from)
}

/// Reads who holds a root. The text is for people, so whatever cannot be read is left out.
fn holder(path: &Path) -> Holder {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HOLDER_BYTES).read_to_end(&mut text));
    drop(read);
    Holder(String::from_utf8_lossy(&text).trim().to_owned())
}

/// Writes into the lock file who holds it. A full disk may have no room for that, which is no reason not to start.
fn describe(locked: &mut Locked) -> io::Result<()> {
    let file = &mut locked.file;
    // On btrfs, a file cannot even be truncated once a quota is used up.
    match file
        .set_len(0)
        .and_then(|()| writeln!(file, "{}", describe_this_process()))
    {
        Err(cause) if !is_full(&cause) => Err(cause),
        _ => Ok(()),
    }
}

/// Describes this process: its identifier, the time, and only the first two words of its command, because its arguments
/// may hold secrets.
fn describe_this_process() -> String {
    let command: Vec<String> = std::env::args_os()
        .take(2)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let (process, now) = (std::process::id(), SystemClock.now());
    format!(
        "process {process}, which opened it at {now}: {}",
        command.join(" ")
    )
}
