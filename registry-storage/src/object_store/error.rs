//! What the errors of an object store mean for a registry, and for the person who reads them.

use std::fmt;

use registry_core::printable::{shortened, with_causes};
use registry_core::{Error, ErrorCode};

use super::answer::Answer;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
use super::connection::ConnectionFailure;

/// How many parts of an upload each store takes.
const FEWEST_PARTS: usize = 1000;

/// Converts the error of a failed request. Its cause is one line that says what failed, where, why, and what to do.
///
/// One that may pass by itself is [`Unavailable`](ErrorCode::Unavailable), and so is that a bucket is not there.
pub(super) fn convert(error: object_store::Error) -> Error {
    let failure = StoreFailure::of(&error);
    let converted = match failure.nature() {
        Nature::Passing if failure.is_busy() => Error::from(ErrorCode::Unavailable),
        Nature::Passing => Error::new(
            ErrorCode::Unavailable,
            "The registry cannot use its storage just now; try again.",
        ),
        Nature::Outage | Nature::Misconfigured => Error::new(
            ErrorCode::Unavailable,
            "The registry cannot use its storage; its log says why.",
        ),
        Nature::Full => Error::from(ErrorCode::StorageFull),
        Nature::Lasting => Error::from(ErrorCode::Internal),
    };
    converted.with_cause(failure)
}

/// Returns the one line that says what failed, to be the cause of an error.
pub(super) fn failure(error: &object_store::Error) -> impl std::error::Error + Send + Sync + 'static {
    StoreFailure::of(error)
}

/// Returns whether a failure of a store waits for somebody who corrects an access key, a right or an address.
pub(super) fn is_misconfiguration(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<StoreFailure>());
    cause.is_some_and(|failure| failure.nature() == Nature::Misconfigured)
}

/// Returns whether the request may have had an effect although it failed.
pub(super) fn may_have_happened(error: &object_store::Error) -> bool {
    StoreFailure::of(error).nature() == Nature::Passing
}

/// Returns whether the object does not exist. The answer to a `HEAD` cannot say that: it is 404 for whatever is not
/// there, such as the bucket.
pub(super) fn is_absent(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. })
        && Answer::of(error).is_none_or(|answer| answer.names_absent_object())
}

/// Returns whether the upload was completed or aborted, or never begun.
pub(super) fn is_absent_upload(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. })
        && Answer::of(error).is_none_or(|answer| answer.names_absent_upload())
}

/// Returns whether the parts of an upload differ from those in the list of parts.
pub(super) fn names_bad_part(error: &object_store::Error) -> bool {
    // The codes of S3 and GCS (the first three) and Azure.
    let is_bad = |code: &str| {
        matches!(
            code,
            "InvalidPart" | "InvalidPartOrder" | "EntityTooSmall" | "InvalidBlockList"
        )
    };
    matches!(error, object_store::Error::Precondition { .. })
        || Answer::of(error).is_some_and(|answer| is_bad(&answer.code))
}

/// Returns the answer of a store that does not do what was asked, or does not let this key do it. It says the same the next time.
#[cfg(feature = "s3")]
pub(super) fn refusal(error: &object_store::Error) -> Option<Answer> {
    // A success that is something else comes from a store that does not know the question.
    Answer::of(error).filter(|answer| matches!(answer.status, 200..=299 | 400 | 403 | 405 | 501))
}

/// Returns whether the store takes no other bytes under the number of a part that was sent before, as rclone.
pub(super) fn refuses_other_bytes(error: &object_store::Error) -> bool {
    // Whoever did not implement parts would not have begun the upload.
    Answer::of(error).is_some_and(|answer| answer.status == 501)
}

/// Returns whether there is an object of another type, which Azure does not overwrite: it has to be deleted before.
#[cfg(all(feature = "filesystem", unix))]
pub(super) fn is_other_type(error: &object_store::Error) -> bool {
    Answer::of(error).is_some_and(|answer| answer.status == 409 && answer.code == "InvalidBlobType")
}

/// Returns whether an object has no byte to read, or none yet.
#[cfg(all(feature = "filesystem", unix))]
pub(super) fn has_no_byte(error: &object_store::Error) -> bool {
    Answer::of(error).is_some_and(|answer| answer.status == 416 || answer.code == "PendingCopyOperation")
}

/// Returns whether the store takes no part of this number, counted from 0, whatever is in it. Swift ends them at 1000
/// by its default.
pub(super) fn refuses_number(error: &object_store::Error, number: usize) -> bool {
    let is_refusal = |answer: Answer| answer.status == 400 && answer.code == "InvalidArgument";
    number >= FEWEST_PARTS && Answer::of(error).is_some_and(is_refusal)
}

/// Whether a failure passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nature {
    /// It may pass by itself.
    Passing,
    /// What the store keeps for the registry is not there, so that nothing can be said about what it has.
    Outage,
    /// The store cannot be used like this: the access key is refused, the address is wrong, what answers is no store.
    /// Nothing can be said about what it has, and somebody may mend it without a word to the registry.
    Misconfigured,
    /// The store takes no more.
    Full,
    /// It stays until somebody changes something.
    Lasting,
}

/// A request to the store that failed, as one line for a person.
#[derive(Debug)]
struct StoreFailure {
    /// The method and the address without its query.
    request: Option<String>,
    reason: Reason,
}

/// Why a request failed.
#[derive(Debug)]
enum Reason {
    Answer(Answer),
    /// There was no answer in the backend's own time.
    TimedOut,
    #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
    Connection(ConnectionFailure),
    /// Two writers met, and the store refused one of them.
    Conflict,
    /// What is left: with its causes.
    Other(String),
}

