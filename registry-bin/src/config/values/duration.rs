//! Durations in Go's notation.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::shown;

/// A duration in Go's syntax: `1h30m`, `168h`, `500ms`, `1.5s`. As in Go, a bare number is nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GoDuration(pub(crate) Duration);

/// The units, longest first, and their nanoseconds.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];

/// The longest duration that Go can express, in nanoseconds: 292 years.
const LONGEST_NANOSECONDS: u64 = i64::MAX as u64;

impl GoDuration {
    pub(crate) const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Returns `None` if the text is not a duration, is negative or is longer than 292 years.
    fn parse(text: &str) -> Option<Self> {
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest.bytes().all(|byte| byte.is_ascii_digit()) {
            return rest
                .parse()
                .ok()
                .filter(|nanoseconds| *nanoseconds <= LONGEST_NANOSECONDS)
                .map(Self::from_nanoseconds);
        }
        let mut total = 0_u64;
        while !rest.is_empty() {
            let (number, unit, after) = first_part(rest)?;
            total = total
                .checked_add(multiply(number, unit)?)
                .filter(|total| *total <= LONGEST_NANOSECONDS)?;
            rest = after;
        }
        Some(Self::from_nanoseconds(total))
    }

    fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self(Duration::from_nanos(nanoseconds))
    }
}

/// Splits `1.5h30m` into `1.5`, the nanoseconds of an hour and `30m`.
fn first_part(text: &str) -> Option<(&str, u64, &str)> {
    let end = text.find(|character: char| !character.is_ascii_digit() && character != '.')?;
    let (number, rest) = text.split_at_checked(end)?;
    let (name, unit) = UNITS.iter().find(|(name, _)| rest.starts_with(name))?;
    Some((number, *unit, rest.strip_prefix(name)?))
}

/// Multiplies a decimal number by a unit. As in Go, fractions of a nanosecond are dropped.
fn multiply(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut part = 0_u64;
    let mut scale = unit;
    for digit in fraction.chars() {
        scale /= 10;
        part += u64::from(digit.to_digit(10)?) * scale;
    }
    whole.checked_mul(unit)?.checked_add(part)
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.0.subsec_nanos();
        let seconds = self.0.as_secs();
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        match nanoseconds {
            0 if seconds == 0 && (hours > 0 || minutes > 0) => Ok(()),
            0 => write!(f, "{seconds}s"),
            _ if seconds == 0 && nanoseconds.is_multiple_of(1_000_000) => {
                write!(f, "{}ms", nanoseconds / 1_000_000)
            }
            _ if seconds == 0 && nanoseconds.is_multiple_of(1_000) => write!(f, "{}us", nanoseconds / 1_000),
            _ if seconds == 0 && nanoseconds < 1_000_000 => write!(f, "{nanoseconds}ns"),
            _ => {
                let fraction = format!("{nanoseconds:09}");
                write!(f, "{seconds}.{}s", fraction.trim_end_matches('0'))
            }
        }
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom(format!(
                "{} is not a duration; write for example 30s, 10m or 1h30m",
                shown(&text)
            ))
        })
    }
}

impl JsonSchema for GoDuration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "description": "a duration such as 30s, 10m or 1h30m; a bare number is nanoseconds",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Option<Duration> {
        GoDuration::parse(text).map(|duration| duration.0)
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("0s", 0),
            ("10s", 10_000_000_000),
            ("168h", 604_800_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("+5s", 5_000_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("100ms", 100_000_000),
            ("2us3ns", 2_003),
            ("1µs", 1_000),
            ("1000000000", 1_000_000_000),
            ("0.000000001s", 1),
            ("0.0000000009s", 0),
        ] {
            assert_eq!(parse(text), Some(Duration::from_nanos(nanoseconds)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for text in [
            "-1s",
            "s",
            ".s",
            "1",
            "1x",
            "1s2",
            "1 s",
            "",
            "1d",
            "1..5s",
            "300000h999999999h",
            "9999999999999999999",
        ] {
            let expected = (text == "1").then(|| Duration::from_nanos(1));
            assert_eq!(
                parse(text),
                if text.is_empty() { None } else { expected },
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(nanoseconds in 0..=LONGEST_NANOSECONDS) {
            let duration = GoDuration::from_nanoseconds(nanoseconds);
            prop_assert_eq!(GoDuration::parse(&duration.to_string()), Some(duration));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _: Option<GoDuration> = GoDuration::parse(&text);
        }
    }
}
