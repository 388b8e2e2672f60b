//! A file system for tests that loses what was not synced, and fails on request.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::disk::{Access, Disk, DiskFile, DiskFolder, RealDisk};

/// The file system below one folder, which remembers what of it is durable.
///
/// As harsh as a disk may be: a file has the content of its last sync, whole; a name exists, or is gone, only once its
/// folder was synced; records are those of the last synced commit.
#[derive(Clone, Debug)]
pub struct VolatileDisk {
    root: PathBuf,
    epoch: String,
    state: Arc<Mutex<VolatileState>>,
}

#[derive(Debug, Default)]
struct VolatileState {
    /// The durable names in each folder.
    names: BTreeMap<PathBuf, BTreeSet<String>>,
    /// The durable content of each file.
    contents: BTreeMap<PathBuf, Vec<u8>>,
    /// The files of the record store.
    records: BTreeMap<PathBuf, Vec<u8>>,
    syncs: u64,
    /// After how many syncs the power fails.
    power: Option<u64>,
    calls: u64,
    fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    call: u64,
    code: i32,
}

impl VolatileDisk {
    /// Treats the files below `root`, as they are, as durable.
    ///
    /// # Errors
    /// Those of reading the files.
    pub fn new(root: impl AsRef<Path>) -> io::Result<Self> {
        let root = root.as_ref().to_owned();
        let mut state = VolatileState::default();
        state.read_folder(&root)?;
        Ok(Self {
            root,
            epoch: Uuid::new_v4().to_string(),
            state: Arc::new(Mutex::new(state)),
        })
    }

    /// Lets the power fail after `syncs` more syncs: from then on nothing becomes durable.
    pub fn lose_power_after(&self, syncs: u64) {
        let mut state = self.state();
        state.power = Some(state.syncs.saturating_add(syncs));
    }

    /// Returns whether the power has failed. Answers after that promise nothing to a client.
    #[must_use]
    pub fn is_powerless(&self) -> bool {
        self.state().is_powerless()
    }

    /// Returns how many syncs there were.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Returns how many calls there were.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Makes the call after `calls` more calls fail with the error number `code`.
    pub fn fail_after(&self, calls: u64, code: i32) {
        let mut state = self.state();
        let call = state.calls.saturating_add(calls);
        state.fault = Some(Fault { call, code });
    }

    /// Returns a new folder with everything that is durable.
    ///
    /// # Errors
    /// Those of writing the files.
    pub fn after_power_loss(&self) -> io::Result<tempfile::TempDir> {
        let state = self.state();
        let folder = tempfile::tempdir()?;
        state.restore_folder(&self.root, folder.path())?;
        for (path, content) in &state.records {
            fs::write(folder.path().join(path), content)?;
        }
        Ok(folder)
    }

    fn state(&self) -> MutexGuard<'_, VolatileState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call, and fails it if that was requested.
    fn call(&self) -> io::Result<()> {
        let mut state = self.state();
        let now = state.calls;
        state.calls = now.saturating_add(1);
        match state.fault {
            Some(fault) if fault.call == now => Err(io::Error::from_raw_os_error(fault.code)),
            _ => Ok(()),
        }
    }

    /// Counts a sync and gives access to what it makes durable, if the power has not failed.
    fn sync(&self, apply: impl FnOnce(&mut VolatileState) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state();
        if !state.is_powerless() {
            apply(&mut state)?;
        }
        state.syncs = state.syncs.saturating_add(1);
        Ok(())
    }

    fn file(&self, path: &Path, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(VolatileFile {
            disk: self.clone(),
            path: path.to_owned(),
            file,
        })
    }
}

impl VolatileState {
    fn is_powerless(&self) -> bool {
        self.power.is_some_and(|power| self.syncs >= power)
    }

    fn read_folder(&mut self, folder: &Path) -> io::Result<()> {
        let names: BTreeSet<String> = RealDisk.list(folder)?.into_iter().collect();
        for name in &names {
            let path = folder.join(name);
            if path.is_dir() {
                self.read_folder(&path)?;
            } else {
                self.contents.insert(path.clone(), fs::read(&path)?);
            }
        }
        self.names.insert(folder.to_owned(), names);
        Ok(())
    }

