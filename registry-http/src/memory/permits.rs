//! Permits: a bounded number of requests that are worked on or transfer a blob at once, and queues of those that wait.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::{Account, share};

/// How many permits a client may have besides its share of the free ones, and the inverse of the part of all permits
/// that they are at most.
const FEW_PERMITS: usize = 8;
const FEW_PERMITS_DIVISOR: usize = 8;

/// What a permit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PermitKind {
    /// To be worked on.
    Work,
    /// To pull a blob.
    Download,
    /// To upload bytes of a blob.
    Upload,
}

/// How many permits of each kind a client has.
#[derive(Debug, Default)]
pub(super) struct PermitCounts {
    work: AtomicUsize,
    downloads: AtomicUsize,
    uploads: AtomicUsize,
}

impl PermitCounts {
    const fn of(&self, kind: PermitKind) -> &AtomicUsize {
        match kind {
            PermitKind::Work => &self.work,
            PermitKind::Download => &self.downloads,
            PermitKind::Upload => &self.uploads,
        }
    }
}

/// A number of permits, shared between addresses as memory is: each client may have three times as many as are free, and
/// a few. If several clients wait, the next permit goes to the one that has fewest.
#[derive(Clone, Debug)]
pub(crate) struct Permits {
    kind: PermitKind,
    state: Arc<Mutex<PermitQueue>>,
}

#[derive(Debug)]
struct PermitQueue {
    kind: PermitKind,
    free: usize,
    /// How many a client may have besides its share.
    few: usize,
    next: u64,
    waiting: HashMap<Option<IpAddr>, Queue>,
}

/// The waiting requests of one client.
#[derive(Debug)]
struct Queue {
    account: Arc<Account>,
    requests: VecDeque<(u64, oneshot::Sender<Permit>)>,
}

/// A permit, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    permits: Permits,
    account: Arc<Account>,
}

impl Permits {
    pub(crate) fn new(kind: PermitKind, count: usize) -> Self {
        let state = PermitQueue {
            kind,
            free: count,
            few: FEW_PERMITS.min(count / FEW_PERMITS_DIVISOR),
            next: 0,
            waiting: HashMap::new(),
        };
        let state = Arc::new(Mutex::new(state));
        Self { kind, state }
    }

    /// Waits for a permit. Cancel safe: a dropped future leaves the queue.
    pub(crate) async fn take(&self, account: &Arc<Account>) -> Permit {
        loop {
            let waiting = {
                let mut state = self.lock();
                if state.has_one_for(account) {
                    return self.give(&mut state, Arc::clone(account));
                }
                state.wait(account)
            };
            // The sender is only dropped with the queue, which lives as long as `self`.
            if let Ok(permit) = waiting.await {
                return permit;
            }
        }
    }

    fn give(&self, state: &mut PermitQueue, account: Arc<Account>) -> Permit {
        state.free -= 1;
        account.permits.of(self.kind).fetch_add(1, Ordering::Relaxed);
        Permit {
            permits: self.clone(),
            account,
        }
    }

    fn lock(&self) -> MutexGuard<'_, PermitQueue> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PermitQueue {
    fn has_one_for(&self, account: &Account) -> bool {
        let own = account.permits.of(self.kind).load(Ordering::Relaxed);
        let may_have = match self.kind {
            PermitKind::Work => self.few.saturating_add(share(self.free)),
            // They may be held for long, so one is left for the next client, however few there are.
            PermitKind::Download | PermitKind::Upload => {
                let left = self.free.saturating_sub(1);
                self.few.saturating_add(share(left)).max(1)
            }
        };
        self.free > 0 && own < may_have
    }

    fn wait(&mut self, account: &Arc<Account>) -> oneshot::Receiver<Permit> {
        let (sender, receiver) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        let queue = self.waiting.entry(account.client()).or_insert_with(|| Queue {
            account: Arc::clone(account),
            requests: VecDeque::new(),
        });
        queue.requests.push_back((number, sender));
        receiver
    }

