//! Any store is maintained in the same way.

#[cfg(all(feature = "filesystem", unix))]
use std::any::Any;
#[cfg(all(any(feature = "filesystem", feature = "layout"), unix))]
use std::path::Path;
use std::sync::Weak;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use registry_core::quota::Quota;
use registry_core::retention::{Retention, Verdicts};
use registry_core::storage::{Page, PageRequest, RepositoryDeleted};
use registry_core::{Digest, Error, RepositoryName, Timestamp};

use super::Maintenance;
#[cfg(all(feature = "filesystem", unix))]
use crate::backend::NotOnDisk;
use crate::backend::{Backend, WriteState};
#[cfg(all(feature = "filesystem", unix))]
use crate::distribution::{self, ExportError, ExportOptions, ExportReport};
#[cfg(all(feature = "filesystem", unix))]
use crate::filesystem::{BYTES_FOLDER, FilesystemBackend};
#[cfg(all(feature = "layout", unix))]
use crate::layout::{self, LayoutError, LayoutReport};
#[cfg(all(feature = "filesystem", unix))]
use crate::object_store::ObjectStoreBackend;
use crate::observer::MaintenanceObserver;
use crate::secret::{Secret, SecretName};
use crate::store::check::{self, CheckOptions, CheckReport};
use crate::store::{
    CollectOptions, CollectReport, Contents, CountedPage, DeleteRepositoryOptions, LargestRepositories,
    NotedPulls, QuotaUsage, RepositoryUsage, RetainOptions, RetainReport, ScrubCounts, ScrubOptions,
    ScrubReport, Store, SweepOptions, SweepReport,
};

#[async_trait]
impl<B: Backend> Maintenance for Store<B> {
    async fn check(
        &self,
        options: &CheckOptions,
        observer: &dyn MaintenanceObserver,
    ) -> Result<CheckReport, Error> {
        check::check(self, options, observer).await
    }

    async fn sweep(&self, options: &SweepOptions) -> Result<SweepReport, Error> {
        self.sweep_once(options).await
    }

    async fn collect(
        &self,
        options: &CollectOptions,
        observer: &dyn MaintenanceObserver,
    ) -> Result<CollectReport, Error> {
        self.run_cycle(options, observer).await
    }

    async fn retain(
        &self,
        options: &RetainOptions,
        observer: &dyn MaintenanceObserver,
    ) -> Result<RetainReport, Error> {
        self.run_retention(options, observer).await
    }

    async fn judge_retention(
        &self,
        repository: &RepositoryName,
        options: &RetainOptions,
    ) -> Result<Option<Verdicts>, Error> {
        self.judge(repository, options).await
    }

    fn now(&self) -> Timestamp {
        self.time()
    }

    async fn begin_recording_pulls(&self, retention: &Retention, is_anew: bool) -> Result<bool, Error> {
        self.begin_pulls(retention, is_anew).await
    }

    async fn record_pulls(&self, repository: &RepositoryName, pulled: &[Digest]) -> Result<Timestamp, Error> {
        self.write_pulls(repository, pulled).await
    }

    fn add_pull_recorder(&self, recorder: Weak<dyn NotedPulls>) {
        self.add_recorder(recorder);
    }

    async fn end_recording_pulls(&self) -> Result<bool, Error> {
        self.end_pulls().await
    }

    async fn scrub(
        &self,
        options: &ScrubOptions,
        observer: &dyn MaintenanceObserver,
    ) -> Result<ScrubReport, Error> {
        self.scrub_round(options, observer).await
    }

    fn scrubbed(&self) -> ScrubCounts {
        self.scrub_counts()
    }

    async fn delete_repository(
        &self,
        repository: &RepositoryName,
        options: &DeleteRepositoryOptions,
        observer: &dyn MaintenanceObserver,
    ) -> Result<RepositoryDeleted, Error> {
        self.note_room(self.delete_whole_repository(repository, options, observer).await)
    }

    fn set_quotas(&self, quotas: Vec<Quota>) {
        self.replace_quotas(quotas);
    }

    async fn quota_usage(&self, quotas: &[Quota]) -> Result<Vec<QuotaUsage>, Error> {
        self.used_quotas(quotas).await
    }

