//! Building a request, and the paths of a registry's resources.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt::Display;

use super::{AcceptedManifests, Namespace, Request, UPLOAD_OFFSET};
use crate::digest::Digest;
use crate::name::RepositoryName;
use crate::page::PageQuery;
use crate::percent::Encoded;
use crate::reference::Reference;
use crate::upload_id::UploadId;

/// A request as it is sent, except its body.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestParts {
    /// The method.
    pub method: &'static str,
    /// The path and, after a `?`, the query. For a session of another registry, its URL, which may be absolute
    /// ([`Location::resolve`](crate::response::Location::resolve)).
    pub target: String,
    /// The fields that are part of the request's meaning.
    pub fields: Vec<(&'static str, String)>,
}

/// Returns the path of a blob.
#[must_use]
pub fn blob_path(repository: &RepositoryName, digest: &Digest) -> String {
    format!("/v2/{repository}/blobs/{}", Encoded(digest.as_str()))
}

/// Returns the path of a manifest.
#[must_use]
pub fn manifest_path(repository: &RepositoryName, reference: &Reference) -> String {
    match reference {
        Reference::Tag(tag) => format!("/v2/{repository}/manifests/{tag}"),
        Reference::Digest(digest) => format!("/v2/{repository}/manifests/{}", Encoded(digest.as_str())),
    }
}

/// Returns the path of an upload session.
#[must_use]
pub fn upload_path(repository: &RepositoryName, id: UploadId) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}")
}

/// Returns the URL that continues a session of `length` bytes. A request with it is refused once the session has more,
/// so a repeated request is not appended again.
#[must_use]
pub fn upload_location(repository: &RepositoryName, id: UploadId, length: u64) -> String {
    format!("{}?{UPLOAD_OFFSET}={length}", upload_path(repository, id))
}

