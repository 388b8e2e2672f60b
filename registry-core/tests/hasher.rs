//! A digest does not depend on how the bytes came, nor on how many processes hashed them.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use proptest::prelude::*;
use registry_core::{Algorithm, Digest, HashSnapshot, Hasher, fuzzing};

/// Takes a hasher through the JSON of its snapshot.
fn resumed(hasher: &Hasher) -> Hasher {
    let json = serde_json::to_string(&hasher.snapshot()).unwrap();
    Hasher::resume(&serde_json::from_str(&json).unwrap()).unwrap()
}

fn algorithm() -> impl Strategy<Value = Algorithm> {
    prop::sample::select(Algorithm::ALL.to_vec())
}

proptest! {
    #[test]
    fn split_and_resumed_hashing_equals_hashing_at_once(
        algorithm in algorithm(),
        pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), any::<bool>()), 0..8),
    ) {
        let whole: Vec<u8> = pieces.iter().flat_map(|(piece, _)| piece.clone()).collect();
        let mut hasher = Hasher::new(algorithm);
        for (piece, is_resumed) in &pieces {
            hasher.update(piece);
            if *is_resumed {
                hasher = resumed(&hasher);
            }
        }
        prop_assert_eq!(hasher.algorithm(), algorithm);
        prop_assert_eq!(hasher.length(), whole.len() as u64);
        prop_assert_eq!(hasher.finish(), Digest::of(algorithm, &whole));
    }

    #[test]
    fn a_damaged_snapshot_is_refused_or_goes_on(
        algorithm in algorithm(),
        content in prop::collection::vec(any::<u8>(), 0..300),
        place: prop::sample::Index,
        other in "[0-9a-f:x]{0,2}",
    ) {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(&content);
        let mut text = hasher.snapshot().as_str().to_owned();
        let start = place.index(text.len());
        text.replace_range(start..=start, &other);
        fuzzing::session_snapshot(text.as_bytes());
    }

    #[test]
    fn any_text_as_snapshot_is_refused(text in any::<String>()) {
        prop_assert!(Hasher::resume(&HashSnapshot::from(text.as_str())).is_err());
    }
}

/// The state of 3 bytes: eight words as at the start, no whole block, three bytes in the buffer.
fn snapshot_of_abc() -> String {
    format!(
        "1:sha256:3:67e6096a85ae67bb72f36e3c3af54fa57f520e518c68059babd9831f19cde05b0000000000000000\
         03616263{}",
        "00".repeat(60)
    )
}

/// Records of an older process must be read. Where this fails after an update of `sha2`, its state has changed: raise
/// the version of the snapshot.
#[test]
fn the_snapshot_is_that_of_version_1() {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(b"abc");
    assert_eq!(hasher.snapshot().as_str(), snapshot_of_abc());
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(&[0; 128 + 2]);
    let text = hasher.snapshot().as_str().to_owned();
    let (head, state) = text.rsplit_once(':').unwrap();
    assert_eq!((head, state.len()), ("1:sha512:130", 2 * (64 + 16 + 128)));
    let tail = format!("01{}02{}", "00".repeat(15), "00".repeat(127));
    assert_eq!(state[128..], tail);
}

#[test]
fn what_is_not_a_snapshot_of_this_version_is_refused() {
    let good = snapshot_of_abc();
    let largest = "1:sha256:1152921504606846976:67e6096a85ae67bb72f36e3c3af54fa57f520e518c68059babd9831f19cde05b\
                   0000000000004000";
    let refused = [
        good.replacen("1:", "2:", 1),
        good.replace("sha256", "sha512"),
        good.replace("sha256", "md5"),
        good.replace(":3:", ":4:"),
        good.replace(":3:", "::"),
        good.replace(":3:", ":-3:"),
        good.replace("0361", "0461"),
        good.replace("0361", "ff61"),
        good.replace("67e6", "67g6"),
        good.replace("67e6", "67\u{e9}"),
        format!("{good}:"),
        format!("{good}00"),
        good[..good.len() - 1].to_owned(),
        good[..good.len() - 2].to_owned(),
        String::new(),
        // More than 1 EiB: the count of bits could overflow.
        format!("{largest}{}", "00".repeat(64))
            .replace("846976", "846977")
            .replacen("400000", "400001", 1),
        format!("{largest}01aa{}", "00".repeat(62)).replace("846976", "846977"),
        good.replace("0000000000000000036162", "ffffffffffffffff036162"),
    ];
    for text in refused {
        assert_ne!(text, good);
        assert!(
            Hasher::resume(&HashSnapshot::from(text.as_str())).is_err(),
            "{text}"
        );
    }
    let largest = format!("{largest}{}", "00".repeat(64));
    assert!(Hasher::resume(&HashSnapshot::from(largest.as_str())).is_ok());
    fuzzing::session_snapshot(largest.as_bytes());
}
