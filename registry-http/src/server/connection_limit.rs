//! The connections that are open, and room for the next one.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::activity::Activity;
use crate::memory::{Account, MemoryBudget, MemoryUse};

/// How long the next connection waits for room that comes by itself.
const PATIENCE: Duration = Duration::from_millis(100);

/// How many times as many connections as there are free places an address may have, beside a few.
const SHARE: usize = 3;
const FEW: usize = 8;

/// Which part of all places a few are at most. Fewer places than that are not shared out.
const FEW_OF_ALL: usize = 4;

/// How often connections are looked for that can be closed, as that takes a look at each.
const RELIEF: Duration = Duration::from_millis(100);

/// How often, where memory is scarce, connections of the client are cut that holds most.
const PUT_OUT: Duration = Duration::from_millis(10);

/// How long nothing has happened on a connection that makes room: whoever just connected gets to ask.
const IDLE: Duration = Duration::from_secs(1);

/// The open connections of a server: a bounded number. Where all places are taken, those on which nothing happens for
/// longest are closed, so that nobody keeps others out by connecting and saying nothing. Each address may have at most
/// three times as many as there are free places, so that nobody keeps others out by many pulls that go on; where several
/// addresses do that together, connections of the one that has most are cut.
#[derive(Debug)]
pub(super) struct ConnectionLimit {
    size: usize,
    few: usize,
    places: Arc<Semaphore>,
    open: Mutex<Open>,
    memory: MemoryBudget,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: BTreeMap<u64, Member>,
    /// How many connections each client has.
    clients: HashMap<Option<IpAddr>, usize>,
    relieved: Option<Instant>,
}

/// A connection that is open, and whose it is.
#[derive(Clone, Debug)]
struct Member {
    activity: Arc<Activity>,
    account: Arc<Account>,
}

/// A client that may have too much.
struct Greedy {
    account: Arc<Account>,
    connections: Vec<Arc<Activity>>,
}

/// The place of a connection, until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    crowd: Arc<ConnectionLimit>,
    number: u64,
    activity: Arc<Activity>,
    account: Arc<Account>,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    /// Returns how many connections a client has.
    fn count(&self, account: &Account) -> usize {
        self.clients.get(&account.client()).copied().unwrap_or_default()
    }
}

impl ConnectionLimit {
    pub(super) fn new(size: usize, memory: MemoryBudget) -> Self {
        let size = size.min(Semaphore::MAX_PERMITS);
        Self {
            size,
            few: if size < FEW {
                FEW
            } else {
                FEW.min(size / FEW_OF_ALL)
            },
            memory,
            places: Arc::new(Semaphore::new(size)),
            open: Mutex::default(),
        }
    }

