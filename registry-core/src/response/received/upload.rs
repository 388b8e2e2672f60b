//! Upload sessions.

use alloc::string::{String, ToString as _};
use alloc::vec;

use super::{Location, Malformed, ReceivedResponse, Requested, ResponseError};
use crate::digest::Digest;
use crate::media_type::MediaType;
use crate::range::ContentRange;
use crate::request::{Fields, RequestParts};

/// An upload session as its client knows it.
///
/// Its URL is the registry's own choice, and may be another one after each request, so the requests to it are built here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UploadSession {
    /// Where the session continues.
    pub location: Location,
    /// How many bytes the session has, which is where the next chunk begins.
    pub offset: u64,
    /// The minimum length in bytes of each chunk but the last, if the registry has one (`OCI-Chunk-Min-Length`).
    pub minimum_chunk: Option<u64>,
}

impl UploadSession {
    /// Builds the request that appends a chunk of `length` bytes, at least 1, at the [offset](Self::offset). With `None`,
    /// the length is not known before the end, and the session takes what comes.
    #[must_use]
    pub fn append(&self, length: Option<u64>) -> RequestParts {
        self.send_chunk("PATCH", self.location.to_string(), length)
    }

    /// Builds the request that appends the last chunk, of `length` bytes, and makes all bytes the blob `digest`. 0 means
    /// that all bytes were sent before, and `None` that the length is not known before the end.
    #[must_use]
    pub fn finish(&self, digest: &Digest, length: Option<u64>) -> RequestParts {
        let target = self.location.with_parameter("digest", digest.as_str());
        self.send_chunk("PUT", target, length)
    }

    /// Builds the request for the number of bytes that the session has.
    #[must_use]
    pub fn status(&self) -> RequestParts {
        self.without_body("GET")
    }

    /// Builds the request that ends the session without a blob.
    #[must_use]
    pub fn cancel(&self) -> RequestParts {
        self.without_body("DELETE")
    }

    fn without_body(&self, method: &'static str) -> RequestParts {
        RequestParts {
            method,
            target: self.location.to_string(),
            fields: vec![],
        }
    }

    fn send_chunk(&self, method: &'static str, target: String, length: Option<u64>) -> RequestParts {
        let mut fields = vec![("Content-Type", MediaType::OCTET_STREAM.to_string())];
        if let Some(length) = length {
            let end = self.offset.checked_add(length).and_then(|end| end.checked_sub(1));
            let range = end.and_then(|end| ContentRange::new(self.offset, end));
            fields.extend(range.map(|range| ("Content-Range", range.to_string())));
            fields.push(("Content-Length", length.to_string()));
        }
        RequestParts {
            method,
            target,
            fields,
        }
    }
}

impl<F: Fields> ReceivedResponse<'_, F> {
    /// Parses the answer to [`Request::StartUpload`](crate::Request::StartUpload). 201 and 204 are accepted like 202.
    ///
    /// # Errors
    /// [`ResponseError`]; [`Malformed::Field`] without a `Location`.
    pub fn upload_started(&self) -> Result<UploadSession, ResponseError> {
        self.expect(&[202, 201, 204], Requested::Repository)?;
        Ok(UploadSession {
            location: self.location().ok_or(Malformed::Field("Location"))?,
            offset: 0,
            minimum_chunk: self.number("OCI-Chunk-Min-Length"),
        })
    }

    /// Parses the answer to [`UploadSession::append`] of `session`, of which `sent` bytes were sent in all, this chunk
    /// included.
    ///
    /// The offset is that of the field `Range`, which is less than `sent` if the registry did not take everything. Without
    /// a `Range`, everything was taken; without a `Location`, the session continues where it was. `0-0` means one byte only
    /// if one was sent, because registries write it for none too. 200, 201 and 204 are accepted like 202.
    ///
    /// # Errors
    /// [`ResponseError`]; [`Malformed::Field`] if the registry claims to have more bytes than were sent.
    /// [`Refusal::upload`](super::Refusal::upload) is the session as it is, if the chunk does not begin at its end.
    pub fn chunk_accepted(&self, session: &UploadSession, sent: u64) -> Result<UploadSession, ResponseError> {
        self.expect(&[202, 201, 204, 200], Requested::Upload)?;
        let offset = self.offset(sent)?.unwrap_or(sent);
        Ok(self.continued(session, offset))
    }

    /// Parses the answer to [`UploadSession::status`] of `session`, of which at most `sent` bytes were sent in all.
    ///
    /// `0-0` means one byte only if one was sent, because registries write it for none too. 200 and 202 are accepted like
    /// 204.
    ///
    /// # Errors
    /// [`ResponseError`]; [`Malformed::Field`] without a `Range`, or if the registry claims to have more bytes than were
    /// sent.
    pub fn upload_status(&self, session: &UploadSession, sent: u64) -> Result<UploadSession, ResponseError> {
        self.expect(&[204, 202, 200], Requested::Upload)?;
        let offset = self.offset(sent)?.ok_or(Malformed::Field("Range"))?;
        Ok(self.continued(session, offset))
    }

    fn continued(&self, session: &UploadSession, offset: u64) -> UploadSession {
        UploadSession {
            location: self.location().unwrap_or_else(|| session.location.clone()),
            offset,
            minimum_chunk: self.number("OCI-Chunk-Min-Length").or(session.minimum_chunk),
        }
    }

    /// Returns how many bytes a session has, of the `sent` that it has at most; `None` if the registry does not state it.
    fn offset(&self, sent: u64) -> Result<Option<u64>, Malformed> {
        let Some(length) = self.session_length() else {
            return Ok(None);
        };
        let offset = if length == 1 && sent != 1 { 0 } else { length };
        if offset > sent {
            return Err(Malformed::Field("Range"));
        }
        Ok(Some(offset))
    }

    /// Returns the number of bytes according to the field `Range` of a session: `0-99`, or `bytes=0-99`, is 100. Both `0-0`
    /// and `0--1`, which some registries write for no bytes, count as 1.
    pub(super) fn session_length(&self) -> Option<u64> {
        let field = self.field("Range")?;
        let range = field.trim_ascii();
        let range = range.strip_prefix("bytes=").unwrap_or(range);
        let end = range.strip_prefix("0-")?;
        match end {
            "-1" => Some(1),
            _ => super::parse_number(end)?.checked_add(1),
        }
    }
}
