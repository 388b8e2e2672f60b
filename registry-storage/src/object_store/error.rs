//! What the errors of an object store mean for a registry.

use registry_core::{Error, ErrorCode};

/// Converts the error of a failed request: one that may pass by itself is [`Unavailable`](ErrorCode::Unavailable).
pub(super) fn convert(error: object_store::Error) -> Error {
    let code = code(&error);
    Error::from(code).with_cause(error)
}

/// Returns whether the request may have had an effect although it failed.
pub(super) fn may_have_happened(error: &object_store::Error) -> bool {
    code(error) == ErrorCode::Unavailable
}

fn code(error: &object_store::Error) -> ErrorCode {
    match error {
        // Some stores answer 409 when conditional writes collide.
        object_store::Error::AlreadyExists { .. } => ErrorCode::Unavailable,
        object_store::Error::Generic { source, .. } => chain(&**source)
            .find_map(code_of_cause)
            .unwrap_or(ErrorCode::Internal),
        _ => ErrorCode::Internal,
    }
}

fn code_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<ErrorCode> {
    if cause.is::<tokio::time::error::Elapsed>() {
        return Some(ErrorCode::Unavailable);
    }
    #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
    if cause.is::<object_store::client::HttpError>() {
        return Some(ErrorCode::Unavailable);
    }
    // The type that holds the status is private to the library, so only its text can be examined.
    let text = cause.to_string();
    if text.starts_with("Server returned error response") {
        return Some(ErrorCode::Unavailable);
    }
    let (_, status) = text.split_once("Server returned non-2xx status code: ")?;
    match status.get(..3)? {
        "408" | "409" | "429" | "500" | "502" | "503" | "504" => Some(ErrorCode::Unavailable),
        "507" => Some(ErrorCode::StorageFull),
        _ => Some(ErrorCode::Internal),
    }
}

/// Returns whether the parts of an upload differ from those in the list of parts.
pub(super) fn names_bad_part(error: &object_store::Error) -> bool {
    match error {
        object_store::Error::Precondition { .. } => true,
        object_store::Error::Generic { source, .. } => {
            let text = source.to_string();
            BAD_PART.iter().any(|code| text.contains(code))
        }
        _ => false,
    }
}

/// The codes of S3 and GCS (the first three) and Azure for such parts.
const BAD_PART: [&str; 4] = [
    "InvalidPart",
    "InvalidPartOrder",
    "EntityTooSmall",
    "InvalidBlockList",
];

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}
