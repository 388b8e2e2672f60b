//! Detection of values in the wrong place: the content of a file instead of its path.

use std::borrow::Cow;

/// The longest path in Linux, in bytes.
const LONGEST_PATH: usize = 4096;

/// The longest value that a message shows, in bytes.
const LONGEST_SHOWN: usize = 128;

/// The prefixes of password hashes.
const HASHES: [&str; 8] = ["$2a$", "$2b$", "$2x$", "$2y$", "$apr1$", "$5$", "$6$", "{SHA}"];

/// Describes text that cannot be the path of a file, without quoting it, because it may be secret. Returns `None` if it
/// may be a path.
pub(crate) fn no_path(text: &str) -> Option<&'static str> {
    const CONTENT: &str = "this looks like the content of a key or of another file, not like a path; write the path of the file that holds it";
    if is_content(text) {
        return Some(CONTENT);
    }
    // A line of a file of users, whatever the form of the password.
    let is_line = |(before, _): (&str, &str)| !before.contains('/');
    if text.contains("://") {
        return Some("this is a URL, and the path of a file belongs here");
    }
    text.split_once(':').is_some_and(is_line).then_some(CONTENT)
}

/// Returns whether text looks like a key, a certificate, a hash or a document, or a part of one.
pub(super) fn is_content(text: &str) -> bool {
    let begins_document = text.trim_start().starts_with(['{', '[']);
    text.len() > LONGEST_PATH
        || text.contains(|character: char| character.is_control())
        || text.contains("\\n")
        || text.contains("-----")
        || HASHES.iter().any(|hash| text.contains(hash))
        || begins_document
        || is_base64(text)
}

/// Returns whether text looks like base64 of a key, possibly with spaces between its lines: long, without other
/// characters, and random. Absolute paths do not.
fn is_base64(text: &str) -> bool {
    /// The length of the shortest key; no part of a handwritten path is that long.
    const SHORTEST: usize = 40;
    const SHORTEST_PIECE: usize = 20;
    let has_all = |piece: &str| {
        let has = |class: fn(&char) -> bool| piece.chars().any(|character| class(&character));
        has(char::is_ascii_uppercase) && has(char::is_ascii_lowercase) && has(char::is_ascii_digit)
    };
    let is_letter = |character: char| character.is_ascii_alphanumeric() || "+/=-_ ".contains(character);
    text.len() >= SHORTEST
        && !text.starts_with('/')
        && text.chars().all(is_letter)
        && text
            .split(['/', ' '])
            .any(|piece| piece.len() >= SHORTEST_PIECE && has_all(piece))
}

/// Returns a value for an error message. It is replaced if it is long, looks like content, or may have a password
/// before the name of a host.
pub(crate) fn shown(text: &str) -> Cow<'static, str> {
    if text.len() > LONGEST_SHOWN || is_content(text) || text.contains('@') {
        "another text, which is not shown because it may be secret".into()
    } else {
        format!("{text:?}").into()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn paths_are_taken_for_paths() {
        for path in [
            "users",
            "../users",
            "data/keys.json",
            "/etc/registry/server-key.pem",
            "/run/secrets/Registry Keys/tls.key",
            "/var/lib/registry/auth/..2026_11_28_01_02_03.123456789/users",
            "C:/keys",
            "/a:b/c",
            "./a:b",
            "/0123456789abcdefABCDEF0123456789abcdefABCDEF/0123456789abcdefABCDEF",
            "0123456789abcdef0123456789abcdef0123456789abcdef/tls.key",
        ] {
            assert_eq!(no_path(path).is_some(), path.starts_with('C'), "{path}");
        }
    }

    #[test]
    fn content_in_any_form_is_not_taken_for_a_path() {
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let lines: Vec<&str> = pem.lines().collect();
        let bare = lines[1..lines.len() - 1].concat();
        let half: String = pem.chars().take(100).collect();
        for content in [
            pem.clone(),
            lines.concat(),
            lines.join(" "),
            lines.join("\\n"),
            half.clone(),
            half.replace('\n', " "),
            bare.clone(),
            lines[1..].join(" "),
            lines[1..lines.len() - 1].join(" "),
            STANDARD.encode(&pem),
            r#"{"keys": []}"#.to_owned(),
            "alice:$2y$05$abc".to_owned(),
            "alice:secret".to_owned(),
            "$2y$05$abc".to_owned(),
            "https://user:secret@host/keys".to_owned(),
            "x".repeat(5000),
        ] {
            assert!(no_path(&content).is_some(), "{content}");
        }
        assert!(!shown(&bare).contains(&bare) && !shown(&pem).contains(lines[1]));
        for text in ["http://user:hunter2@host/", "user:hunter2@host"] {
            assert!(!shown(text).contains("hunter2"), "{text}");
        }
        assert_eq!(shown("loud"), "\"loud\"");
    }
}
