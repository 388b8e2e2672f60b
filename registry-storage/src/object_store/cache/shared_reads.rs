//! Reads of one thing that share a request.
//!
//! A read must not return what is older than a write that ended before the read began, and a request that is on its way
//! may have been answered before that write. So a read never joins it: it joins the next one, which begins when the one
//! on its way has ended, or has taken too long. However many readers there are, one request is on its way and one waits.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::time::timeout;

/// How long the next request waits for the one on its way: a connection that is stalled holds up those who share its request, and
/// nobody else for long.
const PATIENCE: Duration = Duration::from_secs(1);

/// A request. Each of those who wait for it drives it, so none depends on another one's being polled; it ends with the last.
type Request<T> = Shared<BoxFuture<'static, T>>;

/// The requests in progress, by what they read. It keeps none of them alive, so it has at most an entry for each reader.
#[derive(Clone)]
pub(in crate::object_store) struct SharedReads<K, T: Clone>(Arc<Mutex<Lines<K, T>>>);

struct Lines<K, T: Clone> {
    last_number: u64,
    by_key: HashMap<K, Line<T>>,
}

/// The requests for one thing.
struct Line<T: Clone> {
    running: Option<Numbered<T>>,
    /// Begins when the running one has ended, or after [`PATIENCE`].
    next: Option<Numbered<T>>,
}

struct Numbered<T: Clone> {
    number: u64,
    request: WeakShared<BoxFuture<'static, T>>,
}

impl<K, T: Clone> Default for SharedReads<K, T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Lines {
            last_number: 0,
            by_key: HashMap::new(),
        })))
    }
}

impl<K, T: Clone> fmt::Debug for SharedReads<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedReads").finish_non_exhaustive()
    }
}

impl<K: Clone + Eq + Hash, T: Clone> SharedReads<K, T> {
    /// Returns a request for `key` that begins after this call: one that waits already, or `request`.
    ///
    /// Dropping it ends the request only if nobody else has it.
    pub(in crate::object_store) fn join<F>(&self, key: &K, request: F) -> Request<T>
    where
        K: Send + 'static,
        T: Send + Sync + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let mut lines = self.lines();
        lines.last_number += 1;
        let number = lines.last_number;
        let line = lines.by_key.entry(key.clone()).or_insert(Line {
            running: None,
            next: None,
        });
        // Those who had it may all have gone away, and their request's place is about to be.
        let alive = |numbered: &Option<Numbered<T>>| numbered.as_ref()?.request.upgrade();
        if let Some(next) = alive(&line.next) {
            return next;
        }
        let running = alive(&line.running);
        let is_first = running.is_none();
        let place = Place {
            reads: self.clone(),
            key: key.clone(),
            number,
        };
        let request = async move {
            // Also what does not begin has a place to give up.
            let place = place;
            if let Some(running) = running {
                drop(timeout(PATIENCE, running).await);
                place.begin();
            }
            request.await
        };
        let request = request.boxed().shared();
        let numbered = request.downgrade().map(|request| Numbered { number, request });
        *(if is_first {
            &mut line.running
        } else {
            &mut line.next
        }) = numbered;
        request
    }

    fn lines(&self) -> MutexGuard<'_, Lines<K, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a request in the line for its key, which it gives up when it ends or is dropped.
struct Place<K: Clone + Eq + Hash, T: Clone> {
    reads: SharedReads<K, T>,
    key: K,
    number: u64,
}

impl<K: Clone + Eq + Hash, T: Clone> Place<K, T> {
    /// From now on, nobody joins the request.
    fn begin(&self) {
        if let Some(line) = self.reads.lines().by_key.get_mut(&self.key) {
            line.running = line.next.take_if(|next| next.number == self.number);
        }
    }
}

