//! `redis`: a cache that ours does without. The keys of registry:2 and registry:3.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::values::{FilePath, GoDuration, Secret, SecretUrl};

/// A cache that ours does without; see the documentation of distribution.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Redis {
    pub(crate) addr: Option<SecretUrl>,
    pub(crate) addrs: Vec<SecretUrl>,
    pub(crate) clientname: Option<String>,
    pub(crate) db: Option<i64>,
    pub(crate) protocol: Option<i64>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) sentinelusername: Option<String>,
    pub(crate) sentinelpassword: Option<Secret>,
    pub(crate) maxretries: Option<i64>,
    pub(crate) minretrybackoff: Option<GoDuration>,
    pub(crate) maxretrybackoff: Option<GoDuration>,
    pub(crate) dialtimeout: Option<GoDuration>,
    pub(crate) readtimeout: Option<GoDuration>,
    pub(crate) writetimeout: Option<GoDuration>,
    pub(crate) contexttimeoutenabled: Option<bool>,
    pub(crate) poolfifo: Option<bool>,
    pub(crate) poolsize: Option<i64>,
    pub(crate) pooltimeout: Option<GoDuration>,
    pub(crate) minidleconns: Option<i64>,
    pub(crate) maxidleconns: Option<i64>,
    pub(crate) maxactiveconns: Option<i64>,
    pub(crate) connmaxidletime: Option<GoDuration>,
    pub(crate) connmaxlifetime: Option<GoDuration>,
    pub(crate) maxredirects: Option<i64>,
    pub(crate) readonly: Option<bool>,
    pub(crate) routebylatency: Option<bool>,
    pub(crate) routerandomly: Option<bool>,
    pub(crate) mastername: Option<String>,
    pub(crate) disableidentity: Option<bool>,
    pub(crate) identitysuffix: Option<String>,
    pub(crate) unstableresp3: Option<bool>,
    pub(crate) pool: RedisPool,
    pub(crate) tls: RedisTls,
}

/// The connections of registry:2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RedisPool {
    pub(crate) maxidle: Option<i64>,
    pub(crate) maxactive: Option<i64>,
    pub(crate) idletimeout: Option<GoDuration>,
}

/// Encryption.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RedisTls {
    pub(crate) enabled: Option<bool>,
    pub(crate) certificate: Option<FilePath>,
    pub(crate) key: Option<FilePath>,
    pub(crate) rootcas: Vec<FilePath>,
}
