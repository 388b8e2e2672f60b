//! The records of the storage protocol and how they are written.
//!
//! A record is one line of JSON, then its content if it has any. Spaces before the end of the line make its size modulo
//! 8 the number of its state, so that a listing, which has sizes but no values, shows states without reading.

mod maintenance;

use crate::chain::State;
use bytes::{Bytes, BytesMut};
use registry_core::hash::HashSnapshot;
use registry_core::storage::EndReason;
use registry_core::upload::UploadSnapshot;
use registry_core::{Annotations, Descriptor, Digest, Error, MediaType, RepositoryName, Tag, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

pub(crate) use self::maintenance::{
    AdoptedRecord, AdoptionRecord, CandidatesRecord, ChangedRecord, CountedBlobs, CyclesRecord,
    FullSweepRecord, ParkedRecord, PassRecord, ProbedRecord, PulledRecord, PullsRecord, QuotaRecord,
    ScrubRecord, SecretRecord, SharedBlobs, UnnamedRecord, UsageRecord, WriterRecord,
};
use crate::backend::{Part, StagedBytes};
use crate::bytes_name::BytesName;
use crate::unique::unique;

/// The first line of a record.
pub(crate) trait Header: Serialize + DeserializeOwned + Sync {
    /// Returns the state that the record's size encodes.
    fn state(&self) -> State;
}

/// What every header begins with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stamp {
    /// Makes every write differ from every other one, so that no version is used twice.
    nonce: Uuid,
    /// When it was written.
    pub(crate) written: Timestamp,
}

impl Stamp {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            nonce: unique(),
            written: now,
        }
    }

    /// Returns what no other write has.
    pub(crate) const fn nonce(&self) -> Uuid {
        self.nonce
    }
}

/// A manifest of a repository; its bytes are the content. A dead manifest has none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ManifestRecord {
    pub(crate) state: State,
    /// New each time the manifest leaves Absent or Dead, and unique.
    pub(crate) incarnation: String,
    pub(crate) media_type: MediaType,
    /// The subject whose list of referrers it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) condemned_in: Option<u64>,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// The right of a repository to read a blob, with what a read needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct GrantRecord {
    pub(crate) state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) blob: Option<BlobBytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) condemned_in: Option<u64>,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// A blob; if it is small, its content is the record's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BlobRecord {
    pub(crate) state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) blob: Option<BlobBytes>,
    /// Bytes that uploads want to publish, while it is Pending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) proposals: Vec<BytesName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) condemned_in: Option<u64>,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

impl BlobRecord {
    /// Returns the bytes that it names: as its content, or as proposals.
    pub(crate) fn names(&self) -> impl Iterator<Item = &BytesName> {
        let content = self.blob.as_ref().and_then(|blob| blob.bytes.as_ref());
        self.proposals.iter().chain(content)
    }
}

/// Where the content of a published blob is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlobBytes {
    pub(crate) size: u64,
    /// The name of the bytes; `None` if they are in the blob's record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<BytesName>,
}

/// A tag; a dead one is a tombstone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TagRecord {
    pub(crate) state: State,
    pub(crate) digest: Digest,
    /// The incarnation of the manifest. If it is not visible, or another one is, the tag counts as absent.
    pub(crate) incarnation: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) principal: String,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// A past value of a tag. It was replaced when this was written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PastTagRecord {
    pub(crate) digest: Digest,
    /// When the tag was pointed at it, and by whom.
    pub(crate) since: Timestamp,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) principal: String,
    pub(crate) reason: EndReason,
    /// Who moved the tag.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) ended_by: String,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// A deleted manifest; its bytes are the content. It was deleted when this was written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DeletedManifestRecord {
    pub(crate) media_type: MediaType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<Digest>,
    pub(crate) reason: EndReason,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// A back reference that a manifest has, or had, a tag, or that a repository has, or had, a grant. One that is Dead counts as absent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BackReferenceRecord {
    /// Stores of before 0.1 have records without it.
    #[serde(default = "live")]
    pub(crate) state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tag: Option<Tag>,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// An entry in the list of a subject's referrers; the annotations are the content.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ReferrerRecord {
    pub(crate) incarnation: String,
    pub(crate) descriptor: ReferrerFields,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// A descriptor in a list of referrers without its annotations, so that it can be read without them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReferrerFields {
    pub(crate) media_type: MediaType,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    /// Versions before 0.1 wrote them here.
    #[serde(default, skip_serializing)]
    annotations: Option<Box<RawValue>>,
}

impl ReferrerRecord {
    /// Creates an entry; the annotations of `descriptor` are to be written as its content.
    pub(crate) fn new(incarnation: &str, descriptor: &Descriptor, now: Timestamp) -> Self {
        Self {
            incarnation: incarnation.to_owned(),
            descriptor: ReferrerFields {
                media_type: descriptor.media_type.clone(),
                digest: descriptor.digest.clone(),
                size: descriptor.size,
                artifact_type: descriptor.artifact_type.clone(),
                annotations: None,
            },
            stamp: Stamp::new(now),
        }
    }

