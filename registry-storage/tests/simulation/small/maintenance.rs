//! Cycles, sweeps and counts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use registry_core::ErrorCode;
use registry_core::retention::{KeepRule, Retention, RetentionPolicy};
use registry_storage::{DeleteRepositoryOptions, Maintenance as _, RetainOptions, SweepOptions};

use super::Client;
use super::work::Work;

impl Client {
    pub(super) async fn collect(&self) {
        // The time is part of what a record's age is.
        self.world.clock.advance(Duration::from_millis(1));
        self.process.collect(&crate::collecting(), &()).await.unwrap();
    }

    pub(super) async fn sweep(&mut self) {
        let options = SweepOptions::new().full(self.random.below(2) == 0);
        self.process.sweep(&options).await.unwrap();
    }

    pub(super) async fn sweep_all(&self) {
        let options = SweepOptions::new().full(true);
        self.process.sweep(&options).await.unwrap();
    }

    pub(super) async fn record_pulls(&self) {
        let retention = self.retention();
        let begun = self.process.begin_recording_pulls(&retention, false);
        begun.await.unwrap();
    }

    /// Keeps the tags that were pushed, or pulled, since the world began.
    fn retention(&self) -> Retention {
        let lately = Some(super::BEFORE / 2);
        let is_about_pulls = self.world.work == Work::Pulls;
        let newer = KeepRule {
            pushed_within: lately.filter(|_| !is_about_pulls),
            pulled_within: lately.filter(|_| is_about_pulls),
            ..KeepRule::default()
        };
        let policy = RetentionPolicy {
            repositories: vec!["**".parse().unwrap()],
            tags: vec!["**".parse().unwrap()],
            keep: vec![newer],
            untagged: Some(Duration::ZERO),
            pulled_within: None,
        };
        Retention {
            policies: vec![policy],
            immutable: Vec::new(),
        }
    }

    /// Drops the tags that were pushed before the world began, and the manifests without one.
    pub(super) async fn retain(&self) {
        self.world.clock.advance(Duration::from_millis(1));
        let retention = self.retention();
        let options = RetainOptions::new(Arc::new(retention), &crate::collecting());
        self.process.retain(&options, &()).await.unwrap();
    }

    pub(super) async fn delete_repository(&mut self) {
        self.world.clock.advance(Duration::from_millis(1));
        let options = DeleteRepositoryOptions::new();
        let repository = self.repository();
        let deleted = self.process.delete_repository(&repository, &options, &()).await;
        if let Err(error) = deleted {
            assert_eq!(error.code(), ErrorCode::NameUnknown, "{error:?}");
        }
    }

    pub(super) async fn count(&self) {
        self.world.has_counted.store(true, Ordering::Relaxed);
        self.process
            .count_for_quotas(Duration::ZERO, Duration::ZERO, &())
            .await
            .unwrap();
    }
}
