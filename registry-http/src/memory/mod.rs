//! The memory that clients can make a server hold, and how much of it each client holds.

mod answers;
mod permits;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use registry_core::{Error, ErrorCode};
use tokio::sync::Notify;

use self::answers::Answers;
use self::permits::PermitCounts;
pub(crate) use self::permits::{Permit, PermitKind, Permits};
use crate::rate_limit::network;

/// A client may hold this many times what is free: if it is alone, three quarters of the budget, so that a quarter is
/// left for the next client.
const FREE_BYTES_FACTOR: usize = 3;

/// The inverse of the part of the budget that is a reserve: clients that hold much get none of it, and while it is
/// used, connections of the clients that hold most are cut.
const RESERVE_DIVISOR: usize = 8;

/// The inverse of the part of the budget below which no client counts as holding much: a few connections and their
/// requests.
const MODEST_DIVISOR: usize = 64;

/// How long the result of looking for the greediest client is reused, because that visits every client.
const GREEDIEST_LIFETIME: Duration = Duration::from_millis(20);

/// The inverse of the share of what is free that may go to what only makes a client faster.
const SPARE_DIVISOR: usize = 2;

/// A budget for the memory that clients can make a server hold: connections, headers, waiting requests, bodies of
/// manifests, and answers that are not taken. Clones are the same budget.
///
/// Each address (each /64 network of IPv6) may hold at most three times as much as is free, so that the greediest is
/// refused first. Several addresses together could still use it up. So an eighth of it is a reserve for addresses that
/// hold less than half of what the greediest holds, and once half of the reserve is used, less and less. While any of
/// the reserve is used, a [`Server`](crate::Server) cuts connections of the greediest. A proxy in front of all clients
/// counts as one address, unless it is trusted and reports theirs; then what they hold through it is refused in time,
/// but not cut.
///
/// ```
/// let budget = registry_http::MemoryBudget::new(16 << 20);
/// let mut limits = registry_http::Limits::default();
/// limits.memory = budget.clone();
/// assert_eq!((budget.capacity(), budget.used()), (16 << 20, 0));
/// ```
#[derive(Clone)]
pub struct MemoryBudget(Arc<Shared>);

struct Shared {
    capacity: usize,
    used: AtomicUsize,
    accounts: Mutex<HashMap<Option<IpAddr>, Weak<Account>>>,
    answers: Answers,
    /// When the greediest client was last looked for, and how much it held.
    most: Mutex<Option<(Instant, usize)>>,
    /// Notifies servers that the reserve is used.
    pressed: Notify,
    refused: [AtomicU64; MemoryUse::ALL.len()],
}

/// What memory is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MemoryUse {
    /// A connection. If it is refused, it is closed.
    Connection,
    /// The header of an HTTP/1.1 request that has not arrived completely. If it is refused, its connection is closed.
    Header,
    /// A request, together with its answer until the client has taken that. If it is refused, it is answered 429 or
    /// 503; if not even that can be held, its connection is closed.
    Request,
    /// The body of a manifest. If it is refused, its push is answered 429 or 503.
    Manifest,
    /// An answer that is sent from memory. If it is refused, the request is answered 429 or 503.
    Answer,
}

impl MemoryUse {
    /// Every use.
    pub const ALL: [Self; 5] = [
        Self::Connection,
        Self::Header,
        Self::Request,
        Self::Manifest,
        Self::Answer,
    ];

    /// Returns its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Header => "header",
            Self::Request => "request",
            Self::Manifest => "manifest",
            Self::Answer => "answer",
        }
    }
}

