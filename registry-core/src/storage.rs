//! What a registry asks of its storage.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;

use crate::descriptor::Descriptor;
use crate::digest::{Algorithm, Digest};
use crate::error::Error;
use crate::media_type::MediaType;
use crate::name::RepositoryName;
use crate::reference::Reference;
use crate::tag::Tag;
use crate::upload_id::UploadId;

/// The body of a request, borrowed: one chunk is in flight, and the next is asked for when it was used.
pub type Body<'a> = Pin<&'a mut (dyn Stream<Item = Result<Bytes, Error>> + Send)>;

/// Content on its way out.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// A blob that was opened.
#[derive(Clone, Debug)]
pub struct Blob {
    /// The size in bytes.
    pub size: u64,
    /// The content.
    pub content: Arc<dyn BlobContent>,
}

/// The content of an opened blob. It stays readable for as long as the handle lives, on a disk even after a delete.
pub trait BlobContent: fmt::Debug + Send + Sync {
    /// Reads the bytes of `range`, which must lie within the blob's size, in chunks of bounded size.
    ///
    /// Nothing is read before the stream is polled; dropping it stops the reading.
    fn read(&self, range: Range<u64>) -> ByteStream;
}

/// An upload session: where it is, and whose. A session is found only under its own repository and principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadKey {
    /// The repository.
    pub repository: RepositoryName,
    /// The session.
    pub id: UploadId,
    /// Who started it; empty for the anonymous principal.
    pub principal: String,
}

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

/// A part of an ordered list: at most `limit` items after `last`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// The last item of the page before; it need not exist.
    pub last: Option<String>,
    /// The most items to return.
    pub limit: usize,
}

/// A part of a list of referrers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferrersRequest {
    /// Where the page before says to go on.
    pub last: Option<String>,
    /// The most descriptors to return.
    pub limit: usize,
    /// The most bytes that they take as JSON. One that alone takes more is returned alone.
    pub size_limit: usize,
    /// Only those whose artifact has exactly this type.
    pub artifact_type: Option<String>,
}

impl From<PageRequest> for ReferrersRequest {
    /// Asks for referrers of any type and size.
    fn from(PageRequest { last, limit }: PageRequest) -> Self {
        Self {
            last,
            limit,
            size_limit: usize::MAX,
            artifact_type: None,
        }
    }
}

/// A part of an ordered list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, in the order of their bytes.
    pub items: Vec<T>,
    /// The place to go on from, where there may be more.
    pub next: Option<String>,
}

