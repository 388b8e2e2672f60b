//! Why a request to a store had no answer.

use std::fmt;

use object_store::client::{HttpError, HttpErrorKind};

use super::error::{chain, one_line, request};

/// What was wrong with a connection, with the last cause where that says more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ConnectionFailure {
    TimedOut,
    Refused,
    UnknownName(String),
    /// The other side speaks something else than TLS.
    NotTls,
    /// The certificate of the other side is not to be trusted.
    Certificate(String),
    /// TLS, but no agreement.
    Tls(String),
    /// The service that gives machines their access keys does not answer, which is nearly always because this is not
    /// such a machine.
    NoCredentials,
    /// Anything else, such as one that broke off.
    Other(String),
}

impl ConnectionFailure {
    /// Returns what an error of the client says about the connection, if it is about that. The kinds of TLS's errors are
    /// known only to a library that the client has for itself, so their texts count.
    pub(super) fn of(error: &object_store::Error) -> Option<Self> {
        let http = chain(error).find_map(|cause| cause.downcast_ref::<HttpError>())?;
        if http.kind() == HttpErrorKind::Timeout {
            return Some(Self::TimedOut);
        }
        let is_refused = |cause: &(dyn std::error::Error + 'static)| {
            let cause = cause.downcast_ref::<std::io::Error>();
            cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::ConnectionRefused)
        };
        let last = chain(error).last().map(ToString::to_string).unwrap_or_default();
        let last = one_line(&last);
        Some(if chain(error).any(is_refused) {
            Self::Refused
        } else if chain(error).any(|cause| cause.to_string() == "dns error") {
            Self::UnknownName(last)
        } else if last.starts_with("received corrupt message") {
            Self::NotTls
        } else if last.starts_with("invalid peer certificate") {
            Self::Certificate(last)
        } else if last.starts_with("received fatal alert") || last.starts_with("peer is incompatible") {
            Self::Tls(last)
        } else {
            Self::Other(last)
        })
    }

    /// Returns whether a request failed because there is no access key: it asked the metadata service of a machine or a
    /// container, at the addresses that clouds give it.
    pub(super) fn asks_for_credentials(error: &object_store::Error) -> bool {
        let services = [
            "//169.254.169.254/",
            "//169.254.170.",
            "//metadata.google.internal/",
        ];
        chain(error)
            .filter_map(|cause| request(&cause.to_string()))
            .any(|request| services.iter().any(|service| request.contains(service)))
    }

    /// Returns whether it may pass by itself.
    pub(super) const fn may_pass(&self) -> bool {
        match self {
            Self::TimedOut | Self::Refused | Self::UnknownName(_) | Self::Other(_) => true,
            Self::NotTls | Self::Certificate(_) | Self::Tls(_) | Self::NoCredentials => false,
        }
    }
}

impl fmt::Display for ConnectionFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("the store did not answer in time"),
            Self::Refused => f.write_str(
                "nothing listens there (connection refused); start the store, or correct its address",
            ),
            Self::UnknownName(cause) => write!(
                f,
                "the name has no address ({cause}); correct the address of the store, or have the name resolved"
            ),
            Self::NotTls => f.write_str(
                "what listens there does not speak TLS; write the address of the store with http://, or correct its port",
            ),
            Self::Certificate(cause) => write!(
                f,
                "the certificate of the store is not to be trusted ({cause}); have this machine trust the authority that \
                 signed it, or correct the address"
            ),
            Self::Tls(cause) => write!(
                f,
                "the store and this machine agree on no TLS ({cause}); renew the older of the two, or correct the address"
            ),
            Self::NoCredentials => f.write_str(
                "no access key was given, and no metadata service of this machine gives one; give the access key of the bucket",
            ),
            Self::Other(cause) => write!(f, "the connection to the store failed ({cause})"),
        }
    }
}
