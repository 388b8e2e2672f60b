//! The one error type, and the one table of errors as they are sent to clients.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// Defines [`ErrorCode`]: name, wire code, HTTP status, meaning.
macro_rules! error_codes {
    ($($name:ident = $wire:literal, $status:literal, $text:literal;)*) => {
        /// What went wrong, as an error code of distribution-spec, "Error Codes", with its status.
        ///
        /// The specification's list is closed, so several kinds share a wire code: no code exists for 405, 412, 413,
        /// 414, 416 and 5xx.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $(#[doc = $text] $name,)*
        }

        impl ErrorCode {
            /// All codes, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the code as it appears in the JSON body.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $wire,)* }
            }

            /// Returns the HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// Returns the meaning of the code, in a sentence.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

error_codes! {
    BlobUnknown = "BLOB_UNKNOWN", 404, "The blob is not in this repository.";
    BlobUploadInvalid = "BLOB_UPLOAD_INVALID", 400, "The upload request is not valid.";
    BlobUploadUnknown = "BLOB_UPLOAD_UNKNOWN", 404, "The upload session is not known; start a new one.";
    DigestInvalid = "DIGEST_INVALID", 400, "The digest is malformed, unsupported or not that of the content.";
    ManifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN", 404, "The manifest names content that is not in this repository.";
    ManifestInvalid = "MANIFEST_INVALID", 400, "The manifest is not valid.";
    ManifestUnknown = "MANIFEST_UNKNOWN", 404, "The manifest is not in this repository.";
    NameInvalid = "NAME_INVALID", 400, "The repository name is not valid.";
    NameUnknown = "NAME_UNKNOWN", 404, "The repository is not known.";
    SizeInvalid = "SIZE_INVALID", 400, "The length given is not that of the content.";
    Unauthorized = "UNAUTHORIZED", 401, "Authentication is required.";
    Denied = "DENIED", 403, "Access to the resource is denied.";
    Unsupported = "UNSUPPORTED", 400, "The operation is not supported.";
    TooManyRequests = "TOOMANYREQUESTS", 429, "Too many requests.";
    RangeInvalid = "BLOB_UPLOAD_INVALID", 416, "The chunk does not start where the upload stands.";
    RangeNotSatisfiable = "SIZE_INVALID", 416, "The range starts beyond the end of the blob.";
    ManifestTooLarge = "SIZE_INVALID", 413, "The manifest is larger than this registry accepts.";
    MethodNotAllowed = "UNSUPPORTED", 405, "The method is not allowed on this path.";
    PathUnknown = "NAME_UNKNOWN", 404, "No endpoint has this path.";
    TagConflict = "DENIED", 409, "The tag may not be moved.";
    PreconditionFailed = "DENIED", 412, "The tag is not what If-Match or If-None-Match says.";
    TargetTooLong = "UNSUPPORTED", 414, "The request names too much at once.";
    RequestTimeout = "BLOB_UPLOAD_INVALID", 408, "The request body stopped arriving.";
    BodyInterrupted = "BLOB_UPLOAD_INVALID", 400, "The request body ended early.";
    Internal = "UNKNOWN", 500, "The registry failed; its log says why.";
    Unavailable = "UNAVAILABLE", 503, "The registry is busy; try again.";
    StorageFull = "UNKNOWN", 507, "The registry's storage is full.";
}

impl ErrorCode {
    /// Returns the code for the text in the body of a response with this status. A text that several codes have means the
    /// one with the status, otherwise the first of the table; `None` if none has it.
    #[must_use]
    pub fn from_response(status: u16, text: &str) -> Option<Self> {
        let mut codes = Self::ALL.iter().filter(|code| code.as_str() == text);
        let first = codes.clone().next().copied();
        codes.find(|code| code.status() == status).copied().or(first)
    }
}

/// Why a request was refused or failed: a code of the table, what to do about it, and the cause if there is one.
///
/// The message goes to the client; it never contains content or paths of the server. The cause goes only to the log.
#[derive(Clone, Debug)]
pub struct Error {
    code: ErrorCode,
    message: Cow<'static, str>,
    fields: Vec<(&'static str, String)>,
    cause: Option<Arc<dyn core::error::Error + Send + Sync>>,
}

impl Error {
    /// Creates an error of `code` with `message` for the client.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            fields: Vec::new(),
            cause: None,
        }
    }

    /// Creates an error of the registry itself, with the cause for its log.
    #[must_use]
    pub fn internal(cause: impl core::error::Error + Send + Sync + 'static) -> Self {
        Self::from(ErrorCode::Internal).with_cause(cause)
    }

    /// Adds a field to the header of the response, for example `Allow`, `Retry-After` or `WWW-Authenticate`.
    #[must_use]
    pub fn with_field(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_cause(mut self, cause: impl core::error::Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Arc::new(cause));
        self
    }

    /// Returns the code.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        self.code
    }

    /// Returns the fields that the error adds to the header of the response.
    #[must_use]
    pub fn fields(&self) -> &[(&'static str, String)] {
        &self.fields
    }

    /// Returns the message for the client.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<ErrorCode> for Error {
    fn from(code: ErrorCode) -> Self {
        Self::new(code, code.text())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}
