//! The memory for parts that are being sent to the store.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::backend::MemoryPermit;
use crate::recall::{Need, Recall, Waiting};

/// A budget of memory, shared by all uploads and handed out in units of 1024 bytes, in the order in which they ask.
///
/// Whoever has memory for a part needs nothing more to end it than the client's bytes and the store, so nobody waits for
/// somebody who waits for memory. An upload asks for that of one part at a time, behind all that asked before, so one that
/// sends fast takes what others leave.
#[derive(Clone, Debug)]
pub(super) struct PartMemory {
    free: Arc<Semaphore>,
    units: u32,
    need: Arc<Need>,
    patience: Option<Duration>,
}

impl PartMemory {
    /// Creates a budget of `size` bytes. Each time that somebody has waited for as long as the `patience`, it is taken from one
    /// holder whose client sends next to nothing for as long.
    pub(super) fn new(size: usize, patience: Option<Duration>) -> Self {
        let units = units(size).max(1);
        Self {
            free: Arc::new(Semaphore::new(units as usize)),
            units,
            need: Arc::default(),
            patience,
        }
    }

    /// Returns the size of the budget in bytes.
    pub(super) const fn size(&self) -> usize {
        self.units as usize * 1024
    }

    /// Waits until `size` bytes are free, or all of the budget if it is smaller, so that no caller waits for ever.
    pub(super) async fn reserve(&self, size: usize) -> MemoryPermit {
        let wanted = units(size).min(self.units);
        let free = Arc::clone(&self.free).acquire_many_owned(wanted);
        // The semaphore is never closed.
        let Some(patience) = self.patience else {
            return MemoryPermit::new(size, free.await.ok());
        };
        let mut free = pin!(free);
        // A large part may need what several holders have.
        let mut waiting = Vec::new();
        let permit = loop {
            match timeout(patience, &mut free).await {
                Ok(permit) => break permit,
                Err(_) => waiting.push(Waiting::new(&self.need)),
            }
        };
        drop(waiting);
        let recall = Recall::new(Arc::clone(&self.need), patience);
        MemoryPermit::new(size, permit.ok()).with_recall(recall)
    }
}

