//! The query of a request target.

use alloc::borrow::Cow;
use alloc::format;
use alloc::vec::Vec;

use crate::error::{Error, ErrorCode};
use crate::percent;

/// The parameters of a query, decoded, in their order. A parameter without a value counts as absent.
///
/// A question mark separates parameters like an ampersand: scripts append `?digest=` to the `Location` of an upload,
/// which already has a query.
pub(super) struct Query<'a> {
    parameters: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The names of those without a value.
    without_value: Vec<Cow<'a, str>>,
}

impl<'a> Query<'a> {
    /// Splits and decodes a query.
    ///
    /// # Errors
    /// [`ErrorCode::Unsupported`] if an escape is malformed.
    pub(super) fn parse(text: &'a str) -> Result<Self, Error> {
        let (mut parameters, mut without_value) = (Vec::new(), Vec::new());
        for parameter in text.split(['&', '?']) {
            match parameter.split_once('=').unwrap_or((parameter, "")) {
                (key, "") => without_value.extend(percent::decode(key)),
                (key, value) => {
                    let decoded = percent::decode(key).zip(percent::decode(value));
                    parameters.push(decoded.ok_or_else(|| {
                        Error::new(ErrorCode::Unsupported, "the query has a malformed percent-escape")
                    })?);
                }
            }
        }
        Ok(Self {
            parameters,
            without_value,
        })
    }

    /// Returns the first value of a parameter that must not be empty: a script whose variable is empty does not mean the
    /// default.
    ///
    /// # Errors
    /// [`ErrorCode::Unsupported`] if the parameter has no value.
    pub(super) fn given(&self, key: &str) -> Result<Option<&str>, Error> {
        if self.without_value.iter().any(|name| name == key) {
            let message = format!("?{key}= has no value; give one, or leave it out");
            return Err(Error::new(ErrorCode::Unsupported, message));
        }
        Ok(self.first(key))
    }

    /// Returns the first value of a parameter.
    pub(super) fn first(&self, key: &str) -> Option<&str> {
        self.all(key).next()
    }

    /// Returns all values of a parameter.
    pub(super) fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.parameters
            .iter()
            .filter(move |(name, _)| name == key)
            .map(|(_, value)| &**value)
    }
}
