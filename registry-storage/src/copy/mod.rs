//! Copying what a store has to another storage: from a folder to a bucket, and back.
//!
//! Both sides are used as clients use them. The source is read, and the target gets uploads, mounts and pushes, so servers, the
//! collector and other copies may work on either of them meanwhile. What the target has is left alone; a copy that is repeated
//! sends only what is new since.
//!
//! The order is that of a push: for each manifest its blobs, then the manifests that it names, then the manifest itself; at last
//! the tags. Referrers follow from the manifests.

mod blobs;
mod error;
mod known;
mod manifests;
mod progress;
mod report;
mod tags;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use registry_core::policy::ImmutableTagRule;
use registry_core::storage::PageRequest;
use registry_core::{Digest, Error, ErrorCode, RepositoryName, Storage};
use tokio::sync::{Semaphore, SemaphorePermit};

pub use self::error::CopyError;
use self::error::{in_source, in_target, is_of_storage};
use self::known::Repository;
use self::progress::Progress;
pub use self::report::{CopyReport, NotCopied, NotCopiedReason};
use crate::maintenance::Maintenance;
use crate::observer::{Finding, MaintenanceObserver};

/// How many names or digests are listed at once.
const PAGE: usize = 500;

/// How many repositories are copied at once.
const PARALLEL_REPOSITORIES: usize = 4;

/// How many manifests of a repository are copied at once; a bucket takes some milliseconds for each.
const PARALLEL_MANIFESTS: usize = 8;

/// How many blobs are sent at once.
const PARALLEL_BLOBS: usize = 4;

/// How many tags of a repository are compared at once.
const PARALLEL_TAGS: usize = 16;

/// Content whose digest falls into the same one of so many groups is copied one after the other, so that nothing is sent
/// twice at once.
const TURNS: usize = 64;

/// What is copied, and how.
#[derive(Clone, Debug, Default)]
pub struct CopyOptions {
    repositories: Vec<RepositoryName>,
    immutable: Vec<ImmutableTagRule>,
}

impl CopyOptions {
    /// Everything is copied, and tags of the target are moved.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Copies only these repositories; all if there are none.
    #[must_use]
    pub fn repositories(mut self, repositories: Vec<RepositoryName>) -> Self {
        self.repositories = repositories;
        self
    }

    /// The tags of the target that never move. One of them that names something else there is reported, and stays.
    #[must_use]
    pub fn immutable(mut self, rules: Vec<ImmutableTagRule>) -> Self {
        self.immutable = rules;
        self
    }
}

/// Copies repositories from a store to another storage: manifests with their media types, with and without tags, the blobs
/// that they name, and tags.
///
/// What the target has is not sent again, and a blob that another repository of the target has is mounted. A blob is read once,
/// and the target compares it with its digest. What cannot be copied, because it is damaged, missing or refused, is reported to
/// `observer`, counted in [`CopyReport::faults`], and everything else is copied: a manifest that names it is stored
/// nevertheless, as the source serves it.
///
/// A tag that names something else in the target is moved, unless it is immutable there. Nothing is deleted: tags that only the
/// target has stay. Left behind are what tags named before, what is deleted and can still be restored, when and by whom tags
/// were pushed, when manifests were pulled, repositories without a manifest, and blobs that no manifest names.
///
/// What is pushed to the source meanwhile may be copied or not. Cancel safe, and safe to repeat after any end: what was copied
/// stays, and is found. Memory is bounded: some 50 MiB, and what sending four blobs takes.
///
/// # Errors
/// [`CopyError`], if one of the sides cannot be used; a repository of the options that the source does not know.
pub async fn copy(
    source: &dyn Maintenance,
    target: &dyn Storage,
    options: &CopyOptions,
    observer: &dyn MaintenanceObserver,
) -> Result<CopyReport, CopyError> {
    let total = progress::expected_bytes(source, &options.repositories).await?;
    let copy = Copy {
        source,
        target,
        options,
        observer,
        progress: Progress::new(observer, total),
        report: Mutex::default(),
        sending: Semaphore::new(PARALLEL_BLOBS),
        turns: [const { Semaphore::const_new(1) }; TURNS],
    };
    if options.repositories.is_empty() {
        let mut last = None;
        loop {
            let page = PageRequest { last, limit: PAGE };
            let listed = source.list_repositories(page).await;
            let listed = listed.map_err(in_source("listing the repositories"))?;
            copy.repositories(listed.items).await?;
            last = listed.next;
            if last.is_none() {
                break;
            }
        }
    } else {
        let named = BTreeSet::from_iter(options.repositories.clone());
        copy.repositories(named).await?;
    }
    Ok(copy.report.into_inner().unwrap_or_else(PoisonError::into_inner))
}

