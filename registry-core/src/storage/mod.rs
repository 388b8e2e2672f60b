//! What a registry requires of its storage.

mod blobs;
mod forward;
mod history;
mod lists;
mod manifests;
mod signed_url;
mod uploads;

#[doc(hidden)]
pub use async_trait::async_trait;

pub use self::blobs::{Blob, BlobContent, BlobStorage, ByteStream};
pub use self::history::{
    EndReason, RestoreTag, RestoredTag, TagEnd, TagRestored, TagValue, UnknownEndReason,
};
pub use self::lists::{ListStorage, Page, PageRequest, ReferrersRequest};
pub use self::manifests::{
    ChildKind, Manifest, ManifestChild, ManifestStorage, NewManifest, RepositoryDeleted, TagCondition,
    TagFilter,
};
pub use self::signed_url::SignedUrl;
pub use self::uploads::{Body, UploadKey, UploadStorage};

/// What a registry requires of its storage, in four facets. Any type that implements all of them is a storage.
///
/// A wrapper implements the facets that it changes, and forwards the others with
/// [`forward_storage`](crate::forward_storage).
///
/// **Atomicity.** For readers, each method takes effect whole or not at all: nothing half-written is ever visible.
/// **Order.** The effect of a method is seen by every method that begins after it returned, in any process, except for
/// [`pull_manifest`](ManifestStorage::pull_manifest) and [`pull_blob`](BlobStorage::pull_blob).
/// **Durability.** What returned `Ok` survives whatever the storage promises to survive; on a disk and a bucket that is
/// a loss of power. Progress of an upload may be lost, its committed blob may not. **Cancel safety.** Every future may
/// be dropped at any point: its effect then happened whole or not at all, or, for an upload, the session is at an
/// offset that [`upload_status`](UploadStorage::upload_status) returns. **Errors.** Besides the errors that a method
/// names, every method may return [`Internal`](crate::ErrorCode::Internal),
/// [`Unavailable`](crate::ErrorCode::Unavailable) and [`StorageFull`](crate::ErrorCode::StorageFull). A method that
/// returned an error may nevertheless have taken effect, if the storage's answer was lost; every method may be
/// repeated.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use registry_core::{ErrorCode, Storage, forward_storage};
///
/// /// Counts the calls that fail.
/// #[derive(Debug)]
/// struct Watched<S: ?Sized> {
///     failures: AtomicU64,
///     inner: Arc<S>,
/// }
///
/// /// Calls the inner storage.
/// macro_rules! watched {
///     ($self:ident.$method:ident($($argument:expr),*)) => {{
///         let result = $self.inner.$method($($argument),*).await;
///         if result.as_ref().is_err_and(|error| error.code() == ErrorCode::Internal) {
///             $self.failures.fetch_add(1, Ordering::Relaxed);
///         }
///         result
///     }};
/// }
///
/// forward_storage!(
///     BlobStorage, UploadStorage, ManifestStorage, ListStorage for [S: ?Sized + Storage] Watched<S> => watched
/// );
///
/// fn watch<S: ?Sized + Storage>(inner: Arc<S>) -> impl Storage {
///     Watched { failures: AtomicU64::new(0), inner }
/// }
/// ```
pub trait Storage: BlobStorage + UploadStorage + ManifestStorage + ListStorage {}

impl<S: ?Sized + BlobStorage + UploadStorage + ManifestStorage + ListStorage> Storage for S {}
