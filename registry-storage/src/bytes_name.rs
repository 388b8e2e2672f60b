//! Names of stored bytes.

use std::fmt;

use registry_core::Timestamp;
use serde::{Deserialize, Serialize};

use crate::unique::unique;

/// The name of stored bytes, `<yyyymmdd>/<uuid>`: random, so that it is never reused, and sorted by day.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BytesName(Box<str>);

impl BytesName {
    /// Creates a name for the day of `now`.
    #[must_use]
    pub fn random(now: Timestamp) -> Self {
        let (year, month, day) = now.date();
        // A name has room for four digits, and a name that could not be parsed again would be lost.
        let year = year.min(9999);
        Self(format!("{year:04}{month:02}{day:02}/{}", unique()).into())
    }

    /// Parses a name; `None` if the text is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (day, id) = text.split_once('/')?;
        let is_day = day.len() == 8 && day.bytes().all(|byte| byte.is_ascii_digit());
        let is_id = id.len() == 36
            && id
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
        (is_day && is_id).then(|| Self(text.into()))
    }

    /// Returns the name as text, the path below `bytes/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the day, `yyyymmdd`.
    #[must_use]
    pub fn day(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(day, _)| day)
    }
}

impl TryFrom<String> for BytesName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("stored bytes are named yyyymmdd/uuid")
    }
}

impl From<BytesName> for String {
    fn from(name: BytesName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for BytesName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BytesName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
