//! Rate limits for log lines that any client can cause.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::rate_limit::{Rate, RateLimiter, network};

/// Lines per address: three at once, then one every ten seconds.
const OF_ADDRESS: Rate = Rate {
    requests: NonZeroU32::MIN,
    per: Duration::from_secs(10),
    burst: NonZeroU32::MIN.saturating_add(2),
};

/// Lines of all addresses together: twenty at once, then one a second.
const OF_ALL: Rate = Rate {
    requests: NonZeroU32::MIN,
    per: Duration::from_secs(1),
    burst: NonZeroU32::MIN.saturating_add(19),
};

/// How many addresses are remembered.
const REMEMBERED_ADDRESSES: usize = 1024;

/// Keeps clients from filling the log: it suppresses lines, and counts them.
#[derive(Debug)]
pub(crate) struct LogLimit {
    of_address: RateLimiter<Option<IpAddr>>,
    of_all: RateLimiter<()>,
    left_out: AtomicU64,
}

impl LogLimit {
    /// Creates a limit for one kind of line.
    pub(crate) fn new() -> Self {
        Self {
            of_address: RateLimiter::remembering(OF_ADDRESS, REMEMBERED_ADDRESSES),
            of_all: RateLimiter::remembering(OF_ALL, 1),
            left_out: AtomicU64::new(0),
        }
    }

    /// Returns how many lines were suppressed since the last one, or `None` if the line that `client` causes now is
    /// suppressed too.
    pub(crate) fn take(&self, client: Option<IpAddr>) -> Option<u64> {
        let address = client.map(network);
        let may = self.of_address.take(&address, Duration::ZERO).is_ok()
            && self.of_all.take(&(), Duration::ZERO).is_ok();
        if may {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> Option<IpAddr> {
        Some([192, 0, 2, number].into())
    }

    #[test]
    fn one_address_does_not_take_the_lines_of_another() {
        let limit = LogLimit::new();
        let taken = (0..100).filter(|_| limit.take(address(1)).is_some()).count();
        assert!((3..20).contains(&taken), "{taken}");
        let left_out = u64::try_from(100 - taken).unwrap();
        assert_eq!(limit.take(address(2)), Some(left_out));
        assert_eq!(limit.take(address(2)), Some(0));
    }

    #[test]
    fn many_addresses_do_not_fill_the_log() {
        let limit = LogLimit::new();
        let taken = (0..=255).filter(|number| limit.take(address(*number)).is_some());
        assert!((20..200).contains(&taken.count()));
    }
}
