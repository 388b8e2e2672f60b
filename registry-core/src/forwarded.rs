//! What proxies say about a request: the field `Forwarded` (RFC 7239).

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use crate::error::{Error, ErrorCode};

/// What one proxy says about the request that it received: an element of the list in the field `Forwarded` (RFC 7239,
/// section 4). `by` and parameters that the RFC does not know are parsed and left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardedElement {
    /// `for`: the address from which the proxy got the request; `None` if it gives none (`unknown`, a name of its own).
    pub from: Option<IpAddr>,
    /// `host`: the requested host.
    pub host: Option<String>,
    /// `proto`: the scheme of the URL, in lower case.
    pub scheme: Option<String>,
}

impl ForwardedElement {
    /// Returns the elements of a line of the field from the last to the first: each proxy appends its own, so the last
    /// element is that of the nearest proxy.
    ///
    /// A client may put anything into the list that proxies append to, so it is parsed from its end, where an
    /// unbalanced quote can hide nothing. A malformed element is an error in its place.
    pub fn from_last(line: &str) -> impl Iterator<Item = Result<Self, Error>> + '_ {
        list_from_last(line).map(str::parse)
    }
}

/// Returns the members of a comma-separated list from the last to the first, without the white space around them.
/// Commas in quoted strings separate nothing; empty members are skipped (RFC 9110, section 5.6.1.2).
fn list_from_last(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    core::iter::from_fn(move || {
        loop {
            let left = rest?;
            let member = match last_unquoted(left, b',') {
                Some((before, member)) => {
                    rest = Some(before);
                    member
                }
                None => {
                    rest = None;
                    left
                }
            };
            let member = trim(member);
            if !member.is_empty() {
                return Some(member);
            }
        }
    })
}

/// Splits at the last `separator` outside of quoted strings, as seen from the end.
fn last_unquoted(text: &str, separator: u8) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let mut is_quoted = false;
    for (place, byte) in bytes.iter().enumerate().rev() {
        if *byte == b'"' {
            let before = bytes.get(..place).unwrap_or_default();
            let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\').count();
            // An escaped quote is part of the string.
            if !is_quoted || backslashes % 2 == 0 {
                is_quoted = !is_quoted;
            }
        } else if *byte == separator && !is_quoted {
            return Some((text.get(..place)?, text.get(place + 1..)?));
        }
    }
    None
}

/// Removes optional white space (RFC 9110, section 5.6.3).
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

impl FromStr for ForwardedElement {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).ok_or_else(|| {
            Error::new(
                ErrorCode::Unsupported,
                "an element of Forwarded is for=ADDRESS;host=HOST;proto=SCHEME",
            )
        })
    }
}

fn parse(text: &str) -> Option<ForwardedElement> {
    let mut element = ForwardedElement::default();
    let mut node = None;
    let mut rest = Some(text);
    while let Some(left) = rest {
        let pair = match last_unquoted(left, b';') {
            Some((before, pair)) => {
                rest = Some(before);
                pair
            }
            None => {
                rest = None;
                left
            }
        };
        let pair = trim(pair);
        if pair.is_empty() {
            continue;
        }
        let (name, value) = pair.split_once('=')?;
        if !is_token(name) {
            return None;
        }
        let value = unquote(value)?;
        let slot = match name {
            _ if name.eq_ignore_ascii_case("for") => &mut node,
            _ if name.eq_ignore_ascii_case("host") => &mut element.host,
            _ if name.eq_ignore_ascii_case("proto") => &mut element.scheme,
            _ => continue,
        };
        // "Each parameter MUST NOT occur more than once per field-value."
        if slot.replace(value).is_some() {
            return None;
        }
    }
    if let Some(node) = node {
        element.from = parse_node(&node)?;
    }
    if let Some(scheme) = &mut element.scheme {
        scheme.make_ascii_lowercase();
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(is_scheme) {
            return None;
        }
    }
    Some(element)
}

/// Parses a token or a quoted string.
fn unquote(value: &str) -> Option<String> {
    let Some(quoted) = value.strip_prefix('"') else {
        return is_token(value).then(|| value.to_owned());
    };
    let quoted = quoted.strip_suffix('"')?;
    let mut text = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        let character = match character {
            '"' => return None,
            '\\' => characters.next()?,
            other => other,
        };
        // RFC 9110, section 5.6.4.
        if character.is_control() && character != '\t' {
            return None;
        }
        text.push(character);
    }
    Some(text)
}

/// Parses a node with its port (RFC 7239, section 6). `Some(None)` is a node without an address.
fn parse_node(node: &str) -> Option<Option<IpAddr>> {
    if let Some(rest) = node.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        return (port.is_empty() || is_port(port.strip_prefix(':')?)).then_some(Some(address.into()));
    }
    let (name, port) = match node.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (node, None),
    };
    if !port.is_none_or(is_port) {
        return None;
    }
    if name.eq_ignore_ascii_case("unknown") || is_obfuscated(name) {
        return Some(None);
    }
    let address: Ipv4Addr = name.parse().ok()?;
    Some(Some(address.into()))
}

