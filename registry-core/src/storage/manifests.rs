//! Manifests and tags.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::lists::keeps_nothing;
use super::{RestoreTag, RestoredTag};
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::{Error, ErrorCode};
use crate::media_type::MediaType;
use crate::name::RepositoryName;
use crate::reference::Reference;
use crate::tag::Tag;
use crate::time::Timestamp;

/// A stored manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The digest that it was pushed under, otherwise that of its bytes.
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
    /// The kind of the content.
    pub kind: ChildKind,
}

/// The kind of a manifest's child.
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
    /// Content that must exist, and that is kept from collection.
    pub children: Vec<ManifestChild>,
    /// Missing children are allowed; those that exist are still kept from collection.
    pub allow_missing: bool,
    /// Content that need not exist, and that is kept from collection if it does: layers that others distribute.
    pub optional_children: Vec<ManifestChild>,
    /// The manifest that this one refers to, with this manifest's descriptor for the list of referrers of that one.
    pub subject: Option<(Digest, Descriptor)>,
    /// The tags to point at the manifest.
    pub tags: Vec<Tag>,
    /// What each of the tags must be for the push to be accepted.
    pub condition: TagCondition,
    /// Which of the tags never move, whatever the condition: they are absent, or name the same digest already. The
    /// exception is a tag that [lists referrers](Tag::lists_referrers) and only gains some: it names an OCI index, and the
    /// push is another OCI index that names everything that this one does.
    pub immutable_tags: Vec<Tag>,
    /// The principal that pushes; it is stored with the tags.
    pub principal: String,
}

/// What the client says that each tag must be before it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TagCondition {
    /// Anything: the last writer wins.
    #[default]
    Any,
    /// Absent (`If-None-Match: *`).
    Absent,
    /// One of these digests (`If-Match`).
    Matches(Vec<Digest>),
}

/// Answers a question about a tag: whether it may be deleted, whether it is immutable. It answers from memory.
pub type TagFilter = Arc<dyn Fn(&Tag) -> bool + Send + Sync>;

/// What the delete of a repository removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryDeleted {
    /// Tags.
    pub tags: u64,
    /// Manifests, referrers included.
    pub manifests: u64,
    /// Blobs that the repository had. Their bytes are freed once no repository has them. Those that it needs to be restored
    /// stay.
    pub blobs: u64,
    /// The bytes of those blobs.
    pub bytes: u64,
    /// Uploads in progress.
    pub cancelled_uploads: u64,
    /// Manifests that were pushed, or asked for by a `HEAD`, at the same time, and what they need: they stay. Blobs of
    /// which that is true are the collector's.
    pub manifests_left: u64,
    /// The catalog does not list it any more.
    pub is_gone: bool,
    /// Until when its tags can be [restored](ManifestStorage::restore_tag); `None` if they cannot.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "crate::time::optional_text"
    )]
    pub restorable_until: Option<Timestamp>,
}

