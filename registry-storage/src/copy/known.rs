//! A repository that is being copied, and what is known of it in the target.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use registry_core::{Digest, RepositoryName};

/// How many blobs and how many manifests of a repository are remembered: some 5 MiB each. More are asked for again.
const REMEMBERED: usize = 50_000;

/// A repository that is being copied.
#[derive(Debug)]
pub(super) struct Repository {
    pub(super) name: RepositoryName,
    known: Mutex<Known>,
}

impl Repository {
    pub(super) fn new(name: RepositoryName) -> Self {
        Self {
            name,
            known: Mutex::default(),
        }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

/// What was looked for or copied in one repository.
#[derive(Debug, Default)]
pub(super) struct Known {
    blobs: HashMap<Digest, bool>,
    manifests: HashMap<Digest, bool>,
    /// The target lists the repository.
    pub(super) is_listed: bool,
}

impl Known {
    /// Returns whether the target has a blob, or cannot have it; `None` if that is not known.
    pub(super) fn blob(&self, digest: &Digest) -> Option<bool> {
        self.blobs.get(digest).copied()
    }

    pub(super) fn add_blob(&mut self, digest: &Digest, is_there: bool) {
        if self.blobs.len() >= REMEMBERED {
            self.blobs.clear();
        }
        self.blobs.insert(digest.clone(), is_there);
    }

    /// Returns whether the target has a manifest, or cannot have it; `None` if that is not known.
    pub(super) fn manifest(&self, digest: &Digest) -> Option<bool> {
        self.manifests.get(digest).copied()
    }

    pub(super) fn add_manifest(&mut self, digest: &Digest, is_there: bool) {
        if self.manifests.len() >= REMEMBERED {
            self.manifests.clear();
        }
        self.manifests.insert(digest.clone(), is_there);
    }

    /// Forgets that the target has content, because it says that it does not.
    pub(super) fn forget(&mut self, digest: &Digest) {
        self.blobs.remove(digest);
        self.manifests.remove(digest);
    }
}
