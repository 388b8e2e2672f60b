//! Entity tags of conditional requests.

use alloc::vec::Vec;
use core::fmt;

use crate::digest::Digest;

/// The entity tags of `If-Match` or `If-None-Match` (RFC 9110, section 13.1).
///
/// A registry's entity tag is the digest of the content in quotes, so tags that are not digests match nothing and are
/// not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntityTags {
    /// `*`: any existing content.
    Any,
    /// Content with one of these digests.
    Digests(Vec<Digest>),
}

impl EntityTags {
    /// Parses a field's value. With `weak`, tags marked `W/` count as well, as `If-None-Match` compares them.
    #[must_use]
    pub(super) fn parse(text: &str, weak: bool) -> Self {
        if text.trim_ascii() == "*" {
            return Self::Any;
        }
        let digest = |tag: &str| {
            let tag = tag.trim_ascii();
            let tag = tag.strip_prefix("W/").filter(|_| weak).unwrap_or(tag);
            let quoted = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            quoted.unwrap_or(tag).parse().ok()
        };
        Self::Digests(text.split(',').filter_map(digest).collect())
    }

    /// Returns whether existing content with `digest` is among them.
    #[must_use]
    pub fn matches(&self, digest: &Digest) -> bool {
        match self {
            Self::Any => true,
            Self::Digests(digests) => digests.contains(digest),
        }
    }
}

impl fmt::Display for EntityTags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            // The empty tag, which matches no content.
            Self::Digests(digests) if digests.is_empty() => f.write_str("\"\""),
            Self::Digests(digests) => digests.iter().enumerate().try_for_each(|(at, digest)| {
                let comma = if at == 0 { "" } else { ", " };
                write!(f, "{comma}\"{digest}\"")
            }),
        }
    }
}
