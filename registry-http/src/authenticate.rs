//! Who makes a request.

use std::fmt;

use futures_util::future::BoxFuture;
use http::request::Parts;
use registry_core::challenge::ChallengeError;
use registry_core::{Challenge, Error, ErrorCode, Principal, Scope};

/// Finds out who makes a request.
pub trait Authenticator: fmt::Debug + Send + Sync + 'static {
    /// Returns the principal that a request shows; without credentials usually the anonymous one, and what that one may
    /// do is up to the [`Authorizer`](registry_core::Authorizer).
    ///
    /// The extensions of the request hold the [`PeerAddress`](crate::PeerAddress).
    ///
    /// # Errors
    /// The answer to the client. Bad credentials are [`Unauthorized`](registry_core::ErrorCode::Unauthorized); the field
    /// `WWW-Authenticate` is added by [`challenge`](Self::challenge).
    fn authenticate<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Result<Principal, Error>>;

    /// Returns which credentials would help with a request that was refused as
    /// [`Unauthorized`](registry_core::ErrorCode::Unauthorized), and for what; nothing where none would, and then the
    /// refusal becomes [`Denied`](registry_core::ErrorCode::Denied).
    ///
    /// Where there is something, the anonymous principal is asked for credentials at `/v2/` too, because that is where
    /// Docker finds out that there are any to give.
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

/// Takes everybody for the anonymous principal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anonymous;

impl Authenticator for Anonymous {
    fn authenticate<'a>(&'a self, _: &'a Parts) -> BoxFuture<'a, Result<Principal, Error>> {
        Box::pin(std::future::ready(Ok(Principal::anonymous())))
    }
}

/// Adds to a refusal what would help against it.
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
