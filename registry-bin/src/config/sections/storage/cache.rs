//! `storage.cache`: what a server keeps of a bucket, so that it need not ask for it again.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::problems::Problems;
use crate::config::values::{ByteSize, FilePath, GoDuration};

/// A folder that is smaller keeps hardly anything.
const LEAST_SIZE: ByteSize = ByteSize(64 << 20);

/// Nobody who deletes something expects that it is pulled a day later.
const LONGEST_AGE: GoDuration = GoDuration(Duration::from_hours(24));

/// What a server keeps of a bucket, so that it need not ask for it again.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Cache {
    /// A folder for blobs that clients pulled through this server, and for nothing else: each is fetched from the bucket once. One for each server. Without it none are kept.
    pub(crate) folder: Option<FilePath>,
    /// The size of that folder. What was pulled least recently is removed for what is pulled now.
    pub(crate) size: ByteSize,
    /// The age up to which this server answers pulls from memory, without asking the bucket whether a tag was moved or something was deleted by another server. With 0, every answer is the newest.
    #[serde(rename = "maxage")]
    pub(crate) most_age: GoDuration,
    /// Where distribution remembers blobs: `inmemory` or `redis`.
    #[serde(rename = "blobdescriptor")]
    pub(crate) blob_descriptor: Option<String>,
    /// How many blobs distribution remembers.
    #[serde(rename = "blobdescriptorsize")]
    pub(crate) blob_descriptor_size: Option<i64>,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            folder: None,
            size: ByteSize(10 << 30),
            most_age: GoDuration::default(),
            blob_descriptor: None,
            blob_descriptor_size: None,
        }
    }
}

impl Cache {
    /// Returns whether it asks for anything.
    pub(crate) fn is_on(&self) -> bool {
        self.folder.is_some() || self.most_age != GoDuration::default()
    }

    /// Checks the values.
    pub(super) fn check(&self, problems: &mut Problems<'_>) {
        if self.size.0 == 0 {
            problems.add(
                "storage.cache.size",
                "is 0, which keeps nothing; write for example 10GiB, or remove `folder`",
            );
        }
        if self.folder.is_some() && self.size.0 > 0 && self.size < LEAST_SIZE {
            problems.add(
                "storage.cache.size",
                format!(
                    "is {}, and must be at least {LEAST_SIZE}, because layers have megabytes; write for example 10GiB, or remove `folder`",
                    self.size
                ),
            );
        }
        problems.timer("storage.cache.maxage", self.most_age);
        if self.most_age > LONGEST_AGE {
            problems.add(
                "storage.cache.maxage",
                format!(
                    "is {}, and may be at most {LONGEST_AGE}: for so long, clients may get what was deleted or moved; write for example 10s",
                    self.most_age
                ),
            );
        }
    }
}