    /// Removes the request that is next from its queue.
    fn next(&mut self) -> Option<(Arc<Account>, oneshot::Sender<Permit>)> {
        self.waiting.retain(|_, queue| {
            while let Some((_, sender)) = queue.requests.front()
                && sender.is_closed()
            {
                queue.requests.pop_front();
            }
            !queue.requests.is_empty()
        });
        let waiting = self.waiting.values().filter_map(|queue| {
            let first = queue.requests.front()?.0;
            let permits = queue.account.permits.of(self.kind).load(Ordering::Relaxed);
            self.has_one_for(&queue.account)
                .then(|| (permits, first, queue.account.client()))
        });
        let (_, _, client) = waiting.min()?;
        let Entry::Occupied(mut queue) = self.waiting.entry(client) else {
            return None;
        };
        let (_, sender) = queue.get_mut().requests.pop_front()?;
        let account = Arc::clone(&queue.get().account);
        if queue.get().requests.is_empty() {
            queue.remove();
        }
        Some((account, sender))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.permits.lock();
        state.free += 1;
        self.account
            .permits
            .of(state.kind)
            .fetch_sub(1, Ordering::Relaxed);
        if state.waiting.is_empty() {
            return;
        }
        if let Some((account, sender)) = state.next() {
            let permit = self.permits.give(&mut state, account);
            drop(state);
            // If that request was dropped meanwhile, the permit comes back and goes to the next one.
            drop(sender.send(permit));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::memory::MemoryBudget;

    fn clients<const COUNT: usize>() -> [Arc<Account>; COUNT] {
        let budget = MemoryBudget::new(1000);
        std::array::from_fn(|last| budget.account(Some([192, 0, 2, last as u8].into())))
    }

    /// Takes as many permits as are available at once.
    fn grab(permits: &Permits, client: &Arc<Account>) -> Vec<Permit> {
        std::iter::from_fn(|| permits.take(client).now_or_never()).collect()
    }

    #[test]
    fn who_has_many_turns_leaves_some_for_others() {
        let (permits, [greedy, other]) = (Permits::new(PermitKind::Work, 100), clients());
        let held = grab(&permits, &greedy);
        assert_eq!(held.len(), 77);
        assert!(permits.take(&other).now_or_never().is_some());
        drop(held);
        assert_eq!(grab(&permits, &other).len(), 77);
    }

    #[test]
    fn few_turns_are_shared_too_and_each_kind_by_itself() {
        let [greedy, other] = clients();
        let (downloads, uploads) = (
            Permits::new(PermitKind::Download, 6),
            Permits::new(PermitKind::Upload, 2),
        );
        assert_eq!(grab(&downloads, &greedy).len(), 4);
        let held = (grab(&downloads, &greedy), grab(&uploads, &greedy));
        assert_eq!((held.0.len(), held.1.len()), (4, 1));
        for permits in [&downloads, &uploads] {
            assert!(permits.take(&other).now_or_never().is_some());
        }
        let only = Permits::new(PermitKind::Upload, 1);
        assert_eq!(grab(&only, &other).len(), 1);
    }

    #[tokio::test]
    async fn the_next_turn_is_for_who_has_fewest_however_many_wait() {
        let (permits, [greedy, other, third]) = (Permits::new(PermitKind::Work, 4), clients());
        let mut held = grab(&permits, &greedy);
        assert_eq!(held.len(), 3);
        held.insert(0, permits.take(&third).await);
        let mut queued: Vec<_> = (0..100).map(|_| Box::pin(permits.take(&greedy))).collect();
        assert!(
            queued
                .iter_mut()
                .all(|waiting| waiting.as_mut().now_or_never().is_none())
        );
        let mut late = Box::pin(permits.take(&other));
        assert!(late.as_mut().now_or_never().is_none());
        held.pop();
        let permit = late.now_or_never().unwrap();
        assert!(
            queued
                .iter_mut()
                .all(|waiting| waiting.as_mut().now_or_never().is_none())
        );
        // Then the longest waiting request is next, and a dropped one is skipped.
        let mut queued = queued.into_iter();
        drop(queued.next());
        drop(permit);
        let got = queued.next().unwrap().now_or_never();
        assert!(got.is_some());
        drop((queued, got, held));
        assert_eq!(grab(&permits, &other).len(), 3);
    }
}
