//! Responses that report an error.

use alloc::borrow::ToOwned as _;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use serde_json::Value;

use super::{ReceivedResponse, Requested, UploadSession, parse_number};
use crate::challenge::Challenge;
use crate::error::ErrorCode;
use crate::printable::{Printable, shortened};
use crate::request::Fields;
use crate::time::Timestamp;

/// The maximum number of bytes of a foreign message that are displayed.
const MESSAGE_BYTES: usize = 300;

/// A response that refuses a request, or reports that the registry failed (400 to 599).
///
/// It displays as one line of text without control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The errors of the body, in their order; empty if it is no document of errors: after `HEAD`, or of a proxy.
    pub errors: Vec<ReportedError>,
    /// When the request may be repeated (`Retry-After`).
    pub retry_after: Option<RetryAfter>,
    /// The credentials that would help (`WWW-Authenticate`).
    pub challenges: Vec<Challenge>,
    /// The methods of the path (`Allow`), if the registry states them.
    pub allowed_methods: Option<String>,
    /// The size in bytes of the blob that has none of the requested ranges, if the registry states it.
    pub size: Option<u64>,
    /// The session as it is, if a chunk does not begin at its end and the registry states where that is. Its offset is 0
    /// for `0-0`, which registries write for no bytes and for one.
    pub upload: Option<UploadSession>,
    /// What the status means if no error has a code.
    fallback: Option<ErrorCode>,
}

/// An error in the body of a response (distribution-spec, "Error Codes").
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReportedError {
    /// The code; `None` if it is not one of the specification.
    pub code: Option<ErrorCode>,
    /// The code as it was sent; empty if there is none.
    pub code_text: String,
    /// The message for a person; empty if there is none.
    pub message: String,
    /// The detail, as JSON.
    pub detail: Option<String>,
}

/// When a request may be repeated (RFC 9110, section 10.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// After this time, at most [`u32::MAX`] seconds.
    Delay(Duration),
    /// At this time.
    At(Timestamp),
}

impl RetryAfter {
    /// Parses the value of a field; `None` if it is neither a number of seconds nor a date.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_ascii();
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let seconds = text.parse().unwrap_or(u32::MAX);
            return Some(Self::Delay(Duration::from_secs(seconds.into())));
        }
        Timestamp::from_http_date(text).map(Self::At)
    }

    /// Returns how long to wait from `now` on. It is the registry's wish, and may be longer than a client wants to wait.
    #[must_use]
    pub const fn delay(self, now: Timestamp) -> Duration {
        match self {
            Self::Delay(delay) => delay,
            Self::At(time) => time.since(now),
        }
    }
}

impl Refusal {
    /// Returns the code of the first error that has one of the specification; otherwise, what the status means for the
    /// request, if that is clear.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        self.errors.iter().find_map(|error| error.code).or(self.fallback)
    }

    /// Returns whether the same request may succeed later: the client sent too many, or the registry or a proxy in front of
    /// it is busy or out of order (408, 429, 502, 503, 504).
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(self.status, 408 | 429 | 502..=504)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the registry answered {}", self.status)?;
        let Some(error) = self.errors.first() else {
            return match self.fallback {
                Some(code) => write!(f, ": {}", code.text()),
                None => Ok(()),
            };
        };
        for text in [&error.code_text, &error.message] {
            if !text.is_empty() {
                write!(f, ": {}", Printable(&shortened(text, MESSAGE_BYTES)))?;
            }
        }
        Ok(())
    }
}

impl core::error::Error for Refusal {}

impl<F: Fields> ReceivedResponse<'_, F> {
    pub(super) fn refusal(&self, requested: Requested) -> Refusal {
        let challenges = self.field("WWW-Authenticate");
        let retry_after = self.field("Retry-After");
        let is_range = self.status == 416;
        Refusal {
            status: self.status,
            errors: self.errors(),
            retry_after: retry_after.and_then(|text| RetryAfter::parse(&text)),
            challenges: challenges.map_or_else(Vec::new, |text| Challenge::parse_all(&text)),
            allowed_methods: self.field("Allow").map(String::from),
            size: self.unsatisfied_size().filter(|_| is_range),
            upload: self.session().filter(|_| is_range),
            fallback: meaning(self.status, requested),
        }
    }

    /// Returns the size in `Content-Range: bytes */SIZE`.
    fn unsatisfied_size(&self) -> Option<u64> {
        let field = self.field("Content-Range")?;
        parse_number(
            field
                .trim_ascii()
                .strip_prefix("bytes")?
                .trim_ascii()
                .strip_prefix("*/")?,
        )
    }

    /// Returns the session that a refused chunk was meant for.
    fn session(&self) -> Option<UploadSession> {
        Some(UploadSession {
            location: self.location()?,
            offset: self
                .session_length()
                .map(|length| if length == 1 { 0 } else { length })?,
            minimum_chunk: None,
        })
    }

    fn errors(&self) -> Vec<ReportedError> {
        if self.body.len() > Self::MAXIMUM_ERROR_BYTES {
            return Vec::new();
        }
        let document: Value = serde_json::from_slice(self.body).unwrap_or_default();
        let errors = document.get("errors").and_then(Value::as_array);
        errors
            .into_iter()
            .flatten()
            .map(|error| self.reported(error))
            .collect()
    }

    fn reported(&self, error: &Value) -> ReportedError {
        let text = |key| {
            let text = error.get(key).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let code_text = text("code");
        let detail = error.get("detail").filter(|detail| !detail.is_null());
        ReportedError {
            code: ErrorCode::from_response(self.status, &code_text),
            code_text,
            message: text("message"),
            detail: detail.map(Value::to_string),
        }
    }
}

/// Returns what a status without a code means.
const fn meaning(status: u16, requested: Requested) -> Option<ErrorCode> {
    Some(match status {
        401 => ErrorCode::Unauthorized,
        403 => ErrorCode::Denied,
        // 410 is what some registries say of a repository that was deleted.
        404 | 410 => requested.if_not_found(),
        405 => ErrorCode::MethodNotAllowed,
        408 => ErrorCode::RequestTimeout,
        412 => ErrorCode::PreconditionFailed,
        413 => ErrorCode::ManifestTooLarge,
        414 => ErrorCode::TargetTooLong,
        416 => match requested {
            Requested::Upload => ErrorCode::RangeInvalid,
            _ => ErrorCode::RangeNotSatisfiable,
        },
        429 => ErrorCode::TooManyRequests,
        500 => ErrorCode::Internal,
        502..=504 => ErrorCode::Unavailable,
        507 => ErrorCode::StorageFull,
        _ => return None,
    })
}
