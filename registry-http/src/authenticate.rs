//! Who makes a request.

use std::fmt;

use futures_util::future::BoxFuture;
use http::HeaderMap;
use registry_core::{Error, Principal};

/// Finds out who makes a request.
pub trait Authenticator: fmt::Debug + Send + Sync + 'static {
    /// Returns the principal that the header of a request shows; without credentials usually the anonymous one, and
    /// what that one may do is up to the [`Authorizer`](registry_core::Authorizer).
    ///
    /// # Errors
    /// The answer to the client. Bad credentials are [`Unauthorized`](registry_core::ErrorCode::Unauthorized) with
    /// the field `WWW-Authenticate`.
    fn authenticate<'a>(&'a self, header: &'a HeaderMap) -> BoxFuture<'a, Result<Principal, Error>>;
}

/// Takes everybody for the anonymous principal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anonymous;

impl Authenticator for Anonymous {
    fn authenticate<'a>(&'a self, _: &'a HeaderMap) -> BoxFuture<'a, Result<Principal, Error>> {
        Box::pin(std::future::ready(Ok(Principal::anonymous())))
    }
}
