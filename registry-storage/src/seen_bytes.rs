//! Which bytes were recently seen whole, so that a pull in many ranges from a bucket, or many pushes of an image to a disk, ask
//! for their size once.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::bytes_name::BytesName;

/// How long it is remembered at most: for that long, bytes that were lost may be opened and then not be readable, or a manifest
/// that names them accepted.
const LIFETIME: Duration = Duration::from_mins(1);

/// The maximum number of names in a generation; some hundred bytes each.
const NAMES_PER_GENERATION: usize = 4096;

/// Names in two generations: the previous one is forgotten when a new one begins.
#[derive(Debug, Default)]
pub(crate) struct SeenBytes(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    begun: Option<Instant>,
    current: BTreeSet<BytesName>,
    before: BTreeSet<BytesName>,
}

impl SeenBytes {
    pub(crate) fn contains(&self, name: &BytesName) -> bool {
        self.with(|seen| seen.current.contains(name) || seen.before.contains(name))
    }

    pub(crate) fn insert(&self, name: &BytesName) {
        self.with(|seen| {
            if seen.current.len() >= NAMES_PER_GENERATION {
                seen.begin();
            }
            seen.current.insert(name.clone());
        });
    }

    pub(crate) fn remove(&self, name: &BytesName) {
        self.with(|seen| {
            seen.current.remove(name);
            seen.before.remove(name);
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Generations) -> T) -> T {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let age = seen.begun.map(|begun| begun.elapsed());
        if age.is_none_or(|age| age >= LIFETIME / 2) {
            seen.begin();
        }
        if age.is_some_and(|age| age >= LIFETIME) {
            seen.before.clear();
        }
        act(&mut seen)
    }
}

impl Generations {
    fn begin(&mut self) {
        self.begun = Some(Instant::now());
        self.before = std::mem::take(&mut self.current);
    }
}
