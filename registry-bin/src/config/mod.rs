//! The configuration: distribution's `config.yml` with additional keys of ours, and the environment and flags.
//!
//! [`load()`] reads a [tree] in which each value has its origin, applies variables and flags to it, and reads the types
//! of [`sections`] from it. [`supported`] lists what is accepted without effect or refused, and [`protection`] what an
//! empty value cannot remove.

mod check;
pub(crate) mod fingerprint;
mod kinds;
mod load;
pub(crate) mod origin;
mod problem;
mod problems;
pub(crate) mod protection;
mod remarks;
pub(crate) mod schema;
pub(crate) mod sections;
pub(crate) mod supported;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod tests_support;
pub(crate) mod tree;
pub(crate) mod values;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::load::{DEFAULT_FOLDER, Flag, Loaded, load, load_alone};
pub(crate) use self::remarks::{bare_durations, remarks};
use self::sections::access::Access;
use self::sections::auth::Auth;
use self::sections::backup::Backup;
use self::sections::collector::Collector;
use self::sections::health::HealthChecks;
use self::sections::http::Http;
use self::sections::legacy::{Compatibility, Reporting};
use self::sections::lists::{Catalog, Tags};
use self::sections::log::{Log, LogLevel};
use self::sections::middleware::Middlewares;
use self::sections::notifications::Notifications;
use self::sections::proxy::Proxy;
use self::sections::quotas;
use self::sections::redis::Redis;
use self::sections::retention;
use self::sections::scrub::Scrub;
use self::sections::storage::Storage;
use self::sections::validation::{Policy, Validation};
use self::values::FileOrUrl;

/// The configuration of a registry: that of distribution (registry:2 and registry:3), and further keys.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Configuration {
    /// The version of the configuration's form.
    pub(crate) version: Option<Version>,
    /// The log of the server and the log of its requests.
    pub(crate) log: Log,
    /// The old form of `log.level`.
    #[serde(rename = "loglevel")]
    pub(crate) log_level: Option<LogLevel>,
    /// Where everything is kept.
    #[schemars(extend("x-open" = true))]
    pub(crate) storage: Storage,
    /// Backups of a folder that are made while the server runs.
    pub(crate) backup: Backup,
    /// Freeing what no manifest names any more.
    pub(crate) collector: Collector,
    /// Which tags and manifests stay; everything, unless a policy says otherwise. Applied before each cycle of the collector.
    pub(crate) retention: Vec<retention::Policy>,
    /// What repositories may have together; any amount, unless a quota matches them. A push beyond it is refused.
    pub(crate) quotas: Vec<quotas::Quota>,
    /// Reading all content to find what rotted.
    pub(crate) scrub: Scrub,
    /// Who a client is.
    #[schemars(extend("x-open" = true))]
    pub(crate) auth: Auth,
    /// Who may do what.
    pub(crate) access: Access,
    /// Code that distribution can be built with.
    #[schemars(extend("x-open" = true))]
    pub(crate) middleware: Middlewares,
    /// Where the registry is reached.
    pub(crate) http: Http,
    /// Who is told of pushes, pulls and deletes.
    pub(crate) notifications: Notifications,
    /// A cache that ours does without.
    pub(crate) redis: Redis,
    /// What is watched.
    pub(crate) health: HealthChecks,
    /// The list of repositories.
    pub(crate) catalog: Catalog,
    /// The list of tags, and tags that do not move.
    pub(crate) tags: Tags,
    /// A registry that this one is a cache of.
    pub(crate) proxy: Proxy,
    /// What a manifest must be.
    pub(crate) validation: Validation,
    /// What may be pushed.
    pub(crate) policy: Policy,
    /// What registry:2 did for older clients.
    pub(crate) compatibility: Compatibility,
    /// Where registry:2 reported failures to.
    pub(crate) reporting: Reporting,
}

/// The version of the configuration's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub(crate) enum Version {
    /// The only one.
    #[serde(rename = "0.1")]
    V0_1,
}

impl Configuration {
    /// Returns the files that the configuration names and that are read.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let tls = &self.http.tls;
        let mut files: Vec<PathBuf> = tls
            .certificate
            .iter()
            .chain(&tls.key)
            .chain(&tls.client_authorities)
            .map(|path| path.to_path_buf())
            .collect();
        let users = self.auth.files_of_users();
        files.extend(users.map(|(_, path)| path.to_owned()));
        if let Some(token) = &self.auth.token {
            let keys = token.builtin.as_ref().and_then(|builtin| builtin.keys.as_ref());
            let files_of_keys = token.root_certificates.iter().chain(keys);
            files.extend(files_of_keys.map(|path| path.to_path_buf()));
            if let Some(FileOrUrl::File(path)) = &token.jwks {
                files.push(path.to_path_buf());
            }
        }
        files
    }
}
