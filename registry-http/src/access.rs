//! Who a client is and what it may do, as one unit that is replaced while requests run.

use std::sync::Arc;

use arc_swap::ArcSwap;
use registry_core::Authorizer;

use crate::{Authenticator, Endpoint};

/// Who a client is and what it may do. The parts belong together: what one of them says is only true beside the others.
#[derive(Clone, Debug)]
pub struct AccessControl {
    /// Finds out who makes a request.
    pub authenticator: Arc<dyn Authenticator>,
    /// Decides what that one may do.
    pub authorizer: Arc<dyn Authorizer>,
    /// What answers the requests of exactly these paths, before all else: a token server.
    pub endpoints: Vec<(String, Arc<dyn Endpoint>)>,
}

/// An [`AccessControl`] that can be replaced.
///
/// A request is judged from its beginning to its end by the one that was in force when it came, so that no decision is
/// made of an old and a new half: who somebody is by the old users, and what a user of that name may do by the new rules.
#[derive(Debug)]
pub struct ReplaceableAccess(ArcSwap<AccessControl>);

impl ReplaceableAccess {
    /// Begins with `access`.
    #[must_use]
    pub fn new(access: AccessControl) -> Self {
        Self(ArcSwap::from_pointee(access))
    }

    /// Judges requests that come from now on by `access`.
    pub fn replace(&self, access: AccessControl) {
        self.0.store(Arc::new(access));
    }

    /// Returns what is in force.
    #[must_use]
    pub fn current(&self) -> Arc<AccessControl> {
        self.0.load_full()
    }
}
