//! Responses as clients receive them: the counterpart of [`Response`](super::Response).
//!
//! A client builds a [`Request`](crate::Request), sends it, and passes the status, the header fields and the body to a
//! [`ReceivedResponse`]. That has one method for each endpoint, which returns what the response says, or a
//! [`ResponseError`].
//!
//! Other registries, and proxies in front of them, answer in ways that no specification has. What clients have to accept
//! is accepted, and each method states what that is.

mod content;
mod created;
mod error;
mod location;
mod page;
mod refusal;
#[cfg(test)]
mod tests;
mod upload;

use alloc::borrow::Cow;
use alloc::boxed::Box;

pub use self::content::{BlobPart, ReceivedBlob, ReceivedManifest};
pub use self::created::{Created, PostedBlob};
pub use self::error::{Malformed, ResponseError};
pub use self::location::Location;
pub use self::page::ReceivedPage;
pub use self::refusal::{Refusal, ReportedError, RetryAfter};
pub use self::upload::UploadSession;
use crate::digest::Digest;
use crate::error::ErrorCode;
use crate::request::Fields;
use crate::storage::{RepositoryDeleted, TagRestored};

/// A response as a client received it.
///
/// Each method is for one endpoint: call the one for the request that was sent. Redirects are reported, not followed; the
/// response at the end of them is parsed like any other.
///
/// ```
/// use registry_core::response::{ReceivedResponse, ResponseError};
/// use registry_core::{Digest, ErrorCode};
///
/// let digest: Digest = format!("sha256:{}", "0".repeat(64)).parse()?;
/// // Of another registry, without `Docker-Content-Digest`.
/// let fields = [("Content-Length", "32")];
/// let blob = ReceivedResponse::new(200, &fields[..], b"").blob(&digest)?;
/// assert_eq!((blob.digest, blob.size), (digest.clone(), Some(32)));
///
/// // Of a proxy.
/// let response = ReceivedResponse::new(404, &fields[..], b"<html>Not found</html>");
/// let Err(ResponseError::Refused(refusal)) = response.blob(&digest) else { unreachable!() };
/// assert_eq!(refusal.code(), Some(ErrorCode::BlobUnknown));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ReceivedResponse<'a, F> {
    status: u16,
    fields: F,
    body: &'a [u8],
}

/// What was requested, which decides what a status without an error code means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Requested {
    Registry,
    Repository,
    Blob,
    Manifest,
    Upload,
}

impl Requested {
    /// Returns what 404 means.
    const fn if_not_found(self) -> ErrorCode {
        match self {
            Self::Registry => ErrorCode::PathUnknown,
            Self::Repository => ErrorCode::NameUnknown,
            Self::Blob => ErrorCode::BlobUnknown,
            Self::Manifest => ErrorCode::ManifestUnknown,
            Self::Upload => ErrorCode::BlobUploadUnknown,
        }
    }
}

/// The statuses of something that was created. 201 is the specification's; containerd accepts the others as well.
const CREATED: &[u16] = &[201, 200, 204];

/// The statuses of something that was deleted. 202 is the specification's, and 204 for an upload session.
const DELETED: &[u16] = &[202, 204, 200];

impl<'a, F: Fields> ReceivedResponse<'a, F> {
    /// The maximum size in bytes of a list that is parsed. A client need not read more of a body.
    pub const MAXIMUM_LIST_BYTES: usize = 64 << 20;

    /// The maximum size in bytes of a document of errors that is parsed. A client need not read more of the body of a
    /// response whose status is at least 300.
    pub const MAXIMUM_ERROR_BYTES: usize = 64 << 10;

    /// Takes a response. `body` is that of a list or an error; all other bodies are content and not parsed, so an empty
    /// slice may take their place.
    #[must_use]
    pub const fn new(status: u16, fields: F, body: &'a [u8]) -> Self {
        Self { status, fields, body }
    }

    /// Parses the answer to [`Request::Version`](crate::Request::Version): this is a registry, and the client is logged
    /// in. Any body is accepted.
    ///
    /// # Errors
    /// [`ResponseError`], in particular with [`Refusal::challenges`] if credentials are needed.
    pub fn version(&self) -> Result<(), ResponseError> {
        self.expect(&[200], Requested::Registry)
    }

