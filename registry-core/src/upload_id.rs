//! Identifiers of upload sessions.

use core::fmt;
use core::str::FromStr;

use crate::error::{Error, ErrorCode};

/// The identifier of an upload session: a UUID of version 4 in its lower-case, hyphenated form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(u128);

impl UploadId {
    /// Creates an identifier from 128 random bits; the bits that RFC 9562 fixes for version 4 are set here.
    #[must_use]
    pub const fn from_random(bits: u128) -> Self {
        let version = bits & !(0xf << 76) | (0x4 << 76);
        Self(version & !(0x3 << 62) | (0x2 << 62))
    }
}

impl FromStr for UploadId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).ok_or_else(|| {
            Error::new(
                ErrorCode::BlobUploadUnknown,
                "an upload session is named by a UUID",
            )
        })
    }
}

fn parse(text: &str) -> Option<UploadId> {
    let mut bits: u128 = 0;
    let mut length: usize = 0;
    for (at, byte) in text.bytes().enumerate() {
        length = at.checked_add(1)?;
        let nibble = match (at, byte) {
            (8 | 13 | 18 | 23, b'-') => continue,
            (8 | 13 | 18 | 23, _) => return None,
            (_, b'0'..=b'9') => byte.checked_sub(b'0')?,
            (_, b'a'..=b'f') => byte.checked_sub(b'a')?.checked_add(10)?,
            _ => return None,
        };
        bits = bits << 4 | u128::from(nibble);
    }
    (length == 36).then_some(UploadId(bits))
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bits) = *self;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            bits >> 96,
            bits >> 80 & 0xffff,
            bits >> 64 & 0xffff,
            bits >> 48 & 0xffff,
            bits & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

crate::text::serde_as_text!(UploadId);
