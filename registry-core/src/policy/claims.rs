//! What is known about a principal besides its name.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::describe;
use crate::operation::{Action, Authorizer, Operation, Principal};
use crate::scope::Scope;
use crate::{Error, ErrorCode};

/// What is known about a [`Principal`] besides its name.
///
/// An authenticator adds it with [`Principal::with_claims`]. Each request's claims are those of its own credentials, so
/// a revocation takes effect with the next request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// The groups in the credentials, in addition to those of [`Rules`](super::Rules).
    pub groups: Vec<String>,
    /// What the token grants; `None` if the credentials are not a token.
    pub access: Option<Vec<Scope>>,
}

/// Allows a principal what its token grants, and no more.
#[derive(Clone, Debug, Default)]
pub struct TokenScopes {
    rules: Option<Arc<dyn Authorizer>>,
}

impl TokenScopes {
    /// Lets tokens alone decide; a principal without a token may do nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { rules: None }
    }

    /// Allows a principal what `rules` allow and, if it has a token, the token grants as well.
    ///
    /// The rules are checked first: what they refuse to an authenticated principal, no other token would allow.
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
