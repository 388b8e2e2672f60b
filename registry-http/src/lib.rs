//! A container registry as a hyper and tower service, and a server for it.
//!
//! [`RegistryService`] turns HTTP requests into those of a [`Registry`](registry_core::Registry) and its responses into
//! HTTP. [`Server`] accepts connections on TCP and unix sockets, with TLS if the feature `tls` is enabled, and serves
//! this or any other service. [`Proxied`] serves a service below a path, behind proxies and under another URL. The
//! module `testing` starts a registry for the tests of other programs in two lines.
//!
//! The [`guide`] shows how to build a registry from these parts.
#![forbid(unsafe_code)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The README of the repository; its examples use this crate.
#[cfg(all(doctest, feature = "testing"))]
#[doc = include_str!("../../README.md")]
struct FrontPage;

mod access;
mod address;
#[cfg(any(feature = "htpasswd", feature = "token"))]
pub mod auth;
mod authenticate;
mod connection;
mod endpoint;
#[cfg_attr(
    all(
        doc,
        not(all(
            feature = "opentelemetry",
            feature = "notifications",
            feature = "testing",
            feature = "tls",
            feature = "token-server"
        ))
    ),
    allow(
        rustdoc::broken_intra_doc_links,
        reason = "it links to what other features add"
    )
)]
pub mod guide;
mod limits;
mod log_limit;
mod memory;
#[cfg(feature = "notifications")]
pub mod notify;
mod proxy;
mod rate_limit;
mod server;
mod service;
mod tasks;
mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;
#[cfg(feature = "tls")]
pub mod tls;

pub use crate::access::{AccessControl, ReplaceableAccess};
pub use crate::address::{ListenAddress, PeerAddress};
pub use crate::authenticate::{Anonymous, Authenticator};
pub use crate::connection::{Connection, Forwarded, TlsSession, TlsVersion};
pub use crate::endpoint::Endpoint;
pub use crate::limits::Limits;
pub use crate::memory::{MemoryBudget, MemoryUse};
pub use crate::proxy::{
    InvalidPrefix, InvalidPublicUrl, Locations, Prefix, Proxied, ProxyField, ProxyFields, ProxyOptions,
    PublicUrl, TrustedProxies,
};
pub use crate::rate_limit::{Rate, RateLimits};
pub use crate::server::{Listener, Server, check_clock};
pub use crate::service::{HeaderFields, RegistryService, ResponseBody};
#[cfg(feature = "opentelemetry")]
pub use crate::telemetry::RequestSpans;
pub use crate::telemetry::{
    AccessLog, AuditLevel, EventSink, LineFormat, LineLog, LineSink, RefusalLog, RequestObserver,
    RequestRecord,
};
#[cfg(feature = "metrics")]
pub use crate::telemetry::{CheckOptions, DebugService, MeteredStorage, Metrics, Probed, ServerHealth};
