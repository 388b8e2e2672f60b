//! Responses that report an error.

use alloc::borrow::ToOwned as _;

use bytes::Bytes;
use serde::Serialize;

use super::Response;
use crate::error::{Error, ErrorCode};

/// After how many seconds a client that sent too many requests, or at a bad time, may retry, unless the error says.
const RETRY_AFTER: &str = "1";

/// The error document of distribution-spec, "Error Codes".
#[derive(Serialize)]
struct Document<'a> {
    errors: [Entry<'a>; 1],
}

#[derive(Serialize)]
struct Entry<'a> {
    code: &'static str,
    message: &'a str,
}

impl From<Error> for Response {
    fn from(error: Error) -> Self {
        let document = Document {
            errors: [Entry {
                code: error.code().as_str(),
                message: error.message(),
            }],
        };
        // Two texts can always be serialized.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Self::bytes(error.code().status(), "application/json", Bytes::from(body));
        response.fields.extend_from_slice(error.fields());
        let is_temporary = matches!(error.code(), ErrorCode::TooManyRequests | ErrorCode::Unavailable);
        if is_temporary && response.field("Retry-After").is_none() {
            response.fields.push(("Retry-After", RETRY_AFTER.to_owned()));
        }
        response.error = Some(error);
        response
    }
}
