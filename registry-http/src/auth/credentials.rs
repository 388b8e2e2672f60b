//! The credentials of a request.

use http::HeaderMap;
use http::header::AUTHORIZATION;

/// Returns what follows the scheme in the field `Authorization`, if that has this scheme.
pub(super) fn credentials<'a>(header: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let value = header.get(AUTHORIZATION)?.to_str().ok()?;
    let (found, credentials) = value.split_once(' ')?;
    found.eq_ignore_ascii_case(scheme).then(|| credentials.trim())
}
