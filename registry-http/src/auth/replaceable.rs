//! Rules that are replaced while requests run.

use std::sync::Arc;

use arc_swap::ArcSwap;
use registry_core::operation::Operation;
use registry_core::{Authorizer, Error, Principal};

/// An authorizer that can be replaced. Each decision is by the one that is in force then.
#[derive(Debug)]
pub struct ReplaceableAuthorizer(ArcSwap<Arc<dyn Authorizer>>);

impl ReplaceableAuthorizer {
    /// Begins with `authorizer`.
    #[must_use]
    pub fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Self(ArcSwap::from_pointee(authorizer))
    }

    /// Puts `authorizer` in force.
    pub fn replace(&self, authorizer: Arc<dyn Authorizer>) {
        self.0.store(Arc::new(authorizer));
    }
}

impl Authorizer for ReplaceableAuthorizer {
    fn authorize(&self, principal: &Principal, operation: &Operation<'_>) -> Result<(), Error> {
        self.0.load().authorize(principal, operation)
    }
}
