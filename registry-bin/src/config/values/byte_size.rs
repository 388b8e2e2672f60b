//! Numbers of bytes.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::shown;

/// A number of bytes: `50GiB`, `500MB`, `1.5TiB`, or a bare number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ByteSize(pub(crate) u64);

/// The units and their bytes, largest first.
const UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// Returns `None` if the text is not a number of bytes. A part of a byte is none.
    fn parse(text: &str) -> Option<Self> {
        let unit = UNITS.iter().find(|(name, _)| text.ends_with(name));
        let (number, unit) = match unit {
            Some((name, unit)) => (text.strip_suffix(name)?.trim_end(), *unit),
            None => (text, 1),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 3 {
            return None;
        }
        let is_part = unit == 1 && fraction.bytes().any(|digit| digit != b'0');
        let whole: u64 = whole.parse().ok().filter(|_| !is_part)?;
        let scale = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
        // A unit has less than 2^41 bytes, and the fraction less than a thousand.
        let part = unit * fraction.parse::<u64>().ok()? / scale;
        whole.checked_mul(unit)?.checked_add(part).map(Self)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |unit: &u64| self.0 > 0 && self.0.is_multiple_of(*unit) && *unit > 1;
        match UNITS.iter().find(|(_, unit)| whole(unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom(format!(
                "{} is not a whole number of bytes below 16 EiB; write for example 50GiB, 500MB or 1048576",
                shown(&text)
            ))
        })
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "description": "a number of bytes such as 50GiB, 500MB or 1048576",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_with_any_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("5.0", 5),
            ("1048576", 1_048_576),
            ("7B", 7),
            ("1KiB", 1024),
            ("2 MiB", 2 << 20),
            ("50GiB", 50 << 30),
            ("1.5TiB", (3 << 40) / 2),
            ("500MB", 500_000_000),
            ("1kB", 1000),
            ("0.25GB", 250_000_000),
        ] {
            assert_eq!(ByteSize::parse(text), Some(ByteSize(bytes)), "{text}");
        }
        for text in [
            "",
            "GiB",
            "-1",
            "1.GiB",
            ".5GiB",
            "1e3",
            "5 apples",
            "50G",
            "1.0001GiB",
            "99999999TiB",
            "１",
            "0.5",
            "1.5B",
        ] {
            assert_eq!(ByteSize::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes in any::<u64>(), unit in prop::sample::select(UNITS.to_vec())) {
            for size in [ByteSize(bytes), ByteSize((bytes % 1000) * unit.1)] {
                prop_assert_eq!(ByteSize::parse(&size.to_string()), Some(size));
            }
        }

        #[test]
        fn no_text_panics(text in "[0-9.]{0,25} ?[A-Za-z]{0,3}") {
            let _ = ByteSize::parse(&text);
        }
    }
}
