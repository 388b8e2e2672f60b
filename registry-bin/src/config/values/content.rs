//! Detection of values in the wrong place: the content of a file instead of its path.

/// The longest path in Linux, in bytes.
const LONGEST_PATH_BYTES: usize = 4096;

/// The prefixes of password hashes.
const HASHES: [&str; 8] = ["$2a$", "$2b$", "$2x$", "$2y$", "$apr1$", "$5$", "$6$", "{SHA}"];

/// The prefixes of `Authorization` header values, in lower case.
const SCHEMES: [&str; 2] = ["bearer ", "basic "];

/// What precedes a secret in connection strings and URL queries, in lower case.
const SECRETS: [&str; 13] = [
    "accountkey=",
    "accesskey=",
    "access_key=",
    "apikey=",
    "api_key=",
    "credential=",
    "passwd=",
    "password=",
    "pwd=",
    "secret=",
    "sig=",
    "signature=",
    "token=",
];

/// The prefixes of the tokens of well-known services.
const TOKENS: [&str; 11] = [
    "AKIA",
    "ASIA",
    "dckr_pat_",
    "gho_",
    "ghp_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "hvs.",
    "xoxb-",
    "xoxp-",
];

/// Describes text that cannot be the path of a file, without quoting it, because it may be secret. Returns `None` if it
/// may be a path.
pub(crate) fn no_path(text: &str) -> Option<&'static str> {
    const CONTENT: &str = "this looks like the content of a key or of another file, not like a path; write the path of the file that holds it";
    if is_content(text) {
        return Some(CONTENT);
    }
    if is_credential(text) {
        return Some(
            "this looks like a token or a password, not like a path; write the path of a file or a folder",
        );
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
    text.len() > LONGEST_PATH_BYTES
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
    const SHORTEST_BYTES: usize = 40;
    const SHORTEST_PIECE_BYTES: usize = 20;
    let has_all = |piece: &str| {
        let has = |class: fn(&char) -> bool| piece.chars().any(|character| class(&character));
        has(char::is_ascii_uppercase) && has(char::is_ascii_lowercase) && has(char::is_ascii_digit)
    };
    let is_letter = |character: char| character.is_ascii_alphanumeric() || "+/=-_ ".contains(character);
    text.len() >= SHORTEST_BYTES
        && !text.starts_with('/')
        && text.chars().all(is_letter)
        && text
            .split(['/', ' '])
            .any(|piece| piece.len() >= SHORTEST_PIECE_BYTES && has_all(piece))
}

/// Returns whether text looks like a secret: content, a credential, or a URL with a password.
pub(crate) fn is_secret(text: &str) -> bool {
    // `group:NAME` is an identity, and names of groups may have an `@`.
    let has_login = text.contains('@') && text.contains(':') && !text.starts_with("group:");
    // An address of IPv6 and an index are in brackets, as a document begins.
    has_login || is_content(text.trim_start_matches('[')) || is_credential(text)
}

/// Returns whether text looks like a token, or names a secret before its value.
pub(super) fn is_credential(text: &str) -> bool {
    let text = text.trim();
    let small = text.to_ascii_lowercase();
    SCHEMES.iter().any(|scheme| small.starts_with(scheme))
        || SECRETS.iter().any(|name| small.contains(name))
        || is_web_token(text)
        || !text.contains('/') && (has_prefix_of_token(text) || is_random(text))
}

/// Returns whether text has a JSON Web Token: its parts are base64 of JSON, which begins with `{"`.
fn is_web_token(text: &str) -> bool {
    const SHORTEST_BYTES: usize = 20;
    let is_other = |character: char| !character.is_ascii_alphanumeric() && !"-_.".contains(character);
    text.split(is_other)
        .any(|piece| piece.starts_with("eyJ") && piece.len() >= SHORTEST_BYTES)
}

fn has_prefix_of_token(text: &str) -> bool {
    const SHORTEST_BYTES: usize = 20;
    text.len() >= SHORTEST_BYTES && TOKENS.iter().any(|prefix| text.starts_with(prefix))
}

/// Returns whether text has a run of random letters and digits: of both cases and digits, with a change of class at about
/// every other character.
fn is_random(text: &str) -> bool {
    const SHORTEST_BYTES: usize = 16;
    let class = |byte: &u8| (byte.is_ascii_digit(), byte.is_ascii_uppercase());
    let is_piece_random = |piece: &[u8]| {
        let has_all = piece.iter().any(u8::is_ascii_digit)
            && piece.iter().any(u8::is_ascii_uppercase)
            && piece.iter().any(u8::is_ascii_lowercase);
        let runs = piece.chunk_by(|one, next| class(one) == class(next)).count();
        piece.len() >= SHORTEST_BYTES && has_all && runs * 20 >= piece.len() * 9
    };
    let pieces = text.as_bytes().split(|byte| !byte.is_ascii_alphanumeric());
    pieces.into_iter().any(is_piece_random)
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
            "/nix/store/0c9b7y4r8z1q2w3e5t6y7u8i9o0pasdf-registry-2.0/etc/users",
            "/var/lib/kubelet/pods/3f0b2c1d-5a6e-4f70-8b91-a2c3d4e5f601/volumes/kubernetes.io~empty-dir/data",
            "3f0b2c1d-5a6e-4f70-8b91-a2c3d4e5f601",
            "d41d8cd98f00b204e9800998ecf8427e/data",
            "/tmp/tmp.X7aB3kQ9Zz/registry",
            ".tmpA1b2C3/registry-data",
            "MyRegistryData2026",
            "Registry Backups 2026-11-28/Basic",
            "/data/year=2026/tokens/keys.json",
            "/mnt/Q7CaNaRy7xYzAbC12/registry",
            "registry-2026-11-28T09-15-00.123Z",
        ] {
            assert_eq!(no_path(path).is_some(), path.starts_with('C'), "{path}");
        }
    }

    #[test]
    fn addresses_names_and_patterns_are_no_secrets() {
        for text in [
            "[::1]:5000",
            "[0]",
            "group:admins@example.com",
            "alice@example.com",
            "team-a/**",
            "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "Registry of the team: ask alice",
        ] {
            assert!(!is_secret(text), "{text}");
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
            bare,
            lines[1..].join(" "),
            lines[1..lines.len() - 1].join(" "),
            STANDARD.encode(&pem),
            r#"{"keys": []}"#.to_owned(),
            "alice:$2y$05$abc".to_owned(),
            "alice:secret".to_owned(),
            "$2y$05$abc".to_owned(),
            "https://user:secret@host/keys".to_owned(),
            "x".repeat(5000),
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln".to_owned(),
            "/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln".to_owned(),
            "Bearer Q7CANARY".to_owned(),
            "basic YTpi/Q==".to_owned(),
            "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=abcd==".to_owned(),
            "reg.example.com/x?X-Amz-Signature=abc".to_owned(),
            "reg.example.com/x?token=abc".to_owned(),
            "12Q7CANARYQ7xYzAbC".to_owned(),
            "ghp_abcdefghijklmnopqrstuvwxyz0123456789".to_owned(),
        ] {
            assert!(no_path(&content).is_some(), "{content}");
        }
    }
}
