//! The grammars of names, digests and the like, and the calendar.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use proptest::prelude::*;
use registry_core::{
    Algorithm, Digest, ErrorCode, MediaType, Reference, RepositoryName, Tag, Timestamp, UploadId, fuzzing,
};

const NAME: &str = r"[a-z0-9]{1,4}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,3}(/[a-z0-9]{1,4}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,3}){0,3}";
const TAG: &str = "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}";
const KNOWN_DIGEST: &str = "sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}";
const OTHER_DIGEST: &str = "x[a-z0-9]{0,5}([+._-][a-z0-9]{1,5}){0,2}:[a-zA-Z0-9=_-]{1,100}";
const MEDIA_TYPE: &str = "[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]{0,126}/[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]{0,126}";
const UUID: &str = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";

/// Parses `text`, and checks that it is written as it was read, by `Display` and in JSON.
#[track_caller]
fn round_trip<T>(text: &str) -> T
where
    T: FromStr<Err: Debug> + Display + serde::Serialize + serde::de::DeserializeOwned + PartialEq + Debug,
{
    let value: T = text.parse().unwrap();
    assert_eq!(value.to_string(), text);
    let json = serde_json::to_string(&value).unwrap();
    assert_eq!(json, serde_json::to_string(text).unwrap());
    assert_eq!(serde_json::from_str::<T>(&json).unwrap(), value);
    value
}

proptest! {
    #[test]
    fn names_of_the_grammar_parse(text in NAME) {
        round_trip::<RepositoryName>(&text);
    }

    #[test]
    fn tags_of_the_grammar_parse(text in TAG) {
        round_trip::<Tag>(&text);
        prop_assert_eq!(text.parse::<Reference>().unwrap(), Reference::Tag(text.parse().unwrap()));
    }

    #[test]
    fn digests_of_known_algorithms_parse(text in KNOWN_DIGEST) {
        let digest = round_trip::<Digest>(&text);
        let (algorithm, encoded) = text.split_once(':').unwrap();
        prop_assert_eq!(digest.parts(), (algorithm, encoded));
        prop_assert_eq!(digest.algorithm(), algorithm.parse().ok());
        prop_assert_eq!(text.parse::<Reference>().unwrap(), Reference::Digest(digest));
    }

    #[test]
    fn digests_of_other_algorithms_parse(text in OTHER_DIGEST) {
        let digest = round_trip::<Digest>(&text);
        prop_assert_eq!(digest.supported_algorithm().unwrap_err().code(), ErrorCode::DigestInvalid);
    }

    #[test]
    fn media_types_of_the_grammar_parse_without_parameters(text in MEDIA_TYPE, parameters in "([ \t]?;.*)?") {
        let media_type = round_trip::<MediaType>(&text);
        prop_assert_eq!(format!("{text}{parameters}").parse::<MediaType>().unwrap(), media_type);
    }

    #[test]
    fn upload_ids_of_the_grammar_parse(text in UUID, bits: u128) {
        round_trip::<UploadId>(&text);
        let id = UploadId::from_random(bits);
        prop_assert_eq!(id.to_string().as_bytes()[14], b'4');
        prop_assert!(b"89ab".contains(&id.to_string().as_bytes()[19]));
        prop_assert_eq!(round_trip::<UploadId>(&id.to_string()), id);
    }

    #[test]
    fn any_text_is_of_the_grammar_or_refused(text in any::<String>()) {
        fuzzing::name(text.as_bytes());
        fuzzing::digest(text.as_bytes());
    }

    #[test]
    fn text_of_the_right_characters_is_of_the_grammar_or_refused(text in "[a-cA-C0-1._/:=+-]{0,20}") {
        fuzzing::name(text.as_bytes());
        fuzzing::digest(text.as_bytes());
    }

    /// One character of a right text is another, or missing, or doubled.
    #[test]
    fn nearly_right_text_is_of_the_grammar_or_refused(
        text in prop_oneof![NAME, TAG, KNOWN_DIGEST, OTHER_DIGEST, MEDIA_TYPE, UUID],
        place: prop::sample::Index,
        other in ".{0,2}",
    ) {
        let mut text = text;
        let start = place.index(text.len());
        text.replace_range(start..=start, &other);
        fuzzing::name(text.as_bytes());
        fuzzing::digest(text.as_bytes());
    }
}

