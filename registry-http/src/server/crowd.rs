//! The connections that are open, and room for the next one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::activity::Activity;

/// How long the next connection waits for room that comes by itself.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long nothing has happened on a connection that makes room: whoever just connected gets to ask.
const IDLE: Duration = Duration::from_secs(1);

/// The open connections of a server: a bounded number. Where all places are taken, those on which nothing happens for
/// longest are closed, so that nobody keeps others out by connecting and saying nothing.
#[derive(Debug)]
pub(super) struct Crowd {
    size: usize,
    places: Arc<Semaphore>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: BTreeMap<u64, Arc<Activity>>,
}

/// The place of a connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Arc<Crowd>,
    number: u64,
    activity: Arc<Activity>,
    _permit: OwnedSemaphorePermit,
}

impl Crowd {
    pub(super) fn new(size: usize) -> Self {
        let size = size.min(Semaphore::MAX_PERMITS);
        Self {
            size,
            places: Arc::new(Semaphore::new(size)),
            open: Mutex::default(),
        }
    }

    /// Waits for a place.
    pub(super) async fn enter(self: &Arc<Self>) -> Option<Place> {
        loop {
            match timeout(PATIENCE, Arc::clone(&self.places).acquire_owned()).await {
                Ok(permit) => return Some(self.place(permit.ok()?)),
                Err(_) => self.make_room(Instant::now()),
            }
        }
    }

    fn place(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Place {
        let activity = Arc::new(Activity::new());
        let mut open = self.lock();
        let number = open.next;
        open.next += 1;
        open.connections.insert(number, Arc::clone(&activity));
        Place {
            crowd: Arc::clone(self),
            number,
            activity,
            _permit: permit,
        }
    }

    /// Closes some at once, as looking for them takes a look at each.
    pub(super) fn make_room(&self, now: Instant) {
        let mut idle: Vec<(Instant, Arc<Activity>)> = {
            let open = self.lock();
            let since = |activity: &Arc<Activity>| Some((activity.idle_since()?, Arc::clone(activity)));
            open.connections.values().filter_map(since).collect()
        };
        idle.retain(|(since, _)| now.saturating_duration_since(*since) >= IDLE);
        idle.sort_by_key(|(since, _)| *since);
        idle.truncate(self.size.div_ceil(16));
        if !idle.is_empty() {
            tracing::debug!(
                connections = idle.len(),
                "idle connections are closed to make room for new ones"
            );
        }
        for (_, activity) in idle {
            activity.dismiss();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    pub(super) const fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.lock().connections.remove(&self.number);
    }
}
