//! Where the distribution registry keeps its files, below its root: the only place that spells these paths.

use std::path::{Path, PathBuf};

use registry_core::{Digest, RepositoryName, Tag};

/// The folder of a tree below a root.
pub(super) use crate::object_store::tree::TREE;

/// The folder of all repositories, below the tree.
pub(super) fn repositories(tree: &Path) -> PathBuf {
    tree.join("repositories")
}

pub(super) fn repository(tree: &Path, name: &RepositoryName) -> PathBuf {
    repositories(tree).join(name.as_str())
}

/// The content of a blob or manifest.
pub(super) fn data(tree: &Path, digest: &Digest) -> PathBuf {
    let (algorithm, encoded) = parts(digest);
    let first: String = encoded.chars().take(2).collect();
    tree.join("blobs")
        .join(algorithm)
        .join(first)
        .join(encoded)
        .join("data")
}

/// The links of the blobs that a repository may read.
pub(super) fn layers(repository: &Path) -> PathBuf {
    repository.join("_layers")
}

pub(super) fn uploads(repository: &Path) -> PathBuf {
    repository.join("_uploads")
}

pub(super) fn manifests(repository: &Path) -> PathBuf {
    repository.join("_manifests")
}

/// The links of the manifests of a repository.
pub(super) fn revisions(repository: &Path) -> PathBuf {
    manifests(repository).join("revisions")
}

pub(super) fn tags(repository: &Path) -> PathBuf {
    manifests(repository).join("tags")
}

/// The link of a digest, in a folder of [`layers`] or [`revisions`].
pub(super) fn link(folder: &Path, digest: &Digest) -> PathBuf {
    let (algorithm, encoded) = parts(digest);
    folder.join(algorithm).join(encoded).join("link")
}

/// What a tag names now.
pub(super) fn tag(repository: &Path, tag: &Tag) -> PathBuf {
    tags(repository).join(tag.as_str()).join("current").join("link")
}

/// The link that records that a tag once named a manifest.
pub(super) fn tag_entry(repository: &Path, tag: &Tag, digest: &Digest) -> PathBuf {
    link(&tags(repository).join(tag.as_str()).join("index"), digest)
}

fn parts(digest: &Digest) -> (&str, &str) {
    digest.as_str().split_once(':').unwrap_or((digest.as_str(), ""))
}
