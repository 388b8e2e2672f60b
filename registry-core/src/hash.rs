//! Hashing that can be interrupted, and resumed by another process.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use digest::common::hazmat::{SerializableState, SerializedState};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

use crate::digest::{Algorithm, Digest};

/// Computes the digest of bytes that arrive in pieces.
///
/// ```
/// use registry_core::{Algorithm, Digest, Hasher};
/// let mut hasher = Hasher::new(Algorithm::Sha256);
/// hasher.update(b"hello ");
/// let mut resumed = Hasher::resume(&hasher.snapshot())?;
/// resumed.update(b"world");
/// assert_eq!(resumed.finish(), Digest::of(Algorithm::Sha256, b"hello world"));
/// # Ok::<(), registry_core::hash::UnusableSnapshot>(())
/// ```
#[derive(Clone)]
pub struct Hasher {
    state: HashState,
    length: u64,
}

#[derive(Clone)]
enum HashState {
    Sha256(Sha256),
    Sha512(Sha512),
}

/// The state of a [`Hasher`] as text, for the record of an upload.
///
/// The text is `version:algorithm:length:state`: the length is in bytes, the state in hexadecimal digits. Any text can
/// be held; [`Hasher::resume`] returns an error if it is not usable. It reveals no more of the content than a digest
/// does, except up to 127 of the last bytes, which it contains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HashSnapshot(Box<str>);

/// A snapshot of an incompatible version, or a damaged one: hash the bytes from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state of the hash cannot be resumed")]
pub struct UnusableSnapshot;

/// The version of the snapshot's text, and of the state of `sha2` 0.11, which is stable over its compatible releases.
const VERSION: &str = "1";

/// The maximum number of bytes that a snapshot may have seen, 1 EiB: far from where SHA-256 stops counting, at 2 EiB.
const MAXIMUM_BYTES: u64 = 1 << 60;

impl Hasher {
    /// Starts a digest.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        let state = match algorithm {
            Algorithm::Sha256 => HashState::Sha256(Sha256::new()),
            Algorithm::Sha512 => HashState::Sha512(Sha512::new()),
        };
        Self { state, length: 0 }
    }

    /// Continues where the hasher was when `snapshot` was taken.
    ///
    /// # Errors
    /// [`UnusableSnapshot`] if the bytes have to be hashed again.
    pub fn resume(snapshot: &HashSnapshot) -> Result<Self, UnusableSnapshot> {
        parse(&snapshot.0).ok_or(UnusableSnapshot)
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            HashState::Sha256(state) => state.update(bytes),
            HashState::Sha512(state) => state.update(bytes),
        }
        self.length = self.length.saturating_add(bytes.len() as u64);
    }

    /// Returns the algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match self.state {
            HashState::Sha256(_) => Algorithm::Sha256,
            HashState::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Returns how many bytes were added.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Returns the digest of the bytes that were added.
    #[must_use]
    pub fn finish(self) -> Digest {
        let algorithm = self.algorithm();
        match self.state {
            HashState::Sha256(state) => Digest::from_hash(algorithm, &state.finalize()),
            HashState::Sha512(state) => Digest::from_hash(algorithm, &state.finalize()),
        }
    }

    /// Returns the state, to resume it elsewhere.
    #[must_use]
    pub fn snapshot(&self) -> HashSnapshot {
        let state = match &self.state {
            HashState::Sha256(state) => hexadecimal(&state.serialize()),
            HashState::Sha512(state) => hexadecimal(&state.serialize()),
        };
        let text = format!("{VERSION}:{}:{}:{state}", self.algorithm(), self.length);
        HashSnapshot(text.into())
    }
}

impl Digest {
    /// Computes the digest of `bytes`.
    #[must_use]
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher")
            .field("algorithm", &self.algorithm())
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

impl HashSnapshot {
    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for HashSnapshot {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

fn parse(text: &str) -> Option<Hasher> {
    let mut fields = text.split(':');
    let (version, algorithm) = (fields.next()?, fields.next()?.parse().ok()?);
    let length = fields.next()?.parse().ok()?;
    let bytes = from_hexadecimal(fields.next()?)?;
    if version != VERSION || fields.next().is_some() || length > MAXIMUM_BYTES {
        return None;
    }
    let (state, hashed) = match algorithm {
        Algorithm::Sha256 => (HashState::Sha256(deserialize(&bytes)?), sha256_length(&bytes)?),
        Algorithm::Sha512 => (HashState::Sha512(deserialize(&bytes)?), sha512_length(&bytes)?),
    };
    (hashed == length).then_some(Hasher { state, length })
}

fn deserialize<T: SerializableState>(bytes: &[u8]) -> Option<T> {
    let state = SerializedState::<T>::try_from(bytes).ok()?;
    T::deserialize(&state).ok()
}

/// Returns how many bytes a state of SHA-256 has seen: after its eight words come the number of blocks of 64 bytes, and
/// the number of bytes of the incomplete block.
///
/// This is checked because the counter of a damaged state could overflow.
fn sha256_length(state: &[u8]) -> Option<u64> {
    let (blocks, rest) = state.get(32..)?.split_first_chunk()?;
    u64::from_le_bytes(*blocks)
        .checked_mul(64)?
        .checked_add(u64::from(*rest.first()?))
}

/// Returns how many bytes a state of SHA-512 has seen, as [`sha256_length`] does; its blocks are of 128 bytes.
fn sha512_length(state: &[u8]) -> Option<u64> {
    let (blocks, rest) = state.get(64..)?.split_first_chunk()?;
    u64::try_from(u128::from_le_bytes(*blocks))
        .ok()?
        .checked_mul(128)?
        .checked_add(u64::from(*rest.first()?))
}

fn hexadecimal(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hexadecimal(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok();
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}
