//! The open connections, and room for the next one.

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

/// How long the next connection waits for a slot that becomes free by itself.
const SLOT_TIMEOUT: Duration = Duration::from_millis(100);

/// An address may have this many times as many connections as there are free slots, plus a few.
const FREE_SLOTS_FACTOR: usize = 3;
const FEW_CONNECTIONS: usize = 8;

/// The inverse of the part of all slots that a few are at most. Fewer than `FEW_CONNECTIONS` slots are not shared out.
const FEW_CONNECTIONS_DIVISOR: usize = 4;

/// How often idle connections are looked for, because that visits each connection.
const IDLE_SEARCH_INTERVAL: Duration = Duration::from_millis(100);

/// How often connections of the greediest client are cut while memory is scarce.
const CUT_INTERVAL: Duration = Duration::from_millis(10);

/// How long a connection must have been idle to be closed for others: a client that just connected gets to send a
/// request.
const SHORTEST_IDLE_TIME: Duration = Duration::from_secs(1);

/// The open connections of a server: a bounded number. If all slots are taken, those that have been idle longest are
/// closed, so that no client keeps others out with connections that it does not use. Each address may have at most
/// three times as many as there are free slots, so that no client keeps others out with many long pulls. If several
/// addresses do that together, connections of the one that has most are cut.
#[derive(Debug)]
pub(super) struct ConnectionLimit {
    size: usize,
    few: usize,
    slots: Arc<Semaphore>,
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

/// An open connection, and its client's account.
#[derive(Clone, Debug)]
struct Member {
    activity: Arc<Activity>,
    account: Arc<Account>,
}

/// A client that may have too many connections or too much memory.
struct Greedy {
    account: Arc<Account>,
    connections: Vec<Arc<Activity>>,
}

/// The slot of a connection, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    limit: Arc<ConnectionLimit>,
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
            few: if size < FEW_CONNECTIONS {
                FEW_CONNECTIONS
            } else {
                FEW_CONNECTIONS.min(size / FEW_CONNECTIONS_DIVISOR)
            },
            memory,
            slots: Arc::new(Semaphore::new(size)),
            open: Mutex::default(),
        }
    }

    /// Waits for a slot. Returns `None` for a client that has too many.
    pub(super) async fn enter(self: &Arc<Self>, client: Option<IpAddr>) -> Option<ConnectionSlot> {
        let account = self.memory.account(client);
        loop {
            if let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() {
                return self.slot(account, permit);
            }
            // A connection that waits here blocks the accept loop, so a client that would not get a slot does not
            // wait.
            if self.lock().count(&account) >= self.few {
                return self.refuse(&account);
            }
            self.make_room();
            if let Ok(permit) = timeout(SLOT_TIMEOUT, Arc::clone(&self.slots).acquire_owned()).await {
                return self.slot(account, permit.ok()?);
            }
        }
    }

    fn refuse<T>(&self, account: &Account) -> Option<T> {
        account.refused(MemoryUse::Connection);
        tracing::debug!(client = ?account.client(), "a client has too many connections");
        self.close_idle_ones(Instant::now());
        None
    }

    fn slot(self: &Arc<Self>, account: Arc<Account>, permit: OwnedSemaphorePermit) -> Option<ConnectionSlot> {
        let free = self.slots.available_permits() + 1;
        let activity = Arc::new(Activity::new());
        let mut open = self.lock();
        if open.count(&account) >= self.few + FREE_SLOTS_FACTOR * free {
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
            limit: Arc::clone(self),
            number,
            activity,
            account,
            _permit: permit,
        })
    }

    /// Closes connections whenever memory is scarce: idle ones, and, if there are none or they free too little, some of
    /// the clients that hold most. Never returns.
    pub(super) async fn relieve(&self) {
        loop {
            let missing = self.memory.pressed().await;
            let is_enough = self
                .close_idle_ones(Instant::now())
                .is_some_and(|count| count > 0);
            if !is_enough || self.memory.missing() > missing / 2 {
                self.put_out(Instant::now(), missing, |account, _| account.used(), true);
            }
            sleep(CUT_INTERVAL).await;
        }
    }

    /// Makes room for at least one connection, if a client has more than a few or is idle.
    pub(super) fn make_room(&self) {
        if self.close_idle_ones(Instant::now()).unwrap_or_default() == 0 {
            let more_than_few = |_: &Account, count: usize| if count > self.few { count } else { 0 };
            self.put_out(Instant::now(), self.size.div_ceil(64), more_than_few, false);
        }
    }

    /// Closes some idle connections and returns how many, or `None` if it last looked less than [`IDLE_SEARCH_INTERVAL`] ago.
    fn close_idle_ones(&self, now: Instant) -> Option<usize> {
        let mut idle: Vec<(Instant, Arc<Activity>)> = {
            let mut open = self.lock();
            let is_due = |before| now.saturating_duration_since(before) >= IDLE_SEARCH_INTERVAL;
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
        idle.retain(|(since, _)| now.saturating_duration_since(*since) >= SHORTEST_IDLE_TIME);
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

    /// Cuts connections of the clients that have most of something, at most half of each client's, until about
    /// `missing` of it is free. `amount` returns how much of it a client with that many connections has. With
    /// `stalled_first`, what a client holds counts less the more bytes its connections move: a push that goes on is worth
    /// more than hundreds that stand still and hold as much each. Connections that move least go first, then those whose client
    /// the server waits for, and of these, those that have been silent longest.
    fn put_out(
        &self,
        now: Instant,
        missing: usize,
        amount: impl Fn(&Account, usize) -> usize,
        stalled_first: bool,
    ) {
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
        clients.sort_by_cached_key(|(amount, client)| {
            let moving: u64 = if stalled_first {
                client.connections.iter().map(|activity| activity.rate(now)).sum()
            } else {
                0
            };
            let held = *amount as u128;
            Reverse(held * held / (held + u128::from(moving)))
        });
        let (mut missing, mut count) = (missing, 0);
        for (amount, Greedy { mut connections, .. }) in clients {
            if missing == 0 {
                break;
            }
            let wanted = connections.len().saturating_mul(missing).div_ceil(amount);
            let cut = wanted.clamp(1, connections.len().div_ceil(2));
            missing = missing.saturating_sub((amount / connections.len()).saturating_mul(cut));
            connections.sort_by_cached_key(|activity| activity.usefulness(now));
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

    /// Returns the account of the other end.
    pub(super) const fn account(&self) -> &Arc<Account> {
        &self.account
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut open = self.limit.lock();
        open.connections.remove(&self.number);
        if let Entry::Occupied(mut connections) = open.clients.entry(self.account.client()) {
            *connections.get_mut() -= 1;
            if *connections.get() == 0 {
                connections.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ordinary push was cut, because it held more than each of hundreds of uploads that stood still.
    #[tokio::test]
    async fn connections_that_stand_still_make_room_for_one_that_moves_more_and_holds_more() {
        let memory = MemoryBudget::new(1 << 20);
        let limit = Arc::new(ConnectionLimit::new(100, memory.clone()));
        let mut held = Vec::new();
        for last in 0..10_u8 {
            let client = Some([192, 0, 2, last].into());
            let slot = limit.enter(client).await.unwrap();
            let size = if last == 0 { 80_000 } else { 40_000 };
            let charge = memory.account(client).charge(size, MemoryUse::Request).unwrap();
            held.push((slot, charge));
        }
        let is_out = || {
            held.iter()
                .map(|(slot, _)| slot.activity().is_put_out())
                .collect::<Vec<_>>()
        };
        // The first second of a connection says nothing of it.
        let second = Duration::from_millis(1100);
        let now = Instant::now() + second;
        held[0].0.activity().moved(3 << 20);
        limit.put_out(now, 100_000, |account, _| account.used(), true);
        let cut = is_out();
        assert!(!cut[0], "{cut:?}");
        assert_eq!(cut.iter().filter(|is_out| **is_out).count(), 3, "{cut:?}");
        // One that takes without end holds more than what it moves is worth.
        let greedy = memory.account(Some([192, 0, 2, 0].into()));
        let _more = greedy.charge(400_000, MemoryUse::Request).unwrap();
        held[0].0.activity().moved(100_000);
        limit.put_out(now + second, 100_000, |account, _| account.used(), true);
        assert!(is_out()[0]);
    }
}
