//! Rate limits by address and by identity.

use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use http::request::Parts;
use quick_cache::sync::Cache;
use registry_core::{Error, ErrorCode};
use tokio::sync::Semaphore;
use tokio::time::sleep;

/// How many addresses, and how many identities, are remembered. With more, the least recently seen one starts over.
const REMEMBERED_KEYS: usize = 65_536;

/// How long a request that writes is held back before it is refused. Build tools fail on a refusal and do not retry.
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// How many requests are held back at once; beyond that they are refused.
const DELAYED_REQUESTS: usize = 256;

/// A number of requests in a time, and how many may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many requests may come in the long run.
    pub requests: NonZeroU32,
    /// The time in which they may come.
    pub per: Duration,
    /// How many may come at once after a pause.
    pub burst: NonZeroU32,
}

/// Counts events for each of a bounded number of keys and reports when there are too many (the generic cell rate
/// algorithm).
pub(crate) struct RateLimiter<K> {
    /// Nanoseconds between two events in the long run.
    interval: u64,
    /// How many nanoseconds ahead of that rate events may be.
    tolerance: u64,
    start: Instant,
    /// When the next event of a key would be due, in nanoseconds after `start`.
    due: Cache<K, Arc<AtomicU64>>,
}

impl<K: Clone + Eq + Hash> RateLimiter<K> {
    pub(crate) fn new(rate: Rate) -> Self {
        Self::remembering(rate, REMEMBERED_KEYS)
    }

    /// Creates a limiter that remembers `keys` keys.
    pub(crate) fn remembering(rate: Rate, keys: usize) -> Self {
        let per = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
        let interval = per / u64::from(rate.requests.get());
        Self {
            interval,
            tolerance: interval.saturating_mul(u64::from(rate.burst.get())),
            start: Instant::now(),
            due: Cache::new(keys),
        }
    }

    /// Counts an event if it may happen now or within `patience`, and returns how long it has to wait.
    ///
    /// # Errors
    /// How long it would have to wait, if that is longer than `patience`. The event is not counted then.
    pub(crate) fn take(&self, key: &K, patience: Duration) -> Result<Duration, Duration> {
        let now = self.now();
        let due = self.entry(key);
        let mut current = due.load(Ordering::Relaxed);
        loop {
            let next = current.max(now).saturating_add(self.interval);
            let wait = Duration::from_nanos(next.saturating_sub(now).saturating_sub(self.tolerance));
            if wait > patience {
                return Err(wait);
            }
            match due.compare_exchange_weak(current, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(wait),
                Err(found) => current = found,
            }
        }
    }

    /// Returns how long the next event would have to wait, without counting one.
    #[cfg(any(test, feature = "htpasswd"))]
    pub(crate) fn wait(&self, key: &K) -> Duration {
        let Some(due) = self.due.get(key) else {
            return Duration::ZERO;
        };
        let now = self.now();
        let next = due.load(Ordering::Relaxed).max(now).saturating_add(self.interval);
        Duration::from_nanos(next.saturating_sub(now).saturating_sub(self.tolerance))
    }

    fn entry(&self, key: &K) -> Arc<AtomicU64> {
        if let Some(due) = self.due.get(key) {
            return due;
        }
        let made = self
            .due
            .get_or_insert_with(key, || Ok::<_, std::convert::Infallible>(Arc::default()));
        match made {
            Ok(due) => due,
            Err(never) => match never {},
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl<K> fmt::Debug for RateLimiter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter")
            .field("interval", &Duration::from_nanos(self.interval))
            .field("tolerance", &Duration::from_nanos(self.tolerance))
            .finish_non_exhaustive()
    }
}

/// How a request over the limit is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// It reads, and is refused at once.
    Reads,
    /// It writes: it is held back, and refused if it would have to wait too long.
    Writes,
    /// It continues an upload, which was counted when it began: it waits, and is refused only if too many requests
    /// wait.
    GoesOn,
}

impl Pace {
    pub(crate) fn of(parts: &Parts) -> Self {
        match parts.method {
            Method::GET | Method::HEAD | Method::OPTIONS => Self::Reads,
            Method::PATCH | Method::PUT if parts.uri.path().contains("/blobs/uploads/") => Self::GoesOn,
            _ => Self::Writes,
        }
    }
}

/// The rate limits of a service.
///
/// A request that reads too often is answered 429 with `Retry-After`. A request that writes is held back for up to ten
/// seconds first, because containerd and tools built on it retry at once, five times, and then give up. A request that
/// continues an upload is held back and then served, because most clients take a refusal there as the end of the push.
#[derive(Debug)]
pub struct RateLimits {
    address: Option<RateLimiter<IpAddr>>,
    identity: Option<RateLimiter<String>>,
    delayed: Semaphore,
}

impl RateLimits {
    /// Limits the requests of each address (of each /64 network of IPv6) and of each principal that has a name.
    #[must_use]
    pub fn new(address: Option<Rate>, identity: Option<Rate>) -> Self {
        Self {
            address: address.map(RateLimiter::new),
            identity: identity.map(RateLimiter::new),
            delayed: Semaphore::new(DELAYED_REQUESTS),
        }
    }

    pub(crate) async fn check_address(&self, address: Option<IpAddr>, pace: Pace) -> Result<(), Error> {
        match (&self.address, address) {
            (Some(limiter), Some(address)) => self.check(limiter, &network(address), pace).await,
            _ => Ok(()),
        }
    }

