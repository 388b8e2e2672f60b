//! The query of a request target.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use crate::error::{Error, ErrorCode};
use crate::percent;

/// The parameters of a query, decoded, in their order. A parameter without a value counts as absent.
///
/// A question mark separates parameters like an ampersand: scripts append `?digest=` to the `Location` of an upload,
/// which already has a query.
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Splits and decodes a query.
    ///
    /// # Errors
    /// [`ErrorCode::Unsupported`] if an escape is malformed.
    pub(super) fn parse(text: &'a str) -> Result<Self, Error> {
        text.split(['&', '?'])
            .filter_map(|parameter| parameter.split_once('='))
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| Some((percent::decode(key)?, percent::decode(value)?)))
            .collect::<Option<_>>()
            .map(Self)
            .ok_or_else(|| Error::new(ErrorCode::Unsupported, "the query has a malformed percent-escape"))
    }

    /// Returns the first value of a parameter.
    pub(super) fn first(&self, key: &str) -> Option<&str> {
        self.all(key).next()
    }

    /// Returns all values of a parameter.
    pub(super) fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(name, _)| name == key)
            .map(|(_, value)| &**value)
    }
}
