//! One file per command.

pub(crate) mod adopt;
mod adopt_bucket;
mod any;
pub(crate) mod backup;
pub(crate) mod check;
pub(crate) mod collect;
mod collected;
pub(crate) mod config;
pub(crate) mod copy;
pub(crate) mod explain;
pub(crate) mod export;
mod export_bucket;
pub(crate) mod health;
pub(crate) mod htpasswd;
pub(crate) mod import;
pub(crate) mod manual;
pub(crate) mod repositories;
pub(crate) mod restore;
pub(crate) mod retention;
pub(crate) mod serve;
pub(crate) mod tags;
pub(crate) mod token_keys;
pub(crate) mod usage;
