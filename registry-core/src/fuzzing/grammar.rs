//! The grammars again, as the specification's regular expressions evaluated byte by byte, to compare the parsers with.

/// A part of a regular expression: which bytes, the minimum count and the maximum count; it matches as many as
/// possible.
type Part = (fn(u8) -> bool, usize, usize);

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/…)*`, at most 255 bytes.
pub(super) fn is_repository_name(text: &str) -> bool {
    let component = |mut rest: &str| {
        loop {
            let Some(after) = take(rest, &[(lower, 1, usize::MAX)]) else {
                return false;
            };
            if after.is_empty() {
                return true;
            }
            let separators: [Part; 3] = [
                (|b| b == b'.', 1, 1),
                (|b| b == b'_', 1, 2),
                (|b| b == b'-', 1, usize::MAX),
            ];
            let separator = separators.iter().find_map(|part| take(after, &[*part]));
            let Some(next) = separator else {
                return false;
            };
            rest = next;
        }
    };
    text.len() <= 255 && text.split('/').all(component)
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
pub(super) fn is_tag(text: &str) -> bool {
    let first = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let other = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    take(text, &[(first, 1, 1), (other, 0, 127)]) == Some("")
}

/// `algorithm ":" encoded`, according to image-spec, "Digests"; at most 255 bytes.
pub(super) fn is_digest(text: &str) -> bool {
    let hexadecimal = |b: u8| b"0123456789abcdef".contains(&b);
    let encoded = |b: u8| b.is_ascii_alphanumeric() || b"=_-".contains(&b);
    if let Some(rest) = text.strip_prefix("sha256:") {
        return take(rest, &[(hexadecimal, 64, 64)]) == Some("");
    }
    if let Some(rest) = text.strip_prefix("sha512:") {
        return take(rest, &[(hexadecimal, 128, 128)]) == Some("");
    }
    let mut rest = take(text, &[(lower, 1, usize::MAX)]);
    while let Some(next) = rest {
        if next.starts_with(':') {
            break;
        }
        rest = take(next, &[(|b| b"+._-".contains(&b), 1, 1), (lower, 1, usize::MAX)]);
    }
    text.len() <= 255
        && rest.and_then(|rest| take(rest, &[(|b| b == b':', 1, 1), (encoded, 1, usize::MAX)])) == Some("")
}

/// `type/subtype` of RFC 6838, section 4.2.
pub(super) fn is_media_type(text: &str) -> bool {
    let first = |b: u8| b.is_ascii_alphanumeric();
    let other = |b: u8| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b);
    let slash = |b: u8| b == b'/';
    let parts: [Part; 5] = [
        (first, 1, 1),
        (other, 0, 126),
        (slash, 1, 1),
        (first, 1, 1),
        (other, 0, 126),
    ];
    take(text, &parts) == Some("")
}

/// Eight, four, four, four and twelve hexadecimal digits in lower case.
pub(super) fn is_uuid(text: &str) -> bool {
    let digit = |b: u8| b"0123456789abcdef".contains(&b);
    let hyphen = |b: u8| b == b'-';
    let parts: [Part; 9] = [
        (digit, 8, 8),
        (hyphen, 1, 1),
        (digit, 4, 4),
        (hyphen, 1, 1),
        (digit, 4, 4),
        (hyphen, 1, 1),
        (digit, 4, 4),
        (hyphen, 1, 1),
        (digit, 12, 12),
    ];
    take(text, &parts) == Some("")
}

/// Returns what follows `parts`, each taken as often as possible; `None` if one of them does not match.
fn take<'a>(text: &'a str, parts: &[Part]) -> Option<&'a str> {
    let mut rest = text;
    for (matches, least, most) in parts {
        let count = rest.bytes().take_while(|b| matches(*b)).take(*most).count();
        if count < *least {
            return None;
        }
        rest = rest.get(count..)?;
    }
    Some(rest)
}

fn lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}