    /// Returns the descriptor of an entry with this content.
    pub(crate) fn into_descriptor(self, content: Bytes) -> Descriptor {
        let fields = self.descriptor;
        let annotations = match fields.annotations {
            Some(text) => Bytes::from(String::from(Box::<str>::from(text))),
            None => content,
        };
        Descriptor {
            media_type: fields.media_type,
            digest: fields.digest,
            size: fields.size,
            artifact_type: fields.artifact_type,
            annotations: Annotations::from_json(annotations),
        }
    }
}

/// A repository in the catalog. It is Condemned while it is being removed, and then Dead.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RepositoryRecord {
    /// Stores of before 0.1 have records without it.
    #[serde(default = "live")]
    pub(crate) state: State,
    pub(crate) name: RepositoryName,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

const fn live() -> State {
    State::Live
}

/// A note of an operation that takes several transactions, for the operations that it concerns and for the sweeper,
/// which ends what was interrupted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NoteRecord {
    pub(crate) repository: RepositoryName,
    pub(crate) digest: Digest,
    pub(crate) kind: NoteKind,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// The kind of the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NoteKind {
    DeleteBlob,
    DeleteManifest,
    PushManifest,
}

/// An upload session; the bytes after its last part are the content, unless they are parked. An ended session is dead.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SessionRecord {
    pub(crate) state: State,
    pub(crate) repository: RepositoryName,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) principal: String,
    pub(crate) upload: UploadSnapshot,
    /// The bytes, which are named before they exist.
    pub(crate) bytes: StagedBytes,
    /// The parts that the backend has a name for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) parts: Vec<Part>,
    /// How many bytes are in parts.
    pub(crate) parts_size: u64,
    /// The bytes after the last part, if they are many. Stores of before 0.1 have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parked_tail: Option<ParkedTail>,
    /// The bytes were offered to a blob's record; they are offered only once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) proposed: bool,
    /// The blob that they were offered to. Stores of before 0.1 have sessions without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) proposed_to: Option<Digest>,
    /// The session has ended, and its bytes may be there although no blob took them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) has_left_bytes: bool,
    /// Nothing can be appended: the bytes are being completed with this tail, to read them before the commit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) sealed: bool,
    /// They were completed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) completed: bool,
    /// How far the parts were hashed with the other algorithm, once a commit asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) other_hash: Option<HashSnapshot>,
    /// The epoch of the backend that the parts were written in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) epoch: Option<String>,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// The bytes after a session's last part, in a [`ParkedRecord`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct ParkedTail {
    pub(crate) id: Uuid,
    pub(crate) size: usize,
}

/// A record that is no longer usable, with its value as the content: kept for an operator who looks for what was lost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct QuarantineRecord {
    /// What was wrong with it.
    pub(crate) reason: String,
    /// Bytes that it named, or that were named with it. The sweeper leaves them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) bytes: Vec<BytesName>,
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

macro_rules! stateful {
    ($($record:ty),*) => {
        $(impl Header for $record {
            fn state(&self) -> State {
                self.state
            }
        })*
    };
}
macro_rules! always_live {
    ($($record:ty),*) => {
        $(impl Header for $record {
            fn state(&self) -> State {
                State::Live
            }
        })*
    };
}
stateful!(
    ManifestRecord,
    GrantRecord,
    BlobRecord,
    TagRecord,
    SessionRecord,
    RepositoryRecord,
    BackReferenceRecord,
    ChangedRecord,
    PullsRecord,
    PulledRecord,
    UsageRecord
);
always_live!(
    PastTagRecord,
    DeletedManifestRecord,
    ReferrerRecord,
    NoteRecord,
    QuarantineRecord,
    AdoptionRecord,
    AdoptedRecord,
    CyclesRecord,
    CandidatesRecord,
    PassRecord,
    UnnamedRecord,
    ParkedRecord,
    FullSweepRecord,
    ScrubRecord,
    ProbedRecord,
    SecretRecord,
    QuotaRecord,
    WriterRecord
);

/// Writes a record.
pub(crate) fn encode(header: &impl Header, content: &[u8]) -> Result<Bytes, Error> {
    let line = serde_json::to_vec(header).map_err(Error::internal)?;
    let mut value = BytesMut::with_capacity(line.len() + 8 + content.len());
    value.extend_from_slice(&line);
    let end = line.len() + 1 + content.len();
    for _ in 0..(state_number(header.state()) + 8 - end % 8) % 8 {
        value.extend_from_slice(b" ");
    }
    value.extend_from_slice(b"\n");
    value.extend_from_slice(content);
    Ok(value.freeze())
}

/// Reads a record back: its header and its content.
pub(crate) fn decode<H: Header>(value: &Bytes) -> Result<(H, Bytes), Error> {
    let end = value
        .iter()
        .position(|&byte| byte == b'\n')
        .ok_or_else(|| Error::internal(Malformed))?;
    let header = value
        .get(..end)
        .and_then(|line| serde_json::from_slice(line).ok());
    let header = header.ok_or_else(|| Error::internal(Malformed))?;
    Ok((header, value.slice(end + 1..)))
}

