//! Responses: the status, every field of the header, and the body.

mod body;
mod content;
mod error;
mod history;
mod received;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

pub use self::body::{Multipart, ResponseBody};
pub use self::received::{
    BlobPart, Created, Location, Malformed, PostedBlob, ReceivedBlob, ReceivedManifest, ReceivedPage,
    ReceivedResponse, Refusal, ReportedError, ResponseError, RetryAfter, UploadSession,
};
use crate::digest::Digest;
use crate::error::Error;
use crate::event::Event;
use crate::media_type::MediaType;
use crate::name::RepositoryName;
use crate::reference::Reference;
use crate::request::{Namespace, Request, blob_path, manifest_path, upload_location};
use crate::storage::{ByteStream, RepositoryDeleted, TagRestored, TagValue};
use crate::tag::Tag;
use crate::upload_id::UploadId;

/// A response of a registry. A client parses it as a [`ReceivedResponse`].
///
/// Everything that depends on the protocol is decided here, so the transport adds only what its own protocol needs.
/// `Location` and `Link` are paths, relative to the host of the request.
#[non_exhaustive]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The fields in their order. A name may occur more than once: each occurrence is a separate line.
    pub fields: Vec<(&'static str, String)>,
    /// The body. Its length is in the field `Content-Length`, unless it is a stream.
    pub body: ResponseBody,
    /// The error that the response reports; its cause is for the log.
    pub error: Option<Error>,
    /// What happened, if events are enabled ([`Registry::with_events`](crate::Registry::with_events)).
    pub event: Option<Box<Event>>,
}

impl Response {
    /// Creates a response without a body. It has `Content-Length: 0`, unless its status must not have it.
    fn empty(status: u16) -> Self {
        let response = Self::bare(status);
        if matches!(status, 204 | 304) {
            response
        } else {
            response.with_field("Content-Length", "0")
        }
    }

    /// Creates a response with the fields that all responses have.
    fn bare(status: u16) -> Self {
        Self {
            status,
            fields: Vec::new(),
            body: ResponseBody::Empty,
            error: None,
            event: None,
        }
        .with_field("Docker-Distribution-API-Version", "registry/2.0")
        // A blob may be a web page, and must not act as one of this host's.
        .with_field("X-Content-Type-Options", "nosniff")
    }

    fn bytes(status: u16, content_type: &str, bytes: Bytes) -> Self {
        Self::with_body(status, content_type, ResponseBody::Bytes(bytes))
    }

    /// Creates a response with a body of known length.
    fn with_body(status: u16, content_type: &str, body: ResponseBody) -> Self {
        let mut response = Self::bare(status)
            .with_field("Content-Type", content_type)
            .with_field("Content-Length", body.length().unwrap_or_default());
        response.body = body;
        response
    }

    /// Adds a line to the header.
    #[must_use]
    pub fn with_field(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.fields.push((name, value.to_string()));
        self
    }

    /// Returns the value of the first line of a field, by its name in any case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(line, _)| line.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Removes the body and leaves the header as it is: the answer to `HEAD`.
    #[must_use]
    pub fn without_body(mut self) -> Self {
        self.body = ResponseBody::Empty;
        self
    }

    /// States that the content is that of another registry, as the request asked (distribution-spec, "Registry
    /// Proxying").
    #[must_use]
    pub fn with_namespace(self, namespace: &Namespace) -> Self {
        self.with_field("OCI-Namespace", namespace)
    }

    /// Adds the event.
    #[must_use]
    pub(crate) fn with_event(mut self, event: Option<Box<Event>>) -> Self {
        self.event = event;
        self
    }

    /// Adds the link to the next page, if there is one (RFC 8288).
    #[must_use]
    pub(crate) fn with_next_page(self, next: Option<&Request>) -> Self {
        match next {
            Some(next) => self.with_field("Link", format!("<{}>; rel=\"next\"", next.build().target)),
            None => self,
        }
    }

    /// The root of the host, which load balancers and probes request to check that the server is up: 200 without a
    /// body.
    #[must_use]
    pub fn root() -> Self {
        Self::empty(200).with_field("Cache-Control", "no-cache")
    }

    /// The methods of a path: the answer to `OPTIONS`.
    #[must_use]
    pub fn options(methods: &'static str) -> Self {
        Self::empty(200).with_field("Allow", methods)
    }

    /// The resource is at the path `location`. Only 308 preserves a method other than GET and HEAD.
    #[must_use]
    pub fn moved(location: String, keeps_method: bool) -> Self {
        Self::empty(if keeps_method { 308 } else { 301 }).with_field("Location", location)
    }

    /// This is a registry (end-1).
    #[must_use]
    pub(crate) fn version() -> Self {
        Self::json(Bytes::from_static(b"{}"))
    }

