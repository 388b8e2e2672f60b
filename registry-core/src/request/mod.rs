//! Requests: one variant for each endpoint, parsed from and built as method, target and fields.
//!
//! ```
//! use registry_core::request::Request;
//!
//! let fields: [(&str, &str); 0] = [];
//! let request = Request::parse("GET", "/v2/library/alpine/manifests/3.22", fields.as_slice())?;
//! assert!(matches!(request, Request::GetManifest { .. }));
//! assert_eq!(request.build().target, "/v2/library/alpine/manifests/3.22");
//! # Ok::<(), registry_core::Error>(())
//! ```

mod accept;
mod build;
mod entity_tags;
mod fields;
mod namespace;
mod parse;
mod query;
mod route;
#[cfg(test)]
pub(crate) mod tests;

use alloc::string::String;
use alloc::vec::Vec;

pub use self::accept::AcceptedManifests;
pub use self::build::{RequestParts, blob_path, manifest_path, upload_location, upload_path};
pub use self::entity_tags::EntityTags;
pub use self::fields::Fields;
pub use self::namespace::{Namespace, NamespaceResolver, ResolvedRequest};
pub use self::route::{allowed_methods, clean_target};
use crate::digest::{Algorithm, Digest};
use crate::media_type::MediaType;
use crate::name::RepositoryName;
use crate::page::PageQuery;
use crate::range::{ContentRange, RangeHeader};
use crate::reference::Reference;
use crate::tag::Tag;
use crate::upload_id::UploadId;

/// The maximum number of `tag` parameters of one push of a manifest; the specification asks for at least 10.
pub const MAXIMUM_TAGS: usize = 64;

/// The parameter of a session's URL with the session's offset when the URL was given, so that a repeated request is not
/// appended again. The distribution registry has a parameter of this name too.
const UPLOAD_OFFSET: &str = "_state";

