//! Header fields of requests and responses, between the types of HTTP and those of the registry.

use std::borrow::Cow;

use http::header::{CONNECTION, EXPECT, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use registry_core::Response;
use registry_core::request::Fields;

/// The header of a message as registry-core reads it, for [`Request::parse`](registry_core::Request::parse) and
/// [`ReceivedResponse`](registry_core::response::ReceivedResponse).
#[derive(Clone, Copy, Debug)]
pub struct HeaderFields<'a>(pub &'a HeaderMap);

impl Fields for HeaderFields<'_> {
    fn field(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut lines = self
            .0
            .get_all(name)
            .iter()
            .filter_map(|value| std::str::from_utf8(value.as_bytes()).ok());
        let first = lines.next()?;
        Some(lines.fold(Cow::Borrowed(first), |joined, line| {
            Cow::Owned(format!("{joined}, {line}"))
        }))
    }
}

/// Returns whether the client waits for `100 Continue` before it sends its body (RFC 9110, section 10.1.1).
pub(super) fn expects_continue(header: &HeaderMap) -> bool {
    header
        .get(EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Adds the `fields` whose names are not in `header` yet.
pub(super) fn add_fields(header: &mut HeaderMap, fields: &HeaderMap) {
    for name in fields
        .keys()
        .filter(|name| !header.contains_key(*name))
        .collect::<Vec<_>>()
    {
        for value in fields.get_all(name) {
            header.append(name, value.clone());
        }
    }
}

/// Creates the head of the HTTP response.
///
/// If `is_last`, it tells an HTTP/1.1 client that the connection will not be used again.
pub(crate) fn response_head(response: &Response, version: Version, is_last: bool) -> http::Response<()> {
    let mut head = http::Response::new(());
    *head.status_mut() = StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let header = head.headers_mut();
    header.reserve(response.fields.len());
    for (name, value) in &response.fields {
        let field = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::try_from(value.as_str()),
        );
        if let (Ok(name), Ok(value)) = field {
            header.append(name, value);
        } else {
            tracing::error!(name, value, "a field of a response cannot be sent");
        }
    }
    if is_last && version < Version::HTTP_2 {
        header.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    head
}
