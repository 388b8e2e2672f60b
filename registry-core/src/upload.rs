//! Uploads: where a session stands, and what may happen to it next.

use alloc::format;

use serde::{Deserialize, Serialize};

use crate::digest::{Algorithm, Digest};
use crate::error::{Error, ErrorCode};
use crate::hash::{HashSnapshot, Hasher};

/// An upload session, without its bytes, which the storage keeps.
///
/// It is a value: a transition takes one and returns the next, and nothing has happened until the storage wrote that
/// down. Every transition but that of a repeated commit starts from an open session; from any other it is refused with
/// [`ErrorCode::BlobUploadUnknown`].
///
/// The hasher may be behind the bytes: a storage that hashes on another thread, or keeps a tail that is not hashed
/// yet, says so by [`Upload::with_progress`].
#[derive(Clone, Debug)]
pub struct Upload {
    length: u64,
    hasher: Hasher,
    phase: Phase,
}

/// An upload session as a record, for a process that resumes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UploadSnapshot {
    version: u32,
    length: u64,
    algorithm: Algorithm,
    hash: HashSnapshot,
    phase: Phase,
}

/// What to do for a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// The bytes have the digest: make them a blob, then [`Upload::finished`].
    Matches,
    /// The session was finished with this digest before: succeed if the blob is still there.
    AlreadyFinished,
    /// The bytes have to be read and hashed from the start: with another algorithm than was hinted, or because the
    /// hasher has not seen all of them. Then [`Upload::with_progress`], and ask again.
    Rehash(Algorithm),
}

/// How far a session has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Phase {
    /// It takes bytes.
    Open,
    /// It became a blob, of this digest.
    Finished(Digest),
    /// It was cancelled or given up.
    Aborted,
}

/// The version of [`UploadSnapshot`].
const VERSION: u32 = 1;

impl Upload {
    /// Starts a session without bytes, whose digest will presumably be of `algorithm`.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self {
            length: 0,
            hasher: Hasher::new(algorithm),
            phase: Phase::Open,
        }
    }

    /// Goes on where `snapshot` was taken. Where only the state of the hash cannot be resumed, a commit will ask for
    /// [`Commit::Rehash`].
    ///
    /// # Errors
    /// [`ErrorCode::Internal`] where another version of this registry wrote the snapshot and this one cannot read it.
    pub fn resume(snapshot: UploadSnapshot) -> Result<Self, Error> {
        let UploadSnapshot {
            version,
            length,
            algorithm,
            hash,
            phase,
        } = snapshot;
        if version != VERSION {
            return Err(Error::internal(UnknownVersion(version)));
        }
        let hasher = Hasher::resume(&hash)
            .ok()
            .filter(|hasher| hasher.algorithm() == algorithm && hasher.length() <= length)
            .unwrap_or_else(|| Hasher::new(algorithm));
        Ok(Self {
            length,
            hasher,
            phase,
        })
    }

    /// Returns the session as a record.
    #[must_use]
    pub fn snapshot(&self) -> UploadSnapshot {
        UploadSnapshot {
            version: VERSION,
            length: self.length,
            algorithm: self.hasher.algorithm(),
            hash: self.hasher.snapshot(),
            phase: self.phase.clone(),
        }
    }

    /// Returns how many bytes the session has.
    ///
    /// # Errors
    /// [`ErrorCode::BlobUploadUnknown`] where it is not open.
    pub fn length(&self) -> Result<u64, Error> {
        match self.phase {
            Phase::Open => Ok(self.length),
            Phase::Finished(_) | Phase::Aborted => Err(ErrorCode::BlobUploadUnknown.into()),
        }
    }

    /// Returns the hasher, to go on with it elsewhere; it has seen the first [`Hasher::length`] bytes.
    #[must_use]
    pub const fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// Returns the digest that the session was finished with.
    #[must_use]
    pub const fn finished_digest(&self) -> Option<&Digest> {
        match &self.phase {
            Phase::Finished(digest) => Some(digest),
            Phase::Open | Phase::Aborted => None,
        }
    }

    /// Returns where the next bytes go, which is the end; the client that names an `offset` must mean the same.
    ///
    /// # Errors
    /// [`ErrorCode::RangeInvalid`] for any other offset, and the session stays as it is;
    /// [`ErrorCode::BlobUploadUnknown`] where it is not open.
    pub fn append_at(&self, offset: Option<u64>) -> Result<u64, Error> {
        let length = self.length()?;
        match offset {
            Some(offset) if offset != length => {
                let message = format!("the upload has {length} bytes; go on there, not at {offset}");
                Err(Error::new(ErrorCode::RangeInvalid, message))
            }
            _ => Ok(length),
        }
    }

    /// Adds bytes that the storage has stored, and hashes them where all before them were.
    ///
    /// # Errors
    /// [`ErrorCode::BlobUploadUnknown`] where the session is not open.
    pub fn appended(mut self, bytes: &[u8]) -> Result<Self, Error> {
        let length = self.length()?;
        if self.hasher.length() == length {
            self.hasher.update(bytes);
        }
        self.length = length.saturating_add(bytes.len() as u64);
        Ok(self)
    }

    /// States how far the storage has come by itself: it has `length` bytes, of which `hasher` saw a beginning, or all
    /// of them. A hasher that saw more than that is put back to the start.
    ///
    /// # Errors
    /// [`ErrorCode::BlobUploadUnknown`] where the session is not open.
    pub fn with_progress(mut self, length: u64, hasher: Hasher) -> Result<Self, Error> {
        self.length()?;
        self.length = length;
        self.hasher = if hasher.length() <= length {
            hasher
        } else {
            Hasher::new(hasher.algorithm())
        };
        Ok(self)
    }

    /// Compares the bytes with the digest that the client says they have.
    ///
    /// # Errors
    /// [`ErrorCode::DigestInvalid`] where they have another or its algorithm is not supported, and the session stays
    /// open; [`ErrorCode::BlobUploadUnknown`] where the session was aborted or finished with another digest.
    pub fn commit(&self, digest: &Digest) -> Result<Commit, Error> {
        if self.finished_digest() == Some(digest) {
            return Ok(Commit::AlreadyFinished);
        }
        let length = self.length()?;
        let algorithm = digest.supported_algorithm()?;
        if self.hasher.algorithm() != algorithm || self.hasher.length() != length {
            return Ok(Commit::Rehash(algorithm));
        }
        let actual = self.hasher.clone().finish();
        if actual == *digest {
            Ok(Commit::Matches)
        } else {
            let message = format!("the {length} bytes that arrived have the digest {actual}, not {digest}");
            Err(Error::new(ErrorCode::DigestInvalid, message))
        }
    }

    /// Closes the session, whose bytes became the blob `digest`.
    ///
    /// # Errors
    /// [`ErrorCode::BlobUploadUnknown`] where it is not open.
    pub fn finished(mut self, digest: Digest) -> Result<Self, Error> {
        self.length()?;
        self.phase = Phase::Finished(digest);
        Ok(self)
    }

    /// Closes the session without a blob.
    ///
    /// # Errors
    /// [`ErrorCode::BlobUploadUnknown`] where it is not open.
    pub fn aborted(mut self) -> Result<Self, Error> {
        self.length()?;
        self.phase = Phase::Aborted;
        Ok(self)
    }
}

/// The cause of a session that cannot be resumed.
#[derive(Debug, thiserror::Error)]
#[error("the upload session was written as version {0}, this registry reads version {VERSION}")]
struct UnknownVersion(u32);