struct Copy<'a> {
    source: &'a dyn Maintenance,
    target: &'a dyn Storage,
    options: &'a CopyOptions,
    observer: &'a dyn MaintenanceObserver,
    progress: Progress<'a>,
    report: Mutex<CopyReport>,
    /// A permit for each blob that is sent at once.
    sending: Semaphore,
    /// One permit each, for the content of a group.
    turns: [Semaphore; TURNS],
}

impl Copy<'_> {
    async fn repositories(&self, names: impl IntoIterator<Item = RepositoryName>) -> Result<(), CopyError> {
        let copies: Vec<_> = names.into_iter().map(|name| self.repository(name)).collect();
        let copies = stream::iter(copies).buffer_unordered(PARALLEL_REPOSITORIES);
        copies.try_collect().await
    }

    async fn repository(&self, name: RepositoryName) -> Result<(), CopyError> {
        let repository = &Repository::new(name);
        let mut last = None;
        loop {
            let page = PageRequest { last, limit: PAGE };
            let listed = self.list_manifests(repository, &page).await?;
            let trees: Vec<_> = listed
                .items
                .iter()
                .map(|digest| self.listed_manifest(repository, digest))
                .collect();
            let trees = stream::iter(trees).buffer_unordered(PARALLEL_MANIFESTS);
            let unread: Vec<Digest> = trees
                .try_filter_map(async |unread| Ok(unread))
                .try_collect()
                .await?;
            if !unread.is_empty() {
                self.report_unread(repository, &page, unread).await?;
            }
            last = listed.next;
            if last.is_none() {
                break;
            }
        }
        self.tags(repository).await?;
        self.count(|report| report.repositories += 1);
        Ok(())
    }

    async fn list_manifests(
        &self,
        repository: &Repository,
        page: &PageRequest,
    ) -> Result<registry_core::storage::Page<Digest>, CopyError> {
        let listed = self.source.list_manifests(&repository.name, page.clone()).await;
        listed.map_err(in_source(format!("listing the manifests of {repository}")))
    }

    /// Copies a manifest with everything that it names. Returns its digest if it cannot be read.
    async fn listed_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Digest>, CopyError> {
        let is_there = self.tree(repository, digest).await?;
        Ok((!is_there).then(|| digest.clone()))
    }

    /// Reports manifests that were listed and cannot be read, unless they were deleted meanwhile.
    async fn report_unread(
        &self,
        repository: &Repository,
        page: &PageRequest,
        unread: Vec<Digest>,
    ) -> Result<(), CopyError> {
        let listed = self.list_manifests(repository, page).await?.items;
        for digest in unread {
            if listed.contains(&digest) {
                self.fault(repository, &digest, NotCopiedReason::Damaged).await;
            }
        }
        Ok(())
    }

    /// Waits until nothing else of the same group is copied.
    async fn turn(&self, digest: &Digest) -> Option<SemaphorePermit<'_>> {
        let letters = digest.encoded().bytes();
        let number = letters.fold(0_usize, |sum, letter| {
            sum.wrapping_mul(31).wrapping_add(letter.into())
        });
        let turn = self.turns.get(number % TURNS)?;
        // Nobody closes it.
        turn.acquire().await.ok()
    }

    fn count(&self, add: impl FnOnce(&mut CopyReport)) {
        add(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn fault(&self, repository: &Repository, what: impl ToString, reason: NotCopiedReason) {
        self.count(|report| report.faults += 1);
        self.found(repository, what, reason).await;
    }

    async fn found(&self, repository: &Repository, what: impl ToString, reason: NotCopiedReason) {
        let not_copied = NotCopied {
            repository: repository.name.clone(),
            what: what.to_string(),
            reason,
        };
        self.observer.found(Finding::NotCopied(not_copied)).await;
    }

    /// Reports that the target refused something. An error of the target itself ends the copy.
    async fn refused(
        &self,
        repository: &Repository,
        what: impl ToString,
        error: Error,
    ) -> Result<(), CopyError> {
        if is_of_storage(error.code()) {
            let what = format!("storing {} in {repository}", what.to_string());
            return Err(in_target(what)(error));
        }
        self.fault(repository, what, NotCopiedReason::Refused(error))
            .await;
        Ok(())
    }
}

/// Returns whether an error says that something is not there.
fn is_unknown(error: &Error) -> bool {
    matches!(
        error.code(),
        ErrorCode::BlobUnknown | ErrorCode::ManifestUnknown | ErrorCode::NameUnknown
    )
}