/// Manifests and tags: a facet of [`Storage`](super::Storage), whose promises apply here.
#[async_trait]
pub trait ManifestStorage: Send + Sync + 'static {
    /// Returns a manifest by tag or digest.
    ///
    /// # Errors
    /// [`ManifestUnknown`](crate::ErrorCode::ManifestUnknown), or [`NameUnknown`](crate::ErrorCode::NameUnknown) if the
    /// repository was never pushed to.
    async fn get_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Manifest, Error>;

    /// Returns a manifest to a client that pulls it, as [`get_manifest`](Self::get_manifest) does, which is the default.
    ///
    /// This and [`pull_blob`](super::BlobStorage::pull_blob) are the only methods whose answer may be older than the last effect, if
    /// the storage is configured to keep answers for a while. So nothing else may follow from it than what the client is sent.
    ///
    /// # Errors
    /// Those of [`get_manifest`](Self::get_manifest).
    async fn pull_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Manifest, Error> {
        self.get_manifest(repository, reference).await
    }

    /// Returns a manifest by tag or digest as [`get_manifest`](Self::get_manifest) does, and keeps it from collection
    /// for a grace period.
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
    /// [`ManifestBlobUnknown`](crate::ErrorCode::ManifestBlobUnknown) if a child is missing and may not be;
    /// [`TagConflict`](crate::ErrorCode::TagConflict) and [`PreconditionFailed`](crate::ErrorCode::PreconditionFailed)
    /// if the condition on the tags does not hold.
    async fn put_manifest(&self, repository: &RepositoryName, manifest: NewManifest) -> Result<(), Error>;

    /// Deletes a manifest and every tag that names it, unless `may_delete` returns `false` for one of them.
    ///
    /// A tag that is pushed at the same time is deleted too, or exists afterwards with the manifest. What `immutable`
    /// tags reach stays, as for [`delete_blob`](super::BlobStorage::delete_blob). Cancel safety: once the manifest is
    /// gone, entries of its tags may stay in their list for a while; they name nothing.
    ///
    /// # Errors
    /// [`ManifestUnknown`](crate::ErrorCode::ManifestUnknown), [`NameUnknown`](crate::ErrorCode::NameUnknown);
    /// [`TagConflict`](crate::ErrorCode::TagConflict) if a tag has to stay.
    async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        may_delete: Option<TagFilter>,
        immutable: Option<TagFilter>,
    ) -> Result<(), Error>;

    /// Deletes a tag; the manifest stays. With `if_match`, only a tag that names one of these digests is deleted, also if
    /// others write the tag at the same time.
    ///
    /// # Errors
    /// [`ManifestUnknown`](crate::ErrorCode::ManifestUnknown), [`NameUnknown`](crate::ErrorCode::NameUnknown);
    /// [`PreconditionFailed`](crate::ErrorCode::PreconditionFailed) if the tag names another digest.
    async fn delete_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        if_match: Option<&[Digest]>,
    ) -> Result<(), Error>;

    /// Deletes a repository: all its tags, manifests, blobs and upload sessions, and its entry in the list of
    /// repositories. Repositories below it (`a/b` below `a`) are others.
    ///
    /// What is pushed at the same time is refused, or stays with everything that it needs
    /// ([counted](RepositoryDeleted::manifests_left)). With `immutable`, nothing is deleted if the repository has a tag
    /// that it selects. Cancel safety: what was deleted stays deleted, and a repeated delete goes on.
    ///
    /// # Errors
    /// [`NameUnknown`](ErrorCode::NameUnknown) if there is nothing; [`TagConflict`](ErrorCode::TagConflict) if a tag has to
    /// stay; [`MethodNotAllowed`](ErrorCode::MethodNotAllowed) from a storage that cannot, which is the default.
    async fn delete_all(
        &self,
        repository: &RepositoryName,
        immutable: Option<TagFilter>,
    ) -> Result<RepositoryDeleted, Error> {
        drop((repository, immutable));
        let message = "this registry does not delete repositories as a whole";
        Err(Error::new(ErrorCode::MethodNotAllowed, message).with_field("Allow", ""))
    }

    /// Returns the manifest that [`restore_tag`](Self::restore_tag) would point the tag at, if everything that it needs is
    /// there: what the digest says, otherwise the newest past value of the tag that it does not name now.
    ///
    /// # Errors
    /// Those of [`restore_tag`](Self::restore_tag), but for conditions on the tag.
    async fn find_restorable(
        &self,
        repository: &RepositoryName,
        restore: &RestoreTag,
    ) -> Result<Manifest, Error> {
        let _ = (repository, restore);
        Err(keeps_nothing())
    }

    /// Points a tag at a manifest that it named before, or that was deleted: stores the manifest again with the manifests
    /// that it needs, and those that refer to any of them, as pushes do, and then the tag.
    ///
    /// Cancel safe: manifests may have been stored again, and a repeated restore goes on.
    ///
    /// # Errors
    /// [`ManifestUnknown`](crate::ErrorCode::ManifestUnknown) if the tag has no such past value, or the manifest is not kept;
    /// [`ManifestBlobUnknown`](crate::ErrorCode::ManifestBlobUnknown) if content that it needs is gone;
    /// [`TagConflict`](crate::ErrorCode::TagConflict) if the tag may not move; and
    /// [`Unsupported`](crate::ErrorCode::Unsupported) if the storage keeps nothing, which is the default.
    async fn restore_tag(
        &self,
        repository: &RepositoryName,
        restore: RestoreTag,
    ) -> Result<RestoredTag, Error> {
        drop((repository, restore));
        Err(keeps_nothing())
    }
}
