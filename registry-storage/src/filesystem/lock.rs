//! The lock by which one process owns a root.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use crate::clock::{Clock as _, SystemClock};

/// The longest description of a holder that is read.
const HOLDER_LIMIT: u64 = 4096;

/// Ownership of a root. It ends when this is dropped, or the process ends in any way.
#[derive(Debug)]
pub(super) struct RootLock {
    _file: File,
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
    /// Takes the lock if it is free, else tells who holds it. Does not wait.
    pub(super) fn try_take(path: &Path) -> io::Result<Result<Self, Holder>> {
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                writeln!(file, "{}", describe_this_process())?;
                Ok(Ok(Self { _file: file }))
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = Vec::new();
                file.take(HOLDER_LIMIT).read_to_end(&mut text)?;
                Ok(Err(Holder(String::from_utf8_lossy(&text).trim().to_owned())))
            }
            Err(TryLockError::Error(cause)) => Err(cause),
        }
    }
}

/// Names this process: identifier, time, and the command without its arguments' secrets, so only its first two words.
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