impl MemoryBudget {
    /// Creates a budget of `capacity` bytes.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self(Arc::new(Shared {
            // Far below where sums overflow.
            capacity: capacity.min(usize::MAX / 16),
            used: AtomicUsize::new(0),
            accounts: Mutex::default(),
            answers: Answers::default(),
            most: Mutex::default(),
            pressed: Notify::new(),
            refused: [const { AtomicU64::new(0) }; MemoryUse::ALL.len()],
        }))
    }

    /// Returns how many bytes may be held.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.capacity
    }

    /// Returns how many bytes are held.
    #[must_use]
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Returns how often memory for `wanted` was refused.
    #[must_use]
    pub fn refused(&self, wanted: MemoryUse) -> u64 {
        self.counter(wanted)
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Returns the account of a client. `None` is the one account of all clients on unix sockets.
    pub(crate) fn account(&self, client: Option<IpAddr>) -> Arc<Account> {
        let client = client.map(network);
        let mut accounts = self.accounts();
        if let Some(account) = accounts.get(&client).and_then(Weak::upgrade) {
            return account;
        }
        let account = Arc::new(Account {
            budget: self.clone(),
            client,
            used: AtomicUsize::new(0),
            permits: PermitCounts::default(),
        });
        accounts.insert(client, Arc::downgrade(&account));
        account
    }

    /// Waits until a part of the reserve is used, and returns how many bytes of it are. Cancel safe.
    pub(crate) async fn pressed(&self) -> usize {
        loop {
            // Notifications count from here on.
            let pressed = self.0.pressed.notified();
            let missing = self.missing();
            if missing > 0 {
                return missing;
            }
            pressed.await;
        }
    }

    /// Returns how many bytes of the reserve are used.
    pub(crate) fn missing(&self) -> usize {
        let free = self.capacity().saturating_sub(self.used());
        self.reserve().saturating_sub(free)
    }

    fn reserve(&self) -> usize {
        self.capacity() / RESERVE_DIVISOR
    }

    /// Returns how much a client may hold when only `free` bytes are left, less than the reserve.
    fn scarce_share(&self, free: usize) -> usize {
        let half = (self.reserve() / 2).max(1);
        let left = free.min(half) as u128;
        let share = self.most().max(self.capacity() / MODEST_DIVISOR) as u128 / 2 * left / half as u128;
        usize::try_from(share).unwrap_or(usize::MAX)
    }

    /// Returns how much the greediest client holds.
    fn most(&self) -> usize {
        let mut most = self.0.most.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match *most {
            Some((at, most)) if now.saturating_duration_since(at) < GREEDIEST_LIFETIME => most,
            _ => {
                let accounts: Vec<_> = self.accounts().values().filter_map(Weak::upgrade).collect();
                let found = accounts.iter().map(|account| account.used()).max();
                let found = found.unwrap_or_default();
                *most = Some((now, found));
                found
            }
        }
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<Option<IpAddr>, Weak<Account>>> {
        self.0.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counter(&self, wanted: MemoryUse) -> Option<&AtomicU64> {
        let at = MemoryUse::ALL.iter().position(|other| *other == wanted)?;
        self.0.refused.get(at)
    }
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBudget")
            .field("capacity", &self.capacity())
            .field("used", &self.used())
            .finish_non_exhaustive()
    }
}

/// What one client holds.
pub(crate) struct Account {
    budget: MemoryBudget,
    client: Option<IpAddr>,
    used: AtomicUsize,
    /// How many permits of each kind it has.
    permits: PermitCounts,
}

/// Why a client gets no more memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It holds much itself.
    Greedy,
    /// Others hold it.
    Full,
}

impl Account {
    /// Returns the client: an address or a network.
    pub(crate) const fn client(&self) -> Option<IpAddr> {
        self.client
    }

    /// Returns how many bytes it holds.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns whether this is the account of `client`.
    pub(crate) fn is_of(&self, client: Option<IpAddr>) -> bool {
        self.client == client.map(network)
    }

