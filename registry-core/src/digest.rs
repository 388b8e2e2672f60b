//! Digests and the algorithms that this registry computes.

use alloc::boxed::Box;
use alloc::format;
use core::fmt;
use core::str::FromStr;

use crate::error::{Error, ErrorCode};

/// A digest, `algorithm:encoded` (image-spec, "Digests").
///
/// Any text of the grammar parses, because a descriptor may use an algorithm that this registry does not know. The
/// encoded part of a registered algorithm has exactly its length, in lower-case hexadecimal. [`Digest::algorithm`] is
/// `None` if content cannot be checked against it.
///
/// ```
/// use registry_core::{Algorithm, Digest};
/// let text = format!("sha256:{}", "0".repeat(64));
/// assert_eq!(text.parse::<Digest>()?.algorithm(), Some(Algorithm::Sha256));
/// assert!("sha256:00".parse::<Digest>().is_err());
/// assert_eq!("future+v1:A_b=".parse::<Digest>()?.algorithm(), None);
/// # Ok::<(), registry_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(Box<str>);

/// A hash algorithm that this registry computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256; every registry implements it.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// All algorithms, in the order of preference.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// Returns the name as it appears before the colon of a digest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Returns how many hexadecimal digits the encoded part has.
    #[must_use]
    pub const fn encoded_length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl FromStr for Algorithm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == text)
            .ok_or_else(|| {
                Error::new(
                    ErrorCode::DigestInvalid,
                    "the digest algorithm is not supported; use sha256 or sha512",
                )
            })
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Digest {
    /// The maximum length in bytes of a digest that parses, more than enough for every registered algorithm.
    pub const MAXIMUM_BYTES: usize = 255;

    /// Returns the digest as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the text before and after the colon.
    #[must_use]
    pub fn parts(&self) -> (&str, &str) {
        self.0.split_once(':').unwrap_or((&self.0, ""))
    }

    /// Returns the part after the colon.
    #[must_use]
    pub fn encoded(&self) -> &str {
        self.parts().1
    }

    /// Returns the algorithm; `None` if this registry does not know it.
    #[must_use]
    pub fn algorithm(&self) -> Option<Algorithm> {
        self.parts().0.parse().ok()
    }

    /// Returns the algorithm of a digest that content is to be checked against.
    ///
    /// # Errors
    /// [`ErrorCode::DigestInvalid`] if this registry does not compute the algorithm.
    pub fn supported_algorithm(&self) -> Result<Algorithm, Error> {
        self.parts().0.parse()
    }

    /// Formats the hash `bytes` of `algorithm` as a digest.
    pub(crate) fn from_hash(algorithm: Algorithm, bytes: &[u8]) -> Self {
        use core::fmt::Write as _;
        let mut text = format!("{algorithm}:");
        for byte in bytes {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text.into())
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if is_digest(text) {
            Ok(Self(text.into()))
        } else {
            Err(Error::new(
                ErrorCode::DigestInvalid,
                "a digest is algorithm:encoded, for example sha256: and 64 lower-case hexadecimal digits",
            ))
        }
    }
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, encoded)) = text.split_once(':') else {
        return false;
    };
    if text.len() > Digest::MAXIMUM_BYTES {
        return false;
    }
    if let Ok(known) = algorithm.parse::<Algorithm>() {
        return encoded.len() == known.encoded_length()
            && encoded
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    }
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_encoded = |c: char| c.is_ascii_alphanumeric() || matches!(c, '=' | '_' | '-');
    algorithm
        .split(['+', '.', '_', '-'])
        .all(|part| !part.is_empty() && part.chars().all(is_alphanumeric))
        && !encoded.is_empty()
        && encoded.chars().all(is_encoded)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for Digest {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

crate::text::serde_as_text!(Algorithm);
crate::text::serde_as_text!(Digest);
