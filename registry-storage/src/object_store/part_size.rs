//! How large the parts of an upload are.

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

/// The most parts of an upload that S3 accepts.
const MOST_PARTS: u64 = 10_000;

/// The size of all parts of an upload but the last, for services that take only equal ones, such as Cloudflare R2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartSize(u64);

impl PartSize {
    /// Returns the size in bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns how many bytes a blob may have: 10,000 such parts.
    #[must_use]
    pub const fn most_bytes(self) -> u64 {
        self.0 * MOST_PARTS
    }
}

/// A size in bytes that parts cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a part has 5242880 (5 MiB) to 5368709120 bytes (5 GiB), not {0}")]
pub struct PartSizeError(u64);

impl TryFrom<u64> for PartSize {
    type Error = PartSizeError;

    fn try_from(size: u64) -> Result<Self, PartSizeError> {
        match (5 * MIB..=5 * GIB).contains(&size) {
            true => Ok(Self(size)),
            false => Err(PartSizeError(size)),
        }
    }
}

/// Which size parts have, up to which offset. Each step ends where a part ends.
///
/// S3 accepts at most 10,000 parts, each of 5 MiB (except the last) to 5 GiB. With one size for all parts, 5 TiB would
/// need parts of 525 MiB. The first step covers what images hold in practice, with the least memory; a store that
/// requires parts of one size (R2) is limited to it, unless a [`PartSize`] is set.
const STEPS: [(u64, u64); 3] = [(10 * GIB, 5 * MIB), (32 * GIB, 16 * MIB), (128 * GIB, 64 * MIB)];

/// Returns the size in bytes of the part that begins at `offset`.
pub(super) fn part_size(offset: u64) -> u64 {
    STEPS
        .iter()
        .find(|(end, _)| offset < *end)
        .map_or(GIB, |(_, size)| *size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_parts_have_a_size_that_s3_accepts() {
        for size in [0, 5 * MIB - 1, 5 * GIB + 1, u64::MAX] {
            let error = PartSize::try_from(size).unwrap_err().to_string();
            assert!(error.contains(&size.to_string()), "{error}");
        }
        // The default of registry:2.
        let size = PartSize::try_from(10 * MIB).unwrap();
        assert_eq!((size.get(), size.most_bytes()), (10 * MIB, 104_857_600_000));
        assert!(PartSize::try_from(5 * GIB).is_ok());
    }

    #[test]
    fn the_largest_object_needs_fewer_parts_than_allowed() {
        let mut offset = 0;
        let mut parts = 0;
        while offset < 5 * 1024 * GIB {
            let size = part_size(offset);
            assert!((5 * MIB..=5 * GIB).contains(&size), "{size} at {offset}");
            offset += size;
            parts += 1;
        }
        assert!(parts < MOST_PARTS, "{parts} parts and a tail");
    }

    #[test]
    fn steps_end_where_a_part_ends() {
        let mut offset = 0;
        for (end, size) in STEPS {
            assert_eq!((end - offset) % size, 0, "step to {end}");
            assert_eq!(part_size(end - size), size);
            assert!(part_size(end) > size);
            offset = end;
        }
    }
}