    /// Takes `bytes` until the result is dropped.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize, wanted: MemoryUse) -> Result<Charge, Refused> {
        let mut charge = Charge {
            account: Arc::clone(self),
            bytes: 0,
        };
        charge.grow(bytes, wanted)?;
        Ok(charge)
    }

    /// Returns whether a part of the reserve is used, so that other clients need what is left.
    pub(crate) fn is_scarce(&self) -> bool {
        let shared = &self.budget.0;
        let free = shared
            .capacity
            .saturating_sub(shared.used.load(Ordering::Relaxed));
        free < self.budget.reserve()
    }

    /// Takes `bytes` from the budget for the client, if the client then holds at most `most` of what is free. If that
    /// uses the reserve, it may also hold at most what is free, and half of what the greediest client holds. Of the
    /// second half of the reserve it gets less the more is used: hundreds of clients that hold little each leave
    /// something for the next one.
    fn take(&self, bytes: usize, most: impl Fn(usize) -> usize) -> Result<(), Refused> {
        let shared = &self.budget.0;
        let others_and_own = shared.used.fetch_add(bytes, Ordering::Relaxed);
        let own = self.used.fetch_add(bytes, Ordering::Relaxed);
        let free = shared.capacity.saturating_sub(others_and_own);
        let then = own.saturating_add(bytes);
        let is_scarce = free < bytes.saturating_add(self.budget.reserve());
        if is_scarce {
            shared.pressed.notify_waiters();
        }
        let is_greedy =
            then > most(free) || is_scarce && (then > free || then > self.budget.scarce_share(free));
        if bytes <= free && !is_greedy {
            return Ok(());
        }
        self.give_back(bytes);
        Err(if own > free || is_greedy && bytes <= free {
            Refused::Greedy
        } else {
            Refused::Full
        })
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts a refusal.
    pub(crate) fn refused(&self, wanted: MemoryUse) {
        if let Some(count) = self.budget.counter(wanted) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Returns how much a client may hold when `free` bytes are free.
const fn share(free: usize) -> usize {
    free.saturating_mul(FREE_BYTES_FACTOR)
}

impl Drop for Account {
    fn drop(&mut self) {
        let mut accounts = self.budget.accounts();
        // A new account may have taken its place since.
        if accounts
            .get(&self.client)
            .is_some_and(|account| account.strong_count() == 0)
        {
            accounts.remove(&self.client);
        }
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("client", &self.client)
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

/// Memory that a client holds, until this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    account: Arc<Account>,
    bytes: usize,
}

impl Charge {
    /// Takes `more` bytes.
    pub(crate) fn grow(&mut self, more: usize, wanted: MemoryUse) -> Result<(), Refused> {
        let taken = self.account.take(more, share);
        match taken {
            Ok(()) => self.bytes += more,
            Err(_) => self.account.refused(wanted),
        }
        taken
    }

    /// Takes `more` bytes if there is plenty, for what only makes the client faster. Returns whether it did.
    pub(crate) fn try_grow(&mut self, more: usize) -> bool {
        let budget = &self.account.budget;
        let free = budget.capacity().saturating_sub(budget.used());
        // Clients that need it come first.
        let is_taken = free >= budget.reserve().saturating_add(more)
            && self.account.take(more, |free| free / SPARE_DIVISOR).is_ok();
        if is_taken {
            self.bytes += more;
        }
        is_taken
    }

    /// Returns all but `rest` bytes to the budget.
    pub(crate) fn shrink(&mut self, rest: usize) {
        let spare = self.bytes.saturating_sub(rest);
        self.bytes -= spare;
        self.account.give_back(spare);
    }

    /// Returns how much is held.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.give_back(self.bytes);
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let error = match refused {
            Refused::Greedy => Self::new(
                ErrorCode::TooManyRequests,
                "too much goes on for this address; come again when some of it is done",
            ),
            Refused::Full => ErrorCode::Unavailable.into(),
        };
        match refused {
            Refused::Greedy => error.with_field("Retry-After", "1"),
            Refused::Full => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn client(last: u8) -> Option<IpAddr> {
        Some([192, 0, 2, last].into())
    }

    /// Takes as many pieces as it gets.
    fn grab(account: &Arc<Account>, piece: usize) -> Vec<Charge> {
        std::iter::from_fn(|| account.charge(piece, MemoryUse::Request).ok()).collect()
    }

    #[test]
    fn the_greediest_is_refused_and_the_next_one_is_served() {
        let budget = MemoryBudget::new(1000);
        let greedy = budget.account(client(1));
        let held = grab(&greedy, 10);
        assert_eq!(
            (held.len(), budget.used()),
            (75, 750),
            "who is alone gets three quarters"
        );
        assert_eq!(
            greedy.charge(10, MemoryUse::Request).unwrap_err(),
            Refused::Greedy
        );
        let other = budget.account(client(2));
        let charge = other.charge(100, MemoryUse::Request).unwrap();
        assert_eq!(other.charge(500, MemoryUse::Answer).unwrap_err(), Refused::Full);
        assert_eq!(
            (
                budget.refused(MemoryUse::Request),
                budget.refused(MemoryUse::Answer)
            ),
            (2, 1)
        );
        drop((held, charge));
        assert_eq!(budget.used(), 0);
        other.charge(500, MemoryUse::Answer).unwrap();
    }

    #[test]
    fn of_the_reserve_each_that_is_greedy_leaves_half_of_what_it_found() {
        let budget = MemoryBudget::new(100_000);
        let mut held = Vec::new();
        for (number, used) in [(1, 75_000), (2, 87_500), (3, 93_750), (4, 96_880)] {
            held.push(grab(&budget.account(client(number)), 10));
            assert_eq!(budget.used(), used);
        }
        drop(budget.account(client(99)).charge(10, MemoryUse::Request).unwrap());
        drop(held);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn hundreds_that_hold_little_leave_something_for_the_next_one() {
        const PIECE_BYTES: usize = 8 * 1024;
        let budget = MemoryBudget::new(48 << 20);
        let clients: Vec<_> = (0..600_u32)
            .map(|number| budget.account(Some(std::net::Ipv4Addr::from(number).into())))
            .collect();
        let mut held = Vec::new();
        loop {
            let before = held.len();
            let more = clients
                .iter()
                .filter_map(|client| client.charge(PIECE_BYTES, MemoryUse::Request).ok());
            held.extend(more);
            if held.len() == before {
                break;
            }
        }
        assert!(budget.missing() > 0, "they use a part of the reserve");
        let next = budget.account(client(1));
        let taken = grab(&next, PIECE_BYTES).len() * PIECE_BYTES;
        assert!(taken >= 48 * 1024, "{taken}");
    }

    #[test]
    fn what_only_makes_faster_is_taken_from_plenty() {
        let budget = MemoryBudget::new(1000);
        let mut charge = budget.account(None).charge(200, MemoryUse::Connection).unwrap();
        assert!(charge.try_grow(100));
        assert!(!charge.try_grow(100));
        assert_eq!(budget.refused(MemoryUse::Connection), 0);
        charge.grow(100, MemoryUse::Header).unwrap();
        charge.shrink(50);
        assert_eq!((charge.bytes(), budget.used()), (50, 50));
    }

    #[test]
    fn an_account_is_kept_for_as_long_as_it_is_used() {
        let budget = MemoryBudget::new(1000);
        let one = budget.account(Some("2001:db8::1".parse().unwrap()));
        let other = budget.account(Some("2001:db8::2".parse().unwrap()));
        assert!(Arc::ptr_eq(&one, &other), "a network is one client");
        assert!(one.is_of(Some("2001:db8::3".parse().unwrap())) && !one.is_of(None));
        drop((one, other));
        assert!(budget.accounts().is_empty());
    }

    #[test]
    fn an_answer_that_many_are_sent_is_held_once() {
        let budget = MemoryBudget::new(1000);
        let (one, other) = (budget.account(client(1)), budget.account(client(2)));
        let bytes = Bytes::from(vec![7; 300]);
        let sent: Vec<Bytes> = (0..100).map(|_| one.hold(bytes.clone()).unwrap()).collect();
        assert_eq!((budget.used(), sent[0].as_ptr()), (300, bytes.as_ptr()));
        let also = other.hold(bytes).unwrap();
        assert_eq!(budget.used(), 300);
        // Both hold it, whichever came first.
        drop(sent);
        assert_eq!(budget.used(), 300);
        assert_eq!(other.hold(Bytes::from(vec![7; 701])).unwrap_err(), Refused::Full);
        drop(also);
        assert_eq!((budget.used(), other.used.load(Ordering::Relaxed)), (0, 0));
    }
}
