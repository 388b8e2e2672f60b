//! Keeps two requests of this process from writing to one upload session at once.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use registry_core::{Error, ErrorCode, UploadId};
use tokio::sync::{Notify, OwnedMutexGuard};

/// The sessions that are in use.
#[derive(Debug, Default)]
pub(super) struct SessionLocks {
    slots: Mutex<BTreeMap<UploadId, Arc<Slot>>>,
}

#[derive(Debug, Default)]
struct Slot {
    lock: Arc<tokio::sync::Mutex<()>>,
    takeover: Notify,
    /// The holder and the requests that wait; changed only while the map is locked.
    users: AtomicUsize,
    /// What the newest of them wants.
    newest: Mutex<Wanted>,
}

/// What a request wants with a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// To go on at the end, or at this offset.
    GoOn(Option<u64>),
    /// To end it.
    Cancel,
}

impl Default for Wanted {
    fn default() -> Self {
        Self::GoOn(None)
    }
}

/// A held session. A write that continues after its request was dropped holds it too.
#[derive(Debug)]
pub(super) struct HeldSession {
    id: UploadId,
    slot: Arc<Slot>,
    locks: Arc<SessionLocks>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl SessionLocks {
    /// Asks the holder of a session to stop, and waits for it.
    ///
    /// A client that lost its connection comes back on a new one, often before the server noticed that the old one is
    /// dead; the newest request is the one that the client waits for. The holder learns what is `wanted`.
    pub(super) async fn take(self: &Arc<Self>, id: UploadId, wanted: Wanted) -> Arc<HeldSession> {
        let mut held = HeldSession {
            id,
            slot: self.enter(id, wanted),
            locks: Arc::clone(self),
            guard: None,
        };
        held.slot.takeover.notify_waiters();
        held.guard = Some(Arc::clone(&held.slot.lock).lock_owned().await);
        Arc::new(held)
    }

    /// Waits until no request has a session or waits for it, without stopping any.
    pub(super) async fn free(&self, id: UploadId) {
        loop {
            let Some(slot) = self.slots().get(&id).cloned() else {
                return;
            };
            drop(slot.lock.lock().await);
            // Yield, so that a request that waits for it is in the queue.
            tokio::task::yield_now().await;
        }
    }

    /// Returns whether a request has a session, or waits for it.
    pub(super) fn is_in_use(&self, id: UploadId) -> bool {
        self.slots().contains_key(&id)
    }

    /// Takes a session that no request holds or waits for.
    pub(super) fn try_take(self: &Arc<Self>, id: UploadId) -> Option<Arc<HeldSession>> {
        let slot = Arc::<Slot>::default();
        let guard = Arc::clone(&slot.lock).try_lock_owned().ok()?;
        slot.users.fetch_add(1, Ordering::Relaxed);
        match self.slots().entry(id) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(free) => free.insert(Arc::clone(&slot)),
        };
        Some(Arc::new(HeldSession {
            id,
            slot,
            locks: Arc::clone(self),
            guard: Some(guard),
        }))
    }

    fn enter(&self, id: UploadId, wanted: Wanted) -> Arc<Slot> {
        let mut slots = self.slots();
        let slot = slots.entry(id).or_default();
        *slot.newest() = wanted;
        slot.users.fetch_add(1, Ordering::Relaxed);
        Arc::clone(slot)
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, BTreeMap<UploadId, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn newest(&self) -> std::sync::MutexGuard<'_, Wanted> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeldSession {
    /// Returns which session it is.
    pub(super) const fn id(&self) -> UploadId {
        self.id
    }

    /// Returns what the newest request for the session wants.
    pub(super) fn newest(&self) -> Wanted {
        *self.slot.newest()
    }

    /// Waits until another request asks for the session, and returns the error of the request that holds it.
    pub(super) async fn stopped(&self) -> Error {
        self.taken_over().await;
        match self.newest() {
            Wanted::GoOn(_) => superseded(),
            Wanted::Cancel => {
                let message = "the upload was cancelled while its bytes came; begin a new one";
                Error::new(ErrorCode::BlobUploadUnknown, message)
            }
        }
    }

    /// Waits until another request asks for the session.
    async fn taken_over(&self) {
        loop {
            let notified = self.slot.takeover.notified();
            if self.slot.users.load(Ordering::Relaxed) > 1 {
                return;
            }
            notified.await;
        }
    }
}

impl Drop for HeldSession {
    fn drop(&mut self) {
        // Before the guard is released, so that the next holder does not mistake this one for a request that waits.
        let mut slots = self.locks.slots();
        if self.slot.users.fetch_sub(1, Ordering::Relaxed) == 1 {
            slots.remove(&self.id);
        }
    }
}

/// Another request took this request's session.
#[derive(Debug, thiserror::Error)]
#[error("another request went on with this upload")]
struct Superseded;

/// Returns the error of a request whose session another request took.
pub(super) fn superseded() -> Error {
    let message =
        "another request went on with this upload; send this one again, or ask for the status of the upload";
    let error = Error::new(ErrorCode::Unavailable, message).with_field("Retry-After", "1");
    error.with_cause(Superseded)
}

pub(super) fn is_superseded(error: &Error) -> bool {
    let cause = std::error::Error::source(error);
    cause.is_some_and(|cause| cause.is::<Superseded>())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[expect(clippy::disallowed_methods, reason = "tests are programs of their own")]
    async fn a_holder_that_goes_is_no_request_that_waits() {
        let locks = Arc::new(SessionLocks::default());
        let id = UploadId::from_random(1);
        for _ in 0..3000 {
            let first = locks.take(id, Wanted::default()).await;
            let next = tokio::spawn({
                let locks = Arc::clone(&locks);
                async move {
                    let next = locks.take(id, Wanted::default()).await;
                    next.taken_over().now_or_never().is_some()
                }
            });
            first.taken_over().await;
            drop(first);
            assert!(!next.await.unwrap(), "nobody waits for the session");
        }
        assert!(locks.slots().is_empty(), "nobody uses the session");
    }

    #[tokio::test]
    async fn a_session_in_use_is_not_taken_by_who_can_do_without() {
        let locks = Arc::new(SessionLocks::default());
        let id = UploadId::from_random(1);
        let held = locks.take(id, Wanted::default()).await;
        assert!(locks.try_take(id).is_none());
        assert!(
            held.taken_over().now_or_never().is_none(),
            "its holder does not notice"
        );
        drop(held);
        let held = locks.try_take(id).unwrap();
        assert!(locks.take(id, Wanted::default()).now_or_never().is_none());
        drop(held);
        assert!(locks.slots().is_empty());
    }

    #[tokio::test]
    async fn a_request_that_stops_waiting_leaves_the_session() {
        let locks = Arc::new(SessionLocks::default());
        let id = UploadId::from_random(1);
        let held = locks.take(id, Wanted::default()).await;
        assert!(locks.take(id, Wanted::default()).now_or_never().is_none());
        assert!(held.taken_over().now_or_never().is_none());
        drop(held);
        assert!(locks.slots().is_empty());
    }
}
