//! Tags.

use alloc::boxed::Box;
use core::fmt;
use core::str::FromStr;

use crate::digest::Algorithm;
use crate::error::{Error, ErrorCode};

/// A tag: one to 128 of letters, digits, `_`, `.` and `-`, the first of them not `.` or `-` (distribution-spec 1.1).
///
/// ```
/// use registry_core::Tag;
/// assert!("v1.0-rc.1".parse::<Tag>().is_ok());
/// assert!(".hidden".parse::<Tag>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Box<str>);

impl Tag {
    /// The maximum length of a tag in bytes.
    pub const MAXIMUM_BYTES: usize = 128;

    /// Returns the tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether clients keep a list of referrers under this tag, for registries without such lists: it consists
    /// of an algorithm and the first 64 characters of the subject's digest (distribution-spec 1.1, "Referrers Tag
    /// Schema").
    #[must_use]
    pub fn lists_referrers(&self) -> bool {
        let is_digest = |text: &str| {
            let is_hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            text.len() == 64 && text.bytes().all(is_hexadecimal)
        };
        Algorithm::ALL.iter().any(|algorithm| {
            let rest = self.0.strip_prefix(algorithm.as_str());
            rest.and_then(|rest| rest.strip_prefix('-'))
                .is_some_and(is_digest)
        })
    }
}

impl FromStr for Tag {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let is_first = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_other = |c: char| is_first(c) || c == '.' || c == '-';
        if text.len() <= Self::MAXIMUM_BYTES && text.starts_with(is_first) && text.chars().all(is_other) {
            Ok(Self(text.into()))
        } else {
            Err(Error::new(
                ErrorCode::ManifestInvalid,
                "a tag is 1 to 128 letters, digits, '_', '.' and '-', and does not start with '.' or '-'",
            ))
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for Tag {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

crate::text::serde_as_text!(Tag);
