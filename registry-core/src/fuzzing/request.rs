//! Requests and ranges.

use alloc::string::ToString as _;
use alloc::vec::Vec;

use crate::forwarded::ForwardedElement;
use crate::operation::Operation;
use crate::range::{ContentRange, RangeHeader, Selection};
use crate::request::{Request, clean_target};
use crate::response::Response;

/// Any method, target and fields are a request, which is the same when it is written and read again, or an error of
/// the client's. Its clean target is one of this server, and clean.
///
/// The first line is the method and the target, each further one a field `name: value`.
pub fn request(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else {
        return;
    };
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let (method, target) = first.split_once(' ').unwrap_or((first, ""));
    let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
    if let Some(clean) = clean_target(target) {
        assert!(clean.starts_with('/') && !clean.starts_with("//"), "{clean}");
        assert_eq!(clean_target(&clean), None, "{clean}");
    }
    match Request::parse(method, target, fields.as_slice()) {
        Ok(request) => {
            let operation = Operation::of(&request);
            assert_eq!(operation.repository.is_some(), !is_of_registry(&request));
            let parts = request.build();
            assert!(
                parts.target.is_ascii() && !parts.target.contains([' ', '#', '"', '<', '>']),
                "{} can stand in a header",
                parts.target
            );
            let again = Request::parse(parts.method, &parts.target, parts.fields.as_slice());
            assert_eq!(again.ok(), Some(request));
        }
        Err(error) => {
            let response = Response::from(error);
            assert!((400..500).contains(&response.status), "{}", response.status);
            assert_eq!(response.status == 405, response.field("Allow").is_some());
        }
    }
}

const fn is_of_registry(request: &Request) -> bool {
    matches!(request, Request::Version | Request::ListRepositories { .. })
}

/// Ranges are written as they are understood, and select no more than exists, whatever its size.
pub fn ranges(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(range) = text.parse::<ContentRange>() {
        assert!(range.start() <= range.end());
        assert_eq!(range.end() - range.start() + 1, range.length());
        assert_eq!(range.to_string().parse().ok(), Some(range));
    }
    let Some(header) = RangeHeader::parse(text) else {
        return;
    };
    assert!((1..=RangeHeader::MAXIMUM_PARTS).contains(&header.parts().len()));
    assert_eq!(RangeHeader::parse(&header.to_string()).as_ref(), Some(&header));
    for size in [0, 1, 10, 2048, u64::MAX] {
        let Selection::Parts(parts) = header.resolve(size) else {
            continue;
        };
        assert!(!parts.is_empty());
        assert!(parts.iter().all(|part| part.start < part.end && part.end <= size));
        let lengths = parts.iter().map(|part| u128::from(part.end - part.start));
        assert!(
            lengths.sum::<u128>() <= u128::from(size),
            "never more than the content"
        );
    }
}

/// Any field `Forwarded` is parsed, each element is the same after it is written and parsed again, and nothing before
/// the last element changes it.
pub fn forwarded(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else {
        return;
    };
    for element in ForwardedElement::from_last(text).flatten() {
        let line = element.to_string();
        for line in [line.clone(), alloc::format!("{text},{line}")] {
            let last = ForwardedElement::from_last(&line).next();
            assert_eq!(last.and_then(Result::ok), Some(element.clone()), "{line}");
        }
    }
}
