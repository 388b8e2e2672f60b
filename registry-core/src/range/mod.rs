//! Ranges of bytes: which part of a blob an upload's chunk is, and which parts of a blob a read requests.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::str::FromStr;

use crate::error::{Error, ErrorCode};

/// Where an upload's chunk is in its blob: the field `Content-Range` of an upload (distribution-spec, "Pushing a blob
/// in chunks").
///
/// Written `start-end`, in bytes, both inclusive, so that `0-0` is one byte; it is never empty. Parsing also accepts
/// the form of RFC 9110, section 14.4, `bytes start-end/total`, which some clients send; the total is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    start: u64,
    end: u64,
}

impl ContentRange {
    /// Creates the range of the bytes `start` to `end`, both inclusive; `None` if `end` is before `start` or the length
    /// does not fit 64 bits.
    #[must_use]
    pub const fn new(start: u64, end: u64) -> Option<Self> {
        if start <= end && end != u64::MAX {
            Some(Self { start, end })
        } else {
            None
        }
    }

    /// Returns the offset of the first byte.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// Returns the offset of the last byte.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.end
    }

    /// Returns the number of bytes, at least 1.
    #[must_use]
    pub const fn length(self) -> u64 {
        self.end.saturating_sub(self.start).saturating_add(1)
    }
}

impl FromStr for ContentRange {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse_content_range(text).ok_or_else(|| {
            Error::new(
                ErrorCode::BlobUploadInvalid,
                "Content-Range of a chunk is the offsets of its first and last byte, for example 0-1023",
            )
        })
    }
}

fn parse_content_range(text: &str) -> Option<ContentRange> {
    let text = text.strip_prefix("bytes ").unwrap_or(text);
    let range = match text.split_once('/') {
        Some((range, total)) if total == "*" || is_number(total) => range,
        Some(_) => return None,
        None => text,
    };
    let (start, end) = range.split_once('-')?;
    if is_number(start) && is_number(end) {
        ContentRange::new(start.parse().ok()?, end.parse().ok()?)
    } else {
        None
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

/// One part of a blob that a read requests (RFC 9110, section 14.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// `first-last`, both inclusive. With `last` before `first`, it selects nothing.
    Between {
        /// The offset of the first byte.
        first: u64,
        /// The offset of the last byte; it may be beyond the end of the blob.
        last: u64,
    },
    /// `first-`, everything from an offset on.
    From {
        /// The offset of the first byte.
        first: u64,
    },
    /// `-length`, the last bytes.
    Suffix {
        /// How many bytes.
        length: u64,
    },
}

impl ByteRange {
    /// Returns the selected bytes of content of `size` bytes; `None` if there are none.
    #[must_use]
    pub fn resolve(self, size: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::Between { first, last } => first..last.saturating_add(1).min(size),
            Self::From { first } => first..size,
            Self::Suffix { length } => size.saturating_sub(length)..size,
        };
        (!range.is_empty()).then_some(range)
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Between { first, last } => write!(f, "{first}-{last}"),
            Self::From { first } => write!(f, "{first}-"),
            Self::Suffix { length } => write!(f, "-{length}"),
        }
    }
}

/// The parts of a blob that a read requests: the field `Range` in the unit `bytes` (RFC 9110, section 14.2).
///
/// A field that does not parse is to be ignored, which means that the whole content is sent. `bytes=500-0` parses, though
/// the RFC calls it malformed: the conformance suite asks that it be answered 416. So does a field of more than
/// [`RangeHeader::MAXIMUM_PARTS`] parts: podman asks for the hundreds of chunks of a layer that it lacks, and a client that asks for
/// some parts of a large layer does not want the whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeHeader(Parts);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Parts {
    /// 1 to [`RangeHeader::MAXIMUM_PARTS`].
    Some(Vec<ByteRange>),
    TooMany,
}

/// What a read sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The whole content, 200.
    Whole,
    /// These parts, none of them empty, in the order asked for: 206.
    Parts(Vec<Range<u64>>),
    /// None of the parts exists: 416.
    NotSatisfiable,
    /// More than [`RangeHeader::MAXIMUM_PARTS`] parts were asked for: 416.
    TooManyParts,
}

impl RangeHeader {
    /// The maximum number of parts that are served.
    pub const MAXIMUM_PARTS: usize = 2048;

    /// Creates a field of 1 to [`RangeHeader::MAXIMUM_PARTS`] parts; `None` for any other number.
    #[must_use]
    pub fn new(parts: Vec<ByteRange>) -> Option<Self> {
        (1..=Self::MAXIMUM_PARTS)
            .contains(&parts.len())
            .then_some(Self(Parts::Some(parts)))
    }

    /// Parses a field's value; `None` if it has another unit or is malformed.
    ///
    /// A number that does not fit 64 bits counts as the largest that does.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (unit, set) = text.trim_ascii().split_once('=')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let mut parts = Vec::new();
        for part in set
            .split(',')
            .map(str::trim_ascii)
            .filter(|part| !part.is_empty())
        {
            if parts.len() == Self::MAXIMUM_PARTS {
                return Some(Self(Parts::TooMany));
            }
            parts.push(parse_part(part)?);
        }
        Self::new(parts)
    }

    /// Returns the parts; empty if they are too many.
    #[must_use]
    pub fn parts(&self) -> &[ByteRange] {
        match &self.0 {
            Parts::Some(parts) => parts,
            Parts::TooMany => &[],
        }
    }

    /// Decides what is sent of content of `size` bytes.
    ///
    /// Parts that do not exist are left out. The others are sent as they were asked for, one by one and in that order: podman
    /// gives up on chunks of `zstd:chunked` that follow each other and come as one part. Parts that together are longer than
    /// the content are joined if they overlap or follow each other, and come in the order of the content, so that
    /// no request costs more than the content. Empty content has no parts to send: it is always sent whole.
    #[must_use]
    pub fn resolve(&self, size: u64) -> Selection {
        if size == 0 {
            return Selection::Whole;
        }
        let wanted = match &self.0 {
            Parts::Some(wanted) => wanted,
            Parts::TooMany => return Selection::TooManyParts,
        };
        let parts: Vec<_> = wanted.iter().filter_map(|part| part.resolve(size)).collect();
        if parts.is_empty() {
            return Selection::NotSatisfiable;
        }
        let length: u128 = parts.iter().map(|part| u128::from(part.end - part.start)).sum();
        if length <= u128::from(size) {
            return Selection::Parts(parts);
        }
        let joined = join(parts);
        match joined.as_slice() {
            [all] if *all == (0..size) => Selection::Whole,
            _ => Selection::Parts(joined),
        }
    }
}

/// Joins ranges that overlap or are adjacent.
fn join(mut parts: Vec<Range<u64>>) -> Vec<Range<u64>> {
    parts.sort_unstable_by_key(|part| part.start);
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(parts.len());
    for part in parts {
        match joined.last_mut() {
            Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
            _ => joined.push(part),
        }
    }
    joined
}

fn parse_part(text: &str) -> Option<ByteRange> {
    let number = |text: &str| is_number(text).then(|| text.parse().unwrap_or(u64::MAX));
    match text.split_once('-')? {
        ("", length) => Some(ByteRange::Suffix {
            length: number(length)?,
        }),
        (first, "") => Some(ByteRange::From {
            first: number(first)?,
        }),
        (first, last) => Some(ByteRange::Between {
            first: number(first)?,
            last: number(last)?,
        }),
    }
}

impl fmt::Display for RangeHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes=")?;
        self.parts().iter().enumerate().try_for_each(|(at, part)| {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{part}")
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
