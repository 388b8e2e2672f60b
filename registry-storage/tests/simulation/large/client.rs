//! Somebody who makes requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use registry_core::storage::ManifestStorage as _;
use registry_core::{Digest, Error, ErrorCode, Reference, RepositoryName};
use registry_storage::testing::storage_conformance::Random;

use super::{STEPS, Simulation, Trouble, Work};
use crate::{Process, poll_times};

/// Somebody who pushes, mounts, deletes, reads and sweeps.
pub(super) struct Client {
    pub(super) world: Simulation,
    pub(super) random: Random,
    pub(super) number: u64,
    /// What the client's own tag names in each repository.
    pub(super) own_tag: BTreeMap<RepositoryName, Digest>,
}

impl Client {
    pub(super) async fn run(mut self) {
        let steps = if self.is_collecting() { 4 * STEPS } else { STEPS };
        for _ in 0..steps {
            crate::wait(self.random.below(10)).await;
            let steps: &[usize] = match self.world.work {
                Work::All => &[0, 0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 10],
                Work::Manifests => &[4, 4, 4, 5, 6, 6, 6, 7, 8],
                Work::Uploads => &[0, 1, 1, 1, 2, 3, 8, 8, 8, 9],
                Work::Collector if self.number < 2 => &[8, 11, 11, 11],
                Work::Collector => &[0, 2, 2, 6, 6, 6, 6, 9, 12, 12, 12, 12, 12],
                Work::Retention if self.number < 2 => &[8, 11, 11, 13, 13],
                Work::Retention => &[0, 2, 4, 6, 9, 10, 10, 10, 12, 12, 12],
                Work::Repository if self.number < 2 => &[8, 11, 11, 14],
                Work::Repository => &[0, 2, 2, 6, 9, 10, 10, 12, 12, 12, 12],
            };
            match steps[self.random.below(steps.len())] {
                0 => self.push_blob().await,
                1 => self.race_on_a_session().await,
                2 => self.mount().await,
                3 => self.delete_blob().await,
                4 => self.push_image().await,
                5 => self.push_own_image().await,
                6 => self.delete_image().await,
                7 => self.delete_tag().await,
                8 => self.sweep().await,
                9 => self.read().await,
                11 => self.collect().await,
                12 => self.push_again().await,
                13 => self.retain().await,
                14 => self.delete_repository().await,
                _ => self.push_own_tag().await,
            }
        }
        for (repository, digest) in &self.own_tag {
            let own = Reference::Tag(self.own_tag_name());
            let read = attempt(&self.world, || self.process().get_manifest(repository, &own)).await;
            assert_eq!(read.unwrap().digest, *digest, "an acknowledged tag was lost");
        }
    }

    pub(super) fn process(&self) -> &Arc<Process> {
        &self.world.processes[(self.number % 2) as usize]
    }

    pub(super) fn repository(&mut self) -> RepositoryName {
        let count = if self.world.work == Work::Manifests { 1 } else { 2 };
        self.world.repositories[self.random.below(count)].clone()
    }

    pub(super) fn blob(&mut self) -> usize {
        match self.world.work {
            // The large ones, whose bytes have a name.
            Work::Uploads => 1 + 2 * self.random.below(2),
            _ => self.random.below(self.world.blobs.len()),
        }
    }

    /// Makes a request again until the bucket answers, and where clients go away, drops it first.
    pub(super) async fn request<T, F>(&mut self, request: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        if self.world.trouble == Trouble::Drops && self.random.below(4) == 0 {
            let polls = 1 + self.random.below(40);
            if let Some(result) = poll_times(request(), polls).await {
                return result;
            }
        }
        attempt(&self.world, request).await
    }

    pub(super) fn is_collecting(&self) -> bool {
        self.world.is_collecting()
    }
}

pub(super) fn is_unknown(error: &Error) -> bool {
    matches!(error.code(), ErrorCode::ManifestUnknown | ErrorCode::NameUnknown)
}

/// Makes a request, again where the bucket failed.
pub(super) async fn attempt<T, F>(world: &Simulation, request: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    loop {
        match request().await {
            Err(error) if error.code() == ErrorCode::Unavailable => {
                // The delete of a repository cancels uploads.
                let is_expected = world.trouble == Trouble::Fault || world.work == Work::Repository;
                assert!(is_expected, "a request failed by itself: {error:?}");
            }
            result => return result,
        }
    }
}