    fn restore_folder(&self, from: &Path, to: &Path) -> io::Result<()> {
        for name in self.names.get(from).into_iter().flatten() {
            let (source, target) = (from.join(name), to.join(name));
            if self.is_folder(&source) {
                fs::create_dir(&target)?;
                self.restore_folder(&source, &target)?;
            } else if !is_records(Path::new(name)) {
                fs::write(&target, self.contents.get(&source).map_or(&[][..], Vec::as_slice))?;
            }
        }
        Ok(())
    }

    fn is_folder(&self, path: &Path) -> bool {
        self.names.contains_key(path) || path.is_dir()
    }
}

fn is_records(name: &Path) -> bool {
    name.to_string_lossy().starts_with(super::RECORDS_FILE)
}

impl Disk for VolatileDisk {
    fn create_folder(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.call()?;
        RealDisk.create_folder(path, mode)
    }

    fn open_folder(&self, path: &Path) -> io::Result<Box<dyn DiskFolder>> {
        self.call()?;
        RealDisk.open_folder(path)?;
        Ok(Box::new(VolatileFolder {
            disk: self.clone(),
            path: path.to_owned(),
        }))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.call()?;
        RealDisk.list(path)
    }

    fn create(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn DiskFile>> {
        self.call()?;
        Ok(self.file(path, RealDisk.create(path, mode)?))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.call()?;
        Ok(self.file(path, RealDisk.open(path, access)?))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.call()?;
        RealDisk.unlink(path)
    }

    /// After a loss of power, the folder is there again unless the one above was synced; what is in it then was durable
    /// once.
    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.call()?;
        RealDisk.remove_folder(path)
    }

    /// What is durable of the file is durable under its new name too, once that name is.
    fn link(&self, file: &Path, name: &Path) -> io::Result<()> {
        self.call()?;
        RealDisk.link(file, name)?;
        let mut state = self.state();
        if let Some(content) = state.contents.get(file).cloned() {
            state.contents.insert(name.to_owned(), content);
        }
        Ok(())
    }

    fn epoch(&self) -> Option<String> {
        Some(self.epoch.clone())
    }

    fn records_synced(&self, path: &Path) {
        let copied = self.sync(|state| {
            state.records.clear();
            for name in RealDisk.list(&self.root)? {
                // The index of the log is memory that happens to have a name.
                if is_records(Path::new(&name)) && !name.ends_with("-shm") {
                    state
                        .records
                        .insert(PathBuf::from(&name), fs::read(self.root.join(&name))?);
                }
            }
            Ok(())
        });
        if let Err(cause) = copied {
            tracing::error!(path = %path.display(), %cause, "the records could not be copied");
        }
    }
}

#[derive(Debug)]
struct VolatileFolder {
    disk: VolatileDisk,
    path: PathBuf,
}

impl DiskFolder for VolatileFolder {
    fn sync(&self) -> io::Result<()> {
        self.disk.call()?;
        let names = RealDisk.list(&self.path)?.into_iter().collect();
        self.disk.sync(|state| {
            state.names.insert(self.path.clone(), names);
            Ok(())
        })
    }
}

#[derive(Debug)]
struct VolatileFile {
    disk: VolatileDisk,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
}

impl VolatileFile {
    fn sync(&self) -> io::Result<()> {
        self.disk.call()?;
        let length = usize::try_from(self.file.length()?).map_err(io::Error::other)?;
        let mut content = vec![0; length];
        self.file.read_at(&mut content, 0)?;
        self.disk.sync(|state| {
            state.contents.insert(self.path.clone(), content);
            Ok(())
        })
    }
}

impl DiskFile for VolatileFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.call()?;
        self.file.read_at(buffer, offset)
    }

    /// A write that is to fail first writes half of its content.
    fn write_at(&self, content: &[u8], offset: u64) -> io::Result<()> {
        if let Err(cause) = self.disk.call() {
            let (half, _) = content.split_at(content.len() / 2);
            self.file.write_at(half, offset)?;
            return Err(cause);
        }
        self.file.write_at(content, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.disk.call()?;
        self.file.length()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.disk.call()?;
        self.file.set_length(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }
}
