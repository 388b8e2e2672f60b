//! The findings of a check, and their texts.

use std::fmt;

use registry_core::{Digest, RepositoryName};

use crate::key::Key;
use crate::key_kind::KeyKind;
use crate::secret::SecretName;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It may be intended, or harms no client.
    Notice,
    /// An invariant does not hold.
    Broken,
}

/// What a check did, or would do, about a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// A check cannot repair it.
    None,
    /// It can be repaired, but the check was run without repair.
    Possible,
    /// It was repaired, or what cannot be repaired was put into quarantine.
    Done,
    /// Other requests wrote the same records meanwhile; another check will repair it.
    Failed,
}

/// A problem that a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordFinding {
    /// The record that it is about.
    pub key: Key,
    /// What is wrong.
    pub problem: Problem,
    /// What was done about it.
    pub repair: Repair,
}

/// What may be wrong with a record or what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// No record of this version has such a key.
    UnknownKey,
    /// The record cannot be read.
    Unreadable,
    /// The record's size encodes another state than the record has.
    WrongSize,
    /// A tag names a manifest that does not exist.
    DeadTag {
        /// The manifest.
        digest: Digest,
    },
    /// The back reference from a manifest to one of its tags is missing.
    MissingTagReference {
        /// The manifest.
        digest: Digest,
    },
    /// A manifest names content that its repository does not have.
    MissingChildren {
        /// The missing content.
        digests: Vec<Digest>,
    },
    /// A manifest is not in the list of its subject's referrers.
    MissingReferrer {
        /// The subject.
        subject: Digest,
    },
    /// The manifest of an entry in a list of referrers does not exist.
    DeadReferrer,
    /// A repository with manifests is not in the catalog.
    MissingRepository {
        /// The repository.
        repository: RepositoryName,
    },
    /// A repository may read a blob that does not exist.
    MissingBlob,
    /// A repository may read a blob, but reads other bytes than the blob's.
    OtherBytes,
    /// The back reference from a repository to one of its blobs is missing.
    MissingGrantReference,
    /// The bytes of a blob are gone.
    MissingBytes,
    /// The bytes of a blob have another size than its record says.
    OtherLength {
        /// The size in the record, in bytes.
        expected: u64,
        /// The size that was found, in bytes.
        found: u64,
    },
    /// The content of a blob or manifest does not match its digest.
    OtherContent {
        /// The digest of the content that was found.
        found: Digest,
    },
    /// It was put into quarantine, and was not pushed since.
    InQuarantine {
        /// Why it was put there.
        reason: String,
        /// The repositories that have it, five at most.
        repositories: Vec<RepositoryName>,
    },
    /// The bytes of a blob cannot be read.
    UnreadableBytes {
        /// The error of the medium.
        cause: String,
    },
    /// An upload has fewer bytes than its record says.
    ShortUpload {
        /// The size in the record, in bytes.
        expected: u64,
        /// The size that was found, in bytes.
        found: u64,
    },
}

