//! Sweeps, cycles, retention, and the delete of a repository.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use registry_core::ErrorCode;
use registry_core::retention::{KeepRule, Retention, RetentionPolicy};
use registry_storage::{DeleteRepositoryOptions, Maintenance as _, RetainOptions, SweepOptions};

use super::TASKS;
use super::client::Client;
use crate::collecting;

impl Client {
    pub(super) async fn sweep(&mut self) {
        let process = Arc::clone(self.process());
        let options = SweepOptions::default();
        self.request(|| process.sweep(&options)).await.unwrap();
    }

    /// Drops the tags of no client, and the manifests without a tag.
    pub(super) async fn retain(&mut self) {
        let process = Arc::clone(self.process());
        self.world.clock.advance(Duration::from_millis(1));
        let keep = |tags: &str, rules: Vec<KeepRule>| RetentionPolicy {
            repositories: vec!["**".parse().unwrap()],
            tags: vec![tags.parse().unwrap()],
            keep: rules,
            untagged: Some(Duration::ZERO),
            pulled_within: None,
        };
        let newest = KeepRule {
            newest: NonZeroU32::new(TASKS as u32),
            ..KeepRule::default()
        };
        let retention = Arc::new(Retention {
            policies: vec![keep("own-*", vec![newest]), keep("t*", Vec::new())],
            immutable: Vec::new(),
        });
        let options = RetainOptions::new(retention, &collecting());
        self.world.deletes.fetch_add(1, Ordering::Relaxed);
        self.request(|| process.retain(&options, &())).await.unwrap();
        self.world.deletes.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) async fn delete_repository(&mut self) {
        let repository = self.world.repositories[1].clone();
        let process = Arc::clone(self.process());
        self.world.clock.advance(Duration::from_millis(1));
        self.world.deletes.fetch_add(1, Ordering::Relaxed);
        let options = DeleteRepositoryOptions::new();
        let deleted = self.request(|| process.delete_repository(&repository, &options, &()));
        if let Err(error) = deleted.await {
            assert_eq!(error.code(), ErrorCode::NameUnknown, "{error:?}");
        }
        self.world.deletes.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) async fn collect(&mut self) {
        let process = Arc::clone(self.process());
        // The time is part of what a record's age is.
        self.world.clock.advance(Duration::from_millis(1));
        let options = collecting();
        self.request(|| process.collect(&options, &())).await.unwrap();
    }
}
