//! What is known of a principal beside its name.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::describe;
use crate::operation::{Action, Authorizer, Operation, Principal};
use crate::scope::Scope;
use crate::{Error, ErrorCode};

/// What is known of a [`Principal`] beside its name.
///
/// An authenticator gives it with [`Principal::with_claims`]. Each request's claims are those of its own credentials, so what was taken back is gone
/// with the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// The groups that the credentials name, beside those of [`Rules`](super::Rules).
    pub groups: Vec<String>,
    /// What the token grants; nothing is said where the credentials are no token.
    pub access: Option<Vec<Scope>>,
}

/// Lets a principal do what its token grants, and no more.
#[derive(Clone, Debug, Default)]
pub struct TokenScopes {
    rules: Option<Arc<dyn Authorizer>>,
}

impl TokenScopes {
    /// Lets tokens alone decide; who has none may do nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { rules: None }
    }

    /// Lets a principal do what `rules` allow and, if it has a token, that one grants.
    ///
    /// The rules are asked first: what they refuse to somebody who is known, no other token would allow.
    #[must_use]
    pub const fn within(rules: Arc<dyn Authorizer>) -> Self {
        Self { rules: Some(rules) }
    }
}

impl Authorizer for TokenScopes {
    fn authorize(&self, principal: &Principal, operation: &Operation<'_>) -> Result<(), Error> {
        if operation.action == Action::Connect {
            return Ok(());
        }
        if let Some(rules) = &self.rules {
            rules.authorize(principal, operation)?;
        }
        let access = principal
            .claims::<Claims>()
            .and_then(|claims| claims.access.as_ref());
        let (is_granted, message) = match access {
            Some(access) => (
                access.iter().any(|scope| scope.grants(operation)),
                format!("the token does not allow to {}", describe(operation)),
            ),
            None => (
                self.rules.is_some(),
                format!("a token is needed to {}", describe(operation)),
            ),
        };
        if is_granted {
            return Ok(());
        }
        Err(Error::new(ErrorCode::Unauthorized, message))
    }
}