impl Problem {
    /// Returns how bad the problem is.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::UnknownKey | Self::MissingChildren { .. } | Self::ShortUpload { .. } => Severity::Notice,
            _ => Severity::Broken,
        }
    }

    /// Returns whether a check can repair the problem, or put the record into quarantine.
    #[must_use]
    pub const fn is_repairable(&self) -> bool {
        !matches!(
            self,
            Self::UnknownKey
                | Self::MissingChildren { .. }
                | Self::ShortUpload { .. }
                | Self::InQuarantine { .. }
                | Self::UnreadableBytes { .. }
        )
    }

    /// Returns what a client notices if the problem is one of this record.
    #[must_use]
    pub fn consequence(&self, key: &Key) -> &'static str {
        match self {
            Self::UnknownKey => "nothing: no request looks for it",
            Self::Unreadable => KeyKind::of(key).map_or(ANSWERED_WITH_500, |kind| unreadable(&kind)),
            Self::WrongSize => "lists show what is deleted, or hide what is there",
            Self::DeadTag { .. } => "the tag is listed, and a pull of it is answered with 404",
            Self::MissingTagReference { .. } => "a delete of the manifest leaves the tag in the list",
            Self::MissingChildren { .. } => {
                "a pull of what is not there is answered with 404; it may be meant so, after a delete or a push \
                 that allowed it"
            }
            Self::MissingReferrer { .. } => "lists of referrers do not show it",
            Self::DeadReferrer => "nothing: lists leave it out",
            Self::MissingRepository { .. } => "the catalog does not show it, and its list of tags is 404",
            Self::MissingBlob => "a pull fails, or will once the sweeper took the bytes",
            Self::OtherBytes => "nothing: a pull looks at the blob where those bytes are lost",
            Self::MissingGrantReference => {
                "the collector will not find the grant, so its bytes are never given back"
            }
            Self::MissingBytes | Self::OtherLength { .. } => {
                "it is answered with 404, and a push brings it back"
            }
            Self::OtherContent { .. } => {
                "a manifest or small blob is answered with 404, and a push brings it back; a large blob is refused by \
                 who pulls it, and pushes of it are told that it is there"
            }
            Self::InQuarantine { .. } => "it is answered with 404, and so is a pull of what needs it",
            Self::UnreadableBytes { .. } => "a pull of it breaks off",
            Self::ShortUpload { .. } => "the client has to start this upload again",
        }
    }

    /// Returns what a repair does.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::UnknownKey => "left alone: a newer version may have written it",
            Self::Unreadable => "what follows from its key is written anew, the rest goes into quarantine",
            Self::WrongSize => "the record is written anew",
            Self::DeadTag { .. } => "the tag is deleted",
            Self::MissingTagReference { .. } | Self::MissingGrantReference => "the back reference is written",
            Self::MissingChildren { .. } => "left alone: push the image again",
            Self::MissingReferrer { .. } => "the entry is written",
            Self::DeadReferrer => "the entry is removed",
            Self::MissingRepository { .. } => "the entry is written",
            Self::MissingBlob => "the grant goes into quarantine; a push brings it back",
            Self::OtherBytes => "the grant is written anew, with the bytes of the blob",
            Self::MissingBytes | Self::OtherLength { .. } | Self::OtherContent { .. } => {
                "it goes into quarantine, so it is 404 and a push brings it back"
            }
            Self::InQuarantine { .. } => "push it again",
            Self::UnreadableBytes { .. } => "left alone: look at the disk or the bucket",
            Self::ShortUpload { .. } => "left alone: it ends by itself",
        }
    }
}

const ANSWERED_WITH_500: &str = "requests that come to it are answered with 500";

