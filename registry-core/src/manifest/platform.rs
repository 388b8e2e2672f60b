//! The image of an index for a platform.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use serde::Deserialize;

use crate::digest::Digest;

#[derive(Deserialize)]
struct Index<'a> {
    #[serde(borrow, default)]
    manifests: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    digest: Digest,
    #[serde(borrow)]
    platform: Option<Platform<'a>>,
}

#[derive(Deserialize)]
struct Platform<'a> {
    #[serde(borrow)]
    os: Cow<'a, str>,
    #[serde(borrow)]
    architecture: Cow<'a, str>,
}

/// Returns the first manifest of an index that is for `linux/amd64`; `None` if there is none, or if the platforms in
/// the index cannot be parsed.
#[must_use]
pub fn default_image(index: &[u8]) -> Option<Digest> {
    let Index { manifests } = serde_json::from_slice(index).ok()?;
    let is_default = |platform: &Platform<'_>| platform.os == "linux" && platform.architecture == "amd64";
    let mut defaults = manifests.into_iter();
    let found = defaults.find(|entry| entry.platform.as_ref().is_some_and(is_default));
    found.map(|entry| entry.digest)
}
