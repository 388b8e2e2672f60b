//! Authentication by name and password (RFC 7617).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use http::request::Parts;
use registry_core::challenge::ChallengeError;
use registry_core::{Challenge, Error, ErrorCode, Principal, Scope};

use super::credentials::credentials;
use super::passwords::Passwords;
use crate::{Authenticator, Connection};

/// Authenticates a client by a user's name and password.
#[derive(Debug)]
pub struct BasicAuthenticator {
    realm: String,
    passwords: Arc<Passwords>,
}

impl BasicAuthenticator {
    /// Creates an authenticator for the users of `passwords`. Clients show `realm` to people when they ask for a
    /// password.
    #[must_use]
    pub const fn new(realm: String, passwords: Arc<Passwords>) -> Self {
        Self { realm, passwords }
    }
}

impl Authenticator for BasicAuthenticator {
    fn authenticate<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Result<Principal, Error>> {
        Box::pin(principal(&self.passwords, request))
    }

    fn challenge(&self, _: &Parts, _: Vec<Scope>, _: Option<ChallengeError>) -> Option<Challenge> {
        Some(Challenge::Basic {
            realm: self.realm.clone(),
        })
    }
}

/// Returns the user whose name and password a request carries. If both are empty, the client is anonymous: some clients
/// send the field anyway.
pub(super) async fn principal(passwords: &Passwords, request: &Parts) -> Result<Principal, Error> {
    if !request.headers.contains_key(http::header::AUTHORIZATION) {
        return Ok(Principal::anonymous());
    }
    let wrong = || Error::new(ErrorCode::Unauthorized, "the name or the password is wrong");
    let (user, password) = name_and_password(request).ok_or_else(wrong)?;
    if user.is_empty() && password.is_empty() {
        return Ok(Principal::anonymous());
    }
    let client = Connection::of(request).and_then(Connection::client);
    if passwords.verify(client, &user, &password).await? {
        Ok(Principal::new(user))
    } else {
        Err(wrong())
    }
}

fn name_and_password(request: &Parts) -> Option<(String, String)> {
    let encoded = credentials(&request.headers, "basic")?;
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (name, password) = decoded.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}