/// Returns what a client notices of a record that cannot be read.
const fn unreadable(kind: &KeyKind) -> &'static str {
    match kind {
        KeyKind::Blob(_) | KeyKind::Upload(_) => {
            "requests that come to it are answered with 500, and the sweeper deletes no bytes, as it may name them"
        }
        KeyKind::Manifest(..) => {
            "requests that come to it are answered with 500, and nothing of the repository is collected, as it may name it"
        }
        KeyKind::Tag(..) => {
            "requests that come to it are answered with 500, and retention drops nothing in the repository"
        }
        KeyKind::Tagged(..) => "a delete of the manifest is answered with 500",
        KeyKind::Referrer { .. } => "the list of the referrers is answered with 500",
        KeyKind::Delete(..) => {
            "pushes of manifests to the repository are answered with 500, and the sweeper deletes no bytes"
        }
        KeyKind::Push(..) => "nothing, but the sweeper deletes no bytes",
        KeyKind::Adoption => "nothing, but nothing is collected, and no repository can be deleted",
        KeyKind::Adopted(_) => "nothing, but the repository cannot be adopted",
        KeyKind::PastTag { .. } | KeyKind::DeletedManifest { .. } => "it cannot be restored",
        KeyKind::RepositoryBlob(..) => "nothing: its name says what it does",
        KeyKind::Unnamed(_) => "nothing: the next sweep of everything deletes the bytes that it names",
        KeyKind::Parked(..) => {
            "the upload that it is of is answered with 500 once, and goes on from an earlier offset"
        }
        KeyKind::FullSweep => "nothing: the next sweep looks at everything",
        KeyKind::Cycles => "nothing: what was condemned is condemned once more",
        KeyKind::Changed(_) => "nothing: the collector reads the repository within a week",
        KeyKind::Candidates(_) => "nothing: what it names is found when everything is looked at",
        KeyKind::PassOverRepositories | KeyKind::PassOverBlobs => {
            "nothing: the collector looks at everything anew"
        }
        KeyKind::Scrub => "nothing: a new round of the scrubber begins",
        KeyKind::Secret(SecretName::TokenKeys) => {
            "nothing while servers run, but none with tokens of its own starts; a repair ends all tokens"
        }
        KeyKind::Secret(SecretName::Catalog) => "links to pages of the catalog are good at one server only",
        KeyKind::Probed => "nothing: the next start tries the store once more",
        KeyKind::Writer => "the process that writes alone stops to write, or none can tell who it is",
        KeyKind::Pulls => "nothing: the recording of pulls begins anew",
        KeyKind::Pulled(_) => "nothing is dropped in the repository because it was not pulled",
        KeyKind::Usage(_) => "nothing: what the repository has is counted anew",
        KeyKind::Quota(_) => "what is used of the quota is not known until it is counted anew",
        KeyKind::Grant(..) | KeyKind::Repository(_) => ANSWERED_WITH_500,
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey => f.write_str("this version has no record of that name"),
            Self::Unreadable => f.write_str("the record cannot be read"),
            Self::WrongSize => f.write_str("the size of the record tells another state than it has"),
            Self::DeadTag { digest } => write!(f, "the tag names {digest}, which is not there"),
            Self::MissingTagReference { digest } => write!(f, "{digest} does not know this tag of its"),
            Self::MissingChildren { digests } => {
                f.write_str("the manifest names what is not in the repository:")?;
                for digest in digests.iter().take(5) {
                    write!(f, " {digest}")?;
                }
                match digests.len().saturating_sub(5) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Self::MissingReferrer { subject } => {
                write!(f, "the manifest is not in the list of the referrers of {subject}")
            }
            Self::DeadReferrer => {
                f.write_str("the manifest of this entry in a list of referrers is not there")
            }
            Self::MissingRepository { repository } => {
                write!(f, "the repository {repository} is not in the catalog")
            }
            Self::MissingBlob => f.write_str("the repository may read a blob that is not there"),
            Self::OtherBytes => f.write_str("the repository reads other bytes than those of the blob"),
            Self::MissingGrantReference => f.write_str("the repository does not know this blob of its"),
            Self::MissingBytes => f.write_str("the bytes of the blob are gone"),
            Self::OtherLength { expected, found } => {
                write!(f, "{found} bytes are there, and the record says {expected}")
            }
            Self::OtherContent { found } => write!(f, "the content has the digest {found}"),
            Self::InQuarantine { reason, repositories } => {
                write!(f, "it is in quarantine ({reason}), and missing in")?;
                for (index, repository) in repositories.iter().enumerate() {
                    write!(f, "{} {repository}", if index > 0 { "," } else { "" })?;
                }
                Ok(())
            }
            Self::UnreadableBytes { cause } => write!(f, "the bytes of the blob cannot be read: {cause}"),
            Self::ShortUpload { expected, found } => {
                write!(
                    f,
                    "{found} bytes of the upload are there, and its record says {expected}"
                )
            }
        }
    }
}

impl fmt::Display for RecordFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, problem, repair } = self;
        write!(
            f,
            "{key}: {problem}. Clients notice: {}. ",
            problem.consequence(key)
        )?;
        let remedy = problem.remedy();
        match repair {
            Repair::None => write!(f, "Not repaired: {remedy}."),
            Repair::Possible => write!(f, "With --repair: {remedy}."),
            Repair::Done => write!(f, "Repaired: {remedy}."),
            Repair::Failed => write!(
                f,
                "Not repaired, as others write here just now; check again: {remedy}."
            ),
        }
    }
}
