//! `proxy`: a registry that this one is a cache of.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::values::{GoDuration, Secret, SecretUrl};

/// The registry that this one caches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Proxy {
    /// Its URL; without one there is no such registry.
    #[serde(rename = "remoteurl")]
    pub(crate) remote_url: Option<SecretUrl>,
    /// The user to log in as.
    pub(crate) username: Option<String>,
    /// The user's password.
    pub(crate) password: Option<Secret>,
    /// A program that gives credentials.
    pub(crate) exec: Option<CredentialProgram>,
    /// How long content is kept.
    pub(crate) ttl: Option<GoDuration>,
    /// How long a write into the cache may take.
    #[serde(rename = "cachewritetimeout")]
    pub(crate) cache_write_timeout: Option<GoDuration>,
}

/// A program that gives credentials.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CredentialProgram {
    /// The program.
    pub(crate) command: String,
    /// How long its answer is good for.
    pub(crate) lifetime: Option<GoDuration>,
}