    pub(crate) async fn check_identity(&self, name: &str, pace: Pace) -> Result<(), Error> {
        match &self.identity {
            Some(limiter) if !name.is_empty() => self.check(limiter, &name.to_owned(), pace).await,
            _ => Ok(()),
        }
    }

    async fn check<K: Clone + Eq + Hash + Sync>(
        &self,
        limiter: &RateLimiter<K>,
        key: &K,
        pace: Pace,
    ) -> Result<(), Error> {
        let delay = match pace {
            Pace::Reads => None,
            Pace::Writes | Pace::GoesOn => self.delayed.try_acquire().ok(),
        };
        let patience = if delay.is_some() {
            LONGEST_DELAY
        } else {
            Duration::ZERO
        };
        match limiter.take(key, patience) {
            Ok(Duration::ZERO) => {}
            Ok(wait) => sleep(wait).await,
            Err(_) if pace == Pace::GoesOn && delay.is_some() => sleep(LONGEST_DELAY).await,
            Err(wait) => return Err(too_many(wait)),
        }
        drop(delay);
        Ok(())
    }
}

/// The answer to a client over its limit, with the time to wait in whole seconds.
pub(crate) fn too_many(wait: Duration) -> Error {
    let seconds = wait.as_millis().div_ceil(1000).max(1);
    Error::new(
        ErrorCode::TooManyRequests,
        format!("too many requests; come again in {seconds} s"),
    )
    .with_field("Retry-After", seconds.to_string())
}

/// Returns the network that one client is assumed to control: an IPv4 address, or a /64 network of IPv6.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(requests: u32, per: Duration, burst: u32) -> Rate {
        Rate {
            requests: NonZeroU32::new(requests).unwrap(),
            per,
            burst: NonZeroU32::new(burst).unwrap(),
        }
    }

    #[test]
    fn a_burst_passes_and_what_follows_waits() {
        let limiter = RateLimiter::new(rate(1, Duration::from_secs(3600), 3));
        for _ in 0..3 {
            assert_eq!(limiter.take(&1, Duration::ZERO), Ok(Duration::ZERO));
        }
        let wait = limiter.take(&1, Duration::ZERO).unwrap_err();
        assert!(
            wait > Duration::from_secs(3590) && wait <= Duration::from_secs(3600),
            "{wait:?}"
        );
        assert!(limiter.wait(&1) > Duration::from_secs(3590));
        // Keys do not affect one another, and a refusal is not counted.
        assert_eq!(limiter.take(&2, Duration::ZERO), Ok(Duration::ZERO));
        let again = limiter.take(&1, Duration::ZERO).unwrap_err();
        assert!(again <= wait);
        // With patience the wait is granted, and the next one waits longer.
        let first = limiter.take(&1, Duration::from_secs(4000)).unwrap();
        assert!(limiter.take(&1, Duration::from_secs(4000)).unwrap_err() > first);
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let network_of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network_of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network_of("::ffff:192.0.2.1"), "192.0.2.1");
    }

    #[tokio::test(start_paused = true)]
    async fn reads_are_refused_and_writes_held_back() {
        let limits = RateLimits::new(Some(rate(1, Duration::from_secs(1), 1)), None);
        let address = Some("192.0.2.1".parse().unwrap());
        limits.check_address(address, Pace::Reads).await.unwrap();
        let refused = limits.check_address(address, Pace::Reads).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::TooManyRequests);
        assert_eq!(refused.fields(), [("Retry-After", "1".to_owned())]);
        limits.check_address(address, Pace::Writes).await.unwrap();
        limits.check_address(None, Pace::Reads).await.unwrap();
        limits.check_identity("alice", Pace::Reads).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_on_with_an_upload_is_held_back_and_never_refused_alone() {
        let hour = Duration::from_secs(3600);
        let limits = RateLimits::new(Some(rate(1, hour, 1)), None);
        let address = Some("192.0.2.1".parse().unwrap());
        limits.check_address(address, Pace::Writes).await.unwrap();
        limits.check_address(address, Pace::Writes).await.unwrap_err();
        let begun = tokio::time::Instant::now();
        limits.check_address(address, Pace::GoesOn).await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), LONGEST_DELAY.as_secs());
        // So many wait already that more would defeat the limit.
        let waiting = (0..=DELAYED_REQUESTS).map(|_| limits.check_address(address, Pace::GoesOn));
        let results = futures_util::future::join_all(waiting).await;
        assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1);
    }

    #[test]
    fn an_upload_goes_on_with_its_own_requests() {
        for (method, path, pace) in [
            ("GET", "/v2/a/blobs/uploads/1", Pace::Reads),
            ("OPTIONS", "/v2/", Pace::Reads),
            ("POST", "/v2/a/blobs/uploads/", Pace::Writes),
            ("PUT", "/v2/a/manifests/1", Pace::Writes),
            ("DELETE", "/v2/a/blobs/uploads/1", Pace::Writes),
            ("PATCH", "/v2/a/blobs/uploads/1?_state=3", Pace::GoesOn),
            ("PUT", "/v2/a/blobs/uploads/1?digest=x", Pace::GoesOn),
        ] {
            let request = http::Request::builder()
                .method(method)
                .uri(path)
                .body(())
                .unwrap();
            assert_eq!(Pace::of(&request.into_parts().0), pace, "{method} {path}");
        }
    }
}
