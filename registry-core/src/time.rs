//! Points in time, given by the caller.

use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Returns how long `self` is after `earlier`; zero if it is not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Parses a date of HTTP in the form that is sent today, `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7);
    /// `None` for any other text, and for a date before 1970.
    #[must_use]
    pub fn from_http_date(text: &str) -> Option<Self> {
        let (_, date) = text.strip_suffix(" GMT")?.split_once(", ")?;
        let mut words = date.split(' ');
        let (day, month, year) = (words.next()?, words.next()?, words.next()?);
        let mut time = words.next()?.split(':');
        let (hour, minute, second) = (time.next()?, time.next()?, time.next()?);
        if words.next().is_some() || time.next().is_some() || year.len() != 4 {
            return None;
        }
        let number = |text: &str, most: u64| {
            let is_number = text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|number| is_number && *number <= most)
        };
        let month = 1 + MONTHS.iter().position(|name| *name == month)? as u64;
        let days = days_since_1970(number(year, 9999)?, month, number(day, 31)?)?;
        let seconds = number(hour, 23)? * 3600 + number(minute, 59)? * 60 + number(second, 60)?;
        Some(Self((days * 86_400 + seconds) * 1000))
    }

    /// Parses the form in which a point in time is written here, `2026-11-28T09:15:00.123Z`; `None` for any other text, and
    /// for a date before 1970.
    #[must_use]
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let number = |range: core::ops::Range<usize>| {
            let digits = text.get(range)?;
            digits
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then_some(digits)?
                .parse()
                .ok()
        };
        let days = days_since_1970(number(0..4)?, number(5..7)?, number(8..10)?)?;
        let seconds = number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
        let at = Self((days * 86_400 + seconds) * 1000 + number(20..23)?);
        // Whatever is not written like this is not read like this: a 13th month, a missing digit, another separator.
        (alloc::format!("{at}") == text).then_some(at)
    }

    /// Returns the date of this point in UTC as (year, month, day).
    ///
    /// The algorithm is `civil_from_days` of Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    #[must_use]
    pub const fn date(self) -> (u64, u64, u64) {
        let days = (self.0 / 86_400_000).saturating_add(719_468);
        let era = days / 146_097;
        let day_of_era = days % 146_097;
        let year_of_era = (day_of_era
            .saturating_sub(day_of_era / 1460)
            .saturating_add(day_of_era / 36_524))
        .saturating_sub(day_of_era / 146_096)
            / 365;
        let day_of_year = day_of_era.saturating_sub(
            (year_of_era.saturating_mul(365))
                .saturating_add(year_of_era / 4)
                .saturating_sub(year_of_era / 100),
        );
        let shifted_month = (day_of_year.saturating_mul(5).saturating_add(2)) / 153;
        let day = day_of_year.saturating_sub((shifted_month.saturating_mul(153).saturating_add(2)) / 5) + 1;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        let year = year_of_era
            .saturating_add(era.saturating_mul(400))
            .saturating_add((month <= 2) as u64);
        (year, month, day)
    }
}

/// A point in time that a document may have, as text.
pub(crate) mod optional_text {
    use alloc::format;
    use alloc::string::String;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::Timestamp;

    #[expect(clippy::ref_option, reason = "serde passes the field")]
    pub(crate) fn serialize<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => serializer.collect_str(at),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'d, D: Deserializer<'d>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| {
            Timestamp::from_rfc3339(&text).ok_or_else(|| D::Error::custom(format!("{text} is no time")))
        })
        .transpose()
    }
}

/// The months as HTTP writes them.
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Returns the number of days from 1970-01-01 to a date, as `days_from_civil` of the same source does.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = year.checked_sub((month <= 2).into())?;
    let year_of_era = year % 400;
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day.checked_sub(1)?;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (year / 400 * 146_097 + day_of_era).checked_sub(719_468)
}

impl fmt::Display for Timestamp {
    /// Writes RFC 3339 with milliseconds, in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date();
        let of_day = self.0 % 86_400_000;
        let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
        let (second, milli) = (of_day / 1000 % 60, of_day % 1000);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"
        )
    }
}
