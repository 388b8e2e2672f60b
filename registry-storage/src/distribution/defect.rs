//! Contents of a tree that cannot be adopted.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use registry_core::printable::Printable;
use registry_core::{Digest, Error, RepositoryName, Tag};

/// Something in a tree that is broken or not supported. Everything else is adopted nevertheless.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Defect {
    /// A file or folder cannot be read.
    #[error("{}: cannot be read: {cause}", Shown(path))]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        cause: io::Error,
    },
    /// A folder among the repositories, or of a tag or digest, has a name that is not valid there.
    #[error("{}: {expected} cannot have this name", Shown(path))]
    InvalidName {
        /// The folder.
        path: PathBuf,
        /// What is expected there.
        expected: &'static str,
    },
    /// A link does not name what it should.
    #[error("{}: {reason}", Shown(path))]
    BrokenLink {
        /// The link.
        path: PathBuf,
        /// What is wrong with it.
        reason: BrokenLink,
    },
    /// The content of a blob or manifest that a repository links to does not exist.
    #[error("{repository}: the content of {digest} is missing")]
    MissingContent {
        /// The repository.
        repository: RepositoryName,
        /// The blob or manifest.
        digest: Digest,
    },
    /// The content of a blob or manifest does not match its digest.
    #[error("{repository}: the {size} bytes that are kept as {digest} have another digest, {found}")]
    CorruptContent {
        /// The repository.
        repository: RepositoryName,
        /// The blob or manifest.
        digest: Digest,
        /// The digest of the content that was found.
        found: Digest,
        /// The size in bytes of the content that was found.
        size: u64,
    },
    /// A manifest of Docker's schema 1, which this registry does not serve.
    #[error("{repository}: the manifest {digest} is of Docker's schema 1; push the image anew")]
    SchemaOne {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
    },
    /// A manifest that this registry would refuse.
    #[error("{repository}: the manifest {digest} is refused: {cause}")]
    InvalidManifest {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// The reason.
        #[source]
        cause: Error,
    },
    /// A tag names a manifest that the repository does not have, or that was not adopted.
    #[error("{repository}: the tag {tag} names {digest}, which is not there or was not adopted")]
    DanglingTag {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
        /// The manifest that it names.
        digest: Digest,
    },
    /// An adopted manifest names content that is missing or was not adopted.
    #[error("{repository}: the manifest {digest} was adopted, but of what it names {child} is not there")]
    Incomplete {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// The content that it names.
        child: Digest,
    },
}

/// A path, escaped for people to read: the name of a folder cannot move the cursor or begin a line of a log.
pub(super) struct Shown<'p>(pub(super) &'p Path);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printable(&self.0.to_string_lossy()).fmt(f)
    }
}

/// What is wrong with a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BrokenLink {
    /// It has no content.
    Empty,
    /// Its content is not a digest.
    NotADigest,
    /// Its content is not the digest of its place.
    OtherDigest,
    /// It does not exist, though its folder does.
    Missing,
}

impl fmt::Display for BrokenLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the link is empty",
            Self::NotADigest => "the link holds no digest",
            Self::OtherDigest => "the link names another digest than its place",
            Self::Missing => "the link is missing",
        })
    }
}

/// The kind of a [`Defect`], for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DefectKind {
    /// [`Defect::Unreadable`].
    Unreadable,
    /// [`Defect::InvalidName`].
    InvalidName,
    /// [`Defect::BrokenLink`].
    BrokenLink,
    /// [`Defect::MissingContent`].
    MissingContent,
    /// [`Defect::CorruptContent`].
    CorruptContent,
    /// [`Defect::SchemaOne`].
    SchemaOne,
    /// [`Defect::InvalidManifest`].
    InvalidManifest,
    /// [`Defect::DanglingTag`].
    DanglingTag,
    /// [`Defect::Incomplete`].
    Incomplete,
}

impl DefectKind {
    /// Returns what this many defects of the kind are called.
    #[must_use]
    pub const fn name(self, count: u64) -> &'static str {
        let (one, several) = match self {
            Self::Unreadable => (
                "file or folder that cannot be read",
                "files and folders that cannot be read",
            ),
            Self::InvalidName => ("invalid name", "invalid names"),
            Self::BrokenLink => ("broken link", "broken links"),
            Self::MissingContent => ("link whose content is missing", "links whose content is missing"),
            Self::CorruptContent => ("link whose content is corrupt", "links whose content is corrupt"),
            Self::SchemaOne => ("manifest of schema 1", "manifests of schema 1"),
            Self::InvalidManifest => ("invalid manifest", "invalid manifests"),
            Self::DanglingTag => ("tag without a manifest", "tags without a manifest"),
            Self::Incomplete => (
                "child that an adopted manifest lacks",
                "children that adopted manifests lack",
            ),
        };
        if count == 1 { one } else { several }
    }
}

impl Defect {
    /// Returns the kind.
    #[must_use]
    pub const fn kind(&self) -> DefectKind {
        match self {
            Self::Unreadable { .. } => DefectKind::Unreadable,
            Self::InvalidName { .. } => DefectKind::InvalidName,
            Self::BrokenLink { .. } => DefectKind::BrokenLink,
            Self::MissingContent { .. } => DefectKind::MissingContent,
            Self::CorruptContent { .. } => DefectKind::CorruptContent,
            Self::SchemaOne { .. } => DefectKind::SchemaOne,
            Self::InvalidManifest { .. } => DefectKind::InvalidManifest,
            Self::DanglingTag { .. } => DefectKind::DanglingTag,
            Self::Incomplete { .. } => DefectKind::Incomplete,
        }
    }
}
