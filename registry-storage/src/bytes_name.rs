//! Names of stored bytes.

use std::fmt;

use registry_core::{Algorithm, Digest, Timestamp};
use serde::{Deserialize, Serialize};

use crate::unique::unique;

/// What the names of bytes in an adopted tree begin with.
const TREE: &str = "distribution/sha256/";

/// The name of stored bytes, `<yyyymmdd>/<uuid>`: random, so that it is never reused, and sorted by day.
///
/// In a bucket that was adopted, bytes may also be where the distribution registry put them. They are named
/// `distribution/sha256/<hex>`, by their content, and only the blob of that digest names them.
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

    /// Returns the name of content in the distribution registry's tree; `None` for another algorithm than SHA-256.
    #[must_use]
    pub fn in_tree(digest: &Digest) -> Option<Self> {
        let (_, encoded) = digest.parts();
        let is_sha256 = digest.algorithm() == Some(Algorithm::Sha256);
        is_sha256.then(|| Self(format!("{TREE}{encoded}").into()))
    }

    /// Returns the digest of bytes that are in the distribution registry's tree; `None` for other bytes.
    #[must_use]
    pub fn digest_in_tree(&self) -> Option<Digest> {
        let encoded = self.0.strip_prefix(TREE)?;
        format!("sha256:{encoded}").parse().ok()
    }

    /// Parses a name; `None` if the text is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(encoded) = text.strip_prefix(TREE) {
            let digest = format!("sha256:{encoded}").parse::<Digest>().ok()?;
            return Self::in_tree(&digest);
        }
        let (day, id) = text.split_once('/')?;
        let is_day = day.len() == 8 && day.bytes().all(|byte| byte.is_ascii_digit());
        let is_id = id.len() == 36
            && id
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
        (is_day && is_id).then(|| Self(text.into()))
    }

    /// Returns the name as text, the path below `bytes/` unless they are in a tree.
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
        Self::parse(&text).ok_or("stored bytes are named yyyymmdd/uuid or distribution/sha256/hex")
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_name_is_what_it_was_written_as(day in 0_u64..4_000_000_000_000, hex in "[0-9a-f]{64}") {
            let digest: Digest = format!("sha256:{hex}").parse().unwrap();
            let in_tree = BytesName::in_tree(&digest).unwrap();
            prop_assert_eq!(in_tree.digest_in_tree(), Some(digest));
            let random = BytesName::random(Timestamp(day));
            prop_assert_eq!(random.digest_in_tree(), None);
            for name in [in_tree, random] {
                prop_assert_eq!(BytesName::parse(name.as_str()), Some(name));
            }
        }

        #[test]
        fn no_other_text_is_a_name(text in "(distribution/)?(sha256/|sha512/)?[0-9a-f/.]{0,66}") {
            let is_digest = text.strip_prefix(TREE).is_some_and(|hex| hex.len() == 64 && !hex.contains(['/', '.']));
            prop_assert_eq!(BytesName::parse(&text).is_some(), is_digest);
        }
    }
}
