//! Uploads: the state of a session, and what may happen to it next.

use alloc::format;

use serde::{Deserialize, Serialize};

use crate::digest::{Algorithm, Digest};
use crate::error::{Error, ErrorCode};
use crate::hash::{HashSnapshot, Hasher};

/// An upload session, without its bytes, which the storage keeps.
///
/// It is a value: a transition takes one and returns the next, and nothing has happened until the storage recorded
/// that. Every transition except a repeated commit starts from an open session; from any other it is refused with
/// [`ErrorCode::BlobUploadUnknown`].
///
/// The hasher may be behind the bytes: a storage that hashes on another thread, or keeps a tail that is not hashed yet,
/// reports that with [`Upload::with_progress`].
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

/// What a commit has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// The bytes have the digest: make them a blob, then [`Upload::finished`].
    Matches,
    /// The session was already finished with this digest: succeed if the blob still exists.
    AlreadyFinished,
    /// The bytes have to be read and hashed from the start: with another algorithm than was announced, or because the
    /// hasher has not seen all of them. Then call [`Upload::with_progress`], and commit again.
    Rehash(Algorithm),
}

/// The phase of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Phase {
    /// It accepts bytes.
    Open,
    /// It became a blob with this digest.
    Finished(Digest),
    /// It was cancelled or given up.
    Aborted,
}

/// The version of [`UploadSnapshot`].
const VERSION: u32 = 1;

impl Upload {
    /// Starts a session without bytes, whose digest is expected to have `algorithm`.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self {
            length: 0,
            hasher: Hasher::new(algorithm),
            phase: Phase::Open,
        }
    }

    /// Continues where `snapshot` was taken. If only the state of the hash cannot be resumed, a commit will return
    /// [`Commit::Rehash`].
    ///
    /// # Errors
    /// [`ErrorCode::Internal`] if another version of this registry wrote the snapshot and this one cannot read it.
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
    /// [`ErrorCode::BlobUploadUnknown`] if the session is not open.
    pub fn length(&self) -> Result<u64, Error> {
        match self.phase {
            Phase::Open => Ok(self.length),
            Phase::Finished(_) | Phase::Aborted => Err(ErrorCode::BlobUploadUnknown.into()),
        }
    }

    /// Returns the hasher, to continue with it elsewhere; it has seen the first [`Hasher::length`] bytes.
    #[must_use]
    pub const fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// Returns the digest that the session was finished with; `None` if it was not finished.
    #[must_use]
    pub const fn finished_digest(&self) -> Option<&Digest> {
        match &self.phase {
            Phase::Finished(digest) => Some(digest),
            Phase::Open | Phase::Aborted => None,
        }
    }

    /// Returns where the next bytes go, which is the end; an `offset` from the client must be the same.
    ///
    /// # Errors
    /// [`ErrorCode::RangeInvalid`] for any other offset, and the session stays as it is;
    /// [`ErrorCode::BlobUploadUnknown`] if the session is not open.
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

    /// Adds bytes that the storage has stored, and hashes them if all bytes before them were hashed.
    ///
    /// # Errors
    /// [`ErrorCode::BlobUploadUnknown`] if the session is not open.
    pub fn appended(mut self, bytes: &[u8]) -> Result<Self, Error> {
        let length = self.length()?;
        if self.hasher.length() == length {
            self.hasher.update(bytes);
        }
        self.length = length.saturating_add(bytes.len() as u64);
        Ok(self)
    }

    /// Sets the progress of the storage: the session has `length` bytes, of which `hasher` has seen a beginning, or
    /// all. A hasher that has seen more than that is reset to the start.
    ///
    /// # Errors
    /// [`ErrorCode::BlobUploadUnknown`] if the session is not open.
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

    /// Compares the bytes with the digest that the client states.
    ///
    /// # Errors
    /// [`ErrorCode::DigestInvalid`] if the bytes have another digest or its algorithm is not supported, and the session
    /// stays open; [`ErrorCode::BlobUploadUnknown`] if the session was aborted or finished with another digest.
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
    /// [`ErrorCode::BlobUploadUnknown`] if the session is not open.
    pub fn finished(mut self, digest: Digest) -> Result<Self, Error> {
        self.length()?;
        self.phase = Phase::Finished(digest);
        Ok(self)
    }

    /// Closes the session without a blob.
    ///
    /// # Errors
    /// [`ErrorCode::BlobUploadUnknown`] if the session is not open.
    pub fn aborted(mut self) -> Result<Self, Error> {
        self.length()?;
        self.phase = Phase::Aborted;
        Ok(self)
    }
}

/// The cause if a session cannot be resumed.
#[derive(Debug, thiserror::Error)]
#[error("the upload session was written as version {0}, this registry reads version {VERSION}")]
struct UnknownVersion(u32);
