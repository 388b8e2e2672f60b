//! Authentication: who makes a request.

use std::fmt;

use futures_util::future::BoxFuture;
use http::request::Parts;
use registry_core::challenge::ChallengeError;
use registry_core::{Challenge, Error, ErrorCode, Principal, Scope};

/// Identifies the client of a request.
///
/// **Cancel safety.** The future of [`authenticate`](Self::authenticate) is dropped if the client's request is, unless the
/// request is one that changes something; a verdict must not depend on its completion.
///
/// ```
/// use std::future::ready;
///
/// use futures_util::future::BoxFuture;
/// use http::request::Parts;
/// use registry_core::{Error, Principal};
/// use registry_http::{Authenticator, Connection, PeerAddress};
///
/// /// A process on this machine is the administrator. Any other client is whom its verified certificate names.
/// #[derive(Debug)]
/// struct ByConnection;
///
/// impl Authenticator for ByConnection {
///     fn authenticate<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Result<Principal, Error>> {
///         let principal = match Connection::of(request) {
///             Some(connection) if connection.peer() == PeerAddress::Unix => Principal::new("admin"),
///             Some(connection) => {
///                 let certificates = connection.tls().map(|session| &session.client_certificates);
///                 let user = certificates.and_then(|chain| chain.first()).and_then(|der| user_of(der));
///                 user.map_or_else(Principal::anonymous, Principal::new)
///             }
///             None => Principal::anonymous(),
///         };
///         Box::pin(ready(Ok(principal)))
///     }
/// }
///
/// /// Returns the user whom a certificate names, for example by its common name.
/// fn user_of(der: &[u8]) -> Option<String> {
///     # let _ = der;
///     # None
/// }
/// ```
pub trait Authenticator: fmt::Debug + Send + Sync + 'static {
    /// Returns the principal that a request authenticates as. Without credentials, that is usually the anonymous
    /// principal; the [`Authorizer`](registry_core::Authorizer) decides what it may do.
    ///
    /// [`Connection::of`](crate::Connection::of) returns the client's address, and its certificate if it has a verified
    /// one.
    ///
    /// Must be cancel safe: the future may be dropped when the client leaves.
    ///
    /// # Errors
    /// The answer to the client. Bad credentials are [`Unauthorized`](registry_core::ErrorCode::Unauthorized);
    /// [`challenge`](Self::challenge) provides the field `WWW-Authenticate`.
    fn authenticate<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Result<Principal, Error>>;

    /// Returns which credentials would help with a request that was refused as
    /// [`Unauthorized`](registry_core::ErrorCode::Unauthorized), and for what. If no credentials would help, returns
    /// `None`, and the refusal becomes [`Denied`](registry_core::ErrorCode::Denied). The default returns `None`.
    ///
    /// If it returns a challenge, the anonymous principal is also asked for credentials at `/v2/`, because that is
    /// where Docker finds out that it needs to log in.
    fn challenge(
        &self,
        request: &Parts,
        scopes: Vec<Scope>,
        error: Option<ChallengeError>,
    ) -> Option<Challenge> {
        let _unused = (request, scopes, error);
        None
    }
}

/// Treats every client as the anonymous principal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anonymous;

impl Authenticator for Anonymous {
    fn authenticate<'a>(&'a self, _: &'a Parts) -> BoxFuture<'a, Result<Principal, Error>> {
        Box::pin(std::future::ready(Ok(Principal::anonymous())))
    }
}

/// Adds the challenge of `authenticator` to a refusal that is `Unauthorized` and has none yet.
pub(crate) fn challenged(
    refusal: &Error,
    authenticator: &dyn Authenticator,
    request: &Parts,
    scopes: Vec<Scope>,
    error: Option<ChallengeError>,
) -> Error {
    const FIELD: &str = "WWW-Authenticate";
    if refusal.code() != ErrorCode::Unauthorized || refusal.fields().iter().any(|(name, _)| *name == FIELD) {
        return refusal.clone();
    }
    match authenticator.challenge(request, scopes, error) {
        Some(challenge) => refusal.clone().with_field(FIELD, challenge.to_string()),
        None => Error::new(ErrorCode::Denied, refusal.message().to_owned()),
    }
}
