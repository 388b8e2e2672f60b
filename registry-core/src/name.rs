//! Names of repositories.

use alloc::borrow::ToOwned as _;
use alloc::boxed::Box;
use core::fmt;
use core::str::FromStr;

use crate::error::{Error, ErrorCode};

/// The name of a repository, for example `library/alpine`.
///
/// One to 255 bytes of components separated by `/`. A component is lower-case letters and digits, with `.`, `_`,
/// `__` or any number of `-` between them (distribution-spec 1.1, "Pulling manifests"). The limit on the length is that
/// of clients.
///
/// ```
/// use registry_core::RepositoryName;
/// assert!("library/alpine".parse::<RepositoryName>().is_ok());
/// assert!("Library/alpine".parse::<RepositoryName>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(Box<str>);

impl RepositoryName {
    /// The maximum length of a name in bytes.
    pub const MAXIMUM_BYTES: usize = 255;

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.len() > Self::MAXIMUM_BYTES {
            return Err(Error::new(
                ErrorCode::NameInvalid,
                "a repository name has at most 255 characters",
            ));
        }
        if text.split('/').all(is_component) {
            Ok(Self(text.into()))
        } else {
            Err(Error::new(
                ErrorCode::NameInvalid,
                "a repository name is lower-case letters and digits, separated by '.', '_', '__' or '-', \
                 in components separated by '/'",
            ))
        }
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator = |run: &str| matches!(run, "." | "_" | "__") || run.bytes().all(|b| b == b'-');
    text.starts_with(is_alphanumeric)
        && text.ends_with(is_alphanumeric)
        && text
            .split(is_alphanumeric)
            .filter(|run| !run.is_empty())
            .all(is_separator)
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for RepositoryName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<RepositoryName> for alloc::string::String {
    fn from(name: RepositoryName) -> Self {
        name.as_str().to_owned()
    }
}

crate::text::serde_as_text!(RepositoryName);
