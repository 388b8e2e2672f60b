//! File permissions.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::shown;

/// File permissions in octal digits, as for `chmod`: `660` or `0660`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileMode(pub(crate) u32);

impl FileMode {
    fn parse(text: &str) -> Option<Self> {
        let digits = text
            .strip_prefix("0o")
            .or_else(|| text.strip_prefix('0'))
            .unwrap_or(text);
        let is_octal = digits.len() == 3 && digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
        is_octal.then(|| u32::from_str_radix(digits, 8).ok().map(Self))?
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl Serialize for FileMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom(format!(
                "{} is no mode of a file; write three octal digits, for example 0660",
                shown(&text)
            ))
        })
    }
}

impl JsonSchema for FileMode {
    fn schema_name() -> Cow<'static, str> {
        "FileMode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "description": "permissions in octal digits, such as 0660",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_whatever_is_before_them() {
        for text in ["660", "0660", "0o660"] {
            assert_eq!(FileMode::parse(text), Some(FileMode(0o660)), "{text}");
        }
        assert_eq!(FileMode(0o60).to_string(), "0060");
        for text in ["", "66", "0", "6600", "668", "u+w", "0x1b0", "00660"] {
            assert_eq!(FileMode::parse(text), None, "{text}");
        }
    }
}
