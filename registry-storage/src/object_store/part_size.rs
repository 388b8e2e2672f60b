//! How large the parts of an upload are.

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

/// Which size parts have, up to which offset. Each step ends where a part ends.
///
/// S3 accepts at most 10,000 parts, each of 5 MiB (except the last) to 5 GiB. With one size for all parts, 5 TiB would
/// need parts of 525 MiB. The first step covers what images hold in practice, with the least memory; stores that
/// require parts of one size (R2) are limited to it.
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

    const MOST_PARTS: usize = 10_000;

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
