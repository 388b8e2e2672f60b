//! Pages of lists: what a client requests.

use alloc::string::String;

use crate::error::{Error, ErrorCode};

/// The part of a list that a client requests: `n` and `last` of the query (distribution-spec, "Listing Tags").
///
/// The default is the whole list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageQuery {
    /// The maximum number of items; `None` means all. Zero means none, and then no `Link` either.
    pub limit: Option<u64>,
    /// The last item that the client has; it need not exist.
    pub last: Option<String>,
}

impl PageQuery {
    /// The maximum number of items on a page, whatever `n` says, unless the registry's options differ: a client that
    /// wants more follows `Link`.
    pub const MAXIMUM_ITEMS: usize = 1000;

    /// The largest page that options may allow, in items.
    pub const LARGEST_ITEMS: usize = 100_000;

    /// Parses `n`. A number that does not fit 64 bits counts as the largest that does.
    ///
    /// # Errors
    /// [`ErrorCode::Unsupported`] if it is not a number: the specification has no separate code for it.
    pub fn parse_limit(text: &str) -> Result<u64, Error> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            Ok(text.parse().unwrap_or(u64::MAX))
        } else {
            Err(Error::new(
                ErrorCode::Unsupported,
                "n is the most items to return, a number of at least 0",
            ))
        }
    }

    /// Returns how many items the page has, up to `most`; `None` if all are requested.
    #[must_use]
    pub fn page_size(&self, most: usize) -> Option<usize> {
        self.limit
            .map(|limit| usize::try_from(limit).unwrap_or(most).min(most))
    }

    /// Returns the query for the page after an item.
    #[must_use]
    pub fn after(&self, last: impl Into<String>) -> Self {
        Self {
            limit: self.limit,
            last: Some(last.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n_is_a_number_of_any_size() {
        for (text, limit, size) in [
            ("0", 0, 0),
            ("10", 10, 10),
            ("1000", 1000, 1000),
            ("1001", 1001, 1000),
            ("99999999999999999999999999", u64::MAX, 1000),
        ] {
            assert_eq!(PageQuery::parse_limit(text).unwrap(), limit);
            let page = PageQuery {
                limit: Some(limit),
                last: None,
            };
            assert_eq!(page.page_size(1000), Some(size));
        }
        for text in ["", "-1", "+1", "1.5", "ten", "0x10", " 1"] {
            let error = PageQuery::parse_limit(text).unwrap_err();
            assert_eq!(
                (error.code(), error.code().status()),
                (ErrorCode::Unsupported, 400)
            );
        }
        assert_eq!(PageQuery::default().page_size(1000), None);
    }
}
