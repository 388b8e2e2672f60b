//! Blobs and manifests.

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use core::ops::Range;

use super::{Malformed, ReceivedResponse, Requested, ResponseError, parse_number};
use crate::digest::{Algorithm, Digest};
use crate::media_type::MediaType;
use crate::reference::Reference;
use crate::request::Fields;

/// The header of a blob or of a part of it. The body is the content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceivedBlob {
    /// The registry's digest for the blob, otherwise the one that was requested. Compare the content with the one that was
    /// requested.
    pub digest: Digest,
    /// The size of the whole blob in bytes. `None` if the registry does not state it, or the body is encoded
    /// (`Content-Encoding`).
    pub size: Option<u64>,
    /// What the body is.
    pub part: BlobPart,
}

/// What of a blob a body is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobPart {
    /// The whole blob, also if ranges were requested: a registry may ignore them.
    Whole,
    /// These bytes, at least one.
    Range(Range<u64>),
    /// Several ranges as `multipart/byteranges` (RFC 9110, section 14.6). Each part has a field `Content-Range`, which
    /// [`BlobPart::parse_range`] reads.
    Multipart {
        /// What separates the parts, 1 to 70 characters.
        boundary: String,
    },
}

/// The header of a manifest. The body is the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceivedManifest {
    /// The digest that was requested; for a tag, the one that the registry states, if it does.
    pub digest: Option<Digest>,
    /// The type of the manifest. `None` if the registry states none, or one that is malformed: it is in the manifest.
    pub media_type: Option<MediaType>,
    /// The size of the manifest in bytes. `None` if the registry does not state it, or the body is encoded
    /// (`Content-Encoding`).
    pub size: Option<u64>,
}

impl BlobPart {
    /// Parses a field `Content-Range`. Returns the range, and the size of the whole in bytes if it is known; `None` if it
    /// is malformed, empty or beyond the size.
    #[must_use]
    pub fn parse_range(text: &str) -> Option<(Range<u64>, Option<u64>)> {
        let (range, size) = text.trim_ascii().strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last) = (parse_number(first)?, parse_number(last)?);
        let size = match size {
            "*" => None,
            size => Some(parse_number(size)?),
        };
        let is_valid = first <= last && size.is_none_or(|size| last < size);
        is_valid.then_some((first..last.checked_add(1)?, size))
    }
}

impl ReceivedManifest {
    /// Compares the bytes of the body with the header, and returns their digest: the one of the header, otherwise that of
    /// [`Algorithm::Sha256`].
    ///
    /// # Errors
    /// [`Malformed::OtherSize`], [`Malformed::OtherDigest`], [`Malformed::UnknownAlgorithm`].
    pub fn verify(&self, bytes: &[u8]) -> Result<Digest, Malformed> {
        if let Some(size) = self.size.filter(|size| *size != bytes.len() as u64) {
            return Err(Malformed::OtherSize(size));
        }
        let Some(expected) = &self.digest else {
            return Ok(Digest::of(Algorithm::Sha256, bytes));
        };
        let Some(algorithm) = expected.algorithm() else {
            return Err(Malformed::UnknownAlgorithm(expected.clone()));
        };
        let actual = Digest::of(algorithm, bytes);
        if actual == *expected {
            Ok(actual)
        } else {
            Err(Malformed::OtherDigest(actual))
        }
    }
}

impl<F: Fields> ReceivedResponse<'_, F> {
    /// Parses the header of the answer to [`Request::GetBlob`](crate::Request::GetBlob) or
    /// [`Request::HeadBlob`](crate::Request::HeadBlob) of the blob `digest`.
    ///
    /// # Errors
    /// [`ResponseError`], in particular a redirect to where the content is; [`Refusal::size`](super::Refusal::size) is that
    /// of the blob if it has none of the requested ranges. [`Malformed::OtherDigest`] if the registry states another digest
    /// of the same algorithm; [`Malformed::Field`] if a part does not state which it is.
    pub fn blob(&self, digest: &Digest) -> Result<ReceivedBlob, ResponseError> {
        self.expect(&[200, 206], Requested::Blob)?;
        let (part, size) = if self.status == 200 {
            (BlobPart::Whole, self.content_length())
        } else {
            self.part()?
        };
        Ok(ReceivedBlob {
            digest: self.digest_of(digest)?,
            size,
            part,
        })
    }

    /// Parses the header of the answer to [`Request::GetManifest`](crate::Request::GetManifest) or
    /// [`Request::HeadManifest`](crate::Request::HeadManifest) of the manifest `reference`. [`ReceivedManifest::verify`]
    /// checks the body.
    ///
    /// # Errors
    /// [`ResponseError`]; [`Malformed::OtherDigest`] if the registry states another digest than the one that was requested,
    /// of the same algorithm.
    pub fn manifest(&self, reference: &Reference) -> Result<ReceivedManifest, ResponseError> {
        self.expect(&[200], Requested::Manifest)?;
        let digest = match reference {
            Reference::Tag(_) => self.digest(),
            Reference::Digest(digest) => {
                self.digest_of(digest)?;
                Some(digest.clone())
            }
        };
        let media_type = self.field("Content-Type");
        Ok(ReceivedManifest {
            digest,
            media_type: media_type.and_then(|text| text.parse().ok()),
            size: self.content_length(),
        })
    }

    fn part(&self) -> Result<(BlobPart, Option<u64>), Malformed> {
        if let Some(range) = self.field("Content-Range") {
            let (range, size) = BlobPart::parse_range(&range).ok_or(Malformed::Field("Content-Range"))?;
            return Ok((BlobPart::Range(range), size));
        }
        let content_type = self.field("Content-Type").unwrap_or_default();
        let boundary = boundary(&content_type).ok_or(Malformed::Field("Content-Range"))?;
        Ok((BlobPart::Multipart { boundary }, None))
    }

    /// Returns the size of the body, if it is the content's as well.
    fn content_length(&self) -> Option<u64> {
        let encoding = self.field("Content-Encoding");
        let is_encoded =
            encoding.is_some_and(|encoding| !encoding.trim_ascii().eq_ignore_ascii_case("identity"));
        self.number("Content-Length").filter(|_| !is_encoded)
    }
}

/// Returns the boundary of a `multipart/byteranges`.
fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim_ascii().eq_ignore_ascii_case("multipart/byteranges") {
        return None;
    }
    let boundary = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.trim_ascii().split_once('=')?;
        name.eq_ignore_ascii_case("boundary").then_some(value)
    })?;
    let quoted = boundary.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let boundary = quoted.unwrap_or(boundary);
    (1..=70).contains(&boundary.len()).then(|| boundary.to_owned())
}
