//! Progress of a copy, in bytes of blobs and manifests.

use std::sync::atomic::{AtomicU64, Ordering};

use registry_core::storage::PageRequest;
use registry_core::{ErrorCode, RepositoryName};

use super::error::in_source;
use super::{CopyError, PAGE, is_unknown};
use crate::maintenance::Maintenance;
use crate::observer::{MaintenanceObserver, Step};

/// How many bytes were copied, or need not be, and how many there are in total.
pub(super) struct Progress<'a> {
    observer: &'a dyn MaintenanceObserver,
    done: AtomicU64,
    total: u64,
}

impl<'a> Progress<'a> {
    pub(super) fn new(observer: &'a dyn MaintenanceObserver, total: u64) -> Self {
        observer.step(Step::Copying, 0, Some(total));
        Self {
            observer,
            done: AtomicU64::new(0),
            total,
        }
    }

    /// There may turn out to be more than the known total.
    pub(super) fn add(&self, bytes: u64) {
        let before = self.done.fetch_add(bytes, Ordering::Relaxed);
        let done = before.saturating_add(bytes);
        self.observer
            .step(Step::Copying, done, Some(self.total.max(done)));
    }
}

/// Returns how many bytes the repositories have, or all if none is named; a blob counts in each. It is what the collector
/// counted, if it did, otherwise it is counted now.
pub(super) async fn expected_bytes(
    source: &dyn Maintenance,
    repositories: &[RepositoryName],
) -> Result<u64, CopyError> {
    let counting = || in_source("counting what there is");
    let mut sum = 0_u64;
    if !repositories.is_empty() {
        for repository in repositories {
            let counted = source.repository_usage(repository, false).await;
            let counted = match counted {
                Err(error) if error.code() == ErrorCode::NameUnknown => {
                    return Err(CopyError::NoRepository(repository.clone()));
                }
                counted => counted.map_err(in_source(format!("looking for {repository}")))?,
            };
            sum = sum.saturating_add(counted.amount().bytes);
        }
        return Ok(sum);
    }
    let mut after = None;
    while let Some(page) = source
        .counted_repositories(after.as_ref())
        .await
        .map_err(counting())?
    {
        for counted in page.repositories {
            sum = sum.saturating_add(counted.usage.amount().bytes);
        }
        after = page.next;
        if after.is_none() {
            return Ok(sum);
        }
    }
    let (mut sum, mut last) = (0_u64, None);
    loop {
        let page = PageRequest { last, limit: PAGE };
        let listed = source.list_repositories(page).await.map_err(counting())?;
        for repository in listed.items {
            match source.repository_usage(&repository, false).await {
                Ok(counted) => sum = sum.saturating_add(counted.amount().bytes),
                // It was just deleted.
                Err(error) if is_unknown(&error) => {}
                Err(error) => return Err(counting()(error)),
            }
        }
        last = listed.next;
        if last.is_none() {
            return Ok(sum);
        }
    }
}
