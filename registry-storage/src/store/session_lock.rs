//! Keeps two requests of this process from writing to one upload session at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use registry_core::UploadId;
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
}

/// A session that is held. A write that goes on after its request was dropped holds it too.
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
    /// dead; the newest request is the one that somebody waits for.
    pub(super) async fn take(self: &Arc<Self>, id: UploadId) -> Arc<HeldSession> {
        let slot = Arc::clone(self.slots().entry(id).or_default());
        let mut held = HeldSession {
            id,
            slot,
            locks: Arc::clone(self),
            guard: None,
        };
        held.slot.takeover.notify_waiters();
        held.guard = Some(Arc::clone(&held.slot.lock).lock_owned().await);
        Arc::new(held)
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, BTreeMap<UploadId, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeldSession {
    /// Waits until another request asks for the session.
    pub(super) async fn taken_over(&self) {
        loop {
            let notified = self.slot.takeover.notified();
            // The map's, this one, and those of requests that wait.
            if Arc::strong_count(&self.slot) > 2 {
                return;
            }
            notified.await;
        }
    }
}

impl Drop for HeldSession {
    fn drop(&mut self) {
        drop(self.guard.take());
        let mut slots = self.locks.slots();
        // The map's and this one: nobody else waits, and nobody can begin to while the map is locked.
        if Arc::strong_count(&self.slot) == 2 {
            slots.remove(&self.id);
        }
    }
}
