use super::*;
use alloc::collections::BTreeSet;
use alloc::string::ToString as _;
use alloc::vec;
use proptest::prelude::*;

#[test]
fn a_chunk_is_two_offsets_in_either_form() {
    for (text, start, end, length) in [
        ("0-0", 0, 0, 1),
        ("0-1023", 0, 1023, 1024),
        ("1024-3066", 1024, 3066, 2043),
        ("bytes 0-511/2048", 0, 511, 512),
        ("bytes 512-1023/*", 512, 1023, 512),
        ("bytes 5-6", 5, 6, 2),
        (
            "18446744073709551614-18446744073709551614",
            u64::MAX - 1,
            u64::MAX - 1,
            1,
        ),
    ] {
        let range: ContentRange = text.parse().unwrap();
        assert_eq!(
            (range.start(), range.end(), range.length()),
            (start, end, length),
            "{text}"
        );
    }
}

#[test]
fn what_is_not_two_offsets_is_no_chunk() {
    for text in [
        "",
        "-",
        "0-",
        "-1",
        "0--1",
        "1-0",
        "+0-1",
        "0-+1",
        " 0-1",
        "0-1 ",
        "0 - 1",
        "bytes=0-1",
        "bytes 0-1/",
        "bytes 0-1/x",
        "bytes */5",
        "0-1-2",
        "0-18446744073709551615",
        "0-18446744073709551616",
        "٠-١",
    ] {
        let error = text.parse::<ContentRange>().unwrap_err();
        assert_eq!(error.code(), ErrorCode::BlobUploadInvalid, "{text}");
    }
}

#[test]
fn a_read_selects_what_the_rfc_says() {
    use Selection::{NotSatisfiable, Parts, Whole};
    #[expect(clippy::single_range_in_vec_init, reason = "a part is a range")]
    let cases = [
        ("bytes=500-1499", Parts(vec![500..1500])),
        ("bytes=500-", Parts(vec![500..2048])),
        ("bytes=-500", Parts(vec![1548..2048])),
        ("bytes=2000-5000", Parts(vec![2000..2048])),
        ("bytes=0-0", Parts(vec![0..1])),
        ("bytes=-5000", Parts(vec![0..2048])),
        ("bytes=0-99999999999999999999999", Parts(vec![0..2048])),
        ("BYTES=0-1", Parts(vec![0..2])),
        ("bytes= 0-1 ,, 4-5 ,", Parts(vec![0..2, 4..6])),
        ("bytes=9-9,0-0,-1", Parts(vec![9..10, 0..1, 2047..2048])),
        ("bytes=5000-,0-0", Parts(vec![0..1])),
        ("bytes=500-0", NotSatisfiable),
        ("bytes=5000-10000", NotSatisfiable),
        ("bytes=2048-", NotSatisfiable),
        ("bytes=-0", NotSatisfiable),
        ("bytes=0-,0-", Whole),
        ("bytes=0-1999,100-", Whole),
        // podman's chunks: as many parts as were asked for, in their order, also if they touch or overlap.
        (
            "bytes=500-599,100-199,150-250",
            Parts(vec![500..600, 100..200, 150..251]),
        ),
        ("bytes=10-19,0-9", Parts(vec![10..20, 0..10])),
        ("bytes=0-9,10-19", Parts(vec![0..10, 10..20])),
        ("bytes=0-1023,1024-", Parts(vec![0..1024, 1024..2048])),
        // More than there is.
        ("bytes=1000-1999,500-1499,10-600", Parts(vec![10..2000])),
    ];
    for (text, selection) in cases {
        assert_eq!(
            RangeHeader::parse(text).unwrap().resolve(2048),
            selection,
            "{text}"
        );
    }
}

#[test]
fn overlaps_are_found_where_the_sum_of_lengths_is_beyond_64_bits() {
    let header = RangeHeader::parse("bytes=0-,0-").unwrap();
    assert_eq!(header.resolve(u64::MAX), Selection::Whole);
}

