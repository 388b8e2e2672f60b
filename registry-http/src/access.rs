//! The authenticator and authorizer of a service, as one unit that can be replaced while requests run.

use std::sync::Arc;

use arc_swap::ArcSwap;
use registry_core::Authorizer;

use crate::{Authenticator, Endpoint};

/// Who a client is and what it may do. The parts belong together: a decision of one is only valid alongside the others.
#[derive(Clone, Debug)]
pub struct AccessControl {
    /// Identifies the client of a request.
    pub authenticator: Arc<dyn Authenticator>,
    /// Decides what that client may do.
    pub authorizer: Arc<dyn Authorizer>,
    /// Endpoints by their exact path, such as a token server. They answer before authentication and authorization.
    pub endpoints: Vec<(String, Arc<dyn Endpoint>)>,
}

/// An [`AccessControl`] that can be replaced.
///
/// A request uses the [`AccessControl`] that was current when it arrived, from beginning to end. So no decision mixes
/// old and new parts, such as a name checked against the old users and its rights against the new rules.
#[derive(Debug)]
pub struct ReplaceableAccess(ArcSwap<AccessControl>);

impl ReplaceableAccess {
    /// Creates one that starts with `access`.
    #[must_use]
    pub fn new(access: AccessControl) -> Self {
        Self(ArcSwap::from_pointee(access))
    }

    /// Uses `access` for all requests that arrive from now on. Requests that are running keep the previous one.
    pub fn replace(&self, access: AccessControl) {
        self.0.store(Arc::new(access));
    }

    /// Returns the one currently in force.
    #[must_use]
    pub fn current(&self) -> Arc<AccessControl> {
        self.0.load_full()
    }
}
