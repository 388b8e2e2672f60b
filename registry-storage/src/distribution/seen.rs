//! Which links of a repository were adopted, and as what they stood there then.
//!
//! A store on a disk keeps nothing of what was deleted. So this distinguishes what was deleted here, which stays so,
//! from what came into the tree behind the back of an adoption, for example while the tree was copied.

use std::collections::BTreeMap;

use registry_core::{Algorithm, Digest, Tag, Timestamp};

use super::tree::{Link, RepositoryLinks, TagLink};

/// How many bytes a link takes in a record.
const ENTRY_BYTES: usize = 16;

/// Links, by a number that is made of what they say, with the time when each was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen(BTreeMap<u64, Timestamp>);

/// Which links an adoption takes.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    /// All.
    All,
    /// Those that were not adopted yet, and those that were written again since.
    New(Seen),
    /// Those that were not adopted yet. The times of a copy say nothing: what it has counts as written then.
    Unseen(Seen, Timestamp),
    /// Those that were written after this. Versions before 0.1 noted no links.
    After(Timestamp),
}

impl Wanted {
    fn is_wanted(&self, link: u64, written: Timestamp) -> bool {
        match self {
            Self::All => true,
            Self::New(seen) => seen.0.get(&link).is_none_or(|seen| written > *seen),
            Self::Unseen(seen, _) => !seen.0.contains_key(&link),
            Self::After(time) => written > *time,
        }
    }

    pub(super) fn has_layer(&self, link: &Link) -> bool {
        self.is_wanted(number(&["layer", link.digest.as_str()]), link.written)
    }

    pub(super) fn has_revision(&self, link: &Link) -> bool {
        self.is_wanted(number(&["revision", link.digest.as_str()]), link.written)
    }

    pub(super) fn has_tag(&self, link: &TagLink) -> bool {
        self.is_wanted(of_tag(&link.tag, &link.target), link.written)
    }

    /// Returns whether any of these links is wanted.
    pub(super) fn has_any(&self, links: &RepositoryLinks) -> bool {
        numbers(links).any(|(link, written)| self.is_wanted(link, written))
    }

    /// Returns when a tag counts as written.
    pub(super) fn written(&self, link: &TagLink) -> Timestamp {
        match self {
            Self::Unseen(_, time) => *time,
            Self::All | Self::New(_) | Self::After(_) => link.written,
        }
    }

    /// Returns what was seen of a repository's links before any is taken. What is wanted is not, or as it was before.
    pub(super) fn seen_before(&self, links: &RepositoryLinks) -> Seen {
        let mut seen = Seen::default();
        for (link, written) in numbers(links) {
            let before = match self {
                Self::New(before) | Self::Unseen(before, _) => before.0.get(&link).copied(),
                Self::All | Self::After(_) => None,
            };
            let time = if self.is_wanted(link, written) {
                before
            } else {
                Some(before.map_or(written, |before| before.max(written)))
            };
            if let Some(time) = time {
                seen.0.insert(link, time);
            }
        }
        seen
    }
}

impl Seen {
    /// Reads what [`encode`](Self::encode) wrote.
    pub(super) fn decode(content: &[u8]) -> Self {
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0, |number, byte| number << 8 | u64::from(*byte))
        };
        let entries = content.chunks_exact(ENTRY_BYTES).map(|entry| {
            let (link, written) = entry.split_at(ENTRY_BYTES / 2);
            (number(link), Timestamp(number(written)))
        });
        Self(entries.collect())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let entries = self.0.iter();
        entries
            .flat_map(|(link, written)| [link.to_be_bytes(), written.0.to_be_bytes()])
            .flatten()
            .collect()
    }

    /// Adds links.
    pub(super) fn add(&mut self, links: &RepositoryLinks) {
        for (link, written) in numbers(links) {
            let seen = self.0.entry(link).or_insert(written);
            *seen = written.max(*seen);
        }
    }
}

fn numbers(links: &RepositoryLinks) -> impl Iterator<Item = (u64, Timestamp)> {
    let layers = links.layers.iter().map(|link| ("layer", link));
    let revisions = links.revisions.iter().map(|link| ("revision", link));
    let of_content = layers
        .chain(revisions)
        .map(|(kind, link)| (number(&[kind, link.digest.as_str()]), link.written));
    let tags = links
        .tags
        .iter()
        .map(|link| (of_tag(&link.tag, &link.target), link.written));
    of_content.chain(tags)
}

/// A tag that moved is another link.
fn of_tag(tag: &Tag, target: &Digest) -> u64 {
    number(&["tag", tag.as_str(), target.as_str()])
}

fn number(parts: &[&str]) -> u64 {
    let digest = Digest::of(Algorithm::Sha256, parts.join(" ").as_bytes());
    let (_, encoded) = digest.parts();
    let first = encoded.get(..ENTRY_BYTES).unwrap_or_default();
    u64::from_str_radix(first, 16).unwrap_or_default()
}