    async fn count_for_quotas(
        &self,
        after: Duration,
        inexact_after: Duration,
        observer: &dyn MaintenanceObserver,
    ) -> Result<usize, Error> {
        self.count_all(after, inexact_after, observer).await
    }

    async fn require_room_for_blob(
        &self,
        repository: &RepositoryName,
        digest: Option<&Digest>,
        size: Option<u64>,
    ) -> Result<(), Error> {
        self.has_room_for_blob(repository, digest, size).await
    }

    async fn repository_usage(
        &self,
        repository: &RepositoryName,
        is_shared: bool,
    ) -> Result<RepositoryUsage, Error> {
        self.usage_of(repository, is_shared).await
    }

    async fn counted_repositories(
        &self,
        after: Option<&RepositoryName>,
    ) -> Result<Option<CountedPage>, Error> {
        self.list_counted(after).await
    }

    fn usage_writes(&self) -> u64 {
        self.usage_writes()
    }

    async fn largest_repositories(&self, count: usize) -> Result<LargestRepositories, Error> {
        self.find_largest(count).await
    }

    async fn next_repository(&self, after: Option<&RepositoryName>) -> Result<Option<RepositoryName>, Error> {
        self.next_in_order(after).await
    }

    async fn list_manifests(
        &self,
        repository: &RepositoryName,
        page: PageRequest,
    ) -> Result<Page<Digest>, Error> {
        self.page_of_manifests(repository, page).await
    }

    async fn sweep_wanted(&self) {
        self.room().wanted().await;
    }

    fn counted_contents(&self) -> Option<(Contents, Timestamp)> {
        self.last_counted()
    }

    #[cfg(all(feature = "filesystem", unix))]
    async fn export_distribution(
        &self,
        root: &Path,
        options: &ExportOptions,
        observer: &dyn MaintenanceObserver,
    ) -> Result<ExportReport, ExportError> {
        let disk = self.on_disk().ok();
        let bytes = disk.filter(|_| options.link);
        let bytes = bytes.map(|disk| disk.backend().root().join(BYTES_FOLDER));
        let report = distribution::export(self, bytes, root, observer).await?;
        if let Some(disk) = disk {
            distribution::note_export(disk, root).await?;
        }
        Ok(report)
    }

    #[cfg(all(feature = "layout", unix))]
    async fn export_layout(
        &self,
        repositories: &[RepositoryName],
        target: &Path,
        observer: &dyn MaintenanceObserver,
    ) -> Result<LayoutReport, LayoutError> {
        layout::export(self, repositories, target, observer).await
    }

    #[cfg(all(feature = "layout", unix))]
    async fn import_layout(
        &self,
        repositories: &[RepositoryName],
        source: &Path,
        observer: &dyn MaintenanceObserver,
    ) -> Result<LayoutReport, LayoutError> {
        layout::import(self, source, repositories, observer).await
    }

    /// A backend that is a disk is known by its type: what only a disk has stays out of [`Backend`], and its code is
    /// compiled once, for the one type that has it.
    #[cfg(all(feature = "filesystem", unix))]
    fn on_disk(&self) -> Result<&Store<FilesystemBackend>, NotOnDisk> {
        (self as &dyn Any).downcast_ref().ok_or(NotOnDisk)
    }

    #[cfg(all(feature = "filesystem", unix))]
    fn in_bucket(&self) -> Option<&Store<ObjectStoreBackend>> {
        (self as &dyn Any).downcast_ref()
    }

    fn write_state(&self) -> WriteState {
        self.backend().write_state()
    }

    async fn probe(&self) -> Result<(), Error> {
        self.backend().probe().await
    }

    async fn secret(&self, name: SecretName) -> Result<Option<Secret>, Error> {
        self.read_secret(name).await
    }

    async fn write_secret(
        &self,
        name: SecretName,
        value: Bytes,
        before: Option<&Secret>,
    ) -> Result<bool, Error> {
        self.replace_secret(name, value, before).await
    }

    async fn close(&self) -> Result<(), Error> {
        // It is only for what is counted.
        if let Err(error) = self.mark_touched().await {
            tracing::warn!(%error, "what was pushed last is counted within a week");
        }
        self.backend().close().await
    }
}
