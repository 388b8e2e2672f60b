//! `storage.gcs`: a bucket of Google Cloud Storage.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::values::{FilePath, Secret};

/// A bucket of Google Cloud Storage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Gcs {
    /// The bucket.
    pub(crate) bucket: String,
    /// The folder in the bucket.
    #[serde(rename = "rootdirectory")]
    pub(crate) root: Option<String>,
    /// The file of a service account's key.
    #[serde(rename = "keyfile")]
    pub(crate) key_file: Option<FilePath>,
    /// A service account's key itself.
    pub(crate) credentials: Option<BTreeMap<String, Secret>>,
    /// The size of a part.
    #[serde(rename = "chunksize")]
    pub(crate) chunk_size: Option<u64>,
    /// How many requests are made at once.
    #[serde(rename = "maxconcurrency")]
    pub(crate) most_requests: Option<u64>,
    /// The user agent of requests to the service.
    #[serde(rename = "useragent")]
    pub(crate) user_agent: Option<String>,
}
