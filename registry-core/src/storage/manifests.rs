//! Manifests and tags.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use async_trait::async_trait;
use bytes::Bytes;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Error;
use crate::media_type::MediaType;
use crate::name::RepositoryName;
use crate::reference::Reference;
use crate::tag::Tag;

/// A stored manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The digest that it was pushed by, or that of its bytes.
    pub digest: Digest,
    /// The type that it was pushed with.
    pub media_type: MediaType,
    /// The bytes, exactly as pushed.
    pub bytes: Bytes,
}

/// Content that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestChild {
    /// The digest of the content.
    pub digest: Digest,
    /// What it is.
    pub kind: ChildKind,
}

/// What a manifest's child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildKind {
    /// A blob.
    Blob,
    /// A manifest, or, as in the cache indexes of BuildKit, a blob.
    Manifest,
}

/// A manifest to store.
#[derive(Clone, Debug)]
pub struct NewManifest {
    /// The manifest, its digest already compared with its bytes.
    pub manifest: Manifest,
    /// What must be there, and what is kept from collection if it is.
    pub children: Vec<ManifestChild>,
    /// Missing children are allowed.
    pub allow_missing: bool,
    /// What need not be there, and is kept from collection if it is: layers that others distribute.
    pub optional_children: Vec<ManifestChild>,
    /// The manifest that this one refers to, with the descriptor for that one's list of referrers.
    pub subject: Option<(Digest, Descriptor)>,
    /// The tags to point at the manifest.
    pub tags: Vec<Tag>,
    /// What each of the tags must be for the push to be accepted.
    pub condition: TagCondition,
    /// Those of the tags that must not move, as [`TagCondition::Immutable`] says, whatever the condition.
    pub immutable_tags: Vec<Tag>,
    /// Who pushes; it is kept with the tags.
    pub principal: String,
}

/// What a tag must be before it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TagCondition {
    /// Anything: the last writer wins.
    #[default]
    Any,
    /// Absent, or the same digest already: the tag never moves, unless it [lists referrers](Tag::lists_referrers) and only
    /// gains some: it names an OCI index, and the push is another one that names all that this one does.
    Immutable,
    /// Absent (`If-None-Match: *`).
    Absent,
    /// One of these digests (`If-Match`).
    Matches(Vec<Digest>),
}

/// Says something of a tag: whether it may be deleted, whether it is immutable. It answers from memory.
pub type TagFilter = Arc<dyn Fn(&Tag) -> bool + Send + Sync>;

/// Manifests and tags: a facet of [`Storage`](super::Storage), whose promises hold here.
#[async_trait]
pub trait ManifestStorage: Send + Sync + 'static {
    /// Returns a manifest by tag or digest.
    ///
    /// # Errors
    /// [`ManifestUnknown`](crate::ErrorCode::ManifestUnknown), or [`NameUnknown`](crate::ErrorCode::NameUnknown)
    /// where the repository was never pushed to.
    async fn get_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Manifest, Error>;

    /// Returns a manifest by tag or digest as [`get_manifest`](Self::get_manifest) does, and keeps it from collection
    /// for a grace.
    ///
    /// # Errors
    /// Those of [`get_manifest`](Self::get_manifest).
    async fn stat_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Manifest, Error>;

    /// Stores a manifest and points its tags at it.
    ///
    /// # Errors
    /// [`ManifestBlobUnknown`](crate::ErrorCode::ManifestBlobUnknown) where a child is missing and may not be;
    /// [`TagConflict`](crate::ErrorCode::TagConflict) and
    /// [`PreconditionFailed`](crate::ErrorCode::PreconditionFailed) by the condition on the tags.
    async fn put_manifest(&self, repository: &RepositoryName, manifest: NewManifest) -> Result<(), Error>;

    /// Deletes a manifest and every tag that names it, unless `may_delete` says of one of them that it stays.
    ///
    /// A tag that is pushed at the same time is deleted too, or is there afterwards with the manifest. What `immutable`
    /// tags reach stays, as for [`delete_blob`](super::BlobStorage::delete_blob). Cancel safety: once the manifest is gone, entries of
    /// its tags may stay in their list for a while; they name nothing.
    ///
    /// # Errors
    /// [`ManifestUnknown`](crate::ErrorCode::ManifestUnknown), [`NameUnknown`](crate::ErrorCode::NameUnknown);
    /// [`TagConflict`](crate::ErrorCode::TagConflict) where a tag stays.
    async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        may_delete: Option<TagFilter>,
        immutable: Option<TagFilter>,
    ) -> Result<(), Error>;

    /// Deletes a tag; the manifest stays.
    ///
    /// # Errors
    /// [`ManifestUnknown`](crate::ErrorCode::ManifestUnknown), [`NameUnknown`](crate::ErrorCode::NameUnknown).
    async fn delete_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<(), Error>;
}