/// A request to a registry (distribution-spec, "Endpoints"; the numbers are those of its table).
///
/// `HEAD` of anything but a blob or a manifest is parsed as the corresponding `GET`: the transport leaves out the body
/// of the response. What a client may say without a change of meaning is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `GET /v2/` (end-1): is this a registry, and am I logged in?
    Version,
    /// `GET /v2/<name>/blobs/<digest>` (end-2).
    GetBlob {
        /// The repository.
        repository: RepositoryName,
        /// The blob.
        digest: Digest,
        /// The requested parts; `None` for the whole, also if `If-Range` names other content.
        range: Option<RangeHeader>,
        /// `If-None-Match`: the content that the client has already.
        if_none_match: Option<EntityTags>,
        /// `ns`: the registry that a mirror is asked to act for.
        namespace: Option<Namespace>,
    },
    /// `HEAD /v2/<name>/blobs/<digest>` (end-2).
    HeadBlob {
        /// The repository.
        repository: RepositoryName,
        /// The blob.
        digest: Digest,
        /// `If-None-Match`: the content that the client has already.
        if_none_match: Option<EntityTags>,
        /// `ns`: the registry that a mirror is asked to act for.
        namespace: Option<Namespace>,
    },
    /// `GET /v2/<name>/manifests/<reference>` (end-3).
    GetManifest {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        reference: Reference,
        /// `Accept`: the manifests that the client accepts.
        accepted: AcceptedManifests,
        /// `If-None-Match`: the content that the client has already.
        if_none_match: Option<EntityTags>,
        /// `ns`: the registry that a mirror is asked to act for.
        namespace: Option<Namespace>,
    },
    /// `HEAD /v2/<name>/manifests/<reference>` (end-3).
    HeadManifest {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        reference: Reference,
        /// `Accept`: the manifests that the client accepts.
        accepted: AcceptedManifests,
        /// `If-None-Match`: the content that the client has already.
        if_none_match: Option<EntityTags>,
        /// `ns`: the registry that a mirror is asked to act for.
        namespace: Option<Namespace>,
    },
    /// `POST /v2/<name>/blobs/uploads/` (end-4a, end-4c): start a session.
    StartUpload {
        /// The repository.
        repository: RepositoryName,
        /// `digest-algorithm`: the algorithm of the digest that the session will be closed with.
        algorithm: Option<Algorithm>,
    },
    /// `POST /v2/<name>/blobs/uploads/?digest=<digest>` (end-4b): a blob in one request, or, without a body, a session.
    UploadBlob {
        /// The repository.
        repository: RepositoryName,
        /// The digest of the body.
        digest: Digest,
        /// `Content-Length`: the bytes of the body, if the client says.
        length: Option<u64>,
    },
    /// `PATCH <location>` (end-5): append a chunk to a session.
    AppendUpload {
        /// The repository.
        repository: RepositoryName,
        /// The session.
        id: UploadId,
        /// `_state`: the session's offset when the client got its URL.
        offset: Option<u64>,
        /// Where the chunk is in the blob, if the client says.
        range: Option<ContentRange>,
        /// `Content-Length`: the bytes of the body, if the client says.
        length: Option<u64>,
    },
    /// `PUT <location>?digest=<digest>` (end-6): append the last chunk, if there is one, and close a session.
    FinishUpload {
        /// The repository.
        repository: RepositoryName,
        /// The session.
        id: UploadId,
        /// The digest of the whole blob.
        digest: Digest,
        /// `_state`: the session's offset when the client got its URL.
        offset: Option<u64>,
        /// Where the chunk is in the blob, if the client says.
        range: Option<ContentRange>,
        /// `Content-Length`: the bytes of the body, if the client says.
        length: Option<u64>,
    },
    /// `PUT /v2/<name>/manifests/<reference>` (end-7a, end-7b).
    PutManifest {
        /// The repository.
        repository: RepositoryName,
        /// The tag or digest that the manifest is pushed under.
        reference: Reference,
        /// `tag`: more tags for the manifest, in the given order, at most [`MAXIMUM_TAGS`].
        tags: Vec<Tag>,
        /// `Content-Type`, without parameters.
        media_type: Option<MediaType>,
        /// `Content-Length`: the bytes of the body, if the client says.
        length: Option<u64>,
        /// `If-Match`: what the tags must be.
        if_match: Option<EntityTags>,
        /// `If-None-Match`: what the tags must not be.
        if_none_match: Option<EntityTags>,
    },
    /// `GET /v2/<name>/tags/list` (end-8a, end-8b).
    ListTags {
        /// The repository.
        repository: RepositoryName,
        /// The part of the list.
        page: PageQuery,
        /// `ns`: the registry that a mirror is asked to act for.
        namespace: Option<Namespace>,
    },
    /// `DELETE /v2/<name>/manifests/<reference>` (end-9).
    DeleteManifest {
        /// The repository.
        repository: RepositoryName,
        /// The manifest or tag.
        reference: Reference,
        /// `If-Match`: what the manifest must be.
        if_match: Option<EntityTags>,
    },
    /// `DELETE /v2/<name>/blobs/<digest>` (end-10).
    DeleteBlob {
        /// The repository.
        repository: RepositoryName,
        /// The blob.
        digest: Digest,
    },
    /// `POST /v2/<name>/blobs/uploads/?mount=<digest>&from=<name>` (end-11).
    MountBlob {
        /// The repository that is to get the blob.
        repository: RepositoryName,
        /// The blob.
        digest: Digest,
        /// The repository that has it; `None` for any that the client may read.
        from: Option<RepositoryName>,
    },
    /// `GET /v2/<name>/referrers/<digest>` (end-12a, end-12b).
    ListReferrers {
        /// The repository.
        repository: RepositoryName,
        /// The manifest that is referred to.
        subject: Digest,
        /// `artifactType`: only referrers of this type.
        artifact_type: Option<String>,
        /// The part of the list; `last` comes from the registry's own `Link`.
        page: PageQuery,
        /// `ns`: the registry that a mirror is asked to act for.
        namespace: Option<Namespace>,
    },
    /// `GET <location>` (end-13): how many bytes does a session have?
    UploadStatus {
        /// The repository.
        repository: RepositoryName,
        /// The session.
        id: UploadId,
    },
    /// `DELETE <location>` (end-14): end a session without a blob.
    CancelUpload {
        /// The repository.
        repository: RepositoryName,
        /// The session.
        id: UploadId,
    },
    /// `DELETE /v2/<name>/_registry/repository`: delete all of a repository. An endpoint of this registry, in the form of
    /// the specification's extensions.
    DeleteRepository {
        /// The repository.
        repository: RepositoryName,
    },
    /// `GET /v2/<name>/_registry/tags/history`: what tags named before. An endpoint of this registry, like the one above.
    ListTagHistory {
        /// The repository.
        repository: RepositoryName,
        /// `tag`: the only tag to list; `None` for all that changed.
        tag: Option<Tag>,
        /// The part of the list; `last` comes from the registry's own `Link`.
        page: PageQuery,
    },
    /// `POST /v2/<name>/_registry/tags/restore?tag=<tag>`: point a tag at what it named before, or at a manifest that was
    /// deleted. An endpoint of this registry, like the one above.
    RestoreTag {
        /// The repository.
        repository: RepositoryName,
        /// `tag`: the tag.
        tag: Tag,
        /// `digest`: what it is to name; `None` for what it named last.
        digest: Option<Digest>,
    },
    /// `GET /v2/_catalog`: Docker's list of repositories.
    ListRepositories {
        /// The part of the list.
        page: PageQuery,
    },
}

