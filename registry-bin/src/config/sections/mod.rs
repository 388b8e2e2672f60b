//! The sections of a configuration, one file each.

pub(crate) mod access;
pub(crate) mod auth;
pub(crate) mod backup;
pub(crate) mod collector;
pub(crate) mod health;
pub(crate) mod http;
pub(crate) mod legacy;
pub(crate) mod lists;
pub(crate) mod log;
pub(crate) mod middleware;
pub(crate) mod notifications;
mod patterns;
pub(crate) mod proxy;
pub(crate) mod quotas;
pub(crate) mod redis;
pub(crate) mod retention;
pub(crate) mod scrub;
pub(crate) mod storage;
pub(crate) mod tls;
pub(crate) mod validation;
