//! `storage`: where everything is kept.

mod azure;
mod cache;
mod gcs;
mod redirect;
mod s3;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::azure::Azure;
#[cfg(feature = "azure")]
pub(crate) use self::azure::AzureCredentialKind;
pub(crate) use self::cache::Cache;
pub(crate) use self::gcs::Gcs;
pub(crate) use self::redirect::Redirect;
pub(crate) use self::s3::S3;
use super::auth::NoKeys;
use crate::config::problems::Problems;
use crate::config::values::{FilePath, GoDuration, is_secret};

/// Where everything is kept: one of `filesystem`, `inmemory`, `s3`, `gcs` and `azure`; and what goes for all of them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Storage {
    /// A folder.
    pub(crate) filesystem: Option<Filesystem>,
    /// Store in memory; everything is gone when the server ends.
    #[serde(rename = "inmemory")]
    pub(crate) in_memory: Option<NoKeys>,
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
    /// Whether clients are sent to the bucket for blobs.
    pub(crate) redirect: Redirect,
    /// What a server keeps of a bucket, so that it need not ask for it again.
    pub(crate) cache: Cache,
    /// How distribution looks for tags. Ours has a record for each.
    pub(crate) tag: Tag,
    /// What is done beside requests.
    pub(crate) maintenance: Maintenance,
}

impl Storage {
    /// Checks the values.
    pub(in crate::config) fn check(&self, problems: &mut Problems<'_>) {
        self.check_places(problems);
        if let Some(filesystem) = &self.filesystem {
            let missing = filesystem.root.as_os_str().is_empty();
            problems.required("storage.filesystem.rootdirectory", missing, "name a folder");
        }
        if let Some(s3) = &self.s3 {
            s3.check(problems);
        }
        if let Some(gcs) = &self.gcs {
            problems.required("storage.gcs.bucket", gcs.bucket.is_empty(), "name the bucket");
        }
        if let Some(azure) = &self.azure {
            azure.check(problems);
        }
        self.redirect.check(problems);
        self.cache.check(problems);
        let purging = &self.maintenance.upload_purging;
        if purging.most_open == 0 {
            problems.add(
                "storage.maintenance.uploadpurging.maxopen",
                "is 0, which would let nobody push; write for example 10000, or say `readonly` to take no pushes",
            );
        }
        let interval = purging.interval;
        let path = "storage.maintenance.uploadpurging.interval";
        problems.timer(path, interval.unwrap_or_default());
        if interval.is_some_and(|interval| interval.0.is_zero()) {
            problems.add(path, "must be more than 0; write for example 24h");
        }
    }

    /// Messages name the place of the storage, so a secret in it is refused.
    fn check_places(&self, problems: &mut Problems<'_>) {
        let (s3, gcs, azure) = (&self.s3, &self.gcs, &self.azure);
        let buckets = [
            ("storage.s3.bucket", s3.as_ref().map(|s3| &s3.bucket)),
            ("storage.gcs.bucket", gcs.as_ref().map(|gcs| &gcs.bucket)),
            (
                "storage.azure.container",
                azure.as_ref().map(|azure| &azure.container),
            ),
            (
                "storage.s3.rootdirectory",
                s3.as_ref().and_then(|s3| s3.root.as_ref()),
            ),
            (
                "storage.gcs.rootdirectory",
                gcs.as_ref().and_then(|gcs| gcs.root.as_ref()),
            ),
            (
                "storage.azure.rootdirectory",
                azure.as_ref().and_then(|azure| azure.root.as_ref()),
            ),
        ];
        for (key, name) in buckets {
            if name.is_some_and(|name| is_secret(name)) {
                problems.add(key, "this looks like a key, a token or a password; write the name of the bucket, or of the folder in it");
            }
        }
    }
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
    /// Uploads that were abandoned.
    #[serde(rename = "uploadpurging")]
    pub(crate) upload_purging: UploadPurging,
    /// Whether anything may be written.
    #[serde(rename = "readonly")]
    pub(crate) read_only: ReadOnly,
}

/// Uploads that were abandoned.
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
    /// The time between two sweeps; 1h by default.
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
    /// Refuse all writes, and write nothing by itself: pulls leave the storage as it is and are not recorded, and nothing is swept or
    /// collected. A folder may then be on a read-only mount.
    pub(crate) enabled: bool,
}
