//! Pulls that this process knows of and has not written down.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use registry_core::{Digest, RepositoryName, Timestamp};

/// Pulls that are in the memory of a [`PullRecorder`](crate::PullRecorder).
pub trait NotedPulls: fmt::Debug + Send + Sync {
    /// Returns since when every pull was noted.
    fn since(&self) -> Timestamp;

    /// Returns the manifests of a repository whose last pull is not written down.
    fn waiting_of(&self, repository: &RepositoryName) -> Vec<Digest>;
}

/// The recorders of a store.
#[derive(Debug, Default)]
pub(super) struct Recorders(Mutex<Vec<Weak<dyn NotedPulls>>>);

impl Recorders {
    pub(super) fn add(&self, recorder: Weak<dyn NotedPulls>) {
        let mut recorders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recorders.retain(|recorder| recorder.strong_count() > 0);
        recorders.push(recorder);
    }

    fn all(&self) -> Vec<Arc<dyn NotedPulls>> {
        let recorders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recorders.iter().filter_map(Weak::upgrade).collect()
    }

    /// Returns since when every pull was noted; `None` without a recorder.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.all().iter().map(|recorder| recorder.since()).min()
    }

    /// Returns the manifests of a repository whose last pull is not written down.
    pub(super) fn waiting_of(&self, repository: &RepositoryName) -> Vec<Digest> {
        let all = self.all();
        all.iter()
            .flat_map(|recorder| recorder.waiting_of(repository))
            .collect()
    }
}
