//! Space that is reserved for operations that free space: on a full disk a delete would have no room for its log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::iter::{once, successors};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use registry_core::{Error, ErrorCode};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::RESERVE_FILE;
use super::failure::is_full;
use super::rights::PRIVATE_FILE_MODE;
use crate::backend::Space;

/// With less free space than this, in bytes, operations that free space get the reserve at once: reports of them, for
/// example in the audit log, need room as well. A smaller reserve does not count as one.
const LOW_SPACE_BYTES: u64 = 1 << 20;

/// The interval between attempts to set the space aside again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The interval between attempts to set more aside, if there was little room at first.
const GROW_INTERVAL: Duration = Duration::from_secs(60);

/// How often the log reports that there is no room.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// A file of blocks that nothing else can use, until it is given up.
#[derive(Debug)]
pub(super) struct Reserve {
    root: PathBuf,
    /// How many bytes are reserved if there is room for them; 0 to reserve nothing.
    size: u64,
    /// Whether it matters how much room there is.
    is_watched: bool,
    state: Mutex<ReserveState>,
    /// The space when it was last measured.
    space: Mutex<Option<Space>>,
    /// What is wrong with the space, separate so that reading it does not wait for a caller that waits for the disk.
    shortage: Mutex<Option<String>>,
}

#[derive(Debug)]
struct ReserveState {
    /// How many bytes are set aside; 0 if they are given up.
    held: u64,
    /// How many bytes are needed to accept all requests again: as many as there were. 0 if there never were any; then
    /// any amount will do.
    needed: u64,
    tried: Instant,
    warned_at: Instant,
    /// Whether hardly any space was left when it was last measured.
    is_low: bool,
    /// Whether space was freed since the last attempt to set some aside.
    is_room_likely: bool,
}

impl Reserve {
    /// Sets `size` bytes aside, or fewer if there is no room for them. With 0, nothing is reserved.
    pub(super) fn new(root: &Path, size: u64) -> Self {
        Self {
            is_watched: true,
            ..Self::holding(root, size, make_largest(root, size))
        }
    }

    /// Reserves nothing and measures nothing: the root is not written to.
    pub(super) fn unneeded(root: &Path) -> Self {
        Self::holding(root, 0, 0)
    }

    fn holding(root: &Path, size: u64, held: u64) -> Self {
        let now = Instant::now();
        Self {
            root: root.to_owned(),
            size,
            is_watched: false,
            state: Mutex::new(ReserveState {
                held,
                needed: held,
                tried: now,
                warned_at: now,
                is_low: false,
                is_room_likely: false,
            }),
            space: Mutex::default(),
            shortage: Mutex::default(),
        }
    }

    /// Returns whether anything is set aside that should be.
    pub(super) fn is_held(&self) -> bool {
        self.size == 0 || self.state().held > 0
    }

    /// Sets the space aside at a start, once there may be more of it, or logs that there is none.
    pub(super) fn make(&self) {
        let mut state = self.state();
        state.held = make_largest(&self.root, self.size);
        state.needed = state.held;
        self.note(&state);
        if state.held == 0 {
            tracing::error!("{}", self.describe(&state));
        }
    }

    /// Removes the reserve of a root that cannot be opened for lack of space; returns `false` if there is none.
    pub(super) fn remove(root: &Path) -> bool {
        remove(&root.join(RESERVE_FILE)).is_ok()
    }

    /// Gives the space to operations that free space; returns `false` if it was given already, or there is none.
    pub(super) fn release(&self) -> bool {
        let mut state = self.state();
        if state.held == 0 || !Self::remove(&self.root) {
            return false;
        }
        let now = Instant::now();
        (state.held, state.tried, state.warned_at) = (0, now, now);
        self.note(&state);
        tracing::error!("{}", self.describe(&state));
        true
    }

    /// Gives the space to operations that free space if hardly any is left.
    pub(super) fn release_if_low(&self) {
        if self.is_low() {
            self.release();
        }
    }

    /// Runs an operation that frees space, once more with the reserve if there is no room for it.
    pub(super) fn freeing(&self, run: impl Fn() -> io::Result<()>) -> io::Result<()> {
        match run() {
            Err(cause) if is_full(&cause) && self.release() => run(),
            done => done,
        }
    }

    /// Sets the space aside again at the next write, because there is more of it now.
    pub(super) fn note_freed(&self) {
        let mut state = self.state();
        if state.held == 0 {
            state.is_room_likely = true;
        }
    }