impl<K: Clone + Eq + Hash, T: Clone> Drop for Place<K, T> {
    fn drop(&mut self) {
        let mut lines = self.reads.lines();
        let Some(line) = lines.by_key.get_mut(&self.key) else {
            return;
        };
        for place in [&mut line.running, &mut line.next] {
            place.take_if(|numbered| numbered.number == self.number);
        }
        if line.running.is_none() && line.next.is_none() {
            lines.by_key.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::oneshot;

    use super::*;

    /// Reads a value, with answers that a test holds back.
    struct Held {
        reads: SharedReads<&'static str, u64>,
        value: Arc<AtomicU64>,
        begun: Arc<Mutex<Vec<oneshot::Sender<()>>>>,
    }

    impl Held {
        fn new() -> Self {
            Self {
                reads: SharedReads::default(),
                value: Arc::default(),
                begun: Arc::default(),
            }
        }

        /// A read whose request takes the value when it begins, and is answered when the test says so.
        fn read(&self) -> Request<u64> {
            let (value, begun) = (Arc::clone(&self.value), Arc::clone(&self.begun));
            self.reads.join(&"key", async move {
                let read = value.load(Ordering::SeqCst);
                let (answer, answered) = oneshot::channel();
                begun.lock().unwrap().push(answer);
                answered.await.unwrap();
                read
            })
        }

        fn write(&self) {
            self.value.fetch_add(1, Ordering::SeqCst);
        }

        fn requests(&self) -> usize {
            self.begun.lock().unwrap().len()
        }

        fn answer_all(&self) {
            for answer in self.begun.lock().unwrap().drain(..) {
                // Nobody may wait for it any more.
                answer.send(()).ok();
            }
        }

        fn is_empty(&self) -> bool {
            self.reads.lines().by_key.is_empty()
        }
    }

    /// Polls a request once. A test that never waits would use up the turns that the runtime gives a task.
    fn poll(request: &Request<u64>) -> Option<u64> {
        tokio::task::unconstrained(request.clone()).now_or_never()
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_never_joins_a_request_that_is_on_its_way() {
        let held = Held::new();
        let first = held.read();
        assert_eq!(poll(&first), None);
        held.write();
        // They begin after the write, and share the request after the one on its way.
        let late: Vec<_> = (0..64).map(|_| held.read()).collect();
        for read in &late {
            assert_eq!(poll(read), None);
        }
        assert_eq!(held.requests(), 1);
        held.answer_all();
        assert_eq!(poll(&late[0]), None);
        assert_eq!(held.requests(), 1, "one request for all who came meanwhile");
        // It has begun, so whoever comes now waits for another one.
        held.write();
        let last = held.read();
        assert_eq!(poll(&last), None);
        held.answer_all();
        assert_eq!(poll(&first), Some(0));
        for read in &late {
            assert_eq!(poll(read), Some(1));
        }
        assert_eq!(poll(&last), None);
        held.answer_all();
        assert_eq!(poll(&last), Some(2));
        assert!(held.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_goes_away_fails_no_other() {
        let held = Held::new();
        let (first, second) = (held.read(), held.read());
        assert_eq!((poll(&first), poll(&second)), (None, None));
        let third = held.read();
        // Whoever drove both requests goes away; those who stay drive them.
        drop((first, second));
        held.answer_all();
        assert_eq!(poll(&third), None);
        assert_eq!(held.requests(), 1);
        held.answer_all();
        assert_eq!(poll(&third), Some(0));
        assert!(held.is_empty());

        // Nobody is left: nothing is, either, and the next reader begins anew.
        let (first, second) = (held.read(), held.read());
        assert_eq!((poll(&first), poll(&second)), (None, None));
        drop(first);
        drop(second);
        assert!(held.is_empty());
        let again = held.read();
        assert_eq!(poll(&again), None);
        held.answer_all();
        assert_eq!(poll(&again), Some(0));
        assert!(held.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_request_holds_up_only_those_who_share_it() {
        let held = Held::new();
        let stalled = held.read();
        assert_eq!(poll(&stalled), None);
        held.write();
        let (second, third) = (held.read(), held.read());
        assert_eq!((poll(&second), poll(&third)), (None, None));
        tokio::time::advance(PATIENCE).await;
        assert_eq!((poll(&second), poll(&third)), (None, None));
        assert_eq!(held.requests(), 2);
        held.write();
        let late = held.read();
        assert_eq!(poll(&late), None);
        assert_eq!(held.requests(), 2, "it is not older than the write before it");
        let answer = held.begun.lock().unwrap().pop().unwrap();
        answer.send(()).unwrap();
        assert_eq!((poll(&second), poll(&third)), (Some(1), Some(1)));
        assert_eq!(poll(&late), None);
        held.answer_all();
        assert_eq!((poll(&stalled), poll(&late)), (Some(0), Some(2)));
        assert!(held.is_empty());
    }

    /// Writers and readers in a random order, with answers and drops in between: no read is older than the last write
    /// before it, and at most one request is on its way.
    #[tokio::test(start_paused = true)]
    async fn no_order_of_events_makes_a_read_stale() {
        let mut random = crate::testing::storage_conformance::Random::new(7);
        for _ in 0..300 {
            let held = Held::new();
            let mut reads: Vec<(u64, Request<u64>)> = Vec::new();
            for _ in 0..100 {
                match random.below(6) {
                    0 => held.write(),
                    1 | 2 => reads.push((held.value.load(Ordering::SeqCst), held.read())),
                    3 if !reads.is_empty() => drop(reads.swap_remove(random.below(reads.len()))),
                    4 => held.answer_all(),
                    _ => reads.retain(|(least, read)| match poll(read) {
                        Some(value) => {
                            assert!(value >= *least, "{value} was read after {least} was written");
                            false
                        }
                        None => true,
                    }),
                }
                let open = held.begun.lock().unwrap();
                assert!(open.iter().filter(|answer| !answer.is_closed()).count() <= 1);
            }
            while !reads.is_empty() {
                held.answer_all();
                reads.retain(|(least, read)| poll(read).is_none_or(|value| value < *least));
            }
            assert!(held.is_empty());
        }
    }

    #[tokio::test]
    async fn many_readers_cost_two_requests() {
        let (reads, requests) = (SharedReads::default(), Arc::new(AtomicU64::new(0)));
        let all = (0..64).map(|_| {
            let requests = Arc::clone(&requests);
            reads.join(&"key", async move {
                tokio::task::yield_now().await;
                requests.fetch_add(1, Ordering::SeqCst)
            })
        });
        join_all(all.collect::<Vec<_>>()).await;
        assert_eq!(requests.load(Ordering::SeqCst), 2);
        drop(reads.join(&"other", pending()));
        assert!(reads.lines().by_key.is_empty());
    }
}