/// The part of each record that says when it was written.
#[derive(Deserialize)]
struct Written {
    written: Timestamp,
}

/// Returns when a record was written, by its value; `None` if it cannot be read.
pub(crate) fn written(value: &[u8]) -> Option<Timestamp> {
    let line = value.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let written = serde_json::from_slice::<Written>(line).ok()?;
    Some(written.written)
}

/// The part of a grant that says how large its blob is.
#[derive(Deserialize)]
struct GrantSize {
    #[serde(default)]
    blob: Option<BlobSize>,
}

#[derive(Deserialize)]
struct BlobSize {
    size: u64,
}

/// Returns the size of the blob of a grant, by the value of its record; 0 if it names none or cannot be read.
pub(crate) fn size_of_blob(grant: &[u8]) -> u64 {
    let line = grant.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let grant = serde_json::from_slice::<GrantSize>(line).ok();
    grant.and_then(|grant| grant.blob).map_or(0, |blob| blob.size)
}

/// Returns the size of a manifest, by the value of its record.
pub(crate) fn size_of_manifest(manifest: &[u8]) -> u64 {
    let header = manifest.iter().position(|&byte| byte == b'\n');
    header.map_or(0, |end| (manifest.len() - end - 1) as u64)
}

/// A record that this version of the store did not write.
#[derive(Debug, thiserror::Error)]
#[error("a record of the store is malformed")]
struct Malformed;

/// Returns the state of a record of which only the size is known.
pub(crate) const fn state_of_size(size: u64) -> State {
    match size % 8 {
        1 => State::Pending,
        2 => State::Live,
        3 => State::Condemned,
        4 => State::Dead,
        _ => State::Absent,
    }
}

const fn state_number(state: State) -> usize {
    match state {
        State::Absent => 0,
        State::Pending => 1,
        State::Live => 2,
        State::Condemned => 3,
        State::Dead => 4,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn descriptor(annotations: &'static str) -> Descriptor {
        Descriptor {
            media_type: MediaType::OCI_MANIFEST.parse().unwrap(),
            digest: format!("sha256:{}", "0".repeat(64)).parse().unwrap(),
            size: 7,
            artifact_type: Some("a/b".into()),
            annotations: Annotations::from_json(Bytes::from_static(annotations.as_bytes())),
        }
    }

    #[test]
    fn an_entry_of_a_referrer_reads_back_with_its_annotations_as_they_were() {
        for annotations in ["", "{ \"a\":\n\"\\u0041\" }"] {
            let descriptor = descriptor(annotations);
            let entry = ReferrerRecord::new("i", &descriptor, Timestamp(1));
            let value = encode(&entry, descriptor.annotations.as_json()).unwrap();
            let (read, content) = decode::<ReferrerRecord>(&value).unwrap();
            assert_eq!(read.descriptor.artifact_type.as_deref(), Some("a/b"));
            assert_eq!(read.into_descriptor(content), descriptor);
        }
    }

    #[test]
    fn an_entry_of_a_referrer_with_annotations_in_its_header_is_read() {
        let zeros = "0".repeat(64);
        for (field, annotations) in [("", ""), (r#","annotations":{"a":"b"}"#, r#"{"a":"b"}"#)] {
            let header = format!(
                r#"{{"incarnation":"i","descriptor":{{"mediaType":"{}","digest":"sha256:{zeros}","size":7,"artifactType":"a/b"{field}}},"nonce":"67e55044-10b1-426f-9247-bb680e5fe0c8","written":1}}"#,
                MediaType::OCI_MANIFEST
            );
            let (read, content) = decode::<ReferrerRecord>(&Bytes::from(header + "\n")).unwrap();
            assert_eq!(read.into_descriptor(content), descriptor(annotations));
        }
    }

    proptest! {
        #[test]
        fn the_size_of_a_record_tells_its_state_and_it_reads_back(
            content in proptest::collection::vec(any::<u8>(), 0..64),
            principal in "\\PC{0,20}",
            state in prop::sample::select(vec![State::Pending, State::Live, State::Condemned, State::Dead]),
        ) {
            let record = TagRecord {
                state,
                digest: format!("sha256:{}", "0".repeat(64)).parse().unwrap(),
                incarnation: "i".into(),
                principal: principal.clone(),
                stamp: Stamp::new(Timestamp(1)),
            };
            let value = encode(&record, &content).unwrap();
            prop_assert_eq!(state_of_size(value.len() as u64), state);
            let (read, rest) = decode::<TagRecord>(&value).unwrap();
            prop_assert_eq!(read.principal, principal);
            prop_assert_eq!(&rest[..], &content[..]);
        }

        #[test]
        fn no_value_makes_decode_panic(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            drop(decode::<TagRecord>(&Bytes::from(value)));
        }
    }
}