impl Request {
    /// Returns the repository that the request is about; `None` for [`Request::Version`] and
    /// [`Request::ListRepositories`]. The source of a mount is not it.
    #[must_use]
    pub const fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Version | Self::ListRepositories { .. } => None,
            Self::GetBlob { repository, .. }
            | Self::HeadBlob { repository, .. }
            | Self::GetManifest { repository, .. }
            | Self::HeadManifest { repository, .. }
            | Self::StartUpload { repository, .. }
            | Self::UploadBlob { repository, .. }
            | Self::AppendUpload { repository, .. }
            | Self::FinishUpload { repository, .. }
            | Self::PutManifest { repository, .. }
            | Self::ListTags { repository, .. }
            | Self::DeleteManifest { repository, .. }
            | Self::DeleteBlob { repository, .. }
            | Self::DeleteRepository { repository }
            | Self::ListTagHistory { repository, .. }
            | Self::RestoreTag { repository, .. }
            | Self::MountBlob { repository, .. }
            | Self::ListReferrers { repository, .. }
            | Self::UploadStatus { repository, .. }
            | Self::CancelUpload { repository, .. } => Some(repository),
        }
    }

    /// Returns whether the request changes what the registry holds if it succeeds. An upload session counts, so a start
    /// and a [`Request::CancelUpload`] are writes too.
    #[must_use]
    pub const fn is_write(&self) -> bool {
        match self {
            Self::StartUpload { .. }
            | Self::UploadBlob { .. }
            | Self::AppendUpload { .. }
            | Self::FinishUpload { .. }
            | Self::PutManifest { .. }
            | Self::DeleteManifest { .. }
            | Self::DeleteBlob { .. }
            | Self::DeleteRepository { .. }
            | Self::RestoreTag { .. }
            | Self::MountBlob { .. }
            | Self::CancelUpload { .. } => true,
            Self::Version
            | Self::GetBlob { .. }
            | Self::HeadBlob { .. }
            | Self::GetManifest { .. }
            | Self::HeadManifest { .. }
            | Self::ListTags { .. }
            | Self::ListReferrers { .. }
            | Self::ListTagHistory { .. }
            | Self::UploadStatus { .. }
            | Self::ListRepositories { .. } => false,
        }
    }

    /// Returns the bytes of content that the client announced with `Content-Length`; `None` if it announced none, or the
    /// request carries no content. The body may still be shorter, never longer.
    #[must_use]
    pub const fn content_length(&self) -> Option<u64> {
        match self {
            Self::UploadBlob { length, .. }
            | Self::AppendUpload { length, .. }
            | Self::FinishUpload { length, .. }
            | Self::PutManifest { length, .. } => *length,
            _ => None,
        }
    }

    /// Returns the registry that a mirror is asked to act for. Only reads name one: the specification gives `ns` no
    /// meaning for a push.
    #[must_use]
    pub const fn namespace(&self) -> Option<&Namespace> {
        match self {
            Self::GetBlob { namespace, .. }
            | Self::HeadBlob { namespace, .. }
            | Self::GetManifest { namespace, .. }
            | Self::HeadManifest { namespace, .. }
            | Self::ListTags { namespace, .. }
            | Self::ListReferrers { namespace, .. } => namespace.as_ref(),
            _ => None,
        }
    }

    /// Returns the repository and the namespace of a request that may have one.
    const fn named_mut(&mut self) -> Option<(&mut RepositoryName, &mut Option<Namespace>)> {
        match self {
            Self::GetBlob {
                repository,
                namespace,
                ..
            }
            | Self::HeadBlob {
                repository,
                namespace,
                ..
            }
            | Self::GetManifest {
                repository,
                namespace,
                ..
            }
            | Self::HeadManifest {
                repository,
                namespace,
                ..
            }
            | Self::ListTags {
                repository,
                namespace,
                ..
            }
            | Self::ListReferrers {
                repository,
                namespace,
                ..
            } => Some((repository, namespace)),
            _ => None,
        }
    }
}
