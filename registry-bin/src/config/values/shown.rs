//! What messages show of values.

use std::borrow::Cow;

use super::content::is_secret;

/// The longest value that a message shows.
const LONGEST_BYTES: usize = 48;

/// The units of durations and sizes that stand between numbers, as in `1h30m`.
const UNITS: [&[u8]; 8] = [b"d", b"h", b"m", b"s", b"ms", b"us", b"ns", b"w"];

/// Returns a value for a message about what is wrong with it. It is in the message only if it is short and made of
/// words and numbers: any other may be a secret in the place of a value.
pub(crate) fn shown(text: &str) -> Cow<'static, str> {
    if is_plain(text) {
        format!("{text:?}").into()
    } else {
        "a text that may be secret and is not shown".into()
    }
}

fn is_plain(text: &str) -> bool {
    let is_known = |character: char| character.is_ascii_alphanumeric() || "._:/+-".contains(character);
    // As in `5 minutes`.
    let is_amount = text.split_once(' ').is_some_and(|(number, unit)| {
        number.bytes().all(|byte| byte.is_ascii_digit()) && unit.bytes().all(|byte| byte.is_ascii_lowercase())
    });
    // What follows a colon is a port; a password would follow a name.
    let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= LONGEST_BYTES
        && (is_amount || text.chars().all(is_known))
        && text.split(':').skip(1).all(is_port)
        && !is_secret(text)
        && text
            .as_bytes()
            .split(|byte| !byte.is_ascii_alphanumeric())
            .all(is_word)
}

/// Returns whether letters and digits are a word, a number, or both as people write them: `SHA256`, `10MB`, `1h30m`.
fn is_word(piece: &[u8]) -> bool {
    let runs: Vec<&[u8]> = piece
        .chunk_by(|one, next| one.is_ascii_digit() == next.is_ascii_digit())
        .collect();
    let is_number = |run: &[u8]| run.iter().all(u8::is_ascii_digit);
    match *runs {
        [] => true,
        [run] if is_number(run) => run.len() <= 20,
        [run] => run.len() <= 16 && has_one_case(run),
        [number, unit] if is_number(number) => number.len() <= 20 && unit.len() <= 3,
        [word, number] => word.len() <= 5 && number.len() <= 3,
        // As in `1e6`.
        [number, b"e" | b"E", power] if is_number(number) => number.len() <= 20 && power.len() <= 3,
        _ => runs.iter().all(|run| is_number(run) || UNITS.contains(run)),
    }
}

/// All letters are small but the first one, or all are capitals.
fn has_one_case(letters: &[u8]) -> bool {
    let after_first = letters.get(1..).unwrap_or_default();
    after_first.iter().all(u8::is_ascii_lowercase) || letters.iter().all(u8::is_ascii_uppercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_are_shown() {
        for text in [
            "",
            "loud",
            "True",
            "-1",
            "1h30m",
            "1e6",
            "1.5e-3",
            "5 minutes",
            "10MB",
            "3x",
            "1.5.2",
            "tls1.4",
            "/debug/health",
            "127.0.0.1:5000",
            "10.0.0.0/33",
            "registry.example.com:443",
            "TLS_RSA_WITH_AES_256_GCM_SHA512",
            "18446744073709551616",
        ] {
            assert_eq!(shown(text), format!("{text:?}"));
        }
    }

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let line = pem.lines().nth(1).unwrap();
        for text in [
            &*pem,
            line,
            &line[..20],
            "http://user:hunter2@host/",
            "user:hunter2@host",
            "alice:secret",
            "hunter2",
            "canary-7f3a",
            "AKIAIOSFODNN7EXAMPLE",
            "wJalrXUtnFEMI",
            "0123456789abcdef",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln",
            "Bearer abc",
            "Basic YTpi",
            "AccountKey=abc",
            "https://a.example/x?token=abc",
            "$2y$05$abc",
            "correct horse",
            "caf\u{e9}",
        ] {
            assert!(shown(text).contains("not shown"), "{text}: {}", shown(text));
        }
    }
}
