//! What keeps a store in order, for the process that has it.

mod store;

use std::fmt;
#[cfg(all(any(feature = "filesystem", feature = "layout"), unix))]
use std::path::Path;
#[cfg(all(feature = "filesystem", unix))]
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use registry_core::quota::Quota;
use registry_core::retention::{Retention, Verdicts};
use registry_core::storage::{Page, PageRequest, RepositoryDeleted};
use registry_core::{Digest, Error, RepositoryName, Storage, Timestamp};

#[cfg(all(feature = "filesystem", unix))]
use crate::backend::NotOnDisk;
use crate::backend::WriteState;
#[cfg(all(feature = "filesystem", unix))]
use crate::distribution::{
    self, AdoptError, AdoptOptions, AdoptReport, ExportError, ExportOptions, ExportReport, Tree,
};
#[cfg(all(feature = "filesystem", unix))]
use crate::filesystem::FilesystemBackend;
#[cfg(all(feature = "filesystem", unix))]
use crate::filesystem::backup::{BackupError, BackupReport};
#[cfg(all(feature = "layout", unix))]
use crate::layout::{LayoutError, LayoutReport};
#[cfg(all(feature = "filesystem", unix))]
use crate::object_store::ObjectStoreBackend;
use crate::observer::MaintenanceObserver;
use crate::secret::{Secret, SecretName};
#[cfg(all(feature = "filesystem", unix))]
use crate::store::Store;
use crate::store::check::{CheckOptions, CheckReport};
use crate::store::{
    CollectOptions, CollectReport, Contents, CountedPage, DeleteRepositoryOptions, LargestRepositories,
    NotedPulls, QuotaUsage, RepositoryUsage, RetainOptions, RetainReport, ScrubCounts, ScrubOptions,
    ScrubReport, SweepOptions, SweepReport,
};

