//! `storage`: where everything is kept.

mod azure;
mod gcs;
mod s3;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::azure::{Azure, AzureCredentialKind};
pub(crate) use self::gcs::Gcs;
pub(crate) use self::s3::S3;
use super::auth::Nothing;
use crate::config::values::{FilePath, GoDuration};

/// Where everything is kept: one of `filesystem`, `inmemory`, `s3`, `gcs` and `azure`; and what goes for all of them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Storage {
    /// A folder.
    pub(crate) filesystem: Option<Filesystem>,
    /// Store in memory; everything is gone when the server ends.
    #[serde(rename = "inmemory")]
    pub(crate) in_memory: Option<Nothing>,
    /// A bucket of Amazon S3, or of what speaks its protocol.
    pub(crate) s3: Option<S3>,
    /// A bucket of Google Cloud Storage.
    pub(crate) gcs: Option<Gcs>,
    /// A container of Azure Blob Storage.
    pub(crate) azure: Option<Azure>,
    /// Openstack Swift, which registry:2 had.
    pub(crate) swift: Option<serde_json::Value>,
    /// Alibaba's object storage, which registry:2 had.
    pub(crate) oss: Option<serde_json::Value>,
    /// Whether content may be deleted.
    pub(crate) delete: Delete,
    /// Whether clients are sent to the bucket for content.
    pub(crate) redirect: Redirect,
    /// What distribution remembers of blobs. Ours keeps that in its records.
    pub(crate) cache: Cache,
    /// How distribution looks for tags. Ours has a record for each.
    pub(crate) tag: Tag,
    /// What is done beside requests.
    pub(crate) maintenance: Maintenance,
}

/// A folder.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Filesystem {
    /// The folder.
    #[serde(rename = "rootdirectory")]
    pub(crate) root: FilePath,
    /// How many calls distribution makes at once. Ours bounds them by itself.
    #[serde(rename = "maxthreads")]
    pub(crate) most_threads: Option<u64>,
}

impl Default for Filesystem {
    fn default() -> Self {
        Self {
            root: "/var/lib/registry".into(),
            most_threads: None,
        }
    }
}

/// Whether content may be deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Delete {
    /// Allow deletes.
    pub(crate) enabled: bool,
}

/// Whether clients are sent to the bucket for content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Redirect {
    /// Clients are not sent to the bucket.
    pub(crate) disable: Option<bool>,
}

/// What distribution remembers of blobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Cache {
    /// Where blobs are remembered: `inmemory` or `redis`.
    #[serde(rename = "blobdescriptor")]
    pub(crate) blob_descriptor: Option<String>,
    /// How many blobs are remembered.
    #[serde(rename = "blobdescriptorsize")]
    pub(crate) blob_descriptor_size: Option<i64>,
}

/// How distribution looks for tags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tag {
    /// How many tags are looked at at once.
    #[serde(rename = "concurrencylimit")]
    pub(crate) concurrency_limit: Option<i64>,
}

/// What is done beside requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Maintenance {
    /// Uploads that nobody goes on with.
    #[serde(rename = "uploadpurging")]
    pub(crate) upload_purging: UploadPurging,
    /// Whether anything may be written.
    #[serde(rename = "readonly")]
    pub(crate) read_only: ReadOnly,
}

/// Uploads that nobody goes on with.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct UploadPurging {
    /// End idle uploads.
    pub(crate) enabled: bool,
    /// How long an upload may wait for its next byte; at most an hour for one without any.
    pub(crate) age: GoDuration,
    /// The most open uploads of one user, or of all anonymous clients together, at least 1. Beyond that, the upload that has waited longest makes room if it has no byte yet or has waited for ten minutes; otherwise a new upload is refused with 429.
    #[serde(rename = "maxopen")]
    pub(crate) most_open: u64,
    /// The time between two sweeps; by default 1h on a disk and 24h in a bucket.
    pub(crate) interval: Option<GoDuration>,
    /// Only look for such uploads, and keep them.
    #[serde(rename = "dryrun")]
    pub(crate) dry_run: bool,
}

impl Default for UploadPurging {
    fn default() -> Self {
        Self {
            enabled: true,
            age: GoDuration::from_secs(7 * 24 * 3600),
            most_open: 10_000,
            interval: None,
            dry_run: false,
        }
    }
}

/// Whether anything may be written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ReadOnly {
    /// Refuse all writes; a folder may then be on a read-only mount.
    pub(crate) enabled: bool,
}
