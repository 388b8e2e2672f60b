//! The keys of a tree in a bucket. A listing of all keys below a repository is what the folders of a tree on a disk are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use registry_core::{Algorithm, Digest, RepositoryName, Tag};

use crate::distribution::defect::Defect;
use crate::distribution::layout;
use crate::object_store::tree::TreeObject;

/// What precedes the name of a repository in a key.
pub(super) fn repositories() -> String {
    format!("{}/repositories/", layout::TREE)
}

/// What precedes a digest in the key of content.
pub(super) fn blobs() -> String {
    format!("{}/blobs/", layout::TREE)
}

/// Splits a key below [`repositories`] into the name of a repository and what follows; `None` if it belongs to none. No part of
/// a name begins with `_`, so all keys of a repository are listed in a row.
pub(super) fn split(key: &str) -> Option<(&str, &str)> {
    let at = key.find("/_")?;
    Some((key.get(..at)?, key.get(at + 1..)?))
}

/// Returns the digest of content, if an object is content.
pub(super) fn digest_of_content(object: &TreeObject) -> Option<Digest> {
    let key = object.key.strip_prefix(&blobs())?;
    let mut parts = key.strip_suffix("/data")?.split('/');
    let (algorithm, first, encoded) = (parts.next()?, parts.next()?, parts.next()?);
    let digest: Digest = format!("{algorithm}:{encoded}").parse().ok()?;
    let is_there = encoded.starts_with(first) && parts.next().is_none();
    (is_there && digest.algorithm().is_some()).then_some(digest)
}

/// The key of content.
pub(super) fn data(digest: &Digest) -> String {
    key(&layout::data(Path::new(layout::TREE), digest))
}

/// The key of the link that lets a repository read a blob.
pub(super) fn layer(name: &RepositoryName, digest: &Digest) -> String {
    key(&layout::link(&layout::layers(&repository(name)), digest))
}

/// The key of the link of a manifest of a repository.
pub(super) fn revision(name: &RepositoryName, digest: &Digest) -> String {
    key(&layout::link(&layout::revisions(&repository(name)), digest))
}

/// What precedes a digest in the key of a link of a manifest.
pub(super) fn revisions(name: &RepositoryName) -> String {
    format!("{}/", key(&layout::revisions(&repository(name))))
}

/// What all keys of a repository begin with.
pub(super) fn below(name: &RepositoryName) -> String {
    format!("{}/_", folder(name))
}

/// The key of what a tag names now.
pub(super) fn tag(name: &RepositoryName, tag: &Tag) -> String {
    key(&layout::tag(&repository(name), tag))
}

/// The key that records that a tag once named a manifest.
pub(super) fn tag_entry(name: &RepositoryName, tag: &Tag, digest: &Digest) -> String {
    key(&layout::tag_entry(&repository(name), tag, digest))
}

fn repository(name: &RepositoryName) -> PathBuf {
    layout::repository(Path::new(layout::TREE), name)
}

