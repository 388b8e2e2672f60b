//! Requests that two readers may interpret differently.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Version};
use registry_core::{Error, ErrorCode};

use crate::connection::Connection;

/// Refuses a request whose length or host a proxy in front may have read differently (RFC 9112, sections 3.2 and 6.1;
/// RFC 9113, section 8.3.1).
///
/// What cannot be parsed never gets here. A request without a host is refused only if it came through a server of this
/// crate: a request created in the same process needs none.
pub(super) fn check(parts: &Parts) -> Result<(), Error> {
    let header = &parts.headers;
    if parts.version < Version::HTTP_2 {
        check_coding(header)?;
        check_connection(header)?;
    }
    let field = host(header)?;
    let target = parts.uri.authority();
    if target.is_some_and(|target| !is_host_and_port(target)) {
        return refuse("the target of the request names a user beside the host");
    }
    match (target, field) {
        (None, None) if parts.version >= Version::HTTP_11 && Connection::of(parts).is_some() => {
            refuse("the request names no Host")
        }
        // An HTTP/1.1 server uses the target and ignores the field (RFC 9112, section 3.2.2).
        (Some(target), Some(field)) if parts.version >= Version::HTTP_2 => {
            let port = default_port(parts.uri.scheme());
            if is_same_host(target, &field, port) {
                Ok(())
            } else {
                refuse("the field Host and :authority are not the same host")
            }
        }
        _ => Ok(()),
    }
}

/// Refuses any transfer coding but `chunked`, because no other is decoded here.
fn check_coding(header: &HeaderMap) -> Result<(), Error> {
    let mut codings = header.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => refuse("the only Transfer-Encoding of a request is chunked, once"),
    }
}

/// Refuses a `Connection` that names a framing field: a proxy drops such fields, and then forwards a different request
/// from the one it read.
fn check_connection(header: &HeaderMap) -> Result<(), Error> {
    let mut options = header
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let is_framing = |option: &[u8]| {
        [HOST, CONTENT_LENGTH, TRANSFER_ENCODING]
            .iter()
            .any(|name| option.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
    };
    if options.any(is_framing) {
        return refuse("the field Connection names a field that is for every server");
    }
    Ok(())
}

/// Returns the host of the field, or `None` if the field is absent or empty.
fn host(header: &HeaderMap) -> Result<Option<Authority>, Error> {
    let mut lines = header.get_all(HOST).iter();
    let Some(line) = lines.next() else {
        return Ok(None);
    };
    if lines.next().is_some() {
        return refuse("the request has more than one field Host");
    }
    if line.is_empty() {
        return Ok(None);
    }
    let host = |line: &HeaderValue| Authority::try_from(line.as_bytes()).ok();
    match host(line).filter(is_host_and_port) {
        Some(host) => Ok(Some(host)),
        None => refuse("the field Host is not a host with or without a port"),
    }
}

fn is_host_and_port(authority: &Authority) -> bool {
    let is_port_valid = match authority.as_str().strip_prefix(authority.host()) {
        None => false,
        Some("" | ":") => true,
        Some(_) => authority.port_u16().is_some(),
    };
    !authority.host().is_empty() && is_port_valid
}

fn is_same_host(one: &Authority, other: &Authority, default_port: Option<u16>) -> bool {
    let port = |authority: &Authority| authority.port_u16().or(default_port);
    one.host().eq_ignore_ascii_case(other.host()) && port(one) == port(other)
}

fn default_port(scheme: Option<&Scheme>) -> Option<u16> {
    match scheme.map(Scheme::as_str) {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    }
}

fn refuse<T>(message: &'static str) -> Result<T, Error> {
    Err(Error::new(ErrorCode::Unsupported, message))
}
