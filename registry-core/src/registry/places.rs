//! Places in the catalog that are not revealed.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use sha2::{Digest as _, Sha256};

/// The first character of a sealed place; no name of a repository begins with it.
const MARK: char = '~';

/// The size of a nonce, and of a tag, in bytes.
const NONCE_BYTES: usize = 16;

/// The length of a hidden name is rounded up to a multiple of this many bytes.
const PADDING_BYTES: usize = 64;

/// What the key is used for: no input of one use is an input of another.
#[derive(Clone, Copy)]
enum Use {
    Nonce,
    Mask,
    Tag,
}

/// Hides names of repositories in links of the catalog: see [`Options::catalog_key`](super::Options::catalog_key).
///
/// A sealed place is a nonce, the padded name masked with a stream that depends on the key and the nonce, and a tag of
/// both. There is no randomness here, so the nonce is derived from the name and from where the client began: the same
/// page has the same link, and links of other pages do not reveal whether they end at the same name. A client that
/// could tell would find a hidden name by bisection. The tag only distinguishes sealed places from others: a client may
/// name any place in the open.
#[derive(Clone, PartialEq, Eq)]
pub struct CatalogKey([u8; 32]);

impl CatalogKey {
    /// Creates the key from a secret: random, or long enough that it cannot be guessed.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// Hides the name at which a page ends that began at `start` from anyone without the key.
    pub(super) fn seal(&self, name: &str, start: &str) -> String {
        // No name contains a zero byte.
        let nonce = self.part(Use::Nonce, &[name.as_bytes(), &[0], start.as_bytes()]);
        let mut padded = Vec::from(name);
        padded.resize(name.len().next_multiple_of(PADDING_BYTES), 0);
        let hidden = self.mask(&nonce, &padded);
        let tag = self.part(Use::Tag, &[&nonce, &hidden]);
        let mut sealed = String::from(MARK);
        for byte in nonce.iter().chain(&hidden).chain(&tag) {
            sealed.push_str(&format!("{byte:02x}"));
        }
        sealed
    }

    /// Returns the name that was hidden with this key; `None` if it was not.
    pub(super) fn open(&self, sealed: &str) -> Option<String> {
        let bytes = from_hex(sealed.strip_prefix(MARK)?)?;
        let (nonce, rest) = bytes.split_first_chunk::<NONCE_BYTES>()?;
        let (hidden, tag) = rest.split_last_chunk::<NONCE_BYTES>()?;
        if self.part(Use::Tag, &[nonce, hidden]) != *tag {
            return None;
        }
        let mut name = String::from_utf8(self.mask(nonce, hidden)).ok()?;
        name.truncate(name.trim_end_matches('\0').len());
        Some(name)
    }

    fn hash(&self, reason: Use, parts: &[&[u8]]) -> [u8; 32] {
        let mut hash = Sha256::new().chain_update(self.0).chain_update([reason as u8]);
        for part in parts {
            hash.update(part);
        }
        hash.finalize().into()
    }

    /// Half of a hash, which cannot be extended with more input.
    fn part(&self, reason: Use, parts: &[&[u8]]) -> [u8; NONCE_BYTES] {
        let hash = self.hash(reason, parts);
        hash.first_chunk().copied().unwrap_or_default()
    }

    /// Masks `text` with a stream that depends on the key and the nonce; masking it again restores it.
    fn mask(&self, nonce: &[u8; NONCE_BYTES], text: &[u8]) -> Vec<u8> {
        let blocks = (0_u64..).flat_map(|number| self.hash(Use::Mask, &[nonce, &number.to_be_bytes()]));
        text.iter().zip(blocks).map(|(byte, mask)| byte ^ mask).collect()
    }
}

impl fmt::Debug for CatalogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CatalogKey")
    }
}

/// Returns whether a place was sealed, with any key.
pub(super) fn is_sealed(place: &str) -> bool {
    place.starts_with(MARK)
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let pair = |pair: &[u8; 2]| u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok();
    pairs.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_sealed_name_is_opened_with_its_key_alone(
            name in "[a-z0-9/._-]{0,255}",
            start in "\\PC{0,9}",
            change: prop::sample::Index,
        ) {
            let key = CatalogKey::new(b"one");
            let sealed = key.seal(&name, &start);
            prop_assert_eq!(&key.seal(&name, &start), &sealed, "a page has one link");
            prop_assert!(is_sealed(&sealed) && (name.len() < 4 || !sealed.contains(&name)));
            prop_assert_eq!(key.open(&sealed), Some(name));
            prop_assert_eq!(CatalogKey::new(b"other").open(&sealed), None);
            let mut changed = sealed.into_bytes();
            let at = 1 + change.index(changed.len() - 1);
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            prop_assert_eq!(key.open(core::str::from_utf8(&changed).unwrap()), None);
        }

        #[test]
        fn two_sealed_names_do_not_tell_whether_they_are_the_same(names in "[a-z/]{1,64}", start in "[a-z]{1,9}") {
            let key = CatalogKey::new(b"one");
            let (one, other) = (key.seal(&names, ""), key.seal(&names, &start));
            prop_assert_eq!(one.len(), other.len());
            prop_assert_eq!(one.len(), key.seal("a", "").len(), "the length of a name shows");
            let same = one.bytes().zip(other.bytes()).filter(|(one, other)| one == other);
            prop_assert!(same.count() < one.len() / 2, "{} {}", one, other);
        }

        #[test]
        fn other_text_is_no_sealed_name(text in "~?[0-9a-f+\\PC]{0,80}") {
            prop_assert_eq!(CatalogKey::new(b"one").open(&text), None);
        }
    }
}