#[test]
fn empty_content_is_sent_whole() {
    for text in ["bytes=0-", "bytes=-1", "bytes=0-0,5-"] {
        assert_eq!(RangeHeader::parse(text).unwrap().resolve(0), Selection::Whole);
    }
}

#[test]
fn what_is_no_range_of_bytes_is_ignored() {
    for text in [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=a-b",
        "bytes=1",
        "bytes=1-2-3",
        "bytes=+1-2",
        "bytes=--1",
        "lines=0-1",
        "bytes 0-1",
        "bytes =0-1",
        "bytes=0-1;2-3",
    ] {
        assert_eq!(RangeHeader::parse(text), None, "{text}");
    }
    let parts = |count: usize| std::format!("bytes={}", vec!["0-0"; count].join(","));
    assert!(RangeHeader::parse(&parts(RangeHeader::MAXIMUM_PARTS)).is_some());
    let too_many = RangeHeader::parse(&parts(RangeHeader::MAXIMUM_PARTS + 1)).unwrap();
    assert_eq!(too_many.resolve(2048), Selection::TooManyParts);
}

pub(crate) fn any_range() -> impl Strategy<Value = RangeHeader> {
    let number = || prop_oneof![0..40_u64, any::<u64>()];
    let part = prop_oneof![
        (number(), number()).prop_map(|(first, last)| ByteRange::Between { first, last }),
        number().prop_map(|first| ByteRange::From { first }),
        number().prop_map(|length| ByteRange::Suffix { length }),
    ];
    prop::collection::vec(part, 1..=20).prop_map(|parts| RangeHeader::new(parts).unwrap())
}

/// The offsets in a part, one by one.
fn naive(part: ByteRange, size: u64) -> Vec<u64> {
    (0..size)
        .filter(|at| match part {
            ByteRange::Between { first, last } => first <= *at && *at <= last,
            ByteRange::From { first } => first <= *at,
            ByteRange::Suffix { length } => size - at <= length,
        })
        .collect()
}

proptest! {
    #[test]
    fn a_chunk_survives_being_written(start in 0..u64::MAX, end in 0..u64::MAX) {
        if let Some(range) = ContentRange::new(start, end) {
            prop_assert_eq!(range.to_string().parse::<ContentRange>().unwrap(), range);
        }
    }

    #[test]
    fn a_range_survives_being_written(range in any_range()) {
        prop_assert_eq!(RangeHeader::parse(&range.to_string()), Some(range));
    }

    #[test]
    fn a_selection_is_what_counting_bytes_gives(range in any_range(), size in 0..40_u64) {
        let parts: Vec<_> = range.parts().iter().map(|part| naive(*part, size)).filter(|part| !part.is_empty()).collect();
        let together = parts.concat();
        let all: BTreeSet<u64> = together.iter().copied().collect();
        match range.resolve(size) {
            Selection::Parts(selected) => {
                let selected: Vec<Vec<u64>> = selected.into_iter().map(Iterator::collect).collect();
                if together.len() as u64 <= size {
                    prop_assert_eq!(selected, parts);
                } else {
                    prop_assert_eq!(selected.concat(), all.into_iter().collect::<Vec<_>>());
                    prop_assert!(selected.windows(2).all(|two| two[0].last().unwrap() + 1 < two[1][0]));
                }
            }
            Selection::NotSatisfiable => prop_assert!(parts.is_empty() && size > 0),
            Selection::TooManyParts => prop_assert!(false, "there are twenty at most"),
            Selection::Whole => prop_assert!(size == 0 || parts.len() > 1 && all.len() as u64 == size),
        }
    }

    #[test]
    fn no_text_makes_parsing_panic(text in "(bytes[= ])?[-0-9, */a]{0,40}", size: u64) {
        drop(text.parse::<ContentRange>());
        if let Some(range) = RangeHeader::parse(&text)
            && let Selection::Parts(parts) = range.resolve(size)
        {
            prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= size));
        }
    }
}
