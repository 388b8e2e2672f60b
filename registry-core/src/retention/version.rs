//! Tags that are versions (Semantic Versioning 2.0.0), with or without a leading `v`.

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use alloc::vec::Vec;

/// A version: three numbers, and what follows a `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version<'a> {
    major: u64,
    minor: u64,
    patch: u64,
    suffix: &'a str,
}

/// What is counted together: the major version, the minor one if it is counted by itself, and the kind of suffix.
pub(super) type Series<'a> = (u64, Option<u64>, Kind<'a>);

/// What suffixes are counted together. A release is displaced by releases only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind<'a> {
    Release,
    /// A number or a date, as nightly builds have.
    Number,
    /// A stage on the way to a release, such as `rc` in `-rc1` and `-rc.2`, in small letters.
    Stage(String),
    /// Anything else. Many images use a suffix for a variant, and `-jdk17` is no later version of `-jdk11`.
    Variant(&'a str),
}

/// The words for a stage on the way to a release.
const STAGES: [&str; 12] = [
    "alpha", "a", "beta", "b", "build", "dev", "m", "nightly", "pre", "preview", "rc", "snapshot",
];

/// The order within a series.
pub(super) type Precedence<'a> = (u64, u64, Vec<Identifier<'a>>);

/// A part of a suffix between dots; a number is lower than text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Identifier<'a> {
    Number(u64),
    Text(&'a str),
    /// Text that ends with a number, such as `rc10`, which is higher than `rc9`.
    Numbered(&'a str, u64),
}

impl<'a> Version<'a> {
    /// Parses a tag; `None` if it is no version.
    pub(super) fn parse(tag: &'a str) -> Option<Self> {
        let text = tag.strip_prefix('v').unwrap_or(tag);
        let (numbers, suffix) = text.split_once('-').unwrap_or((text, ""));
        let mut parts = numbers.split('.').map(number);
        let version = Self {
            major: parts.next()??,
            minor: parts.next()??,
            patch: parts.next()??,
            suffix,
        };
        parts.next().is_none().then_some(version)
    }

    pub(super) fn series(&self, is_minor: bool) -> Series<'a> {
        (self.major, is_minor.then_some(self.minor), Kind::of(self.suffix))
    }

    pub(super) fn precedence(&self) -> Precedence<'a> {
        let suffix = self.suffix;
        let identifiers = suffix.split('.').map(Identifier::parse);
        (self.minor, self.patch, identifiers.collect())
    }
}

impl<'a> Kind<'a> {
    fn of(suffix: &'a str) -> Self {
        let is_number = |character: char| character.is_ascii_digit() || ".-_".contains(character);
        let word = suffix.trim_end_matches(is_number).to_ascii_lowercase();
        match word.as_str() {
            "" if suffix.is_empty() => Self::Release,
            "" => Self::Number,
            stage if STAGES.contains(&stage) => Self::Stage(word),
            _ => Self::Variant(suffix),
        }
    }
}

impl<'a> Identifier<'a> {
    fn parse(text: &'a str) -> Self {
        let name = text.trim_end_matches(|character: char| character.is_ascii_digit());
        let digits = text.strip_prefix(name).unwrap_or_default();
        match digits.parse() {
            Ok(number) if name.is_empty() => Self::Number(number),
            Ok(number) => Self::Numbered(name, number),
            Err(_) => Self::Text(text),
        }
    }
}

fn number(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.to_owned().parse().ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_numbers_are_a_version() {
        for tag in ["1.2.3", "v1.2.3", "0.0.0", "1.2.3-rc.1", "1.2.3-alpine3.18"] {
            assert!(Version::parse(tag).is_some(), "{tag}");
        }
        for tag in [
            "", "1", "1.2", "v1", "1.2.3.4", "1.02.3", "1.2.x", "latest", "1.2.+3", "vv1.2.3", "1..3",
        ] {
            assert!(Version::parse(tag).is_none(), "{tag}");
        }
    }

    #[test]
    fn versions_of_a_series_are_in_the_order_of_their_numbers() {
        for (lower, higher) in [
            ("1.2.9", "1.2.10"),
            ("1.9.0", "1.10.0"),
            ("1.0.0-rc9", "1.0.0-rc10"),
            ("1.0.0-rc.9", "1.0.0-rc.10"),
            ("1.0.0-alpine3.9", "v1.0.1-alpine3.9"),
            ("1.0.0-20261127", "1.0.0-20261128"),
            ("1.0.0-SNAPSHOT.3", "1.0.1-SNAPSHOT.1"),
        ] {
            let (lower, higher) = (Version::parse(lower).unwrap(), Version::parse(higher).unwrap());
            assert_eq!(lower.series(false), higher.series(false));
            assert!(lower.precedence() < higher.precedence(), "{lower:?} {higher:?}");
        }
    }

    #[test]
    fn neither_candidates_nor_variants_displace_a_release_or_each_other() {
        let series = |tag| Version::parse(tag).unwrap().series(true);
        assert_ne!(series("1.0.0"), series("1.0.1-rc1"));
        assert_ne!(series("1.0.0-alpine"), series("1.0.0-rc1"));
        assert_ne!(series("1.0.0"), series("1.0.1-20261128"));
        assert_ne!(series("1.0.0-alpha"), series("1.0.1-beta1"));
        assert_ne!(series("1.0.0-jdk11"), series("1.0.1-jdk17"));
        assert_ne!(series("1.0.0-arm7"), series("1.0.1-arm64"));
        assert_ne!(series("1.0.0-rc1-py3.9"), series("1.0.1-rc1-py3.10"));
        assert_ne!(series("1.0.0"), series("1.1.0"));
        assert_eq!(series("1.0.0"), series("v1.0.7"));
    }
}
