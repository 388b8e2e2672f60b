//! What tags named before, and bringing it back.

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Manifest;
use crate::digest::Digest;
use crate::tag::Tag;
use crate::time::Timestamp;

/// A value that a tag has, or had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagValue {
    /// The tag.
    pub tag: Tag,
    /// The manifest that it names, or named.
    pub digest: Digest,
    /// When the tag was pointed at it.
    pub since: Timestamp,
    /// The principal that pushed it; empty if that was anonymous.
    pub principal: String,
    /// How that ended; `None` if the tag names it now.
    pub end: Option<TagEnd>,
}

/// How a tag came to name a manifest no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagEnd {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: EndReason,
    /// The principal that pushed what the tag named then; empty if that was anonymous, or the tag was not moved.
    pub principal: String,
    /// Until when the manifest can be restored, unless more of its content is deleted; `None` if content that it needs
    /// is gone.
    pub restorable_until: Option<Timestamp>,
}

/// Why a tag names a manifest no longer, or a manifest is gone. As text, it is one word such as `moved`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum EndReason {
    /// The tag was pushed again, for another manifest (`moved`).
    Moved,
    /// The tag was deleted (`tag-deleted`).
    TagDeleted,
    /// The manifest was deleted (`manifest-deleted`).
    ManifestDeleted,
    /// The whole repository was deleted (`repository-deleted`).
    RepositoryDeleted,
    /// Nothing in the [retention](crate::retention) policy with this number, from 0, keeps it (`retention[0]`).
    Retention(usize),
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Moved => f.write_str("moved"),
            Self::TagDeleted => f.write_str("tag-deleted"),
            Self::ManifestDeleted => f.write_str("manifest-deleted"),
            Self::RepositoryDeleted => f.write_str("repository-deleted"),
            Self::Retention(policy) => write!(f, "retention[{policy}]"),
        }
    }
}

/// The text is none of the words of an [`EndReason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownEndReason;

impl fmt::Display for UnknownEndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is no known reason why a tag names a manifest no longer")
    }
}

impl core::error::Error for UnknownEndReason {}

impl FromStr for EndReason {
    type Err = UnknownEndReason;

    fn from_str(text: &str) -> Result<Self, UnknownEndReason> {
        let policy = |text: &str| {
            let policy = text.strip_prefix("retention[")?.strip_suffix(']')?;
            policy
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then_some(policy)?
                .parse()
                .ok()
        };
        match text {
            "moved" => Ok(Self::Moved),
            "tag-deleted" => Ok(Self::TagDeleted),
            "manifest-deleted" => Ok(Self::ManifestDeleted),
            "repository-deleted" => Ok(Self::RepositoryDeleted),
            _ => policy(text).map(Self::Retention).ok_or(UnknownEndReason),
        }
    }
}

impl TryFrom<String> for EndReason {
    type Error = UnknownEndReason;

    fn try_from(text: String) -> Result<Self, UnknownEndReason> {
        text.parse()
    }
}

impl From<EndReason> for String {
    fn from(reason: EndReason) -> Self {
        alloc::format!("{reason}")
    }
}

/// What the restore of a tag did, as it is told to clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TagRestored {
    /// The tag.
    pub tag: Tag,
    /// The manifest that it names now.
    pub digest: Digest,
    /// What it named before; `None` if it named nothing.
    pub replaced: Option<Digest>,
    /// As [`RestoredTag::manifests`].
    pub manifests: u64,
    /// As [`RestoredTag::referrers`].
    pub referrers: u64,
    /// As [`RestoredTag::referrers_left_out`].
    pub referrers_left_out: u64,
}

impl TagRestored {
    /// Returns what the restore of `tag` did.
    #[must_use]
    pub fn new(tag: Tag, restored: &RestoredTag) -> Self {
        Self {
            tag,
            digest: restored.manifest.digest.clone(),
            replaced: restored.replaced.clone(),
            manifests: restored.manifests,
            referrers: restored.referrers,
            referrers_left_out: restored.referrers_left_out,
        }
    }
}

/// A tag to restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreTag {
    /// The tag.
    pub tag: Tag,
    /// What it is to name again; `None` for the newest of its past values that it does not name now.
    pub digest: Option<Digest>,
    /// The tag never moves: it is absent, or names the manifest already.
    pub is_immutable: bool,
    /// As [`NewManifest::allow_missing`](super::NewManifest::allow_missing), for every manifest that is restored.
    pub allow_missing: bool,
    /// Manifests that an index names need not exist.
    pub allow_sparse_indexes: bool,
    /// The principal that restores; it is stored with the tag.
    pub principal: String,
}

impl RestoreTag {
    /// Returns a request to restore the newest past value of a tag, whatever it names now, by the anonymous principal.
    #[must_use]
    pub fn new(tag: Tag) -> Self {
        Self {
            tag,
            digest: None,
            is_immutable: false,
            allow_missing: false,
            allow_sparse_indexes: false,
            principal: "".to_owned(),
        }
    }
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredTag {
    /// The manifest that the tag names now.
    pub manifest: Manifest,
    /// What it named before; `None` if it named nothing.
    pub replaced: Option<Digest>,
    /// How many manifests had been deleted and are there again, with those that the manifest or its index needs.
    pub manifests: u64,
    /// Which they are, in the order in which they came back.
    pub digests: Vec<Digest>,
    /// How many of them refer to another one, as signatures do.
    pub referrers: u64,
    /// How many that refer to a restored one were left out, because content that they need is gone.
    pub referrers_left_out: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_reason_reads_back(policy in any::<usize>()) {
            for reason in [
                EndReason::Moved,
                EndReason::TagDeleted,
                EndReason::ManifestDeleted,
                EndReason::RepositoryDeleted,
                EndReason::Retention(policy),
            ] {
                prop_assert_eq!(alloc::format!("{reason}").parse(), Ok(reason));
            }
        }

        #[test]
        fn other_text_is_no_reason(text in "(moved|retention)?[\\[+0-9a-z\\]-]{0,8}") {
            if let Ok(reason) = text.parse::<EndReason>()
                && !matches!(reason, EndReason::Retention(_))
            {
                prop_assert_eq!(alloc::format!("{reason}"), text);
            }
        }
    }
}
