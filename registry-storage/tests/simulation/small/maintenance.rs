//! Cycles, sweeps and counts.

use std::sync::atomic::Ordering;
use std::time::Duration;

use registry_storage::{Maintenance as _, SweepOptions};

use super::Client;

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

    pub(super) async fn count(&self) {
        self.world.has_counted.store(true, Ordering::Relaxed);
        self.process
            .count_for_quotas(Duration::ZERO, Duration::ZERO, &())
            .await
            .unwrap();
    }
}
