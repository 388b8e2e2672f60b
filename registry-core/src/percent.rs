//! Percent-encoding of request targets (RFC 3986, section 2.1).

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Decodes `%xx`. A `+` stays a `+`: nothing in this protocol contains a space, and some clients send media types with
/// a raw plus sign.
///
/// Returns `None` if an escape is malformed or the result is not UTF-8.
pub(crate) fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            nibble(rest.next()?)? << 4 | nibble(rest.next()?)?
        } else {
            byte
        });
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

fn nibble(byte: u8) -> Option<u8> {
    u8::try_from(char::from(byte).to_digit(16)?).ok()
}

/// Encodes a text so that it can be part of a path or of the value of a query.
pub(crate) struct Encoded<'a>(pub(crate) &'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.bytes().try_for_each(|byte| {
            if byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte) {
                write!(f, "{}", char::from(byte))
            } else {
                write!(f, "%{byte:02X}")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;
    use proptest::prelude::*;

    #[test]
    fn malformed_escapes_are_refused() {
        assert_eq!(decode("sha256%3A%3a+").as_deref(), Some("sha256::+"));
        for text in ["%", "%4", "%zz", "%+1", "%ff", "%C3"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(text: String) {
            let encoded = Encoded(&text).to_string();
            prop_assert!(encoded.is_ascii() && !encoded.contains(['&', '?', '#', '+', ' ', '<', '>', '=']));
            let decoded = decode(&encoded);
            prop_assert_eq!(decoded.as_deref(), Some(text.as_str()));
        }

        #[test]
        fn no_text_makes_decoding_panic(text: String) {
            drop(decode(&text));
        }
    }
}
