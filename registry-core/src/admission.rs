//! What may refuse a request that its client is allowed to make: quotas, a registry that is read-only, deletes that are
//! off.

use alloc::boxed::Box;
use core::fmt;

use async_trait::async_trait;

use crate::error::{Error, ErrorCode};
use crate::operation::Principal;
use crate::request::Request;

/// Decides whether the registry takes a request now. The [`Authorizer`](crate::Authorizer) has allowed it, and the
/// storage was not asked yet.
///
/// It may wait, for example for a database, because it is asked once for a request. A rule that also decides what a list
/// shows is an authorizer's.
///
/// **Cancel safety.** The future is dropped if the client's request is: a decision must not depend on its completion.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::{Mutex, PoisonError};
///
/// use async_trait::async_trait;
/// use registry_core::{Admission, Error, ErrorCode, Principal, Request};
///
/// /// Lets each principal send so many bytes.
/// #[derive(Debug)]
/// struct Quota {
///     bytes: u64,
///     sent: Mutex<BTreeMap<String, u64>>,
/// }
///
/// #[async_trait]
/// impl Admission for Quota {
///     async fn admit(&self, principal: &Principal, request: &Request) -> Result<(), Error> {
///         let Some(length) = request.content_length() else {
///             return Ok(());
///         };
///         let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
///         let sent = sent.entry(principal.name().to_owned()).or_default();
///         if sent.saturating_add(length) > self.bytes {
///             let error = Error::new(ErrorCode::TooManyRequests, "your quota is used up; ask for a larger one");
///             return Err(error.with_field("Retry-After", "86400"));
///         }
///         *sent += length;
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait Admission: fmt::Debug + Send + Sync {
    /// Decides whether to take `request` of `principal`.
    ///
    /// The request names its repository as the storage will see it: a namespace is resolved. A mount that turns out to be
    /// impossible becomes an upload session without another question.
    ///
    /// # Errors
    /// The answer to the client, with fields such as `Retry-After` or `Allow`:
    /// [`TooManyRequests`](ErrorCode::TooManyRequests), [`StorageFull`](ErrorCode::StorageFull),
    /// [`Denied`](ErrorCode::Denied), [`MethodNotAllowed`](ErrorCode::MethodNotAllowed), or one of its own failures as
    /// [`Internal`](ErrorCode::Internal) or [`Unavailable`](ErrorCode::Unavailable).
    async fn admit(&self, principal: &Principal, request: &Request) -> Result<(), Error>;
}

/// Refuses every [write](Request::is_write) with 405.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOnly;

#[async_trait]
impl Admission for ReadOnly {
    async fn admit(&self, _: &Principal, request: &Request) -> Result<(), Error> {
        if !request.is_write() {
            return Ok(());
        }
        let allowed = match request {
            Request::PutManifest { .. } | Request::DeleteManifest { .. } | Request::DeleteBlob { .. } => {
                "GET, HEAD"
            }
            Request::AppendUpload { .. } | Request::FinishUpload { .. } | Request::CancelUpload { .. } => {
                "GET"
            }
            // A path on which uploads start, or a repository is deleted, has no other method.
            _ => "",
        };
        Err(not_allowed("this registry is read-only at the moment", allowed))
    }
}

/// Refuses to delete blobs, manifests, tags and repositories, with 405. An upload session may still be cancelled.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeletesDisabled;

#[async_trait]
impl Admission for DeletesDisabled {
    async fn admit(&self, _: &Principal, request: &Request) -> Result<(), Error> {
        let allowed = match request {
            Request::DeleteManifest { .. } => "GET, HEAD, PUT",
            Request::DeleteBlob { .. } => "GET, HEAD",
            Request::DeleteRepository { .. } => "",
            _ => return Ok(()),
        };
        Err(not_allowed("deleting is switched off in this registry", allowed))
    }
}

/// Creates the refusal of a method; `allowed` are the other methods of the path.
fn not_allowed(message: &'static str, allowed: &'static str) -> Error {
    Error::new(ErrorCode::MethodNotAllowed, message).with_field("Allow", allowed)
}