    /// Succeeds unless the space is given up, and cannot be set aside again.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.size == 0 {
            return Ok(());
        }
        let mut state = self.state();
        self.refresh(&mut state);
        if state.held > 0 {
            return Ok(());
        }
        if state.warned_at.elapsed() >= WARNING_INTERVAL {
            state.warned_at = Instant::now();
            tracing::error!("{}", self.describe(&state));
        }
        Err(ErrorCode::StorageFull.into())
    }

    /// Measures how much room there is, even if nothing is written.
    pub(super) fn look(&self) {
        drop(self.check());
        let space = self.measure();
        *self.space.lock().unwrap_or_else(PoisonError::into_inner) = space;
        let is_low = self.is_watched && space.is_some_and(|space| space.free < LOW_SPACE_BYTES);
        let mut state = self.state();
        state.is_low = is_low;
        self.note(&state);
    }

    /// Returns what was wrong with the space when it was last checked, and what helps; `None` while there is enough. It
    /// does not wait for the disk.
    pub(super) fn shortage(&self) -> Option<String> {
        self.shortage
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Returns how much space there was when it was last measured, without waiting for the disk.
    pub(super) fn space(&self) -> Option<Space> {
        *self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether something was wrong with the space when it was last checked, without waiting for the disk.
    pub(super) fn is_short(&self) -> bool {
        let shortage = self.shortage.lock().unwrap_or_else(PoisonError::into_inner);
        shortage.is_some()
    }

    fn note(&self, state: &ReserveState) {
        let is_short = state.is_low || (self.size > 0 && state.held == 0);
        let shortage = is_short.then(|| self.describe(state));
        *self.shortage.lock().unwrap_or_else(PoisonError::into_inner) = shortage;
    }

    fn refresh(&self, state: &mut ReserveState) {
        let interval = if state.held == 0 {
            RETRY_INTERVAL
        } else {
            GROW_INTERVAL
        };
        let is_time = state.tried.elapsed() >= interval || state.is_room_likely;
        if state.held >= self.size || !is_time {
            return;
        }
        state.is_room_likely = false;
        state.tried = Instant::now();
        if state.held > 0 {
            if allocate(&self.root.join(RESERVE_FILE), self.size).is_ok() {
                (state.held, state.needed) = (self.size, self.size);
            }
            return;
        }
        state.held = match state.needed {
            0 => make_largest(&self.root, self.size),
            needed if make(&self.root, needed) => needed,
            _ => 0,
        };
        if state.held > 0 {
            state.needed = state.held;
            self.note(state);
            tracing::info!(root = %self.root.display(), "there is room again, and everything is taken");
        }
    }

    fn is_low(&self) -> bool {
        self.is_watched && self.measure().is_some_and(|space| space.free < LOW_SPACE_BYTES)
    }

    fn measure(&self) -> Option<Space> {
        let disk = statvfs(&self.root).ok()?;
        Some(Space {
            free: disk.f_bavail.saturating_mul(disk.f_frsize),
            size: disk.f_blocks.saturating_mul(disk.f_frsize),
        })
    }

    fn describe(&self, state: &ReserveState) -> String {
        let root = self.root.display();
        let kibibytes = |bytes: u64| bytes.div_ceil(1024);
        if state.held > 0 || self.size == 0 {
            return format!(
                "The disk of {root} is full: pulls are served, pushes get 507, and deletes have {} KiB that are kept for \
                 them. Make room on it: delete images, or files of others.",
                kibibytes(state.held)
            );
        }
        format!(
            "The disk of {root} is full, and nothing is kept for deletes: pulls are served, deletes are taken as far as there is \
             room, and pushes get 507 until {} KiB can be kept again. Make room on it: delete images, or files of others.",
            kibibytes(state.needed.max(self.size.min(LOW_SPACE_BYTES)))
        )
    }

    fn state(&self) -> MutexGuard<'_, ReserveState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sets aside as much of `size` as there is room for: all of it, a half, a quarter and so on. Returns how much that
/// was.
fn make_largest(root: &Path, size: u64) -> u64 {
    // A disk that never had much room reserves less.
    let smaller =
        successors(Some(size / 2), |size| Some(size / 2)).take_while(|size| *size >= LOW_SPACE_BYTES);
    let mut sizes = once(size).chain(smaller);
    sizes.find(|size| *size == 0 || make(root, *size)).unwrap_or(0)
}

fn make(root: &Path, size: u64) -> bool {
    let path = root.join(RESERVE_FILE);
    let made = allocate(&path, size).is_ok();
    if !made {
        // The part that was allocated is not enough, and takes room from operations that free space.
        drop(remove(&path));
    }
    made
}

/// Removes the file, and frees its space at once, even while another program has it open: one that copies the folder, or a
/// process that was just forked.
fn remove(path: &Path) -> io::Result<()> {
    // At the end of a quota btrfs cuts no file, but removes one.
    drop(
        OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|file| file.set_len(0)),
    );
    fs::remove_file(path)
}

fn allocate(path: &Path, size: u64) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE_FILE_MODE)
        .open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, size) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill(&mut file, size),
        allocated => Ok(allocated?),
    }
}

/// Writes data that no file system compresses or leaves out.
fn fill(file: &mut File, size: u64) -> io::Result<()> {
    let mut left = size;
    while left > 0 {
        let block: Vec<u8> = (0..256).flat_map(|_| uuid::Uuid::new_v4().into_bytes()).collect();
        file.write_all(&block)?;
        left = left.saturating_sub(block.len() as u64);
    }
    file.sync_all()
}
