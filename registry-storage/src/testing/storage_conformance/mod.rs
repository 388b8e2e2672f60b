//! What every [`Storage`] must do: one function for each behaviour, which panics if the storage behaves otherwise.
//!
//! [`storage_conformance_tests!`](crate::storage_conformance_tests) defines a test for each:
//!
//! ```ignore
//! async fn memory() -> Subject {
//!     Subject::over(Arc::new(ObjectStoreBackend::memory()))
//! }
//! registry_storage::storage_conformance_tests!(memory);
//! ```
//!
//! A behaviour expects its own empty storage. What the storage promises beyond a process is checked if the subject can
//! be reopened, and [`crash`] contains the behaviours that need a storage that fails on request.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a behaviour is a test: it panics where the storage is wrong"
)]

pub mod blobs;
pub mod concurrency;
pub mod crash;
pub mod immutable;
pub mod listings;
pub mod manifests;
pub mod referrers;
pub mod tags;
pub mod uploads;

mod fixtures;
mod macros;
mod random;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use registry_core::Storage;

use self::crash::Faults;
pub use self::random::Random;
use crate::{Backend, Store, StoreOptions, SystemClock};

/// Opens the data of a storage again, as another process would.
type Reopen = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Arc<dyn Storage>> + Send>> + Send + Sync>;

/// A storage to test, empty when it is created.
pub struct Subject {
    storage: Option<Arc<dyn Storage>>,
    reopen: Option<Reopen>,
    faults: Option<Arc<dyn Faults>>,
    kept: Option<Box<dyn Send + Sync>>,
}

impl Subject {
    /// Creates a subject from a storage.
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self {
            storage: Some(storage),
            reopen: None,
            faults: None,
            kept: None,
        }
    }

    /// Creates a subject from a store over a backend. It is reopened as another store over the same backend: everything
    /// that dies with the process is in the store.
    #[must_use]
    pub fn over(backend: Arc<impl Backend>) -> Self {
        let open = move || {
            let (clock, options) = (Arc::new(SystemClock), StoreOptions::default());
            Arc::new(Store::with_options(Arc::clone(&backend), clock, options)) as Arc<dyn Storage>
        };
        Self::new(open()).with_reopen(move || std::future::ready(open()))
    }

    /// Sets how the same data is opened again, as by another process. The earlier storage is dropped before, without
    /// being closed.
    #[must_use]
    pub fn with_reopen<F>(mut self, reopen: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Arc<dyn Storage>> + Send + 'static,
    {
        self.reopen = Some(Box::new(move || Box::pin(reopen())));
        self
    }

    /// Sets how the storage's medium is made to fail; a reopened storage fails the same way.
    #[must_use]
    pub fn with_faults(mut self, faults: Arc<dyn Faults>) -> Self {
        self.faults = Some(faults);
        self
    }

    /// Keeps something alive for as long as the storage: a temporary folder, a server.
    #[must_use]
    pub fn with_kept(mut self, kept: impl Send + Sync + 'static) -> Self {
        self.kept = Some(Box::new(kept));
        self
    }

    /// Returns the storage.
    #[must_use]
    pub fn storage(&self) -> Arc<dyn Storage> {
        Arc::clone(self.storage.as_ref().unwrap())
    }

    /// Returns what makes the medium fail, if anything can.
    fn faults(&self) -> Option<Arc<dyn Faults>> {
        self.faults.clone()
    }

    /// Drops the storage and opens its data again; returns `false` if nothing outlives it.
    pub async fn reopen(&mut self) -> bool {
        let Some(reopen) = &self.reopen else { return false };
        self.storage = None;
        self.storage = Some(reopen().await);
        true
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("can_reopen", &self.reopen.is_some())
            .field("keeps_something", &self.kept.is_some())
            .finish_non_exhaustive()
    }
}
