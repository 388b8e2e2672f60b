//! Responses that do not have what was requested.

use alloc::boxed::Box;

use super::{Location, Refusal};
use crate::digest::Digest;

/// Why a response does not have what was requested.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// The client has the content already (304).
    #[error("the content is not modified")]
    NotModified {
        /// The digest of the content, if the registry states it.
        digest: Option<Digest>,
    },
    /// What was requested is elsewhere (301, 302, 303, 307, 308).
    #[error("the registry redirects to {location}")]
    Redirect {
        /// Where it is.
        location: Location,
        /// Whether the request must be repeated there with its method and body (307, 308). Otherwise, clients follow
        /// with GET, or with HEAD if that was the method.
        keeps_method: bool,
    },
    /// The registry refused the request or failed (400 to 599).
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// The response is none that a registry may give.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// What is wrong with a response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// No response to the request has this status.
    #[error("the status {0} does not answer the request")]
    Status(u16),
    /// A required field is missing or malformed, or contradicts the request.
    #[error("the field {0} of the response is missing or wrong")]
    Field(&'static str),
    /// The body is not the document that the endpoint returns, or is larger than
    /// [`MAXIMUM_LIST_BYTES`](super::ReceivedResponse::MAXIMUM_LIST_BYTES).
    #[error("the body of the response is not the list that was requested")]
    Body,
    /// The content has another size than the response states, which is given in bytes.
    #[error("the content does not have the {0} bytes that the response states")]
    OtherSize(u64),
    /// The content has this digest, or the registry states it, instead of the one of the request.
    #[error("the content has the digest {0}, which is not the one that was requested")]
    OtherDigest(Digest),
    /// The content has a digest of an algorithm that is not computed here.
    #[error("the content cannot be compared with the digest {0}")]
    UnknownAlgorithm(Digest),
}
