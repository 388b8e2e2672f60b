//! The clock of the machine, from which HTTP takes the date of each answer.

use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The first second of the year 10000, which an HTTP date cannot express.
const FIRST_UNUSABLE_TIME: Duration = Duration::from_secs(253_402_300_800);

/// How often refused connections are logged while the clock is wrong.
const WARNING_INTERVAL: Duration = Duration::from_mins(1);

/// Refuses a time that an HTTP date cannot express: one before 1970 or after 9999. With such a clock, no request can be
/// answered.
///
/// # Errors
/// An error that says which of the two it is and what to do.
pub fn check_clock(now: SystemTime) -> io::Result<()> {
    let wrong = match now.duration_since(UNIX_EPOCH) {
        Err(_) => "before 1970",
        Ok(since) if since >= FIRST_UNUSABLE_TIME => "after 9999",
        Ok(_) => return Ok(()),
    };
    Err(io::Error::other(format!(
        "the clock of this machine says that it is {wrong}, which no date of HTTP can say; set the clock"
    )))
}

/// Logs, at most once a minute, that connections are refused because of the clock.
#[derive(Debug, Default)]
pub(super) struct ClockWatch {
    warned_at: Option<Instant>,
}

impl ClockWatch {
    /// Returns whether a connection can be answered.
    pub(super) fn is_usable(&mut self, now: SystemTime) -> bool {
        let Err(error) = check_clock(now) else {
            return true;
        };
        if self
            .warned_at
            .is_none_or(|warned_at| warned_at.elapsed() >= WARNING_INTERVAL)
        {
            self.warned_at = Some(Instant::now());
            tracing::error!(%error, "connections are refused");
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests are programs of their own")]
    fn a_clock_that_no_date_of_http_can_say_is_refused() {
        let second = Duration::from_secs(1);
        for (time, expected) in [
            (UNIX_EPOCH - second, Some("before 1970")),
            (UNIX_EPOCH, None),
            (SystemTime::now(), None),
            (UNIX_EPOCH + FIRST_UNUSABLE_TIME - second, None),
            (UNIX_EPOCH + FIRST_UNUSABLE_TIME, Some("after 9999")),
        ] {
            let refused = check_clock(time).map_err(|error| error.to_string());
            match expected {
                Some(expected) => assert!(refused.unwrap_err().contains(expected)),
                None => assert_eq!(refused, Ok(())),
            }
            assert_eq!(ClockWatch::default().is_usable(time), expected.is_none());
        }
    }
}