/// What a registry asks of its storage.
///
/// **Atomicity.** Each method takes effect whole or not at all for readers: nothing half-written is ever visible.
/// **Order.** What a method did is seen by every method that begins after it returned, in any process.
/// **Durability.** What returned `Ok` survives what the storage promises to survive; on a disk and a bucket that is
/// the loss of power. Progress of an upload may be lost, its committed blob may not.
/// **Cancel safety.** Every future may be dropped at any point: the effect then happened whole or not at all, or, for
/// an upload, the session stands at an offset that [`upload_status`](Self::upload_status) tells.
/// **Errors.** Beside what each method names, [`Internal`](crate::ErrorCode::Internal),
/// [`Unavailable`](crate::ErrorCode::Unavailable) and [`StorageFull`](crate::ErrorCode::StorageFull) are possible
/// everywhere. A method that returned an error may nevertheless have taken effect if the storage's answer was lost;
/// every method may be repeated.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// Returns the size of a blob that this repository may read, and keeps the blob from collection for a grace.
    ///
    /// # Errors
    /// [`BlobUnknown`](crate::ErrorCode::BlobUnknown).
    async fn stat_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<u64, Error>;

    /// Opens a blob that this repository may read.
    ///
    /// # Errors
    /// [`BlobUnknown`](crate::ErrorCode::BlobUnknown).
    async fn open_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Blob, Error>;

    /// Lets `to` read a blob that `from` may read, without copying it; `false` where `from` does not have it.
    ///
    /// The caller checked the right to read in `from`.
    async fn mount_blob(
        &self,
        from: &RepositoryName,
        to: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, Error>;

    /// Returns some of the repositories that may read a blob, in the order of names, for a mount without `from`.
    async fn list_blob_repositories(
        &self,
        digest: &Digest,
        page: PageRequest,
    ) -> Result<Page<RepositoryName>, Error>;

    /// Takes a blob from a repository. Other repositories keep it; its bytes go when none has it.
    ///
    /// What the tags reach that `immutable` names stays: their manifests, the manifests of an index at any depth, layers
    /// and configurations. A tag that is pushed at the same time with its [`NewManifest`] saying that it must not move
    /// reaches all that it names, or its push is refused. The time that this takes grows with the tags of the repository
    /// that are immutable.
    ///
    /// # Errors
    /// [`BlobUnknown`](crate::ErrorCode::BlobUnknown); [`TagConflict`](crate::ErrorCode::TagConflict) where an immutable
    /// tag reaches it.
    async fn delete_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        immutable: Option<TagFilter>,
    ) -> Result<(), Error>;

    /// Starts an upload. `algorithm` is the one that the digest will have, where the client said so.
    async fn create_upload(
        &self,
        repository: &RepositoryName,
        principal: &str,
        algorithm: Algorithm,
    ) -> Result<UploadId, Error>;

    /// Appends `body` at `offset`, or at the end where there is none, and returns the new length.
    ///
    /// Where the body ends with an error or another append to the session begins, what arrived so far is kept and
    /// the error returned. Appends to one session exclude each other; the newest goes on, the one before is stopped.
    ///
    /// # Errors
    /// [`BlobUploadUnknown`](crate::ErrorCode::BlobUploadUnknown);
    /// [`RangeInvalid`](crate::ErrorCode::RangeInvalid) where `offset` is not the length, and nothing is read of the
    /// body; any error of the body.
    async fn append_upload(
        &self,
        upload: &UploadKey,
        offset: Option<u64>,
        body: Body<'_>,
    ) -> Result<u64, Error>;

    /// Returns how many bytes the session has.
    ///
    /// # Errors
    /// [`BlobUploadUnknown`](crate::ErrorCode::BlobUploadUnknown).
    async fn upload_status(&self, upload: &UploadKey) -> Result<u64, Error>;

    /// Makes the bytes of a session a blob of its repository, if they have `digest`.
    ///
    /// May be repeated: a session that was committed with this digest says so again while the blob is there.
    ///
    /// # Errors
    /// [`BlobUploadUnknown`](crate::ErrorCode::BlobUploadUnknown);
    /// [`DigestInvalid`](crate::ErrorCode::DigestInvalid) where the bytes have another digest, and the session goes
    /// on; [`BlobUploadInvalid`](crate::ErrorCode::BlobUploadInvalid) where the bytes have to be sent again.
    async fn commit_upload(&self, upload: &UploadKey, digest: &Digest) -> Result<(), Error>;

    /// Appends `body` as [`append_upload`](Self::append_upload) does, makes all a blob as
    /// [`commit_upload`](Self::commit_upload) does, and returns its size.
    ///
    /// Where either fails or the future is dropped, the session has the bytes that it had before: a client repeats its
    /// last request as it was.
    ///
    /// # Errors
    /// Those of both; [`BlobUploadInvalid`](crate::ErrorCode::BlobUploadInvalid) also where the session cannot go back.
    async fn finish_upload(
        &self,
        upload: &UploadKey,
        digest: &Digest,
        offset: Option<u64>,
        body: Body<'_>,
    ) -> Result<u64, Error>;

    /// Ends a session without a blob.
    ///
    /// # Errors
    /// [`BlobUploadUnknown`](crate::ErrorCode::BlobUploadUnknown).
    async fn cancel_upload(&self, upload: &UploadKey) -> Result<(), Error>;

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
    /// tags reach stays, as for [`delete_blob`](Self::delete_blob). Cancel safety: once the manifest is gone, entries of
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

    /// Lists tags in the order of their bytes. A page may have fewer than its limit, even none, though more follow.
    ///
    /// # Errors
    /// [`NameUnknown`](crate::ErrorCode::NameUnknown) where the repository was never pushed to.
    async fn list_tags(&self, repository: &RepositoryName, page: PageRequest) -> Result<Page<Tag>, Error>;

    /// Lists the descriptors of the manifests whose subject is `subject`, of any repository and digest. The order is
    /// the storage's own, the same for all pages of one `size_limit`; `next` is opaque.
    ///
    /// A page is filled: where it ends because of `size_limit`, less than a sixteenth of that is left, or less than two of
    /// the descriptors that follow would take. What is read for a page is bounded nevertheless, whatever others pushed: where a
    /// filter leaves few, it may have fewer descriptors than its limits allow, even none, though more follow.
    async fn list_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        request: ReferrersRequest,
    ) -> Result<Page<Descriptor>, Error>;

    /// Lists the repositories in the order of their names. A page may have fewer than its limit, even none, though
    /// more follow.
    async fn list_repositories(&self, page: PageRequest) -> Result<Page<RepositoryName>, Error>;
}