impl Request {
    /// Builds the request; [`Request::parse`] returns the same request from the result.
    #[must_use]
    pub fn build(&self) -> RequestParts {
        match self {
            Self::Version => Builder::new("GET", "/v2/").finish(),
            Self::ListRepositories { page } => Builder::new("GET", "/v2/_catalog").page(page).finish(),
            Self::ListTags {
                repository,
                page,
                namespace,
            } => Builder::new("GET", format!("/v2/{repository}/tags/list"))
                .namespace(namespace.as_ref())
                .page(page)
                .finish(),
            Self::ListReferrers {
                repository,
                subject,
                artifact_type,
                page,
                namespace,
            } => {
                let path = format!("/v2/{repository}/referrers/{}", Encoded(subject.as_str()));
                Builder::new("GET", path)
                    .namespace(namespace.as_ref())
                    .parameter("artifactType", artifact_type.as_ref())
                    .page(page)
                    .finish()
            }
            Self::GetBlob {
                repository,
                digest,
                range,
                if_none_match,
                namespace,
            } => Builder::new("GET", blob_path(repository, digest))
                .namespace(namespace.as_ref())
                .field("Range", range.as_ref())
                .field("If-None-Match", if_none_match.as_ref())
                .finish(),
            Self::HeadBlob {
                repository,
                digest,
                if_none_match,
                namespace,
            } => Builder::new("HEAD", blob_path(repository, digest))
                .namespace(namespace.as_ref())
                .field("If-None-Match", if_none_match.as_ref())
                .finish(),
            Self::DeleteBlob { repository, digest } => {
                Builder::new("DELETE", blob_path(repository, digest)).finish()
            }
            Self::DeleteRepository { repository } => {
                Builder::new("DELETE", format!("/v2/{repository}/_registry/repository")).finish()
            }
            Self::ListTagHistory {
                repository,
                tag,
                page,
            } => Builder::new("GET", format!("/v2/{repository}/_registry/tags/history"))
                .parameter("tag", tag.as_ref())
                .page(page)
                .finish(),
            Self::RestoreTag {
                repository,
                tag,
                digest,
            } => Builder::new("POST", format!("/v2/{repository}/_registry/tags/restore"))
                .parameter("tag", Some(tag))
                .parameter("digest", digest.as_ref())
                .finish(),
            Self::GetManifest {
                repository,
                reference,
                accepted,
                if_none_match,
                namespace,
            } => Builder::new("GET", manifest_path(repository, reference))
                .namespace(namespace.as_ref())
                .accepted(*accepted)
                .field("If-None-Match", if_none_match.as_ref())
                .finish(),
            Self::HeadManifest {
                repository,
                reference,
                accepted,
                if_none_match,
                namespace,
            } => Builder::new("HEAD", manifest_path(repository, reference))
                .namespace(namespace.as_ref())
                .accepted(*accepted)
                .field("If-None-Match", if_none_match.as_ref())
                .finish(),
            Self::PutManifest {
                repository,
                reference,
                tags,
                media_type,
                length,
                if_match,
                if_none_match,
            } => tags
                .iter()
                .fold(
                    Builder::new("PUT", manifest_path(repository, reference)),
                    |builder, tag| builder.parameter("tag", Some(tag)),
                )
                .field("Content-Type", media_type.as_ref())
                .field("Content-Length", length.as_ref())
                .field("If-Match", if_match.as_ref())
                .field("If-None-Match", if_none_match.as_ref())
                .finish(),
            Self::DeleteManifest {
                repository,
                reference,
                if_match,
            } => Builder::new("DELETE", manifest_path(repository, reference))
                .field("If-Match", if_match.as_ref())
                .finish(),
            Self::StartUpload {
                repository,
                algorithm,
            } => Builder::uploads(repository)
                .parameter("digest-algorithm", algorithm.as_ref())
                .finish(),
            Self::UploadBlob {
                repository,
                digest,
                length,
            } => Builder::uploads(repository)
                .parameter("digest", Some(digest))
                .field("Content-Length", length.as_ref())
                .finish(),
            Self::MountBlob {
                repository,
                digest,
                from,
            } => Builder::uploads(repository)
                .parameter("mount", Some(digest))
                .parameter("from", from.as_ref())
                .finish(),
            Self::AppendUpload {
                repository,
                id,
                offset,
                range,
                length,
            } => Builder::new("PATCH", upload_path(repository, *id))
                .parameter(UPLOAD_OFFSET, offset.as_ref())
                .field("Content-Type", Some("application/octet-stream"))
                .field("Content-Range", range.as_ref())
                .field("Content-Length", length.as_ref())
                .finish(),
            Self::FinishUpload {
                repository,
                id,
                digest,
                offset,
                range,
                length,
            } => Builder::new("PUT", upload_path(repository, *id))
                .parameter(UPLOAD_OFFSET, offset.as_ref())
                .parameter("digest", Some(digest))
                .field("Content-Type", Some("application/octet-stream"))
                .field("Content-Range", range.as_ref())
                .field("Content-Length", length.as_ref())
                .finish(),
            Self::UploadStatus { repository, id } => {
                Builder::new("GET", upload_path(repository, *id)).finish()
            }
            Self::CancelUpload { repository, id } => {
                Builder::new("DELETE", upload_path(repository, *id)).finish()
            }
        }
    }
}

struct Builder {
    parts: RequestParts,
    has_query: bool,
}

impl Builder {
    fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self {
            parts: RequestParts {
                method,
                target: path.into(),
                fields: Vec::new(),
            },
            has_query: false,
        }
    }

    fn uploads(repository: &RepositoryName) -> Self {
        Self::new("POST", format!("/v2/{repository}/blobs/uploads/"))
    }

    fn parameter(mut self, key: &str, value: Option<impl Display>) -> Self {
        if let Some(value) = value {
            let separator = if self.has_query { '&' } else { '?' };
            let value = value.to_string();
            self.parts.target += &format!("{separator}{key}={}", Encoded(&value));
            self.has_query = true;
        }
        self
    }

    fn page(self, page: &PageQuery) -> Self {
        self.parameter("n", page.limit.as_ref())
            .parameter("last", page.last.as_ref())
    }

    fn namespace(self, namespace: Option<&Namespace>) -> Self {
        self.parameter("ns", namespace)
    }

    fn accepted(self, accepted: AcceptedManifests) -> Self {
        let types = (accepted == AcceptedManifests::Images).then(|| AcceptedManifests::IMAGES.join(", "));
        self.field("Accept", types)
    }

    fn field(mut self, name: &'static str, value: Option<impl Display>) -> Self {
        if let Some(value) = value {
            self.parts.fields.push((name, value.to_string()));
        }
        self
    }

    fn finish(self) -> RequestParts {
        self.parts
    }
}