    /// A JSON document of known length.
    #[must_use]
    pub fn json(document: Bytes) -> Self {
        Self::bytes(200, "application/json", document)
    }

    /// A JSON document that is written while it is sent.
    #[must_use]
    pub(crate) fn json_stream(document: ByteStream) -> Self {
        let mut response = Self::bare(200).with_field("Content-Type", "application/json");
        response.body = ResponseBody::Stream(document);
        response
    }

    /// A list of referrers (end-12), an image index.
    #[must_use]
    pub(crate) fn referrers(index: Vec<Bytes>, is_filtered: bool) -> Self {
        let body = match <[Bytes; 1]>::try_from(index) {
            Ok([index]) => ResponseBody::Bytes(index),
            Err(pieces) => ResponseBody::Pieces(pieces),
        };
        let response = Self::with_body(200, MediaType::OCI_INDEX, body);
        if is_filtered {
            response.with_field("OCI-Filters-Applied", "artifactType")
        } else {
            response
        }
    }

    /// A session continues, and has `length` bytes (end-4, end-5).
    #[must_use]
    pub(crate) fn upload_accepted(repository: &RepositoryName, id: UploadId, length: u64) -> Self {
        Self::empty(202).with_upload(repository, id, length)
    }

    /// A session has `length` bytes (end-13).
    #[must_use]
    pub(crate) fn upload_status(repository: &RepositoryName, id: UploadId, length: u64) -> Self {
        Self::empty(204).with_upload(repository, id, length)
    }

    /// A session was ended (end-14).
    #[must_use]
    pub(crate) fn upload_cancelled() -> Self {
        Self::empty(204)
    }

    fn with_upload(self, repository: &RepositoryName, id: UploadId, length: u64) -> Self {
        self.with_field("Location", upload_location(repository, id, length))
            .with_field("Range", upload_range(length))
            .with_field("Docker-Upload-UUID", id)
    }

    /// A blob was uploaded or mounted (end-4b, end-6, end-11).
    #[must_use]
    pub(crate) fn blob_created(repository: &RepositoryName, digest: &Digest) -> Self {
        Self::empty(201)
            .with_field("Location", blob_path(repository, digest))
            .with_field("Docker-Content-Digest", digest)
    }

    /// A manifest was pushed (end-7), with the tags of the parameter `tag`.
    #[must_use]
    pub(crate) fn manifest_created(
        repository: &RepositoryName,
        digest: &Digest,
        subject: Option<&Digest>,
        tags: &[Tag],
    ) -> Self {
        let path = manifest_path(repository, &Reference::Digest(digest.clone()));
        let mut response = Self::empty(201)
            .with_field("Location", path)
            .with_field("Docker-Content-Digest", digest);
        if let Some(subject) = subject {
            response = response.with_field("OCI-Subject", subject);
        }
        tags.iter()
            .fold(response, |response, tag| response.with_field("OCI-Tag", tag))
    }

    /// What tags named before.
    pub(crate) fn tag_history(repository: &RepositoryName, values: &[TagValue]) -> Result<Self, Error> {
        Ok(Self::json(history::write(repository, values)?.into()))
    }

    /// A tag was restored: what with it.
    pub(crate) fn tag_restored(repository: &RepositoryName, restored: &TagRestored) -> Result<Self, Error> {
        let document = serde_json::to_vec(restored).map_err(Error::internal)?;
        let path = manifest_path(repository, &Reference::Digest(restored.digest.clone()));
        Ok(Self::bytes(201, "application/json", document.into())
            .with_field("Location", path)
            .with_field("Docker-Content-Digest", &restored.digest))
    }

    /// A repository was deleted: what of it.
    pub(crate) fn repository_deleted(deleted: &RepositoryDeleted) -> Result<Self, Error> {
        let document = serde_json::to_vec(deleted).map_err(Error::internal)?;
        Ok(Self::bytes(202, "application/json", document.into()))
    }

    /// Content or a tag was deleted (end-9, end-10).
    #[must_use]
    pub(crate) fn deleted() -> Self {
        Self::empty(202)
    }
}

impl fmt::Debug for Response {
    /// Leaves out the `Location`, which may be a [`SignedUrl`](crate::storage::SignedUrl).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = self.fields.iter().filter(|(name, _)| *name != "Location");
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("fields", &fields.collect::<Vec<_>>())
            .field("body", &self.body)
            .field("error", &self.error)
            .field("event", &self.event)
            .finish()
    }
}

/// Returns the range of bytes that a session has.
pub(crate) fn upload_range(length: u64) -> String {
    // Zero bytes are written like one byte: clients refuse an end before the start.
    format!("0-{}", length.saturating_sub(1))
}

/// Returns the entity tag of content: its digest, quoted.
fn entity_tag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}