#[test]
fn lengths_have_limits() {
    for (length, ok) in [(0, false), (1, true), (255, true), (256, false)] {
        assert_eq!(
            "a".repeat(length).parse::<RepositoryName>().is_ok(),
            ok,
            "{length}"
        );
    }
    for (length, ok) in [(0, false), (1, true), (128, true), (129, false)] {
        assert_eq!("a".repeat(length).parse::<Tag>().is_ok(), ok, "{length}");
    }
    for (length, ok) in [(0, false), (1, true), (253, true), (254, false)] {
        let text = format!("x:{}", "a".repeat(length));
        assert_eq!(text.parse::<Digest>().is_ok(), ok, "{length}");
        fuzzing::digest(text.as_bytes());
    }
    for (length, ok) in [(0, false), (1, true), (127, true), (128, false)] {
        let part = "a".repeat(length);
        assert_eq!(format!("{part}/a").parse::<MediaType>().is_ok(), ok, "{length}");
        assert_eq!(format!("a/{part}").parse::<MediaType>().is_ok(), ok, "{length}");
    }
}

#[test]
fn a_reference_with_a_colon_is_never_a_tag() {
    for text in ["sha256:baddigeststring", "a:", ":a", "latest:"] {
        assert_eq!(
            text.parse::<Reference>().unwrap_err().code(),
            ErrorCode::DigestInvalid
        );
    }
    let error = ".INVALID_MANIFEST_NAME".parse::<Reference>().unwrap_err();
    assert_eq!(error.code(), ErrorCode::ManifestInvalid);
}

#[test]
fn digests_of_bytes_are_those_of_the_standards() {
    let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(Digest::of(Algorithm::Sha256, b"").as_str(), empty);
    // FIPS 180-2, appendix C.1.
    let abc = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
               2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
    assert_eq!(Digest::of(Algorithm::Sha512, b"abc").as_str(), abc);
}

#[test]
fn timestamps_are_written_as_rfc_3339() {
    for (milliseconds, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (68_169_599_999, "1972-02-28T23:59:59.999Z"),
        (68_169_600_000, "1972-02-29T00:00:00.000Z"),
        (68_256_000_000, "1972-03-01T00:00:00.000Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (951_868_800_000, "2000-03-01T00:00:00.000Z"),
        (1_234_567_890_123, "2009-02-13T23:31:30.123Z"),
        (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
        (1_735_689_599_999, "2024-12-31T23:59:59.999Z"),
        (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ] {
        assert_eq!(Timestamp(milliseconds).to_string(), text);
    }
    // The end of what can be said does not overflow.
    assert_eq!(Timestamp(u64::MAX).date().0, 584_556_019);
}

#[test]
fn dates_follow_one_another_as_in_the_calendar() {
    let (mut year, mut month, mut day) = (1970, 1, 1);
    for days in 0..200_000_u64 {
        assert_eq!(Timestamp(days * 86_400_000).date(), (year, month, day));
        assert_eq!(
            Timestamp(days * 86_400_000 + 86_399_999).date(),
            (year, month, day)
        );
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = match month {
            2 if is_leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        (year, month, day) = match (month, day == length) {
            (_, false) => (year, month, day + 1),
            (12, true) => (year + 1, 1, 1),
            (_, true) => (year, month + 1, 1),
        };
    }
}

#[test]
fn tags_that_list_referrers_are_told_by_their_form() {
    let hexadecimal = "0123456789abcdef".repeat(4);
    for text in [format!("sha256-{hexadecimal}"), format!("sha512-{hexadecimal}")] {
        assert!(text.parse::<Tag>().unwrap().lists_referrers(), "{text}");
    }
    for text in [
        "v1".to_owned(),
        "sha256-".to_owned(),
        format!("sha256-{}", &hexadecimal[1..]),
        format!("sha256-{hexadecimal}0"),
        format!("sha256-{hexadecimal}.sig"),
        format!("sha256-{}", hexadecimal.to_uppercase()),
        format!("sha256_{hexadecimal}"),
        format!("md5-{hexadecimal}"),
    ] {
        assert!(!text.parse::<Tag>().unwrap().lists_referrers(), "{text}");
    }
}
