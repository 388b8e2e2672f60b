//! Pseudo-random content of any length that costs a memory copy to make, and digests.

use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

use sha2::{Digest as _, Sha256, Sha512};

/// Bytes after which the content repeats, but for a number in front.
const BLOCK: usize = 1 << 20;

/// The block that all content is cut from.
static BASE: LazyLock<Arc<[u8]>> = LazyLock::new(|| {
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
    (0..BLOCK / 8).flat_map(|_| random.next().to_le_bytes()).collect()
});

/// A small deterministic generator of random numbers (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Starts a sequence; equal seeds give equal sequences.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number.
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`, which is not 0.
    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A stream of `length` bytes that depend on `seed`: random blocks that no compression or deduplication sees through
/// within a mebibyte, made without holding more than one block in memory.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    seed: u64,
    position: u64,
    end: u64,
}

impl Content {
    /// Starts the content of `seed` at its first byte.
    pub(crate) const fn new(seed: u64, length: u64) -> Self {
        Self {
            seed,
            position: 0,
            end: length,
        }
    }

    /// Returns the part of this content that begins `start` bytes in and is `length` bytes long.
    pub(crate) const fn part(&self, start: u64, length: u64) -> Self {
        Self {
            seed: self.seed,
            position: self.position + start,
            end: self.position + start + length,
        }
    }

    /// Returns how many bytes are left.
    pub(crate) const fn remaining(&self) -> u64 {
        self.end - self.position
    }

    /// Returns what is left as bytes in memory.
    pub(crate) fn bytes(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)
            .expect("content in memory can be read");
        bytes
    }

    /// Returns the sha256 digest of what is left.
    pub(crate) fn digest(mut self) -> String {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 18];
        loop {
            let read = self.read(&mut buffer).expect("content in memory can be read");
            if read == 0 {
                return format!("sha256:{}", hex(&hasher.finalize()));
            }
            hasher.update(&buffer[..read]);
        }
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let within = (self.position % BLOCK as u64) as usize;
        let length = buffer
            .len()
            .min(BLOCK - within)
            .min(self.remaining().try_into().unwrap_or(usize::MAX));
        buffer[..length].copy_from_slice(&BASE[within..within + length]);
        if within < 8 {
            let number = Random::new(self.seed ^ (self.position / BLOCK as u64))
                .next()
                .to_le_bytes();
            for (target, byte) in buffer[..length].iter_mut().zip(&number[within..]) {
                *target = *byte;
            }
        }
        self.position += length as u64;
        Ok(length)
    }
}

/// A sink that hashes (sha256) and counts what it is given.
#[derive(Debug)]
pub(crate) struct Hashed {
    hasher: Sha256,
    length: u64,
}

impl Hashed {
    /// Starts with nothing hashed.
    pub(crate) fn new() -> Self {
        Self {
            hasher: Sha256::new(),
            length: 0,
        }
    }

    /// Returns the digest of all bytes written, and their number.
    pub(crate) fn finish(self) -> (String, u64) {
        (format!("sha256:{}", hex(&self.hasher.finalize())), self.length)
    }
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A reader that hands on what another one gives, and shows it to [`Hashed`].
#[derive(Debug)]
pub(crate) struct Tee<'h, R>(pub(crate) R, pub(crate) &'h mut Hashed);

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1.write_all(&buffer[..read])?;
        Ok(read)
    }
}

/// Returns the sha256 digest of `bytes`, as `sha256:<hex>`.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// Returns the sha512 digest of `bytes`, as `sha512:<hex>`.
pub(crate) fn sha512(bytes: &[u8]) -> String {
    format!("sha512:{}", hex(&Sha512::digest(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
