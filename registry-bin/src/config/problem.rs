//! Errors of a configuration.

use std::fmt;

use serde::de::{Expected, Unexpected};

use super::origin::Origin;
use super::values::{is_secret, shown};

/// The longest key that a message shows, in bytes.
const LONGEST_KEY_BYTES: usize = 64;

/// The longest run of letters and digits in a key that has both.
const LONGEST_RUN_BYTES: usize = 14;

/// An error of one value: where it was written, its key, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    origin: Option<Origin>,
    /// The keys that lead to the value, separated by dots.
    path: String,
    message: String,
}

impl Problem {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            origin: None,
            path: String::new(),
            message: message.into(),
        }
    }

    /// Sets where the value was written, unless a nested value has set it.
    #[must_use]
    pub(crate) fn at(mut self, origin: &Origin) -> Self {
        self.origin.get_or_insert_with(|| origin.clone());
        self
    }

    /// Prefixes `key` to the path of the value.
    #[must_use]
    pub(crate) fn below(mut self, key: &str) -> Self {
        let key = shown_key(key);
        self.path = match self.path.as_str() {
            "" => key.to_owned(),
            path if path.starts_with('[') => format!("{key}{path}"),
            path => format!("{key}.{path}"),
        };
        self
    }

    /// Appends what to do.
    #[must_use]
    pub(crate) fn with_remedy(mut self, remedy: &str) -> Self {
        self.message = format!("{}; {remedy}", self.message);
        self
    }

    /// Prefixes an index of a list to the path of the value.
    #[must_use]
    pub(crate) fn below_index(self, index: usize) -> Self {
        self.below(&format!("[{index}]"))
    }

    /// Formats the problem. Line numbers refer to `file`.
    pub(crate) fn in_file(&self, file: Option<&str>) -> String {
        match (&self.origin, file) {
            (Some(Origin::Line(_)) | None, Some(file)) => format!("{file}: {self}"),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl serde::de::Error for Problem {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!(
            "there is no key `{}` here; {}",
            shown_key(field),
            suggest(field, expected)
        ))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let words: Vec<&str> = expected.iter().copied().filter(|word| !word.is_empty()).collect();
        let variant = shown(variant);
        Self::new(format!("{variant} is not known; use {}", alternatives(&words)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        match found {
            Unexpected::Unsigned(0) => Self::new("must be more than 0"),
            Unexpected::Str(text) => Self::new(format!("takes {expected}, but has {}", shown(text))),
            found => Self::new(format!("takes {expected}, but has {found}")),
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("the key `{field}` is missing"))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!(
            "the key `{field}` is given twice, perhaps by another name; keep one"
        ))
    }
}

/// Returns a key for a message. A secret value may be in place of a key, but none of our keys is long or has spaces or
/// colons.
fn shown_key(key: &str) -> &str {
    let is_plain = |character: char| character.is_alphanumeric() || "_-./[]<*".contains(character);
    let is_known =
        |piece: &str| piece.len() <= LONGEST_RUN_BYTES || !piece.contains(|c: char| c.is_ascii_digit());
    let is_token = is_secret(key) || !key.split(|c: char| !c.is_ascii_alphanumeric()).all(is_known);
    if key.len() <= LONGEST_KEY_BYTES && key.chars().all(is_plain) && !is_token {
        key
    } else {
        "…"
    }
}

/// Suggests the keys most similar to an unknown one, or all keys.
pub(crate) fn suggest<S: AsRef<str>>(unknown: &str, known: &[S]) -> String {
    let near = near(unknown, known);
    match (near.is_empty(), known.is_empty()) {
        (_, true) => "nothing may stand below it".to_owned(),
        (false, false) => format!("did you mean {}?", alternatives(&near)),
        (true, false) => format!("it takes {}", alternatives(known)),
    }
}

/// Returns up to three keys most similar to an unknown one, best match first.
pub(crate) fn near<'a, S: AsRef<str>>(unknown: &str, known: &'a [S]) -> Vec<&'a str> {
    let likeness = |key: &str| strsim::jaro_winkler(unknown, key);
    // One letter in three may be wrong, or the end may be missing.
    let is_near = |key: &&str| {
        likeness(key) > 0.8 || strsim::osa_distance(unknown, key) <= unknown.chars().count().div_ceil(3)
    };
    let mut near: Vec<&str> = known.iter().map(S::as_ref).filter(is_near).collect();
    near.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
    near.truncate(3);
    near
}

/// Formats `a`, `b` or `c`.
pub(crate) fn alternatives<S: AsRef<str>>(names: &[S]) -> String {
    let quoted = |name: &S| format!("`{}`", name.as_ref());
    match names {
        [] => String::new(),
        [only] => quoted(only),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(quoted).collect();
            format!("{} or {}", first.join(", "), quoted(last))
        }
    }
}
