//! Space that is kept for what frees space: on a full disk a delete would have no room for its log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use registry_core::{Error, ErrorCode};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::rights::PRIVATE_FILE;

const FILE: &str = "reserve";

/// With so little free space, in bytes, what frees space gets the reserve at once: what is told of it, in the audit log
/// for example, needs room as well.
const LOW: u64 = 1 << 20;

/// How often it is tried to set the space aside again.
const INTERVAL: Duration = Duration::from_secs(1);

/// A file of blocks that nothing else can use, until it is given up.
#[derive(Debug)]
pub(super) struct Reserve {
    root: PathBuf,
    size: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    is_held: bool,
    tried: Instant,
}

impl Reserve {
    /// Sets `size` bytes aside, if there is room for them. Nothing is kept of 0 bytes.
    pub(super) fn new(root: &Path, size: u64) -> Self {
        // A disk that never had much room has less to keep.
        let mut sizes = std::iter::successors(Some(size), |size| Some(size / 2).filter(|size| *size >= LOW));
        let fitting = sizes.find(|size| make(root, *size));
        if fitting.is_none() {
            tracing::warn!(
                root = %root.display(),
                bytes = size,
                "there is no room to keep for deletes; nothing but deletes is taken until there is"
            );
        }
        Self {
            root: root.to_owned(),
            size: fitting.unwrap_or(size),
            state: Mutex::new(State {
                is_held: fitting.is_some(),
                tried: Instant::now(),
            }),
        }
    }

    /// Removes the reserve of a root that cannot be opened for want of space; `false` where there is none.
    pub(super) fn remove(root: &Path) -> bool {
        fs::remove_file(root.join(FILE)).is_ok()
    }

    /// Gives the space to what frees space; `false` where it is given already, or there is none.
    pub(super) fn release(&self) -> bool {
        let mut state = self.state();
        if self.size == 0 || !state.is_held || !Self::remove(&self.root) {
            return false;
        }
        *state = State {
            is_held: false,
            tried: Instant::now(),
        };
        tracing::warn!(
            root = %self.root.display(),
            "the disk is full: deletes get the space that was kept for them, and nothing else is written until there is room"
        );
        true
    }

    /// Gives the space to what frees space if hardly any is left.
    pub(super) fn release_if_low(&self) {
        let free = statvfs(&self.root).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        if free.is_ok_and(|free| free < LOW) {
            self.release();
        }
    }

    /// Passes unless the space is given up, and cannot be set aside again.
    pub(super) fn check(&self) -> Result<(), Error> {
        let mut state = self.state();
        if !state.is_held && state.tried.elapsed() >= INTERVAL {
            state.tried = Instant::now();
            state.is_held = make(&self.root, self.size);
            if state.is_held {
                tracing::info!(root = %self.root.display(), "there is room again, and everything is taken");
            }
        }
        if state.is_held {
            Ok(())
        } else {
            Err(ErrorCode::StorageFull.into())
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make(root: &Path, size: u64) -> bool {
    let path = root.join(FILE);
    let made = size == 0 || allocate(&path, size).is_ok();
    if !made {
        // What was made of it is not enough, and in the way of what frees space.
        drop(fs::remove_file(path));
    }
    made
}

fn allocate(path: &Path, size: u64) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE_FILE)
        .open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, size) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill(&mut file, size),
        allocated => Ok(allocated?),
    }
}

/// Writes what no file system compresses or leaves out.
fn fill(file: &mut File, size: u64) -> io::Result<()> {
    let mut left = size;
    while left > 0 {
        let block: Vec<u8> = (0..256).flat_map(|_| uuid::Uuid::new_v4().into_bytes()).collect();
        file.write_all(&block)?;
        left = left.saturating_sub(block.len() as u64);
    }
    file.sync_all()
}
