//! Places in the catalog that are not told.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use sha2::{Digest as _, Sha256};

/// How a sealed place begins, which no name of a repository does.
const MARK: char = '~';

/// The bytes of a nonce, and of a tag.
const PART: usize = 16;

/// The bytes that the length of a hidden name is rounded up to.
const STEP: usize = 64;

/// What the key is used for: no input of one use is that of another.
#[derive(Clone, Copy)]
enum Use {
    Nonce,
    Mask,
    Tag,
}

/// What hides names of repositories in links of the catalog: see [`Options::catalog_key`](super::Options::catalog_key).
///
/// A sealed place is a nonce, the padded name masked by a stream that the key and the nonce give, and a tag of both. There
/// is no randomness here, so the nonce is made of the name and of where the client began: the same page has the same link,
/// and links of other pages say nothing about whether they end at the same name. Whoever could, would find a hidden name
/// by halving. The tag only tells what was sealed from what was not: anybody may name any place in the open.
#[derive(Clone, PartialEq, Eq)]
pub struct CatalogKey([u8; 32]);

impl CatalogKey {
    /// Makes the key of a secret: random, or long enough that nobody guesses it.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// Hides the name that a page ends at which began at `start`, for those who do not know the key.
    pub(super) fn seal(&self, name: &str, start: &str) -> String {
        // No name has a byte that is 0.
        let nonce = self.part(Use::Nonce, &[name.as_bytes(), &[0], start.as_bytes()]);
        let mut padded = Vec::from(name);
        padded.resize(name.len().next_multiple_of(STEP), 0);
        let hidden = self.mask(&nonce, &padded);
        let tag = self.part(Use::Tag, &[&nonce, &hidden]);
        let mut sealed = String::from(MARK);
        for byte in nonce.iter().chain(&hidden).chain(&tag) {
            sealed.push_str(&format!("{byte:02x}"));
        }
        sealed
    }

    /// Returns the name that was hidden with this key; nothing where none was.
    pub(super) fn open(&self, sealed: &str) -> Option<String> {
        let bytes = from_hex(sealed.strip_prefix(MARK)?)?;
        let (nonce, rest) = bytes.split_first_chunk::<PART>()?;
        let (hidden, tag) = rest.split_last_chunk::<PART>()?;
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

    /// Half of a hash, which nobody can go on from with more input.
    fn part(&self, reason: Use, parts: &[&[u8]]) -> [u8; PART] {
        let hash = self.hash(reason, parts);
        hash.first_chunk().copied().unwrap_or_default()
    }

    /// Adds to `text` what only the key and the nonce give; the second time takes it off.
    fn mask(&self, nonce: &[u8; PART], text: &[u8]) -> Vec<u8> {
        let blocks = (0_u64..).flat_map(|number| self.hash(Use::Mask, &[nonce, &number.to_be_bytes()]));
        text.iter().zip(blocks).map(|(byte, mask)| byte ^ mask).collect()
    }
}

impl fmt::Debug for CatalogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CatalogKey")
    }
}

/// Tells whether a place was sealed, with whatever key.
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
