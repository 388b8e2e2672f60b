//! Fingerprints that distinguish the contents of a file.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;

use crate::bounded_file;

/// The content of a file, or `None` if the file is missing or cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(Option<u64>);

impl Fingerprint {
    pub(crate) fn of(content: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        Self(Some(hasher.finish()))
    }

    pub(crate) fn of_file(path: &Path) -> Self {
        bounded_file::read(path).map_or(Self(None), |content| Self::of(&content))
    }
}
