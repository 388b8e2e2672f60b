//! Patterns for names.

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

/// A pattern for the names of repositories or for tags: `*` matches any run of characters within one component, `**`
/// any run at all, and every other character itself.
///
/// ```
/// use registry_core::policy::Glob;
/// let glob: Glob = "team/*".parse()?;
/// assert!(glob.matches("team/app") && !glob.matches("team/app/cache"));
/// let glob: Glob = "team/**".parse()?;
/// assert!(glob.matches("team/app/cache") && !glob.matches("team"));
/// # Ok::<(), registry_core::policy::InvalidGlob>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Glob(String);

/// A text that is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a pattern: one is 1 to 255 of letters, digits, '.', '_', '-' and '/', with '*' for a part of a \
     component and '**' for any part"
)]
pub struct InvalidGlob(String);

impl Glob {
    /// The maximum length of a pattern in bytes.
    pub const MAXIMUM_BYTES: usize = 255;

    /// Returns the pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether a name matches this pattern. No pattern makes it slow: nothing is tried twice from one position.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        matches(self.0.as_bytes(), name.as_bytes())
    }

    /// Returns whether each name that matches `other` matches this pattern too. It may return `false` for pairs such as
    /// `*b*` and `b*`, which need more than a star-for-star comparison.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let narrow: Vec<Part> = other.parts().collect();
        let mut reached = vec![false; narrow.len() + 1];
        if let Some(start) = reached.first_mut() {
            *start = true;
        }
        for wide in self.parts() {
            // Whether a part of the other pattern can be reached after this one, from where that was possible before
            // it.
            let mut before = false;
            let mut is_reached = false;
            for (at, reached) in reached.iter_mut().enumerate() {
                let taken = at.checked_sub(1).and_then(|at| narrow.get(at));
                is_reached = match wide {
                    Part::Byte(_) => before && taken == Some(&wide),
                    Part::Star => {
                        *reached || is_reached && taken.is_some_and(|taken| taken.is_in_component())
                    }
                    Part::Stars => *reached || is_reached,
                };
                before = core::mem::replace(reached, is_reached);
            }
        }
        reached.last().copied().unwrap_or_default()
    }

    fn parts(&self) -> impl Iterator<Item = Part> {
        let mut rest = self.0.as_bytes();
        core::iter::from_fn(move || {
            let (part, length) = match rest {
                [b'*', b'*', ..] => (Part::Stars, 2),
                [b'*', ..] => (Part::Star, 1),
                [byte, ..] => (Part::Byte(*byte), 1),
                [] => return None,
            };
            rest = rest.get(length..).unwrap_or_default();
            Some(part)
        })
    }
}

/// A part of a pattern.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Byte(u8),
    Star,
    Stars,
}

impl Part {
    /// Returns whether it matches nothing beyond one component.
    const fn is_in_component(self) -> bool {
        match self {
            Self::Star => true,
            Self::Byte(byte) => byte != b'/',
            Self::Stars => false,
        }
    }
}

/// Where to continue when what follows a star does not match: with the star one byte longer.
#[derive(Clone, Copy)]
struct Retry {
    /// What follows the star.
    pattern: usize,
    /// Where the star ends.
    name: usize,
}

/// Goes through both at once. A star is first assumed to be empty; on a mismatch the last `*` grows by a byte, unless
/// that is a `/`, otherwise the last `**` does.
///
/// Only the last star of each kind need be remembered: whatever an earlier one could reach by being longer, the later
/// one can reach too. A `**` forgets the `*` before it for the same reason.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut within: Option<Retry> = None;
    let mut across: Option<Retry> = None;
    loop {
        let stars = pattern.iter().skip(p).take_while(|byte| **byte == b'*').count();
        if stars > 0 {
            p += stars;
            let retry = Some(Retry { pattern: p, name: n });
            if stars > 1 {
                (across, within) = (retry, None);
            } else {
                within = retry;
            }
            continue;
        }
        match (pattern.get(p), name.get(n)) {
            (None, None) => return true,
            (Some(wanted), Some(found)) if wanted == found => {
                (p, n) = (p + 1, n + 1);
                continue;
            }
            _ => {}
        }
        let grown = |retry: Retry| Retry {
            name: retry.name + 1,
            ..retry
        };
        within = within
            .filter(|retry| name.get(retry.name).is_some_and(|byte| *byte != b'/'))
            .map(grown);
        if within.is_none() {
            across = across.filter(|retry| retry.name < name.len()).map(grown);
        }
        match within.or(across) {
            Some(retry) => (p, n) = (retry.pattern, retry.name),
            None => return false,
        }
    }
}