fn units(size: usize) -> u32 {
    // Far below what a semaphore may hold on every platform.
    u32::try_from(size.div_ceil(1024))
        .unwrap_or(u32::MAX)
        .min(1 << 28)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::{FutureExt as _, StreamExt as _, stream};
    use registry_core::storage::UploadKey;
    use registry_core::{Algorithm, ErrorCode, RepositoryName, Storage};
    use tokio::task::JoinSet;

    use super::*;
    use crate::{ObjectStoreBackend, Store};

    const MIB: usize = 1024 * 1024;
    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn waits_for_memory_that_others_hold() {
        let memory = PartMemory::new(10 * MIB, None);
        let first = memory.reserve(6 * MIB).await;
        assert!(memory.reserve(6 * MIB).now_or_never().is_none());
        let second = memory.reserve(4 * MIB).now_or_never().unwrap();
        assert!(memory.reserve(1).now_or_never().is_none());
        drop((first, second));
        assert!(memory.reserve(10 * MIB).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_part_larger_than_the_budget_waits_for_all_of_it() {
        let memory = PartMemory::new(10 * MIB, None);
        let small = memory.reserve(1).await;
        assert!(memory.reserve(1024 * MIB).now_or_never().is_none());
        drop(small);
        let large = memory.reserve(1024 * MIB).now_or_never().unwrap();
        assert!(memory.reserve(1).now_or_never().is_none());
        drop(large);
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_is_too_slow_gives_way_to_one_who_waited() {
        let memory = PartMemory::new(10 * MIB, Some(PATIENCE));
        let mut slow = memory.reserve(5 * MIB).await;
        let mut slower = memory.reserve(5 * MIB).await;
        // While nobody waits, they may be as slow as they like.
        let hour = Duration::from_hours(1);
        assert!(timeout(hour, slow.recalled(1)).await.is_err());
        assert!(timeout(hour, slower.recalled(1)).await.is_err());
        let waits = async {
            let permit = memory.reserve(5 * MIB).await;
            drop(permit);
        };
        let one_gives_way = async move {
            let first = tokio::select! {
                () = slow.recalled(2) => 0,
                () = slower.recalled(2) => 1,
            };
            let (told, mut other) = if first == 0 {
                (slow, slower)
            } else {
                (slower, slow)
            };
            // One is enough for one who has not waited for longer.
            assert!(timeout(PATIENCE / 2, other.recalled(2)).await.is_err());
            drop(told);
            other
        };
        let ((), mut other) = timeout(hour, async { tokio::join!(waits, one_gives_way) })
            .await
            .unwrap();
        assert!(timeout(hour, other.recalled(2)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_makes_progress_keeps_its_memory() {
        let memory = PartMemory::new(5 * MIB, Some(PATIENCE));
        let mut held = memory.reserve(5 * MIB).await;
        let waits = memory.reserve(5 * MIB);
        let mut waits = pin!(waits);
        assert!(timeout(PATIENCE * 2, &mut waits).await.is_err());
        let sixteenth = 5 * MIB / 16;
        for used in (sixteenth..5 * MIB).step_by(sixteenth) {
            let step = timeout(PATIENCE - Duration::from_secs(1), held.recalled(used));
            tokio::select! {
                step = step => assert!(step.is_err(), "at {used}"),
                _ = &mut waits => panic!("there is no memory"),
            }
        }
        // A byte now and then is no progress.
        let drip = async {
            for used in 5 * MIB.. {
                if timeout(Duration::from_secs(1), held.recalled(used)).await.is_ok() {
                    return used - 5 * MIB;
                }
            }
            0
        };
        let dripped = tokio::select! {
            dripped = drip => dripped,
            _ = &mut waits => panic!("there is no memory"),
        };
        assert!((8..=12).contains(&dripped), "{dripped}");
        drop(held);
        waits.await;
    }

    /// What it had sent is kept, so its client sends only the rest.
    #[tokio::test(start_paused = true)]
    async fn of_clients_that_stop_in_the_middle_of_a_part_one_ends_for_one_who_waits() {
        let mut backend = ObjectStoreBackend::memory();
        backend.part_memory = PartMemory::new(20 * MIB, Some(PATIENCE));
        let store = Arc::new(Store::new(backend));
        let repository: RepositoryName = "a".parse().unwrap();
        let start = || async {
            let storage: &dyn Storage = &*store;
            let id = storage.create_upload(&repository, "", Algorithm::Sha256).await;
            UploadKey {
                repository: repository.clone(),
                id: id.unwrap(),
                principal: String::new(),
            }
        };
        let mut stopped = JoinSet::new();
        for _ in 0..4 {
            let (store, upload) = (Arc::clone(&store), start().await);
            stopped.spawn(async move {
                let storage: &dyn Storage = &*store;
                let some = stream::iter([Ok(Bytes::from(vec![7; MIB]))]);
                let mut body = pin!(some.chain(stream::pending()));
                let error = storage.append_upload(&upload, None, body.as_mut()).await;
                (upload, error.unwrap_err())
            });
        }
        while store.backend().part_memory.free.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let upload = start().await;
        let storage: &dyn Storage = &*store;
        let mut whole = pin!(stream::iter([Ok(Bytes::from(vec![8; 12 * MIB]))]));
        let begun = tokio::time::Instant::now();
        let length = storage.append_upload(&upload, None, whole.as_mut()).await;
        assert_eq!(length.unwrap(), 12 * MIB as u64);
        assert!(begun.elapsed() < PATIENCE * 2, "{:?}", begun.elapsed());
        let (upload, error) = stopped.join_next().await.unwrap().unwrap();
        assert_eq!(error.code(), ErrorCode::Unavailable, "{error:?}");
        assert_eq!(storage.upload_status(&upload).await.unwrap(), MIB as u64);
        let others = timeout(PATIENCE * 10, stopped.join_next()).await;
        assert!(others.is_err(), "nobody waits any more: {others:?}");
    }
}