/// The longest text about what has no own sentence, in bytes.
const OTHER_BYTES: usize = 300;

impl StoreFailure {
    fn of(error: &object_store::Error) -> Self {
        Self {
            request: chain(error).find_map(|cause| request(&cause.to_string())),
            reason: Reason::of(error),
        }
    }

    /// Returns whether the store has too much to do, or two writers met.
    fn is_busy(&self) -> bool {
        match &self.reason {
            Reason::Answer(answer) => matches!(answer.status, 409 | 429 | 503),
            Reason::Conflict => true,
            _ => false,
        }
    }

    fn nature(&self) -> Nature {
        match &self.reason {
            Reason::Answer(answer) => match answer.status {
                408 | 409 | 429 | 500 | 502 | 503 | 504 => Nature::Passing,
                404 => Nature::Outage,
                // No store answers with such a success. A key that ended is 400, 401 or 403.
                200..=299 | 301 | 302 | 303 | 307 | 308 | 401 | 403 => Nature::Misconfigured,
                // The answer to a `HEAD` has no code.
                400 if answer.code.is_empty() || remedy(answer).is_some() => Nature::Misconfigured,
                507 => Nature::Full,
                _ => Nature::Lasting,
            },
            // Some stores answer 409 when conditional writes collide.
            Reason::TimedOut | Reason::Conflict => Nature::Passing,
            #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
            Reason::Connection(failure) if failure.may_pass() => Nature::Passing,
            #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
            Reason::Connection(_) => Nature::Misconfigured,
            Reason::Other(_) => Nature::Lasting,
        }
    }
}

impl Reason {
    fn of(error: &object_store::Error) -> Self {
        #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
        if ConnectionFailure::asks_for_credentials(error) {
            return Self::Connection(ConnectionFailure::NoCredentials);
        }
        if let Some(answer) = Answer::of(error) {
            return Self::Answer(answer);
        }
        if chain(error).any(|cause| cause.is::<tokio::time::error::Elapsed>()) {
            return Self::TimedOut;
        }
        #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
        if let Some(failure) = ConnectionFailure::of(error) {
            return Self::Connection(failure);
        }
        if matches!(error, object_store::Error::AlreadyExists { .. }) {
            return Self::Conflict;
        }
        let text = with_causes(error.to_string(), std::error::Error::source(error));
        Self::Other(one_line(&text))
    }
}

impl fmt::Display for StoreFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(request) = &self.request {
            write!(f, "{request}: ")?;
        }
        match &self.reason {
            Reason::Answer(answer) => {
                write!(f, "the store answered {answer}")?;
                match remedy(answer) {
                    Some(remedy) => write!(f, "; {remedy}"),
                    None => Ok(()),
                }
            }
            Reason::TimedOut => f.write_str("the store did not answer in time"),
            Reason::Conflict => f.write_str("the store refused a write that met another one"),
            Reason::Other(text) => f.write_str(text),
            #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
            Reason::Connection(failure) => failure.fmt(f),
        }
    }
}

impl std::error::Error for StoreFailure {}

/// Returns what a person can do about an answer.
fn remedy(answer: &Answer) -> Option<String> {
    let text = match &*answer.code {
        "NoSuchBucket" | "ContainerNotFound" => "create the bucket, or correct its name",
        "InvalidAccessKeyId" | "XAdminUserNotFound" | "InvalidAccessKey" => {
            "the store does not know this access key; correct its name"
        }
        "SignatureDoesNotMatch" => "the secret key is not that of the access key; correct it",
        "AuthenticationFailed" | "InvalidAuthenticationInfo" => "the key of the account is wrong; correct it",
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => "the temporary key ended; give a new one",
        "AccessDenied"
        | "AccountProblem"
        | "AllAccessDisabled"
        | "AuthorizationFailure"
        | "AuthorizationPermissionMismatch" => {
            "let this key list the bucket, and read, write and delete objects in it"
        }
        "RequestTimeTooSkewed" | "RequestTimeSkewed" => "correct the clock of this machine",
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => {
            return Some(match &answer.region {
                Some(region) => format!("the region is wrong; the bucket is in {region}"),
                None => "the region or the address of the bucket is wrong; correct it".to_owned(),
            });
        }
        _ if answer.status == 501 => {
            let what = match answer.condition {
                Some(condition) => format!("conditional writes ({condition})"),
                None => "this request".to_owned(),
            };
            return Some(format!(
                "it does not implement {what}, which the registry needs; use another store"
            ));
        }
        _ if answer.status == 400 && answer.message.contains("HTTP request to an HTTPS server") => {
            "write the address of the store with https://"
        }
        _ if answer.status == 404 => {
            "this says nothing about the object; is it the address of a store, and of this bucket?"
        }
        _ if (200..300).contains(&answer.status) => {
            "no store answers like this; is it the address of a store?"
        }
        _ if matches!(answer.status, 301 | 302 | 303 | 307 | 308) => {
            "the region or the address of the bucket is wrong; correct it"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// Returns the method and the address of the request that the client's error is about. The query only has what the
/// client adds to each request.
pub(super) fn request(text: &str) -> Option<String> {
    let rest = text.strip_prefix("Error performing ")?;
    let (request, _) = rest.split_once(" in ")?;
    // Not "list request: …", which a cause of it repeats.
    let (method, _) = request.split_once(' ')?;
    let is_method = method.bytes().all(|byte| byte.is_ascii_uppercase());
    let request = request.split_once('?').map_or(request, |(before, _)| before);
    is_method.then(|| one_line(request))
}

/// Returns the words of a text, as many as fit into a message.
pub(super) fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    shortened(&words.join(" "), OTHER_BYTES).into_owned()
}

/// Returns an error and its causes.
pub(super) fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}
