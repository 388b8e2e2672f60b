//! Wrappers of a storage.

/// Implements facets of [`Storage`](crate::Storage) for a wrapper, each method with the same method of the wrapped
/// storage.
///
/// A macro of the wrapper defines how a method is called: it gets the method and its arguments as
/// `self.method(argument, …)`. It may count, measure or refuse; to only call the method, it is one line. A facet of
/// which the wrapper changes more than that is written out, and not named here.
///
/// ```
/// use std::sync::Arc;
///
/// use registry_core::storage::{ListStorage, Page, PageRequest, ReferrersRequest, Storage};
/// use registry_core::{Descriptor, Digest, Error, ErrorCode, RepositoryName, Tag, forward_storage};
///
/// /// A storage whose repositories nobody lists.
/// struct Unlisted<S: ?Sized>(Arc<S>);
///
/// macro_rules! call {
///     ($self:ident.$method:ident($($argument:expr),*)) => { $self.0.$method($($argument),*).await };
/// }
///
/// forward_storage!(BlobStorage, UploadStorage, ManifestStorage for [S: ?Sized + Storage] Unlisted<S> => call);
///
/// #[async_trait::async_trait]
/// impl<S: ?Sized + Storage> ListStorage for Unlisted<S> {
///     async fn list_tags(&self, repository: &RepositoryName, page: PageRequest) -> Result<Page<Tag>, Error> {
///         self.0.list_tags(repository, page).await
///     }
///
///     async fn list_referrers(
///         &self,
///         repository: &RepositoryName,
///         subject: &Digest,
///         request: ReferrersRequest,
///     ) -> Result<Page<Descriptor>, Error> {
///         self.0.list_referrers(repository, subject, request).await
///     }
///
///     async fn list_repositories(&self, _: PageRequest) -> Result<Page<RepositoryName>, Error> {
///         Err(ErrorCode::Denied.into())
///     }
/// }
/// ```
#[macro_export]
macro_rules! forward_storage {
    ($($facet:ident),+ for $generics:tt $wrapper:ty => $call:ident) => {
        $($crate::forward_storage!(@$facet $generics $wrapper, $call);)+
    };
    (@BlobStorage [$($generics:tt)*] $wrapper:ty, $call:ident) => {
        #[$crate::storage::async_trait]
        impl<$($generics)*> $crate::storage::BlobStorage for $wrapper {
            async fn stat_blob(
                &self,
                repository: &$crate::RepositoryName,
                digest: &$crate::Digest,
            ) -> ::core::result::Result<u64, $crate::Error> {
                $call!(self.stat_blob(repository, digest))
            }

            async fn open_blob(
                &self,
                repository: &$crate::RepositoryName,
                digest: &$crate::Digest,
            ) -> ::core::result::Result<$crate::storage::Blob, $crate::Error> {
                $call!(self.open_blob(repository, digest))
            }

            async fn pull_blob(
                &self,
                repository: &$crate::RepositoryName,
                digest: &$crate::Digest,
            ) -> ::core::result::Result<$crate::storage::Blob, $crate::Error> {
                $call!(self.pull_blob(repository, digest))
            }

            async fn mount_blob(
                &self,
                from: &$crate::RepositoryName,
                to: &$crate::RepositoryName,
                digest: &$crate::Digest,
            ) -> ::core::result::Result<bool, $crate::Error> {
                $call!(self.mount_blob(from, to, digest))
            }

            async fn list_blob_repositories(
                &self,
                digest: &$crate::Digest,
                page: $crate::storage::PageRequest,
            ) -> ::core::result::Result<$crate::storage::Page<$crate::RepositoryName>, $crate::Error> {
                $call!(self.list_blob_repositories(digest, page))
            }

            async fn delete_blob(
                &self,
                repository: &$crate::RepositoryName,
                digest: &$crate::Digest,
                immutable: ::core::option::Option<$crate::storage::TagFilter>,
            ) -> ::core::result::Result<(), $crate::Error> {
                $call!(self.delete_blob(repository, digest, immutable))
            }
        }
    };
    (@UploadStorage [$($generics:tt)*] $wrapper:ty, $call:ident) => {
        #[$crate::storage::async_trait]
        impl<$($generics)*> $crate::storage::UploadStorage for $wrapper {
            async fn create_upload(
                &self,
                repository: &$crate::RepositoryName,
                principal: &str,
                algorithm: $crate::Algorithm,
            ) -> ::core::result::Result<$crate::UploadId, $crate::Error> {
                $call!(self.create_upload(repository, principal, algorithm))
            }

            async fn append_upload(
                &self,
                upload: &$crate::storage::UploadKey,
                offset: ::core::option::Option<u64>,
                body: $crate::storage::Body<'_>,
            ) -> ::core::result::Result<u64, $crate::Error> {
                $call!(self.append_upload(upload, offset, body))
            }

            async fn upload_status(
                &self,
                upload: &$crate::storage::UploadKey,
            ) -> ::core::result::Result<u64, $crate::Error> {
                $call!(self.upload_status(upload))
            }

            async fn commit_upload(
                &self,
                upload: &$crate::storage::UploadKey,
                digest: &$crate::Digest,
            ) -> ::core::result::Result<(), $crate::Error> {
                $call!(self.commit_upload(upload, digest))
            }

            async fn finish_upload(
                &self,
                upload: &$crate::storage::UploadKey,
                digest: &$crate::Digest,
                offset: ::core::option::Option<u64>,
                body: $crate::storage::Body<'_>,
            ) -> ::core::result::Result<u64, $crate::Error> {
                $call!(self.finish_upload(upload, digest, offset, body))
            }

            async fn cancel_upload(
                &self,
                upload: &$crate::storage::UploadKey,
            ) -> ::core::result::Result<(), $crate::Error> {
                $call!(self.cancel_upload(upload))
            }
        }
    };
    (@ManifestStorage [$($generics:tt)*] $wrapper:ty, $call:ident) => {
        #[$crate::storage::async_trait]
        impl<$($generics)*> $crate::storage::ManifestStorage for $wrapper {
            async fn get_manifest(
                &self,
                repository: &$crate::RepositoryName,
                reference: &$crate::Reference,
            ) -> ::core::result::Result<$crate::storage::Manifest, $crate::Error> {
                $call!(self.get_manifest(repository, reference))
            }

            async fn pull_manifest(
                &self,
                repository: &$crate::RepositoryName,
                reference: &$crate::Reference,
            ) -> ::core::result::Result<$crate::storage::Manifest, $crate::Error> {
                $call!(self.pull_manifest(repository, reference))
            }

            async fn stat_manifest(
                &self,
                repository: &$crate::RepositoryName,
                reference: &$crate::Reference,
            ) -> ::core::result::Result<$crate::storage::Manifest, $crate::Error> {
                $call!(self.stat_manifest(repository, reference))
            }

            async fn put_manifest(
                &self,
                repository: &$crate::RepositoryName,
                manifest: $crate::storage::NewManifest,
            ) -> ::core::result::Result<(), $crate::Error> {
                $call!(self.put_manifest(repository, manifest))
            }

            async fn delete_manifest(
                &self,
                repository: &$crate::RepositoryName,
                digest: &$crate::Digest,
                may_delete: ::core::option::Option<$crate::storage::TagFilter>,
                immutable: ::core::option::Option<$crate::storage::TagFilter>,
            ) -> ::core::result::Result<(), $crate::Error> {
                $call!(self.delete_manifest(repository, digest, may_delete, immutable))
            }

            async fn delete_tag(
                &self,
                repository: &$crate::RepositoryName,
                tag: &$crate::Tag,
                if_match: ::core::option::Option<&[$crate::Digest]>,
            ) -> ::core::result::Result<(), $crate::Error> {
                $call!(self.delete_tag(repository, tag, if_match))
            }

            async fn delete_all(
                &self,
                repository: &$crate::RepositoryName,
                immutable: ::core::option::Option<$crate::storage::TagFilter>,
            ) -> ::core::result::Result<$crate::storage::RepositoryDeleted, $crate::Error> {
                $call!(self.delete_all(repository, immutable))
            }

            async fn find_restorable(
                &self,
                repository: &$crate::RepositoryName,
                restore: &$crate::storage::RestoreTag,
            ) -> ::core::result::Result<$crate::storage::Manifest, $crate::Error> {
                $call!(self.find_restorable(repository, restore))
            }

            async fn restore_tag(
                &self,
                repository: &$crate::RepositoryName,
                restore: $crate::storage::RestoreTag,
            ) -> ::core::result::Result<$crate::storage::RestoredTag, $crate::Error> {
                $call!(self.restore_tag(repository, restore))
            }
        }
    };
    (@ListStorage [$($generics:tt)*] $wrapper:ty, $call:ident) => {
        #[$crate::storage::async_trait]
        impl<$($generics)*> $crate::storage::ListStorage for $wrapper {
            async fn list_tags(
                &self,
                repository: &$crate::RepositoryName,
                page: $crate::storage::PageRequest,
            ) -> ::core::result::Result<$crate::storage::Page<$crate::Tag>, $crate::Error> {
                $call!(self.list_tags(repository, page))
            }

            async fn list_referrers(
                &self,
                repository: &$crate::RepositoryName,
                subject: &$crate::Digest,
                request: $crate::storage::ReferrersRequest,
            ) -> ::core::result::Result<$crate::storage::Page<$crate::Descriptor>, $crate::Error> {
                $call!(self.list_referrers(repository, subject, request))
            }

            async fn list_repositories(
                &self,
                page: $crate::storage::PageRequest,
            ) -> ::core::result::Result<$crate::storage::Page<$crate::RepositoryName>, $crate::Error> {
                $call!(self.list_repositories(page))
            }

            async fn list_tag_history(
                &self,
                repository: &$crate::RepositoryName,
                tag: ::core::option::Option<&$crate::Tag>,
                page: $crate::storage::PageRequest,
            ) -> ::core::result::Result<$crate::storage::Page<$crate::storage::TagValue>, $crate::Error> {
                $call!(self.list_tag_history(repository, tag, page))
            }
        }
    };
}