fn is_port(text: &str) -> bool {
    let is_number = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number || is_obfuscated(text)
}

fn is_obfuscated(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    text.strip_prefix('_')
        .is_some_and(|name| !name.is_empty() && name.bytes().all(is_allowed))
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// As in the field.
impl fmt::Display for ForwardedElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from {
            Some(IpAddr::V4(address)) => write!(f, "for={address}")?,
            Some(IpAddr::V6(address)) => write!(f, "for=\"[{address}]\"")?,
            None => f.write_str("for=unknown")?,
        }
        for (name, value) in [("host", &self.host), ("proto", &self.scheme)] {
            let Some(value) = value else { continue };
            if is_token(value) {
                write!(f, ";{name}={value}")?;
                continue;
            }
            write!(f, ";{name}=\"")?;
            for character in value.chars() {
                if matches!(character, '"' | '\\') {
                    f.write_str("\\")?;
                }
                write!(f, "{character}")?;
            }
            f.write_str("\"")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString as _;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn elements(line: &str) -> Vec<Option<ForwardedElement>> {
        ForwardedElement::from_last(line).map(Result::ok).collect()
    }

    fn element(from: &str, host: Option<&str>, scheme: Option<&str>) -> ForwardedElement {
        ForwardedElement {
            from: from.parse().ok(),
            host: host.map(str::to_owned),
            scheme: scheme.map(str::to_owned),
        }
    }

    /// The examples of the RFC, sections 4, 6 and 7.
    #[test]
    fn the_examples_are_read() {
        let only = |line: &str| elements(line).remove(0).unwrap();
        assert_eq!(only("for=\"_gazonk\""), element("", None, None));
        let v6 = element("2001:db8:cafe::17", None, None);
        assert_eq!(only("For=\"[2001:db8:cafe::17]:4711\""), v6);
        assert_eq!(
            only("for=192.0.2.60;proto=http;by=203.0.113.43"),
            element("192.0.2.60", None, Some("http"))
        );
        assert_eq!(
            elements("for=192.0.2.43, for=198.51.100.17"),
            [
                Some(element("198.51.100.17", None, None)),
                Some(element("192.0.2.43", None, None))
            ]
        );
        assert_eq!(
            elements("for=192.0.2.43, for=\"[2001:db8:cafe::17]\", for=unknown"),
            [
                Some(element("", None, None)),
                Some(v6),
                Some(element("192.0.2.43", None, None))
            ]
        );
        assert_eq!(
            only("for=\"192.0.2.43:47011\""),
            element("192.0.2.43", None, None)
        );
        assert_eq!(
            only("for=192.0.2.43;HOST=\"registry.example:5000\"; Proto=HTTPS;secret=\"a,b;c\""),
            element("192.0.2.43", Some("registry.example:5000"), Some("https"))
        );
        assert_eq!(elements(" ,, for=192.0.2.1 , ").len(), 1);
        assert!(elements("").is_empty());
    }

    #[test]
    fn what_is_no_element_is_an_error_in_its_place() {
        for text in [
            "for",
            "for=",
            "=1",
            "for=2001:db8::1",
            "for=[2001:db8::1]",
            "for=\"[2001:db8::1\"",
            "for=\"[2001:db8::1]x\"",
            "for=192.0.2.1:80",
            "for=\"192.0.2.1:\"",
            "for=192.0.2.256",
            "for=192.0.2.1;for=192.0.2.2",
            "for=_",
            "for =192.0.2.1",
            "for=\"192.0.2.1",
            "proto=\"1http\"",
            "proto=\"\"",
            "host=\"a\"b\"",
        ] {
            assert_eq!(elements(text), [None], "{text}");
            let last = element("192.0.2.7", None, None);
            assert_eq!(elements(&format!("{text}, {last}"))[0], Some(last), "{text}");
        }
    }

    fn any_element() -> impl Strategy<Value = ForwardedElement> {
        let host = proptest::option::of("[ -~]{0,20}");
        let scheme = proptest::option::of("[a-z][a-z0-9+.-]{0,8}");
        let from = proptest::option::of(any::<IpAddr>());
        (from, host, scheme).prop_map(|(from, host, scheme)| ForwardedElement { from, host, scheme })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(expected in proptest::collection::vec(any_element(), 1..4)) {
            let line = expected.iter().map(|element| element.to_string()).collect::<Vec<_>>().join(", ");
            let read: Vec<_> = ForwardedElement::from_last(&line).map(Result::unwrap).collect();
            let reversed: Vec<_> = expected.into_iter().rev().collect();
            prop_assert_eq!(read, reversed);
        }

        #[test]
        fn nothing_before_it_changes_what_the_last_proxy_says(forged in "[ -~]{0,40}", last in any_element()) {
            let line = format!("{forged}, {last}");
            prop_assert_eq!(elements(&line).remove(0), Some(last));
        }
    }
}
