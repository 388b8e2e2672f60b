//! Places in the catalog that are not told.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use sha2::{Digest as _, Sha256};

/// How a sealed place begins, which no name of a repository does.
const MARK: char = '~';

/// The bytes of the tag before the hidden name.
const TAG: usize = 16;

/// What hides names of repositories in links of the catalog: see [`Options::catalog_key`](super::Options::catalog_key).
#[derive(Clone, PartialEq, Eq)]
pub struct CatalogKey([u8; 32]);

impl CatalogKey {
    /// Makes the key of a secret: random, or long enough that nobody guesses it.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// Hides a name, for those who do not know the key. The same name is hidden in the same way each time.
    pub(super) fn seal(&self, name: &str) -> String {
        let tag = self.tag(name);
        let hidden = self.mask(&tag, name.as_bytes());
        let mut sealed = String::from(MARK);
        for byte in tag.iter().chain(&hidden) {
            sealed.push_str(&format!("{byte:02x}"));
        }
        sealed
    }

    /// Returns the name that was hidden with this key; nothing where none was.
    pub(super) fn open(&self, sealed: &str) -> Option<String> {
        let bytes = from_hex(sealed.strip_prefix(MARK)?)?;
        let (tag, hidden) = bytes.split_first_chunk::<TAG>()?;
        let name = String::from_utf8(self.mask(tag, hidden)).ok()?;
        (self.tag(&name) == *tag).then_some(name)
    }

    fn tag(&self, name: &str) -> [u8; TAG] {
        let hash = Sha256::new()
            .chain_update(self.0)
            .chain_update([0])
            .chain_update(name)
            .finalize();
        hash.first_chunk().copied().unwrap_or_default()
    }

    /// Adds to `text` what only the key and the tag give; the second time takes it off.
    fn mask(&self, tag: &[u8; TAG], text: &[u8]) -> Vec<u8> {
        let blocks = (0_u64..).flat_map(|number| {
            let number = number.to_be_bytes();
            let block = Sha256::new()
                .chain_update(self.0)
                .chain_update([1])
                .chain_update(tag);
            block.chain_update(number).finalize()
        });
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
        fn a_sealed_name_is_opened_with_its_key_alone(name in "[a-z0-9/._-]{0,100}", change: prop::sample::Index) {
            let key = CatalogKey::new(b"one");
            let sealed = key.seal(&name);
            prop_assert!(is_sealed(&sealed) && (name.len() < 4 || !sealed.contains(&name)));
            prop_assert_eq!(key.open(&sealed), Some(name));
            prop_assert_eq!(CatalogKey::new(b"other").open(&sealed), None);
            let mut changed = sealed.into_bytes();
            let at = 1 + change.index(changed.len() - 1);
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            prop_assert_eq!(key.open(core::str::from_utf8(&changed).unwrap()), None);
        }

        #[test]
        fn other_text_is_no_sealed_name(text in "~?[0-9a-f+\\PC]{0,80}") {
            prop_assert_eq!(CatalogKey::new(b"one").open(&text), None);
        }
    }
}
