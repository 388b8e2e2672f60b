//! Endpoints beside those of the registry, such as a token server.

use std::fmt;

use futures_util::future::BoxFuture;
use http::request::Parts;
use registry_core::storage::Body;
use registry_core::{Principal, Response};

/// Answers the requests of one path. The limits of the service hold for it, and its observer is told.
pub trait Endpoint: fmt::Debug + Send + Sync + 'static {
    /// Answers a request, and says who made it. It must not read more of the body than it has a bound for.
    fn answer<'a>(&'a self, request: &'a Parts, body: Body<'a>) -> BoxFuture<'a, (Principal, Response)>;
}