impl FromStr for Glob {
    type Err = InvalidGlob;

    fn from_str(text: &str) -> Result<Self, InvalidGlob> {
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/*".contains(&byte);
        if !text.is_empty()
            && text.len() <= Self::MAXIMUM_BYTES
            && text.bytes().all(is_valid)
            && !text.contains("***")
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidGlob(text.chars().take(300).collect()))
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

crate::text::serde_as_text!(Glob);

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;
    use proptest::prelude::*;

    #[test]
    fn stars_reach_as_far_as_they_say() {
        for (glob, fits, not) in [
            ("app", &["app"][..], &["apps", "ap", "team/app"][..]),
            ("*", &["app", "a-b.c"], &["a/b"]),
            ("**", &["app", "a/b/c"], &[]),
            ("team/*", &["team/a"], &["team", "team/a/b", "teams/a"]),
            ("team/**", &["team/a", "team/a/b"], &["team", "teams/a"]),
            ("**/cache", &["a/cache", "a/b/cache"], &["cache", "a/caches"]),
            ("*/app-*", &["a/app-", "a/app-x"], &["a/b/app-x", "a/app-x/y"]),
            ("v*.*", &["v1.2", "v1.2.3"], &["v1", "x1.2"]),
            ("a/**/b*", &["a/x/b", "a/b/b1", "a/x/b/bc"], &["a/b", "a/x/b/c"]),
        ] {
            let glob: Glob = glob.parse().unwrap();
            for name in fits {
                assert!(glob.matches(name), "{glob} {name}");
            }
            for name in not {
                assert!(!glob.matches(name), "{glob} {name}");
            }
        }
    }

    #[test]
    fn a_pattern_covers_those_that_say_less() {
        for (wide, narrow, other) in [
            ("**", &["**", "*", "a", "a/b/*", "*/**"][..], &[][..]),
            ("*", &["*", "a", "a*", "*a"], &["**", "a/b", "*/*"]),
            ("v*", &["v*", "v1.*", "v*.*", "v1"], &["*", "v**", "w*", "v*/*"]),
            (
                "team/**",
                &["team/*", "team/a/b", "team/**/x"],
                &["**", "team", "*/a"],
            ),
            ("*/*", &["a/*", "*/b"], &["**", "*", "a/**"]),
            ("stable", &["stable"], &["*", "other"]),
        ] {
            let wide: Glob = wide.parse().unwrap();
            for text in narrow {
                assert!(wide.covers(&text.parse().unwrap()), "{wide} {text}");
            }
            for text in other {
                assert!(!wide.covers(&text.parse().unwrap()), "{wide} {text}");
            }
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "a b", "***", "a?", "[a]", "a\u{e4}", &"x".repeat(256)] {
            assert!(text.parse::<Glob>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_time() {
        let glob: Glob = "*a".repeat(127).parse().unwrap();
        assert!(!glob.matches(&"a".repeat(126)));
        assert!(!glob.matches(&("a".repeat(254) + "b")));
    }

    /// The definition, literally.
    fn model(pattern: &[char], name: &[char]) -> bool {
        match pattern {
            [] => name.is_empty(),
            ['*', '*', rest @ ..] => (0..=name.len()).any(|taken| model(rest, &name[taken..])),
            ['*', rest @ ..] => (0..=name.len())
                .take_while(|taken| !name[..*taken].contains(&'/'))
                .any(|taken| model(rest, &name[taken..])),
            [first, rest @ ..] => name.first() == Some(first) && model(rest, &name[1..]),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn it_matches_what_the_definition_matches(glob in "([ab/]|\\*|\\*\\*){1,8}", name in "[ab/]{0,10}") {
            if let Ok(parsed) = glob.parse::<Glob>() {
                let (pattern, chars): (Vec<_>, Vec<_>) =
                    (glob.chars().collect(), name.chars().collect());
                prop_assert_eq!(parsed.matches(&name), model(&pattern, &chars));
                prop_assert_eq!(parsed.to_string(), glob);
            }
        }

        #[test]
        fn what_is_covered_matches_nothing_more(
            wide in "([ab/]|\\*|\\*\\*){1,5}",
            narrow in "([ab/]|\\*|\\*\\*){1,5}",
            names in prop::collection::vec("[ab/]{0,6}", 20),
        ) {
            if let (Ok(wide), Ok(narrow)) = (wide.parse::<Glob>(), narrow.parse::<Glob>()) {
                prop_assert!(wide.covers(&wide));
                let mut matched = names.iter().filter(|name| narrow.matches(name));
                prop_assert!(!wide.covers(&narrow) || matched.all(|name| wide.matches(name)));
            }
        }
    }
}
