//! Responses with a blob or a manifest.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use super::body::content_range;
use super::{Multipart, Response, ResponseBody, entity_tag};
use crate::digest::Digest;
use crate::error::{Error, ErrorCode};
use crate::media_type::MediaType;
use crate::name::RepositoryName;
use crate::range::{RangeHeader, Selection};
use crate::reference::Reference;
use crate::request::{EntityTags, blob_path};
use crate::storage::{Blob, Manifest, SignedUrl};

/// The content of a digest never changes, but only clients that may read it may cache it.
const IMMUTABLE: &str = "private, max-age=31536000, immutable";

/// The content of a tag may change at any time, so clients revalidate it each time, with `If-None-Match`.
const CHANGING: &str = "private, no-cache";

impl Response {
    /// A blob or parts of it (end-2): 200, 206, 304 if the client has it, or 416.
    #[must_use]
    pub(crate) fn blob(
        repository: &RepositoryName,
        digest: &Digest,
        blob: &Blob,
        range: Option<&RangeHeader>,
        if_none_match: Option<&EntityTags>,
    ) -> Self {
        if if_none_match.is_some_and(|tags| tags.matches(digest)) {
            return Self::not_modified(digest, IMMUTABLE);
        }
        let selection = range.map_or(Selection::Whole, |range| range.resolve(blob.size));
        match selection {
            Selection::Whole => {
                let mut response = Self::whole_blob(repository, digest, blob.size);
                response.body = ResponseBody::Blob {
                    content: Arc::clone(&blob.content),
                    range: 0..blob.size,
                };
                response
            }
            Selection::Parts(parts) => match parts.as_slice() {
                [part] => Self::one_part(digest, blob, part.clone()),
                _ => Self::several_parts(digest, blob, parts),
            },
            Selection::NotSatisfiable => Self::no_part(ErrorCode::RangeNotSatisfiable.into(), blob),
            Selection::TooManyParts => {
                let message = format!(
                    "At most {} ranges may be asked for at once.",
                    RangeHeader::MAXIMUM_PARTS
                );
                Self::no_part(Error::new(ErrorCode::RangeNotSatisfiable, message), blob)
            }
        }
    }

    /// A blob or a part of it is to be read at `url`: 307.
    #[must_use]
    pub(crate) fn blob_redirect(digest: &Digest, url: &SignedUrl) -> Self {
        // A client that uses the answer again must have time to use the URL, and the keys of the storage may expire before it.
        let age = url.lifetime().as_secs() / 4;
        Self::empty(307)
            .with_field("Location", url.reveal())
            .with_field("Docker-Content-Digest", digest)
            .with_field("Cache-Control", format!("private, max-age={age}"))
    }

    fn no_part(error: Error, blob: &Blob) -> Self {
        error
            .with_field("Content-Range", format!("bytes */{}", blob.size))
            .into()
    }

    /// The header of a blob of `size` bytes (end-2).
    #[must_use]
    pub(crate) fn blob_head(
        repository: &RepositoryName,
        digest: &Digest,
        size: u64,
        if_none_match: Option<&EntityTags>,
    ) -> Self {
        if if_none_match.is_some_and(|tags| tags.matches(digest)) {
            return Self::not_modified(digest, IMMUTABLE);
        }
        Self::whole_blob(repository, digest, size)
    }

    /// A manifest that was requested by `reference` (end-3): 200, or 304 if the client has it.
    #[must_use]
    pub(crate) fn manifest(
        reference: &Reference,
        manifest: &Manifest,
        if_none_match: Option<&EntityTags>,
    ) -> Self {
        let caching = match reference {
            Reference::Tag(_) => CHANGING,
            Reference::Digest(_) => IMMUTABLE,
        };
        if if_none_match.is_some_and(|tags| tags.matches(&manifest.digest)) {
            return Self::not_modified(&manifest.digest, caching);
        }
        Self::bytes(200, manifest.media_type.as_str(), manifest.bytes.clone())
            .with_identity(&manifest.digest, caching)
    }

    fn not_modified(digest: &Digest, caching: &'static str) -> Self {
        Self::empty(304).with_identity(digest, caching)
    }

    fn with_identity(self, digest: &Digest, caching: &'static str) -> Self {
        self.with_field("Docker-Content-Digest", digest)
            .with_field("ETag", entity_tag(digest))
            .with_field("Cache-Control", caching)
    }

    fn whole_blob(repository: &RepositoryName, digest: &Digest, size: u64) -> Self {
        Self::bare(200)
            .with_field("Content-Type", MediaType::OCTET_STREAM)
            .with_field("Content-Length", size)
            .with_field("Accept-Ranges", "bytes")
            // Some clients require a location to read from.
            .with_field("Location", blob_path(repository, digest))
            .with_identity(digest, IMMUTABLE)
    }

    fn one_part(digest: &Digest, blob: &Blob, part: Range<u64>) -> Self {
        let mut response = Self::bare(206)
            .with_field("Content-Type", MediaType::OCTET_STREAM)
            .with_field("Content-Length", part.end.saturating_sub(part.start))
            .with_field("Content-Range", content_range(&part, blob.size))
            .with_field("Accept-Ranges", "bytes")
            .with_identity(digest, IMMUTABLE);
        response.body = ResponseBody::Blob {
            content: Arc::clone(&blob.content),
            range: part,
        };
        response
    }

    /// Several parts as `multipart/byteranges` (RFC 9110, section 14.6).
    fn several_parts(digest: &Digest, blob: &Blob, parts: Vec<Range<u64>>) -> Self {
        let parts = Multipart::new(parts, blob.size, digest);
        let mut response = Self::bare(206)
            .with_field("Content-Type", parts.content_type())
            .with_field("Content-Length", parts.length())
            .with_field("Accept-Ranges", "bytes")
            .with_identity(digest, IMMUTABLE);
        response.body = ResponseBody::Multipart {
            content: Arc::clone(&blob.content),
            parts,
        };
        response
    }
}