/// Maintains a store on any backend, beside the requests that it serves.
///
/// `Arc<dyn Maintenance>` is all that a process needs of a store: it coerces to `Arc<dyn Storage>` for a
/// [`Registry`](registry_core::Registry). Only [`Store`](crate::Store) implements it, so operations can be added to it.
///
/// Each long operation takes its options, and a [`MaintenanceObserver`] that receives its progress and what it finds. Each may run
/// beside all requests and all other operations, and may be repeated.
///
/// ```
/// # use std::sync::Arc;
/// use registry_core::Storage;
/// use registry_storage::check::CheckOptions;
/// use registry_storage::{Finding, Maintenance, ObjectStoreBackend, Store};
///
/// # async fn maintain() -> Result<(), registry_core::Error> {
/// let store: Arc<dyn Maintenance> = Arc::new(Store::new(ObjectStoreBackend::memory()));
/// let storage: Arc<dyn Storage> = store.clone();
/// let print = |finding: Finding| println!("{finding}");
/// let report = store.check(&CheckOptions::new().repair(true), &print).await?;
/// assert!(report.is_sound());
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Maintenance: Storage + sealed::Sealed + fmt::Debug {
    /// Checks every record, and the bytes that records name.
    ///
    /// Cancel safe: what was repaired stays repaired.
    ///
    /// # Errors
    /// Those of the medium.
    async fn check(
        &self,
        options: &CheckOptions,
        observer: &dyn MaintenanceObserver,
    ) -> Result<CheckReport, Error>;

    /// Aborts idle upload sessions, forgets old ended ones, ends interrupted deletes and pushes, drops blobs that no
    /// repository may read any more, and deletes bytes that nothing names.
    ///
    /// It looks at the bytes that were written down because they may have lost what named them, and rarely at
    /// [all of them](SweepOptions::is_full), which also counts the [contents of the store](Self::counted_contents). Only how
    /// long a session may be idle depends on a clock. Unreadable records are skipped; while there is one that may name
    /// bytes, no bytes are deleted. Cancel safe.
    ///
    /// # Errors
    /// Those of the medium; what was swept stays swept. An error of writing records does not keep bytes from being
    /// deleted: a full disk may have room for nothing else.
    async fn sweep(&self, options: &SweepOptions) -> Result<SweepReport, Error>;

    /// Runs a cycle of the collector: condemns what no manifest names, and removes what an earlier cycle condemned.
    ///
    /// A blob that loses its last manifest is condemned by the first cycle, if it is older than the
    /// [grace](CollectOptions::grace), and removed by the first one that begins after the grace has passed again; the
    /// next [sweep](Self::sweep) deletes its bytes. In a bucket its bytes take one more cycle for the blob to be condemned,
    /// and one to be removed.
    ///
    /// While an adoption is in progress, nothing is collected. Cancel safe: what a cycle did stays done.
    ///
    /// Memory is bounded whatever the size of the store: some tens of MiB for the digests of a repository and the
    /// manifests that are being read.
    ///
    /// # Errors
    /// Those of the medium. A manifest that cannot be read is no error: its repository is left as it is and
    /// [counted](CollectReport::unreadable_repositories).
    async fn collect(
        &self,
        options: &CollectOptions,
        observer: &dyn MaintenanceObserver,
    ) -> Result<CollectReport, Error>;

    /// Drops the tags that no policy keeps, and removes manifests without a tag.
    ///
    /// A tag is dropped as it was judged: one that is pushed meanwhile stays. A manifest that nothing needs any more is
    /// condemned by one call, and removed by the first one that begins after the [grace](RetainOptions::grace) has passed; a
    /// push or a `HEAD` in between keeps it. What it names is then freed by [`collect`](Self::collect). Only that is
    /// dropped of which [`judge_retention`](Self::judge_retention) says so at that moment.
    ///
    /// While an adoption is in progress, nothing is dropped. Without a policy it makes no request. Cancel safe. Memory:
    /// some hundred bytes for each tag and manifest of one repository at a time.
    ///
    /// # Errors
    /// Those of the medium; what was dropped stays dropped. A tag or manifest that cannot be read is no error: its
    /// repository is left as it is and [counted](RetainReport::unreadable_repositories).
    async fn retain(
        &self,
        options: &RetainOptions,
        observer: &dyn MaintenanceObserver,
    ) -> Result<RetainReport, Error>;

    /// Returns what becomes of each tag and each manifest without one of a repository, if [`retain`](Self::retain) is called
    /// with the same options; `None` if something in it cannot be read, so that nothing is dropped. Changes nothing.
    ///
    /// # Errors
    /// [`NameUnknown`](registry_core::ErrorCode::NameUnknown), and those of the medium.
    async fn judge_retention(
        &self,
        repository: &RepositoryName,
        options: &RetainOptions,
    ) -> Result<Option<Verdicts>, Error>;

    /// Returns the time of the store's clock, which its records have.
    fn now(&self) -> Timestamp;

    /// Begins to record the pulls of the repositories whose policies use them, or says that they are still recorded: what is not
    /// [recorded](Self::record_pulls) counts as pulled at the beginning. It begins anew, so that everything counts as pulled now, if
    /// other patterns were recorded; if this was not called for an hour by any process, unless a
    /// [recorder](Self::add_pull_recorder) of this one knows of the pulls since; and with `is_anew`, because some pulls were not
    /// recorded. Returns whether it began. Cancel safe.
    ///
    /// # Errors
    /// Those of the medium.
    async fn begin_recording_pulls(&self, retention: &Retention, is_anew: bool) -> Result<bool, Error>;

    /// Records that manifests of a repository were pulled by now. The newest pull of a manifest counts, whichever process
    /// records it. The record of a repository has up to 10 000 manifests; beyond that, those that were pulled longest ago
    /// count as pulled when the newest of them was. Returns the time that was recorded. Cancel safe. A
    /// [`PullRecorder`](crate::PullRecorder) calls it.
    ///
    /// # Errors
    /// Those of the medium.
    async fn record_pulls(&self, repository: &RepositoryName, pulled: &[Digest]) -> Result<Timestamp, Error>;

    /// Adds what knows of pulls that are not recorded yet: they count in what [retention](Self::retain) decides. It is
    /// forgotten when it is dropped.
    fn add_pull_recorder(&self, recorder: Weak<dyn NotedPulls>);

    /// Forgets all pulls, because the ones that follow are not recorded. Returns whether any were recorded; if not, it is one
    /// request. Cancel safe.
    ///
    /// # Errors
    /// Those of the medium.
    async fn end_recording_pulls(&self) -> Result<bool, Error>;

    /// Reads the content of all blobs, slowly, and compares it with its digest: begins a round, or goes on with the one
    /// that is not finished, and returns at its end. If no round is due, or another process is at it, it returns at
    /// once, with [the time to wait](ScrubReport::wait) before the next call.
    ///
    /// Bytes that have their length and not their digest go into quarantine, as by a check that repairs: they are kept and
    /// never served again, and a push brings the blob back. Bytes that are gone or have another length are only reported:
    /// requests for them get 404, and a push brings them back to every repository. `observer` receives each finding. An
    /// error of reading is counted, and is no finding: it does not show that the content is wrong.
    ///
    /// The position of the round is recorded from time to time, so a restart continues there. Memory is bounded. Cancel
    /// safe: what was not written down is read again.
    ///
    /// # Errors
    /// Those of the medium, if several blobs in a row could not be read, or the place could not be written.
    async fn scrub(
        &self,
        options: &ScrubOptions,
        observer: &dyn MaintenanceObserver,
    ) -> Result<ScrubReport, Error>;

    /// Returns what this process [scrubbed](Self::scrub) since it began. It makes no request.
    fn scrubbed(&self) -> ScrubCounts;

    /// Deletes a repository: its tags, manifests, referrers, uploads in progress, and its right to read blobs. It leaves
    /// the catalog, and the [sweeper](Self::sweep) deletes the bytes that no repository has any more; in a bucket, after
    /// two more cycles of the [collector](Self::collect).
    ///
    /// What is pushed meanwhile is refused, or whole: a tag that is pushed after this began stays with everything that it
    /// needs, as a new repository, and so does what else was written since, or asked for by a `HEAD`
    /// ([counted](RepositoryDeleted::manifests_left)). Repositories below it (`a/b` below `a`) are others. Which was written
    /// first is told by the clocks of the processes.
    ///
    /// If the store keeps what is deleted ([`StoreOptions::keep_deleted`](crate::StoreOptions::keep_deleted)), its tags can be
    /// [restored](registry_core::storage::ManifestStorage::restore_tag) one by one, and it can still read the blobs of what is kept.
    ///
    /// Cancel safe: what was deleted stays deleted, and a repeated delete goes on.
    ///
    /// # Errors
    /// [`NameUnknown`](registry_core::ErrorCode::NameUnknown) if there is nothing;
    /// [`TagConflict`](registry_core::ErrorCode::TagConflict) with the name of an immutable tag;
    /// [`Unavailable`](registry_core::ErrorCode::Unavailable) while an adoption is in progress, or if a manifest cannot be
    /// read, after the tags were deleted; those of the medium.
    async fn delete_repository(
        &self,
        repository: &RepositoryName,
        options: &DeleteRepositoryOptions,
        observer: &dyn MaintenanceObserver,
    ) -> Result<RepositoryDeleted, Error>;

    /// Sets what repositories may have, in place of what was set before. What is over a quota already stays; only more of
    /// it is refused, with [`Denied`](registry_core::ErrorCode::Denied) and the numbers.
    ///
    /// A quota counts from then on. What there was before has to be [counted](Self::count_for_quotas) once: until then only
    /// what was added since is known, and limited. Each process that changes a store should have set the same patterns;
    /// the limits are its own. A process without them changes what is not counted until everything is counted again.
    fn set_quotas(&self, quotas: Vec<Quota>);

    /// Returns what is used of each of `quotas`, which this process or another one has [set](Self::set_quotas). It reads a
    /// record for each.
    ///
    /// # Errors
    /// Those of the medium.
    async fn quota_usage(&self, quotas: &[Quota]) -> Result<Vec<QuotaUsage>, Error>;

    /// Counts from the records what the repositories of quotas have, for each quota for which that is not known, or was
    /// counted at least `after` ago; `inexact_after` if it is [not exact](QuotaUsage::is_exact).
    ///
    /// Pushes go on and are counted meanwhile; some of them may count twice until the next count. It lists the tags,
    /// manifests and blobs of these repositories, and reads the records of the manifests and of the right to each blob.
    /// Returns how many quotas it counted for.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// Those of the medium.
    async fn count_for_quotas(
        &self,
        after: Duration,
        inexact_after: Duration,
        observer: &dyn MaintenanceObserver,
    ) -> Result<usize, Error>;

    /// Refuses a blob that no quota has room for now, unless the repository has it already; one of unknown size if not a
    /// byte is left. It is a look ahead, so that a client need not send it: what is published is decided when it is.
    ///
    /// # Errors
    /// [`Denied`](registry_core::ErrorCode::Denied) with the numbers; those of the medium.
    async fn require_room_for_blob(
        &self,
        repository: &RepositoryName,
        digest: Option<&Digest>,
        size: Option<u64>,
    ) -> Result<(), Error>;

    /// Counts what a repository has, from its records, and with `is_shared` how much of it another repository has too,
    /// which takes a listing for each blob.
    ///
    /// # Errors
    /// [`NameUnknown`](registry_core::ErrorCode::NameUnknown) if there is nothing; those of the medium.
    async fn repository_usage(
        &self,
        repository: &RepositoryName,
        is_shared: bool,
    ) -> Result<RepositoryUsage, Error>;

    /// Returns what the repositories after one had when a cycle of the [collector](Self::collect) counted them, some hundred at
    /// a time; `None` if no pass over all of them has counted them yet. It reads one small record for each repository, and only
    /// what appeared since is counted now. What is [shared](RepositoryUsage::shared) is counted on a disk, within the week
    /// after it changed.
    ///
    /// A cycle counts a repository if it reads it, so each says [when it was counted](crate::CountedRepository::counted) and
    /// whether it [changed](crate::CountedRepository::is_changed) since. What a process that is killed did not mark is counted a
    /// week later at most: a tag, or a manifest whose blobs were there. A push in another process marks these when that
    /// process runs its next cycle.
    ///
    /// # Errors
    /// Those of the medium.
    async fn counted_repositories(
        &self,
        after: Option<&RepositoryName>,
    ) -> Result<Option<CountedPage>, Error>;

    /// Returns the `count` repositories that had most bytes when they were counted, and what the others had together. It reads
    /// one small record for each repository, and keeps `count` of them in memory.
    ///
    /// # Errors
    /// Those of the medium.
    async fn largest_repositories(&self, count: usize) -> Result<LargestRepositories, Error>;

    /// Returns how often this process wrote down what a repository has, by cycles and deletes: if it is the same as before, only
    /// another process can have changed the [largest repositories](Self::largest_repositories). It makes no request.
    fn usage_writes(&self) -> u64;

    /// Returns the first repository with any record after another one, in the order of their records. Unlike the catalog it
    /// knows those without a manifest, and those of which only records of what was deleted are left.
    ///
    /// # Errors
    /// Those of the medium.
    async fn next_repository(&self, after: Option<&RepositoryName>) -> Result<Option<RepositoryName>, Error>;

    /// Lists the digests of the manifests of a repository, those without a tag too, in the order of their records. A page may have
    /// fewer items than its limit, even none, although more follow; `next` is opaque. An unknown repository has none.
    ///
    /// # Errors
    /// Those of the medium.
    async fn list_manifests(
        &self,
        repository: &RepositoryName,
        page: PageRequest,
    ) -> Result<Page<Digest>, Error>;

    /// Waits until a sweep may make room for writes that are refused for lack of space. Cancel safe.
    async fn sweep_wanted(&self);

    /// Returns what existed at the last [sweep of everything](SweepOptions::is_full), in any process, and when that ended;
    /// `None` before this store was first swept. It makes no request.
    fn counted_contents(&self) -> Option<(Contents, Timestamp)>;

    /// Writes a tree of the distribution registry below `root`, which is that registry's `rootdirectory`.
    ///
    /// It contains every repository that was ever pushed a manifest, and their manifests, tags and blobs, as they are
    /// at some moment of the export, and is durable when this returns. Over an existing tree, even the one that was
    /// adopted, it adds what is missing and points tags where they point here. It removes nothing, so what was deleted
    /// only here stays there. No file that it finds is written to; links that change are replaced.
    ///
    /// Content comes before the links to it, and each file appears whole. An export that ended early can be repeated,
    /// and does not repeat what was done. Cancel safe.
    ///
    /// # Errors
    /// [`ExportError`]; what was written before stays.
    #[cfg(all(feature = "filesystem", unix))]
    async fn export_distribution(
        &self,
        root: &Path,
        options: &ExportOptions,
        observer: &dyn MaintenanceObserver,
    ) -> Result<ExportReport, ExportError>;

    /// Writes an image layout, as [`layout::export`](crate::layout::export) does of any storage.
    ///
    /// # Errors
    /// [`LayoutError`].
    #[cfg(all(feature = "layout", unix))]
    async fn export_layout(
        &self,
        repositories: &[RepositoryName],
        target: &Path,
        observer: &dyn MaintenanceObserver,
    ) -> Result<LayoutReport, LayoutError>;

    /// Stores the images of a layout, as [`layout::import`](crate::layout::import) does in any storage.
    ///
    /// # Errors
    /// [`LayoutError`]; what was stored before stays.
    #[cfg(all(feature = "layout", unix))]
    async fn import_layout(
        &self,
        repositories: &[RepositoryName],
        source: &Path,
        observer: &dyn MaintenanceObserver,
    ) -> Result<LayoutReport, LayoutError>;

    /// Makes a backup of the whole store in the folder `target`, which must be empty or not exist.
    ///
    /// It contains everything that was answered before this is called. Pushes and pulls continue; deletes of bytes
    /// wait. Cancel safety: a dropped future ends the backup soon. The files of a backup that did not finish are
    /// removed.
    ///
    /// # Errors
    /// [`BackupError`]; [`NotOnDisk`](BackupError::NotOnDisk) unless the store is in a folder.
    #[cfg(all(feature = "filesystem", unix))]
    async fn backup(
        &self,
        target: &Path,
        observer: Arc<dyn MaintenanceObserver>,
    ) -> Result<BackupReport, BackupError> {
        self.on_disk()?.backend().back_up(target, observer).await
    }

    /// Adds the content of a tree of the distribution registry on the same file system.
    ///
    /// Records are written with the transactions of uploads and pushes, and files get a second name, so the tree stays
    /// as it is and only the content of blobs of up to 16 KiB is copied. What is broken is reported to `observer`, and
    /// everything else is adopted. A manifest with missing children is adopted without them, as it was served.
    ///
    /// It may be ended at any point, even by a loss of power, and begun again: it continues where it was. If repeated
    /// on purpose, it adds what the tree has and the store does not. If both have a tag, the one that was written later
    /// wins, by the time of the link's file. Deletes are not recorded: what was deleted on one side only reappears, or
    /// stays.
    ///
    /// Cancel safety: a dropped future leaves what a killed process leaves.
    ///
    /// # Errors
    /// [`AdoptError`]; what was adopted before an error stays. [`NotOnDisk`](AdoptError::NotOnDisk) unless the store is
    /// in a folder.
    #[cfg(all(feature = "filesystem", unix))]
    async fn adopt(
        &self,
        tree: &Tree,
        options: &AdoptOptions,
        observer: &dyn MaintenanceObserver,
    ) -> Result<AdoptReport, AdoptError> {
        distribution::adopt(self.on_disk()?, tree, options, observer).await
    }

    /// Returns the store itself if it is in a folder, for what only such a store has.
    ///
    /// # Errors
    /// [`NotOnDisk`] if it is not.
    #[cfg(all(feature = "filesystem", unix))]
    fn on_disk(&self) -> Result<&Store<FilesystemBackend>, NotOnDisk>;

    /// Returns the store itself if it is in a bucket, or in the memory of this process, for what only such a store has: see
    /// [`distribution`](crate::distribution).
    #[cfg(all(feature = "filesystem", unix))]
    fn in_bucket(&self) -> Option<&Store<ObjectStoreBackend>>;

    /// Returns whether the store can be written, and how much space it has, as far as was last seen. It makes no
    /// request.
    fn write_state(&self) -> WriteState;

    /// Succeeds if records and bytes can be read, and, on a disk, written, which is what a health check needs to know.
    /// It asks the medium, not a cache.
    ///
    /// # Errors
    /// What is wrong.
    async fn probe(&self) -> Result<(), Error>;

    /// Returns a secret that all processes of the store share, as it is now; `None` if there is none. Whoever may read the
    /// records can read it.
    ///
    /// # Errors
    /// Those of the medium; [`Internal`](registry_core::ErrorCode::Internal) if it is unreadable.
    async fn secret(&self, name: SecretName) -> Result<Option<Secret>, Error>;

    /// Writes a secret if it is still as it was in `before`, or, without `before`, if there is none. Returns whether it was
    /// written; if not, another process was faster, and [`secret`](Self::secret) returns what that one wrote. Cancel
    /// safety: after the future is dropped, it may have been written.
    ///
    /// # Errors
    /// Those of the medium; it may have been written anyway.
    async fn write_secret(
        &self,
        name: SecretName,
        value: Bytes,
        before: Option<&Secret>,
    ) -> Result<bool, Error>;

    /// Ends background work and makes everything durable. Later calls may fail.
    ///
    /// # Errors
    /// Those of the medium.
    async fn close(&self) -> Result<(), Error>;
}

mod sealed {
    #[expect(unnameable_types, reason = "only this crate may name it")]
    pub trait Sealed {}

    impl<B> Sealed for crate::store::Store<B> {}
}
