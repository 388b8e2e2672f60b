//! The registry that a mirror acts for.

use alloc::boxed::Box;
use core::fmt;
use core::str::FromStr;

use crate::error::{Error, ErrorCode};

/// The host, with an optional port, of the registry that a client means when it asks a mirror: the parameter `ns`
/// (distribution-spec, "Registry Proxying").
///
/// 1 to 255 letters, digits and `.-_:[]`, which makes it safe in a header field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Box<str>);

impl Namespace {
    /// Returns it as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Namespace {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
        if (1..=255).contains(&text.len()) && text.bytes().all(is_allowed) {
            Ok(Self(text.into()))
        } else {
            Err(Error::new(
                ErrorCode::NameInvalid,
                "ns is the host and port of a registry",
            ))
        }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
