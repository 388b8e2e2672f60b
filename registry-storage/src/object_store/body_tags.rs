//! Whether the body of an answer is the one whose entity tag came with it.
//!
//! Beside an overwrite, a store may answer with the tag of one body and the bytes of another, or with only some of them (rclone). It
//! shows where tags are MD5 hashes of bodies. Those of S3 are, unless a key of KMS encrypts the bucket; so that is learned from writes.

use std::sync::atomic::{AtomicU8, Ordering};

const UNKNOWN: u8 = 0;
const HASHES: u8 = 1;
const OTHERS: u8 = 2;

/// The largest body that is compared with its tag, in bytes: hashing it takes a fraction of a millisecond.
const LARGEST: usize = 64 * 1024;

/// What is known of the tags of a store.
#[derive(Debug, Default)]
pub(super) struct BodyTags(AtomicU8);

impl BodyTags {
    /// Learns from the tag of a body that was written.
    pub(super) fn learn(&self, body: &[u8], tag: &str) {
        if self.0.load(Ordering::Relaxed) == UNKNOWN && body.len() <= LARGEST {
            let known = if is_md5_of(body, tag) { HASHES } else { OTHERS };
            // Another writer may have found that they are others.
            self.0
                .compare_exchange(UNKNOWN, known, Ordering::Relaxed, Ordering::Relaxed)
                .ok();
        }
    }

    /// Returns whether a body may be that of the tag.
    pub(super) fn may_match(&self, body: &[u8], tag: &str) -> bool {
        self.0.load(Ordering::Relaxed) != HASHES || body.len() > LARGEST || is_md5_of(body, tag)
    }

    /// Compares nothing any more: there are objects whose tags are no hashes of their bodies, such as older ones of a bucket that was
    /// encrypted otherwise.
    pub(super) fn give_up(&self) {
        self.0.store(OTHERS, Ordering::Relaxed);
    }
}

#[cfg(any(feature = "s3", feature = "testing"))]
fn is_md5_of(body: &[u8], tag: &str) -> bool {
    use std::fmt::Write as _;

    use md5::Digest as _;

    let mut text = String::with_capacity(32);
    for byte in md5::Md5::digest(body) {
        // Writing to a text does not fail.
        write!(text, "{byte:02x}").ok();
    }
    tag.trim_matches('"') == text
}

#[cfg(not(any(feature = "s3", feature = "testing")))]
fn is_md5_of(_: &[u8], _: &str) -> bool {
    false
}

#[cfg(all(test, any(feature = "s3", feature = "testing")))]
mod tests {
    use super::*;

    const MD5_OF_A: &str = "\"0cc175b9c0f1b6a831c399e269772661\"";

    #[test]
    fn tags_are_compared_once_they_are_known_to_be_hashes() {
        let tags = BodyTags::default();
        assert!(tags.may_match(b"b", MD5_OF_A));
        tags.learn(b"a", MD5_OF_A);
        assert!(tags.may_match(b"a", MD5_OF_A) && !tags.may_match(b"b", MD5_OF_A));
        assert!(tags.may_match(&[b'b'; LARGEST + 1], MD5_OF_A));
        // One write beside another does not change it, but a body that stays another does.
        tags.learn(b"b", MD5_OF_A);
        assert!(!tags.may_match(b"b", MD5_OF_A));
        tags.give_up();
        assert!(tags.may_match(b"b", MD5_OF_A));
    }

    #[test]
    fn tags_that_are_no_hashes_are_never_compared() {
        let tags = BodyTags::default();
        tags.learn(b"a", "\"1\"");
        tags.learn(b"a", MD5_OF_A);
        assert!(tags.may_match(b"b", MD5_OF_A));
    }
}
