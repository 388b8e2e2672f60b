//! The connections that are open, and room for the next one.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::activity::Activity;
use crate::memory::{Account, MemoryBudget, MemoryUse};

/// How long the next connection waits for room that comes by itself.
const PATIENCE: Duration = Duration::from_millis(100);

/// How many times as many connections as there are free places an address may have, beside a few.
const SHARE: usize = 3;
const FEW: usize = 8;

/// How often connections are looked for that can be closed because there is no memory.
const RELIEF: Duration = Duration::from_millis(100);

/// How long nothing has happened on a connection that makes room: whoever just connected gets to ask.
const IDLE: Duration = Duration::from_secs(1);

/// The open connections of a server: a bounded number. Where all places are taken, those on which nothing happens for
/// longest are closed, so that nobody keeps others out by connecting and saying nothing. Each address may have at most
/// three times as many as there are free places, so that nobody keeps others out by many pulls that go on.
#[derive(Debug)]
pub(super) struct Crowd {
    size: usize,
    places: Arc<Semaphore>,
    open: Mutex<Open>,
    memory: MemoryBudget,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: BTreeMap<u64, Arc<Activity>>,
    /// How many connections each client has.
    clients: HashMap<Option<IpAddr>, usize>,
    relieved: Option<Instant>,
}

/// The place of a connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Arc<Crowd>,
    number: u64,
    activity: Arc<Activity>,
    account: Arc<Account>,
    _permit: OwnedSemaphorePermit,
}

impl Crowd {
    pub(super) fn new(size: usize, memory: MemoryBudget) -> Self {
        let size = size.min(Semaphore::MAX_PERMITS);
        Self {
            size,
            memory,
            places: Arc::new(Semaphore::new(size)),
            open: Mutex::default(),
        }
    }

    /// Waits for a place. There is none for a client that has too many.
    pub(super) async fn enter(self: &Arc<Self>, client: Option<IpAddr>) -> Option<Place> {
        loop {
            match timeout(PATIENCE, Arc::clone(&self.places).acquire_owned()).await {
                Ok(permit) => return self.place(client, permit.ok()?),
                Err(_) => self.make_room(Instant::now()),
            }
        }
    }

    fn place(self: &Arc<Self>, client: Option<IpAddr>, permit: OwnedSemaphorePermit) -> Option<Place> {
        let account = self.memory.account(client);
        let free = self.places.available_permits() + 1;
        let activity = Arc::new(Activity::new());
        let mut open = self.lock();
        let connections = open.clients.entry(account.client()).or_default();
        if *connections >= FEW + SHARE * free {
            drop(open);
            account.refused(MemoryUse::Connection);
            tracing::debug!(?client, "a client has too many connections");
            self.relieve(Instant::now());
            return None;
        }
        *connections += 1;
        let number = open.next;
        open.next += 1;
        open.connections.insert(number, Arc::clone(&activity));
        drop(open);
        Some(Place {
            crowd: Arc::clone(self),
            number,
            activity,
            account,
            _permit: permit,
        })
    }

    /// Makes room as [`make_room`](Self::make_room) does, though not all the time.
    pub(super) fn relieve(&self, now: Instant) {
        let mut open = self.lock();
        let is_due = |before| now.saturating_duration_since(before) >= RELIEF;
        if open.relieved.is_none_or(is_due) {
            open.relieved = Some(now);
            drop(open);
            self.make_room(now);
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

    /// Returns what the other end holds.
    pub(super) const fn account(&self) -> &Arc<Account> {
        &self.account
    }

    pub(super) const fn crowd(&self) -> &Arc<Crowd> {
        &self.crowd
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.crowd.lock();
        open.connections.remove(&self.number);
        if let Entry::Occupied(mut connections) = open.clients.entry(self.account.client()) {
            *connections.get_mut() -= 1;
            if *connections.get() == 0 {
                connections.remove();
            }
        }
    }
}
