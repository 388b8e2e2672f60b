//! A container registry as a service of hyper and tower, and a server for it.
#![forbid(unsafe_code)]

mod authenticate;
mod limits;
mod observe;
mod server;
mod service;
mod tasks;
#[cfg(feature = "testing")]
pub mod testing;

pub use crate::authenticate::{Anonymous, Authenticator};
pub use crate::limits::Limits;
pub use crate::observe::{AccessLog, Observer, RequestRecord};
pub use crate::server::Server;
pub use crate::service::{PeerAddress, RegistryService, ResponseBody};