/// Returns a path as a key. No part of it is anything but text.
fn key(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// What an object of a repository is.
pub(super) enum Place<'k> {
    /// The link of a layer, by algorithm and digest.
    Layer(&'k str, &'k str),
    /// The link of a manifest, by algorithm and digest.
    Revision(&'k str, &'k str),
    /// What a tag names now.
    Tag(&'k str),
    /// Something else of a tag.
    OfTag(&'k str),
    /// Part of an upload.
    Upload(&'k str),
    /// Something else.
    Other,
}

impl<'k> Place<'k> {
    /// Tells by what follows the name of a repository.
    pub(super) fn of(rest: &'k str) -> Self {
        let parts: Vec<&str> = rest.split('/').collect();
        match *parts.as_slice() {
            ["_layers", algorithm, encoded, "link"] => Self::Layer(algorithm, encoded),
            ["_manifests", "revisions", algorithm, encoded, "link"] => Self::Revision(algorithm, encoded),
            ["_manifests", "tags", tag, "current", "link"] => Self::Tag(tag),
            ["_manifests", "tags", tag, ..] => Self::OfTag(tag),
            ["_uploads", id, _, ..] => Self::Upload(id),
            _ => Self::Other,
        }
    }

    /// Returns whether it is the link of a layer or manifest.
    pub(super) const fn is_content(&self) -> bool {
        matches!(self, Self::Layer(..) | Self::Revision(..))
    }
}

/// The links of a repository that were listed and are to be read.
#[derive(Default)]
pub(super) struct Listed {
    /// The repository is in the catalog.
    pub(super) is_listed: bool,
    pub(super) layers: Vec<(Digest, TreeObject)>,
    pub(super) revisions: Vec<(Digest, TreeObject)>,
    pub(super) tags: Vec<(Tag, TreeObject)>,
    /// Links that were taken before, which what is new may name.
    pub(super) old_layers: Vec<(Digest, TreeObject)>,
    pub(super) old_revisions: Vec<(Digest, TreeObject)>,
    pub(super) old_tags: BTreeSet<Tag>,
    pub(super) uploads: BTreeSet<String>,
    pub(super) defects: Vec<Defect>,
    /// Tags, by whatever there is of them. Without a current link they are broken.
    pub(super) named_tags: BTreeSet<Tag>,
    /// What was found not to be a name, so that it is reported once.
    invalid: BTreeSet<String>,
}

impl Listed {
    /// Adds an object, by what follows the name of the repository in its key. `folder` is the repository's, as the bucket has it.
    pub(super) fn add(&mut self, folder: &str, rest: &str, object: &TreeObject) {
        self.is_listed |= rest.starts_with("_manifests/");
        let place = Place::of(rest);
        match place {
            Place::Layer(algorithm, encoded) => {
                if let Some(digest) = self.digest(folder, "_layers", algorithm, encoded) {
                    self.layers.push((digest, object.clone()));
                }
            }
            Place::Revision(algorithm, encoded) => {
                if let Some(digest) = self.digest(folder, "_manifests/revisions", algorithm, encoded) {
                    self.revisions.push((digest, object.clone()));
                }
            }
            Place::Tag(text) | Place::OfTag(text) => {
                let Ok(tag) = text.parse::<Tag>() else {
                    self.note_invalid(format!("{folder}/_manifests/tags/{text}"), "a tag");
                    return;
                };
                if matches!(place, Place::Tag(_)) {
                    self.tags.push((tag.clone(), object.clone()));
                }
                self.named_tags.insert(tag);
            }
            Place::Upload(id) => {
                self.uploads.insert(id.to_owned());
            }
            Place::Other => {}
        }
    }

    /// Adds an object that was taken before, or left out. It is nothing new itself.
    pub(super) fn add_old(&mut self, rest: &str, object: &TreeObject) {
        let (links, algorithm, encoded) = match Place::of(rest) {
            Place::Layer(algorithm, encoded) => (&mut self.old_layers, algorithm, encoded),
            Place::Revision(algorithm, encoded) => (&mut self.old_revisions, algorithm, encoded),
            Place::Tag(text) => {
                self.old_tags.extend(text.parse::<Tag>());
                return;
            }
            Place::OfTag(_) | Place::Upload(_) | Place::Other => return,
        };
        let digest = format!("{algorithm}:{encoded}").parse::<Digest>().ok();
        let digest = digest.filter(|digest| digest.algorithm().is_some());
        links.extend(digest.map(|digest| (digest, object.clone())));
    }

    fn digest(&mut self, folder: &str, below: &str, algorithm: &str, encoded: &str) -> Option<Digest> {
        if algorithm.parse::<Algorithm>().is_err() {
            let path = format!("{folder}/{below}/{algorithm}");
            self.note_invalid(path, "a digest that this registry can check");
            return None;
        }
        let digest = format!("{algorithm}:{encoded}").parse();
        if digest.is_err() {
            self.note_invalid(format!("{folder}/{below}/{algorithm}/{encoded}"), "a digest");
        }
        digest.ok()
    }

    fn note_invalid(&mut self, path: String, expected: &'static str) {
        if self.invalid.insert(path.clone()) {
            self.defects.push(invalid_name(path, expected));
        }
    }
}

pub(super) fn invalid_name(path: String, expected: &'static str) -> Defect {
    Defect::InvalidName {
        path: PathBuf::from(path),
        expected,
    }
}

/// Returns the folder of a repository as the bucket has it.
pub(super) fn folder(name: &RepositoryName) -> String {
    format!("{}{name}", repositories())
}

#[cfg(test)]
mod tests {
    use registry_core::Timestamp;

    use super::*;

    #[test]
    fn keys_are_split_at_the_first_part_that_is_no_name() {
        for (key, expected) in [
            (
                "a/b/_layers/sha256/0/link",
                Some(("a/b", "_layers/sha256/0/link")),
            ),
            ("a_b/c/_uploads/1/data", Some(("a_b/c", "_uploads/1/data"))),
            ("a/b/c", None),
            ("_layers/x", None),
        ] {
            assert_eq!(split(key), expected, "{key}");
        }
    }

    #[test]
    fn content_is_known_by_its_key() {
        let hex = "ab".repeat(32);
        let digest_of = |key: &str| {
            digest_of_content(&TreeObject {
                key: key.to_owned(),
                size: 0,
                written: Timestamp(0),
            })
        };
        let digest = digest_of(&format!("docker/registry/v2/blobs/sha256/ab/{hex}/data"));
        assert_eq!(
            digest.map(|digest| digest.to_string()),
            Some(format!("sha256:{hex}"))
        );
        for key in [
            format!("sha256/cd/{hex}/data"),
            format!("sha256/ab/{hex}"),
            format!("md5/ab/{hex}/data"),
            format!("sha256/ab/{hex}/more/data"),
        ] {
            let key = format!("docker/registry/v2/blobs/{key}");
            assert_eq!(digest_of(&key), None, "{key}");
        }
    }
}