    /// Parses the answer to [`Request::DeleteManifest`](crate::Request::DeleteManifest). 200 and 204 are accepted like
    /// 202.
    ///
    /// # Errors
    /// [`ResponseError`].
    pub fn manifest_deleted(&self) -> Result<(), ResponseError> {
        self.expect(DELETED, Requested::Manifest)
    }

    /// Parses the answer to [`Request::DeleteBlob`](crate::Request::DeleteBlob). 200 and 204 are accepted like 202.
    ///
    /// # Errors
    /// [`ResponseError`].
    pub fn blob_deleted(&self) -> Result<(), ResponseError> {
        self.expect(DELETED, Requested::Blob)
    }

    /// Parses the answer to [`Request::DeleteRepository`](crate::Request::DeleteRepository). Something of the repository may
    /// be [left](RepositoryDeleted::is_gone).
    ///
    /// # Errors
    /// [`ResponseError`]; [`Malformed::Body`].
    pub fn repository_deleted(&self) -> Result<RepositoryDeleted, ResponseError> {
        self.expect(&[202], Requested::Repository)?;
        let document = serde_json::from_slice(self.body).ok();
        document.ok_or(ResponseError::Malformed(Malformed::Body))
    }

    /// Parses the answer to [`Request::RestoreTag`](crate::Request::RestoreTag).
    ///
    /// # Errors
    /// [`ResponseError`]; [`Malformed::Body`].
    pub fn tag_restored(&self) -> Result<TagRestored, ResponseError> {
        self.expect(&[201], Requested::Manifest)?;
        let document = serde_json::from_slice(self.body).ok();
        document.ok_or(ResponseError::Malformed(Malformed::Body))
    }

    /// Parses the answer to [`UploadSession::cancel`]. 200 and 202 are accepted like 204.
    ///
    /// # Errors
    /// [`ResponseError`].
    pub fn upload_cancelled(&self) -> Result<(), ResponseError> {
        self.expect(DELETED, Requested::Upload)
    }

    /// Returns an error unless the status is one of `statuses`.
    fn expect(&self, statuses: &[u16], requested: Requested) -> Result<(), ResponseError> {
        match self.status {
            status if statuses.contains(&status) => Ok(()),
            304 => Err(ResponseError::NotModified {
                digest: self.digest().or_else(|| self.entity_tag()),
            }),
            301 | 302 | 303 | 307 | 308 => Err(ResponseError::Redirect {
                location: self.location().ok_or(Malformed::Field("Location"))?,
                keeps_method: matches!(self.status, 307 | 308),
            }),
            400..600 => Err(ResponseError::Refused(Box::new(self.refusal(requested)))),
            status => Err(Malformed::Status(status).into()),
        }
    }

    fn field(&self, name: &str) -> Option<Cow<'_, str>> {
        self.fields.field(name)
    }

    /// Returns a field that is a number.
    fn number(&self, name: &str) -> Option<u64> {
        parse_number(&self.field(name)?)
    }

    fn location(&self) -> Option<Location> {
        Location::parse(&self.field("Location")?)
    }

    /// Returns the digest that the registry states; `None` also for one that is malformed.
    fn digest(&self) -> Option<Digest> {
        self.field("Docker-Content-Digest")?.trim_ascii().parse().ok()
    }

    /// Returns the digest that the registry states for content that has the digest `known`.
    ///
    /// A digest of another algorithm is accepted: a registry may know the content by that one.
    fn digest_of(&self, known: &Digest) -> Result<Digest, Malformed> {
        match self.digest() {
            Some(stated) if stated != *known && stated.parts().0 == known.parts().0 => {
                Err(Malformed::OtherDigest(stated))
            }
            Some(stated) => Ok(stated),
            None => Ok(known.clone()),
        }
    }

    /// Returns the entity tag if it is a digest, as that of this registry is.
    fn entity_tag(&self) -> Option<Digest> {
        let field = self.field("ETag")?;
        let tag = field.trim_ascii();
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        tag.trim_matches('"').parse().ok()
    }
}

/// Parses a number of at most 64 bits, in digits.
fn parse_number(text: &str) -> Option<u64> {
    let text = text.trim_ascii();
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}
