//! Endpoints alongside those of the registry, such as a token server.

use std::fmt;

use futures_util::future::BoxFuture;
use http::request::Parts;
use registry_core::storage::Body;
use registry_core::{Principal, Response};

/// Answers the requests of one path. The service applies its limits to them and notifies its observer.
pub trait Endpoint: fmt::Debug + Send + Sync + 'static {
    /// Answers a request, and returns who made it. Must bound how much of the body it reads.
    ///
    /// Must be cancel safe: the future may be dropped when the client leaves.
    fn answer<'a>(&'a self, request: &'a Parts, body: Body<'a>) -> BoxFuture<'a, (Principal, Response)>;
}