    /// Waits for a place. There is none for a client that has too many.
    pub(super) async fn enter(self: &Arc<Self>, client: Option<IpAddr>) -> Option<ConnectionSlot> {
        let account = self.memory.account(client);
        loop {
            if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
                return self.place(account, permit);
            }
            // Whoever waits here keeps the next ones waiting, so that nobody does who would not get a place.
            if self.lock().count(&account) >= self.few {
                return self.refuse(&account);
            }
            self.make_room();
            if let Ok(permit) = timeout(PATIENCE, Arc::clone(&self.places).acquire_owned()).await {
                return self.place(account, permit.ok()?);
            }
        }
    }

    fn refuse<T>(&self, account: &Account) -> Option<T> {
        account.refused(MemoryUse::Connection);
        tracing::debug!(client = ?account.client(), "a client has too many connections");
        self.close_idle_ones(Instant::now());
        None
    }

    fn place(
        self: &Arc<Self>,
        account: Arc<Account>,
        permit: OwnedSemaphorePermit,
    ) -> Option<ConnectionSlot> {
        let free = self.places.available_permits() + 1;
        let activity = Arc::new(Activity::new());
        let mut open = self.lock();
        if open.count(&account) >= self.few + SHARE * free {
            drop(open);
            return self.refuse(&account);
        }
        let connections = open.clients.entry(account.client()).or_default();
        *connections += 1;
        let number = open.next;
        open.next += 1;
        let member = Member {
            activity: Arc::clone(&activity),
            account: Arc::clone(&account),
        };
        open.connections.insert(number, member);
        drop(open);
        Some(ConnectionSlot {
            crowd: Arc::clone(self),
            number,
            activity,
            account,
            _permit: permit,
        })
    }

    /// Closes connections whenever memory is scarce: idle ones, and where there are none or more is needed at once, some
    /// of the clients that hold most. Never ends.
    pub(super) async fn relieve(&self) {
        loop {
            let missing = self.memory.pressed().await;
            let is_enough = self
                .close_idle_ones(Instant::now())
                .is_some_and(|count| count > 0);
            if !is_enough || self.memory.missing() > missing / 2 {
                self.put_out(missing, |account, _| account.used());
            }
            sleep(PUT_OUT).await;
        }
    }

    /// Makes room for at least one connection, if somebody has more than a few or is idle.
    pub(super) fn make_room(&self) {
        if self.close_idle_ones(Instant::now()).unwrap_or_default() == 0 {
            let more_than_few = |_: &Account, count: usize| if count > self.few { count } else { 0 };
            self.put_out(self.size.div_ceil(64), more_than_few);
        }
    }

    /// Closes some idle connections at once and returns how many. Nothing is looked for again right after that.
    fn close_idle_ones(&self, now: Instant) -> Option<usize> {
        let mut idle: Vec<(Instant, Arc<Activity>)> = {
            let mut open = self.lock();
            let is_due = |before| now.saturating_duration_since(before) >= RELIEF;
            if !open.relieved.is_none_or(is_due) {
                return None;
            }
            open.relieved = Some(now);
            let since = |member: &Member| {
                let since = member.activity.idle_since()?;
                Some((since, Arc::clone(&member.activity)))
            };
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
        for (_, activity) in &idle {
            activity.dismiss();
        }
        Some(idle.len())
    }

    /// Cuts connections of the clients that have most of something, at most half of each one's, until about `missing` of it
    /// is free. `amount` tells how much of it a client with so many connections has. The first to go are those that the
    /// server waits for, and of these the ones that stand still for longest.
    fn put_out(&self, missing: usize, amount: impl Fn(&Account, usize) -> usize) {
        let mut clients: HashMap<Option<IpAddr>, Greedy> = HashMap::new();
        for member in self.lock().connections.values() {
            let client = clients.entry(member.account.client()).or_insert_with(|| Greedy {
                account: Arc::clone(&member.account),
                connections: Vec::new(),
            });
            client.connections.push(Arc::clone(&member.activity));
        }
        let mut clients: Vec<_> = clients
            .into_values()
            .map(|client| (amount(&client.account, client.connections.len()), client))
            .filter(|(amount, _)| *amount > 0)
            .collect();
        clients.sort_by_key(|(amount, _)| Reverse(*amount));
        let (mut missing, mut count) = (missing, 0);
        for (amount, Greedy { mut connections, .. }) in clients {
            if missing == 0 {
                break;
            }
            let wanted = connections.len().saturating_mul(missing).div_ceil(amount);
            let cut = wanted.clamp(1, connections.len().div_ceil(2));
            missing = missing.saturating_sub((amount / connections.len()).saturating_mul(cut));
            connections.sort_by_cached_key(|activity| activity.usefulness());
            for activity in connections.iter().take(cut) {
                activity.put_out();
            }
            count += cut;
        }
        if count > 0 {
            tracing::debug!(
                connections = count,
                "connections of those who hold most are cut to make room for others"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionSlot {
    pub(super) const fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Returns what the other end holds.
    pub(super) const fn account(&self) -> &Arc<Account> {
        &self.account
    }
}

impl Drop for ConnectionSlot {
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
