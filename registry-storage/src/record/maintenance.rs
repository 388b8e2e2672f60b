//! The records of what runs beside requests: adoption, the collector, the sweeper, the scrubber, and what is counted.

use registry_core::quota::Amount;
use registry_core::{Digest, RepositoryName, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Stamp, live};
use crate::bytes_name::BytesName;
use crate::chain::State;

/// The progress of adopting another program's data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AdoptionRecord {
    pub(crate) begun: Timestamp,
    /// Before when all links of a tree were taken, by the clock of the bucket, which dates them. It is known once it is finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) begun_in_bucket: Option<Timestamp>,
    /// While it only takes what came later: before when all links were taken, by the clock of the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<Timestamp>,
    /// `None` while it is in progress, or if its process died.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) finished: Option<Timestamp>,
    /// When the last of what was adopted was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) newest: Option<Timestamp>,
    /// The last change of any kind to the folders that was seen, by the clock of their file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) changed: Option<Timestamp>,
    /// What tells the folder that was adopted from a copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) folder: Option<u64>,
    /// Something was broken and left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_partial: bool,
    /// An export into the tree began and did not end. Its links are later than the adoption, and may name what was deleted here since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_exporting: bool,
    /// When the tree became this store's alone: its bytes are named where they are, and may be deleted since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) released: Option<Timestamp>,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// Which links of a repository were adopted; the content is a list of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AdoptedRecord {
    pub(crate) repository: RepositoryName,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// The cycles of the collector.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CyclesRecord {
    /// The number of the newest one.
    pub(crate) newest: u64,
    /// The sealed ones, as ranges with both ends, in order.
    pub(crate) sealed: Vec<(u64, u64)>,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// How far the scrubber is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ScrubRecord {
    /// The process that is at it.
    pub(crate) owner: Uuid,
    /// When the round began.
    pub(crate) begun: Timestamp,
    /// The last blob that was scrubbed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<Digest>,
    /// When the round ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) finished: Option<Timestamp>,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// What was tried of the store when it was last probed. Each process reads it at its start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ProbedRecord {
    /// What was tried, as a number that grows with each change of the probes.
    pub(crate) probes: u32,
    /// The address of the store, and the settings that it was tried with.
    pub(crate) store: String,
    /// It deletes an object only if it has the version that was read; `None` if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deletes_on_condition: Option<bool>,
    /// Probes of other processes had left objects, or were still running.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) has_leftovers: bool,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// The lock of the process that writes to a store alone. It is written every few seconds, so that its nonce changes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WriterRecord {
    /// Tells the process from every other one.
    pub(crate) id: Uuid,
    /// The machine that it runs on, and its number there: for people.
    pub(crate) host: String,
    pub(crate) process: u32,
    /// When it claimed the store.
    pub(crate) since: Timestamp,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// A secret that all processes share; it is the content.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SecretRecord {
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// What the repositories that a quota is for have together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct QuotaRecord {
    /// What they have. It may be more than that, never less once it was counted.
    pub(crate) used: Amount,
    /// The sum of everything that was ever added.
    pub(crate) added: Amount,
    /// New whenever a count begins or ends.
    pub(crate) epoch: Uuid,
    /// When everything was last counted; `None` before the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) counted: Option<Timestamp>,
    /// Nothing was written while it was counted.
    pub(crate) is_exact: bool,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// Since when pulls are recorded; Dead while they are not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PullsRecord {
    pub(crate) state: State,
    pub(crate) since: Timestamp,
    /// Until when at least. Records of before 0.1 do not have it.
    #[serde(default)]
    pub(crate) until: Timestamp,
    /// Of which repositories; see `store/pulled.rs`.
    #[serde(default)]
    pub(crate) of: Option<Digest>,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// When the manifests of a repository were pulled last; the content is a line for each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PulledRecord {
    pub(crate) state: State,
    pub(crate) repository: RepositoryName,
    /// Those that are not in the content were pulled by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<Timestamp>,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// What a repository had when it was last counted; Dead once it has nothing. Nothing that is deleted or refused depends on it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UsageRecord {
    pub(crate) state: State,
    /// When the count began.
    pub(crate) counted: Timestamp,
    pub(crate) blobs: u64,
    pub(crate) blob_bytes: u64,
    pub(crate) manifests: u64,
    pub(crate) manifest_bytes: u64,
    pub(crate) tags: u64,
    /// Those of the blobs that other repositories have too; `None` if that was never counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shared: Option<SharedBlobs>,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// What a repository shared with others when that was last counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SharedBlobs {
    pub(crate) blobs: u64,
    pub(crate) bytes: u64,
    pub(crate) counted: Timestamp,
}

/// A repository in which the collector may find something: Live since something changed, Pending once a cycle has begun
/// to read it, Dead if there is nothing left to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ChangedRecord {
    /// Stores of before 0.1 have another record here: their repositories are read once.
    #[serde(default = "live")]
    pub(crate) state: State,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// Blobs that may have lost their last grant; the content is their digests, a line each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CandidatesRecord {
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// How far a pass of the collector over everything is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PassRecord {
    /// When it began.
    pub(crate) begun: Timestamp,
    /// The key after which it continues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<String>,
    /// How many repositories or blobs it has looked at.
    pub(crate) done: u64,
    /// How many there were in the pass before; `None` if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expected: Option<u64>,
    /// Cycles count what the repositories have. Stores of before 0.1 have passes without it, which begin again.
    #[serde(default)]
    pub(crate) counts_usage: bool,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// Bytes that may have lost what named them last; the content is a line for each: its name, and the only blob that may name
/// it, if there is one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UnnamedRecord {
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// Some bytes of an upload until their part is whole; they are the content.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ParkedRecord {
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// How far a sweep of everything is, and what the last one counted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FullSweepRecord {
    /// When it began.
    pub(crate) begun: Timestamp,
    /// The bytes after which it continues; `None` if it has ended, or has deleted nothing yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<BytesName>,
    #[serde(default)]
    pub(crate) is_finished: bool,
    /// What was counted last, and when; `None` before the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) counted: Option<CountedBlobs>,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// The blobs of the store, each counted once.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct CountedBlobs {
    pub(crate) blobs: u64,
    pub(crate) bytes: u64,
    /// How many of the bytes are not in records.
    pub(crate) outside: u64,
    /// When the sweep that counted them ended.
    pub(crate) when: Timestamp,
}
