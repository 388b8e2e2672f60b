//! Authentication that checks nothing, for tests of clients.

use futures_util::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::request::Parts;
use registry_core::challenge::ChallengeError;
use registry_core::{Challenge, Error, Principal, Scope};

use crate::Authenticator;

/// Takes everybody who sends the field `Authorization` for the user `silly`, whatever it says, as distribution's `silly`.
#[derive(Clone, Debug)]
pub struct SillyAuthenticator {
    /// The realm that a client is sent to.
    pub realm: String,
    /// The service that it is told to name there.
    pub service: String,
}

impl Authenticator for SillyAuthenticator {
    fn authenticate<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Result<Principal, Error>> {
        let principal = if request.headers.contains_key(AUTHORIZATION) {
            Principal::new("silly")
        } else {
            Principal::anonymous()
        };
        Box::pin(std::future::ready(Ok(principal)))
    }

    fn challenge(&self, _: &Parts, scopes: Vec<Scope>, error: Option<ChallengeError>) -> Option<Challenge> {
        Some(Challenge::bearer(
            self.realm.clone(),
            self.service.clone(),
            scopes,
            error,
        ))
    }
}
