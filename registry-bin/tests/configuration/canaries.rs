//! Secrets in forms and places that are wrong: whatever is said of them, they are not in it.

use std::fs;
use std::path::Path;
use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use crate::starts::Running;
use crate::support::server::until;
use crate::{program, with_configuration};

const MEMORY: &str = "version: 0.1\nstorage: inmemory\n";

/// Stands in secrets that are short.
const CANARY: &str = "canary-7f3a";

/// A key of a certificate, and the certificate.
fn pair() -> (String, String) {
    let made =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate can be made");
    (made.signing_key.serialize_pem(), made.cert.pem())
}

/// What becomes of a file of lines on the way through variables, forms and shells.
fn wrong_forms(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let body = &lines[1..lines.len() - 1];
    let half: String = text.chars().take(text.len() / 2).collect();
    vec![
        lines.concat(),
        lines.join(" "),
        lines.join("\\n"),
        body.concat(),
        body.join("\n"),
        format!("{}\n{}", lines[0], body.concat()),
        format!("{}\n{}", body.join("\n"), lines[lines.len() - 1]),
        format!("{}\n{}", lines[0], lines[1..].join(" ")),
        format!("\"{}\"", lines.join("\\n")),
        STANDARD.encode(text),
        half.replace('\n', " "),
        half,
    ]
}

/// Tokens and what else lets somebody in, of which no part is a path.
fn tokens() -> [String; 5] {
    let random = "Q7CANARYQ7xYzAbC";
    [
        format!("eyJhbGciOiJIUzI1NiJ9.{random}.{random}"),
        format!("Bearer {random}"),
        format!("Basic {random}=="),
        format!("AccountName=a;AccountKey={random}=="),
        format!("12{random}"),
    ]
}

/// Fails if a part of a secret is in what was said, as text or as a list of bytes.
#[track_caller]
fn hides(said: &str, secret: &str) {
    /// So many bytes in a row are no accident.
    const PART: usize = 12;
    let dense = |text: &str| {
        text.split(|c: char| c.is_whitespace() || c == '\\')
            .collect::<String>()
    };
    let (said, secret) = (dense(said), dense(&secret.replace("\\n", "")));
    for part in secret.as_bytes().windows(PART) {
        let text = String::from_utf8_lossy(part);
        // The first and the last lines of keys are no secrets, and are in what we say ourselves.
        if text.contains('-') || text.contains("PRIVATE") {
            continue;
        }
        let bytes: Vec<String> = part.iter().map(u8::to_string).collect();
        for shown in [text.into_owned(), bytes.join(",")] {
            assert!(!said.contains(&shown), "{shown} of the secret is in {said}");
        }
    }
}

/// Runs a command in a folder and returns what it says, on both streams.
fn said(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
    let output: Output = program(folder)
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .expect("the program can be started");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

const COMMANDS: [&[&str]; 3] = [
    &["serve", "config.yml"],
    &["config", "check", "config.yml"],
    &["config", "show", "config.yml"],
];

/// The keys that are paths, as variables, and what else the file has to say for each.
const PATHS: [(&str, &str); 13] = [
    ("REGISTRY_HTTP_TLS_KEY", "http: {tls: {certificate: a}}"),
    ("REGISTRY_HTTP_TLS_CERTIFICATE", "http: {tls: {key: a}}"),
    (
        "REGISTRY_HTTP_TLS_CLIENTCAS_0",
        "http: {tls: {certificate: a, key: a}}",
    ),
    ("REGISTRY_AUTH_HTPASSWD_PATH", "auth: {htpasswd: {realm: a}}"),
    (
        "REGISTRY_AUTH_TOKEN_BUILTIN_USERS",
        "auth: {token: {service: a, builtin: {}}}",
    ),
    (
        "REGISTRY_AUTH_TOKEN_BUILTIN_KEYS",
        "auth: {token: {service: a, builtin: {users: a}}}",
    ),
    (
        "REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE",
        "auth: {token: {realm: 'https://a/', service: a, issuer: a}}",
    ),
    (
        "REGISTRY_AUTH_TOKEN_JWKS",
        "auth: {token: {realm: 'https://a/', service: a, issuer: a}}",
    ),
    ("REGISTRY_LOG_AUDIT_PATH", ""),
    ("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", ""),
    ("REGISTRY_REDIS_TLS_KEY", ""),
    ("REGISTRY_COMPATIBILITY_SCHEMA1_TRUSTKEY", ""),
    ("REGISTRY_HEALTH_FILECHECKERS_0_FILE", ""),
];

#[test]
fn a_key_in_the_place_of_a_path_is_refused_and_nothing_of_it_is_shown() {
    let (key, _) = pair();
    for (variable, rest) in PATHS {
        let storage = if variable.contains("STORAGE") {
            "version: 0.1\n"
        } else {
            MEMORY
        };
        let folder = with_configuration(&format!("{storage}{rest}\n"));
        let is_first = variable == PATHS[0].0;
        let contents = std::iter::once(key.clone()).chain(wrong_forms(&key));
        for content in contents.chain(tokens()) {
            // YAML takes the quotes off.
            let commands = if is_first { &COMMANDS[..] } else { &COMMANDS[1..2] };
            for command in commands {
                let (is_good, text) = said(folder.path(), command, &[(variable, &content)]);
                assert!(!is_good && text.contains(variable), "{variable}: {text}");
                assert!(text.contains("not like a path"), "{variable}: {content}: {text}");
                hides(&text, &content);
            }
        }
        let left = fs::read_dir(folder.path()).expect("it is a folder").count();
        assert_eq!(left, 1, "{variable}: files were made");
    }
}

#[test]
fn users_and_key_sets_in_the_place_of_their_paths_are_refused_and_make_no_file() {
    let hash = "$2y$05$canary7f3acanary7f3acanary7f3acanary7f3acanary7f3acan";
    for (variable, rest) in &PATHS[3..8] {
        let folder = with_configuration(&format!("{MEMORY}{rest}\n"));
        for content in [
            format!("alice:{hash}"),
            format!("alice:{hash}\nbob:{hash}\n"),
            format!("'alice:{hash}'"),
            hash.to_owned(),
            format!("alice:{CANARY}"),
            format!("https://alice:{CANARY}@users.example/{CANARY}"),
            format!("{{\"keys\": [{{\"kty\": \"oct\", \"k\": \"{CANARY}\"}}]}}"),
            format!("'{{\"keys\": [{{\"kty\": \"oct\", \"k\": \"{CANARY}\"}}]}}'"),
        ] {
            if variable.ends_with("JWKS") && content.starts_with("https://") {
                continue;
            }
            for command in COMMANDS {
                let (is_good, text) = said(folder.path(), command, &[(variable, &content)]);
                assert!(
                    !is_good && text.contains(variable),
                    "{variable}: {content}: {text}"
                );
                assert!(!text.contains("canary"), "{variable}: {text}");
            }
        }
        let left = fs::read_dir(folder.path()).expect("it is a folder").count();
        assert_eq!(left, 1, "{variable}: files were made");
    }
}

/// A folder with a configuration and files.
fn with_files(text: &str, files: &[(&str, &str)]) -> TempDir {
    let folder = with_configuration(&format!("{MEMORY}{text}\n"));
    for (name, content) in files {
        fs::write(folder.path().join(name), content).expect("a file can be written");
    }
    folder
}

#[test]
fn a_key_file_in_a_wrong_form_is_refused_and_nothing_of_it_is_shown() {
    let (key, certificate) = pair();
    let tls = "http: {tls: {certificate: cert, key: key}}";
    for content in wrong_forms(&key) {
        for (text, files) in [
            (tls, vec![("cert", &*certificate), ("key", &content)]),
            (tls, vec![("cert", &content), ("key", &key)]),
            (
                "http: {tls: {certificate: cert, key: key, clientcas: [ca]}}",
                vec![("cert", &certificate), ("key", &key), ("ca", &content)],
            ),
            (
                "auth: {token: {realm: 'https://a/', service: a, issuer: a, rootcertbundle: keys}}",
                vec![("keys", &content)],
            ),
            (
                "auth: {token: {realm: 'https://a/', service: a, issuer: a, jwks: keys}}",
                vec![("keys", &content)],
            ),
            (
                "auth: {token: {service: a, builtin: {users: users, keys: keys}}}",
                vec![("users", ""), ("keys", &content)],
            ),
            (
                "auth: {htpasswd: {realm: a, path: users}}",
                vec![("users", &content)],
            ),
        ] {
            let folder = with_files(text, &files);
            let (is_good, text) = said(folder.path(), COMMANDS[1], &[]);
            assert!(!is_good, "{text}");
            hides(&text, &content);
            if files.last() == Some(&("key", &content)) {
                let (is_good, text) = said(folder.path(), COMMANDS[0], &[]);
                assert!(!is_good && text.contains("http.tls.certificate"), "{text}");
                hides(&text, &content);
            }
        }
    }
}

/// Each line is a form in which people have written such a file.
#[test]
fn what_a_key_set_or_a_file_of_users_holds_is_not_quoted() {
    for (text, content) in [
        ("jwks", format!("\"{CANARY}\"")),
        ("jwks", format!("{{\"keys\": \"{CANARY}\"}}")),
        ("jwks", format!("{{\"{CANARY}\": [], \"{CANARY}\": 1}}")),
        (
            "jwks",
            format!("{{\"keys\": [{{\"kty\": \"oct\", \"k\": \"{CANARY}\"}}]}}"),
        ),
        (
            "jwks",
            format!("{{\"keys\": [{{\"kty\": \"{CANARY}\", \"d\": \"{CANARY}\"}}]}}"),
        ),
        ("jwks", CANARY.to_owned()),
        (
            "builtin",
            format!("{{\"keys\": [{{\"created\": 1, \"private\": \"{CANARY}\"}}]}}"),
        ),
        ("builtin", format!("{{\"{CANARY}\": 1}}")),
        ("users", format!("{CANARY}\n")),
        ("users", format!("alice {CANARY}\n")),
        ("users", format!("alice=$2y$05${CANARY}\n")),
    ] {
        let configuration = match text {
            "jwks" => "auth: {token: {realm: 'https://a/', service: a, issuer: a, jwks: file}}",
            "builtin" => "auth: {token: {service: a, builtin: {users: users, keys: file}}}",
            _ => "auth: {htpasswd: {realm: a, path: file}}",
        };
        let folder = with_files(configuration, &[("file", &content), ("users", "")]);
        for command in &COMMANDS[..2] {
            let (is_good, text) = said(folder.path(), command, &[]);
            assert!(!is_good && text.contains("file"), "{content}: {text}");
            assert!(!text.contains(CANARY), "{content}: {text}");
        }
    }
}

#[test]
fn a_secret_in_the_shape_of_something_else_is_refused_and_not_shown() {
    let hash = "alice:$2y$05$canary-7f3a";
    for text in [
        "http: {secret: [canary-7f3a]}".to_owned(),
        "http: {secret: {canary-7f3a: x}}".to_owned(),
        "http: {secret: {a: canary-7f3a}}".to_owned(),
        "http: {secret: \"canary-7f3a}".to_owned(),
        "http: {secret: *canary-7f3a}".to_owned(),
        "http: {secret: }canary-7f3a}".to_owned(),
        "redis: canary-7f3a".to_owned(),
        "redis: {password: [canary-7f3a]}".to_owned(),
        "proxy: {remoteurl: [canary-7f3a], password: x}".to_owned(),
        "auth: 'alice:canary-7f3a'".to_owned(),
        format!("auth: '{hash}'"),
        format!("auth: {{htpasswd: '{hash}'}}"),
        format!("auth: {{htpasswd: {{'{hash}': x}}}}"),
        "auth: {token: canary-7f3a}".to_owned(),
        "health: {http: [{uri: 'http://a', headers: {Authorization: 'canary-7f3a'}}]}".to_owned(),
        "notifications: {endpoints: [{name: a, url: 'user:canary-7f3a@host'}]}".to_owned(),
        "notifications: {endpoints: [{name: a, url: ['http://canary-7f3a']}]}".to_owned(),
        "notifications: {endpoints: [{name: a, url: 'http://a', headers: canary-7f3a}]}".to_owned(),
        "notifications: {endpoints: [{name: a, url: 'http://a', headers: [canary-7f3a]}]}".to_owned(),
        "notifications: {endpoints: [{name: a, url: 'http://a', headers: {'X: canary-7f3a': []}}]}"
            .to_owned(),
        "notifications: {endpoints: [{name: a, url: 'http://a', headers: {'X: canary-7f3a': [a]}}]}"
            .to_owned(),
        "notifications: {endpoints: [{name: a, url: 'http://a', headers: {'X: canary-7f3a': a}}]}".to_owned(),
        "notifications: {endpoints: [{name: a, url: 'http://a', headers: {X: [\"canary-7f3a\\n\"]}}]}"
            .to_owned(),
        "log: {hooks: [{options: {smtp: {password: [canary-7f3a]}}}]}".to_owned(),
    ] {
        let folder = with_configuration(&format!("{MEMORY}{text}\n"));
        for command in &COMMANDS[1..] {
            let (is_good, said) = said(folder.path(), command, &[]);
            assert!(!is_good && !said.contains("canary"), "{text}: {said}");
        }
    }
    for text in [
        "s3: {bucket: b, accesskey: [canary-7f3a], secretkey: a}",
        "s3: {bucket: b, accesskey: a, secretkey: {canary-7f3a: a}}",
        "s3: {bucket: b, region: a, regionendpoint: 'https://a:canary-7f3a@host'}",
        "gcs: {bucket: b, credentials: canary-7f3a}",
        "gcs: {bucket: b, credentials: [canary-7f3a]}",
        "gcs: {bucket: b, keyfile: '{\"private_key\": \"canary-7f3a\"}'}",
        "azure: {container: a, accountname: a, accountkey: [canary-7f3a]}",
        "azure: {container: a, credentials: {type: client_secret, secret: {canary-7f3a: a}}}",
        "azure: {container: a, connectionstring: 'AccountKey=canary-7f3a'}",
    ] {
        let folder = with_configuration(&format!("version: 0.1\nstorage: {{{text}}}\n"));
        for command in COMMANDS {
            let (is_good, said) = said(folder.path(), command, &[]);
            assert!(!is_good && !said.contains("canary"), "{text}: {said}");
        }
    }
    let folder = with_configuration("");
    for location in ["s3://key:canary-7f3a@bucket", "s3://bucket?secret=canary-7f3a"] {
        let (is_good, said) = said(folder.path(), &["serve", "--storage", location], &[]);
        assert!(!is_good && !said.contains("canary"), "{said}");
    }
    let content = format!("{MEMORY}http: {{secret: canary-7f3a}}\n");
    let variables = [("REGISTRY_CONFIGURATION_PATH", &*content)];
    let (is_good, said) = said(folder.path(), &["serve"], &variables);
    assert!(!is_good && !said.contains("canary"), "{said}");
}

/// Each section of the configuration, and each list, takes a word alone in its place.
#[test]
fn a_password_in_the_place_of_a_kind_or_of_a_section_is_refused_and_not_shown() {
    let schema = program(Path::new("."))
        .args(["config", "schema"])
        .output()
        .expect("the program can be started");
    let schema: serde_json::Value = serde_json::from_slice(&schema.stdout).expect("it is JSON");
    let mut sections = Vec::new();
    collect_sections(&schema, &schema, &mut Vec::new(), &mut sections);
    for kind in [
        "STORAGE",
        "AUTH",
        "STORAGE_S3",
        "AUTH_HTPASSWD",
        "HTTP_TLS",
        "NOTIFICATIONS",
    ] {
        assert!(
            sections.iter().any(|section| section == kind),
            "{kind}: {sections:?}"
        );
    }
    for section in sections {
        let variable = format!("REGISTRY_{section}");
        let key = section.to_lowercase().replace('_', ": {");
        let text = format!(
            "version: 0.1\n{key}: {CANARY}{}\n",
            "}".repeat(section.matches('_').count())
        );
        for (content, variables) in [
            ("version: 0.1\nstorage: inmemory\n", &[(&*variable, CANARY)][..]),
            (&text, &[]),
        ] {
            let folder = with_configuration(content);
            let (is_good, said) = said(folder.path(), COMMANDS[1], variables);
            // Some keys have another name as a variable, or may hold anything.
            assert!(
                !is_good || said.contains("has no effect") || said.contains("have no effect"),
                "{variable}: {said}"
            );
            assert!(!said.contains("canary"), "{variable}: {said}");
        }
    }
    for variable in ["REGISTRY_STORAGE", "REGISTRY_AUTH"] {
        let folder = with_configuration("version: 0.1\n");
        let below = format!("{variable}_S3_BUCKET");
        for command in COMMANDS {
            let (is_good, said) = said(folder.path(), command, &[(variable, CANARY), (&below, "b")]);
            assert!(!is_good && !said.contains("canary"), "{variable}: {said}");
        }
    }
}

/// Collects the names of the variables of what takes keys or items, and not a value.
fn collect_sections(
    root: &serde_json::Value,
    schema: &serde_json::Value,
    path: &mut Vec<String>,
    sections: &mut Vec<String>,
) {
    if let Some(reference) = schema["$ref"].as_str() {
        let defined = root.pointer(reference.trim_start_matches('#'));
        collect_sections(root, defined.expect("it is defined"), path, sections);
    }
    let choices = [&schema["anyOf"], &schema["oneOf"]];
    for choice in choices
        .into_iter()
        .filter_map(|choices| choices.as_array())
        .flatten()
    {
        collect_sections(root, choice, path, sections);
    }
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    if !path.is_empty() {
        sections.push(path.join("_"));
    }
    for (key, below) in properties {
        path.push(key.to_uppercase());
        collect_sections(root, below, path, sections);
        path.pop();
    }
}

#[test]
fn a_password_on_the_command_line_is_refused_and_not_shown() {
    let folder = with_configuration(MEMORY);
    for line in [
        "htpasswd add users alice canary-7f3a",
        "htpasswd add users alice:canary-7f3a",
        "htpasswd -Bbn alice canary-7f3a",
        "htpasswd canary-7f3a",
        "htpasswd verify users alice canary-7f3a",
        "htpasswd add --password=canary-7f3a users alice",
        "htpasswd add users alice --canary-7f3a",
        "htpasswd remove users alice canary-7f3a",
        "htpasswd list users canary-7f3a",
        "canary-7f3a",
        "token canary-7f3a",
        "config canary-7f3a",
        "config show config.yml canary-7f3a",
        "config schema canary-7f3a",
        "serve config.yml canary-7f3a",
        "serve --wait=canary-7f3a config.yml",
        "serve --password canary-7f3a config.yml",
        "explain a b canary-7f3a --action pull",
        "health 127.0.0.1:1 canary-7f3a",
        "health http://alice:canary-7f3a@127.0.0.1:1/",
        "check config.yml canary-7f3a",
        "backup a config.yml canary-7f3a",
        "restore a b c canary-7f3a",
        "adopt config.yml canary-7f3a",
        "export a b c d canary-7f3a",
        "import a b c d canary-7f3a",
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let (is_good, said) = said(folder.path(), &arguments, &[]);
        assert!(!is_good, "{line}: {said}");
        assert!(!said.contains("canary"), "{line}: {said}");
    }
    for (arguments, shown) in [
        (
            &["htpasswd", "add", "users", "alice", CANARY][..],
            "read from the standard input",
        ),
        (&["serve", "--pasword"], "--pasword"),
    ] {
        let (_, said) = said(folder.path(), arguments, &[]);
        assert!(said.contains(shown), "{said}");
    }
}

#[test]
fn a_key_of_a_service_account_in_a_wrong_form_is_refused_and_not_shown() {
    for content in [
        format!("\"{CANARY}\""),
        format!("{{\"type\": \"service_account\", \"private_key\": [\"{CANARY}\"]}}"),
        format!("{{\"private_key\": \"{CANARY}\", \"client_email\": 7}}"),
        CANARY.to_owned(),
    ] {
        let folder = with_configuration("version: 0.1\nstorage: {gcs: {bucket: b, keyfile: key}}\n");
        fs::write(folder.path().join("key"), &content).expect("a file can be written");
        let (is_good, said) = said(folder.path(), COMMANDS[0], &[]);
        assert!(!is_good && !said.contains("canary"), "{content}: {said}");
    }
}

#[test]
fn a_reload_shows_nothing_of_what_it_refuses() {
    let (key, certificate) = pair();
    let text = format!(
        "{MEMORY}http: {{tls: {{certificate: cert, key: key}}}}\nauth: {{htpasswd: {{realm: a, path: users}}}}\n"
    );
    let folder = with_configuration(&text);
    for (name, content) in [("cert", &*certificate), ("key", &key), ("users", "")] {
        fs::write(folder.path().join(name), content).expect("a file can be written");
    }
    let server = Running::start_in(folder, true, &[]);
    let write = |name: &str, content: &str| {
        let new = server.folder.path().join("new");
        fs::write(&new, content).expect("a file can be written");
        fs::rename(new, server.folder.path().join(name)).expect("a file can be replaced");
    };
    let refusals = || server.log().matches("the old one stays in force").count();
    let refused = |name: &str, content: &str, secret: &str| {
        let before = refusals();
        write(name, content);
        until(|| refusals() > before);
        hides(&server.log(), secret);
    };
    let forms = wrong_forms(&key);
    // Each takes the two seconds between two looks.
    for form in [&forms[0], &forms[1], &forms[2], &forms[11]] {
        refused("key", form, form);
    }
    write("key", &key);
    server.log_with("read again and is in force");
    let with_content = text.replace("key: key", &format!("key: '{}'", forms[1]));
    refused("config.yml", &with_content, &key);
    let lines: Vec<String> = key.lines().map(|line| format!("      {line}\n")).collect();
    let with_content = format!(
        "{MEMORY}http:\n  tls:\n    certificate: cert\n    key: key\n    ciphersuites:\n    - |\n{}",
        lines.concat()
    );
    refused("config.yml", &with_content, &key);
    assert!(
        server.log().contains("name of a cipher suite"),
        "{}",
        server.log()
    );
    let with_content = text.replace("path: users", &format!("path: 'alice:{CANARY}'"));
    refused("config.yml", &with_content, CANARY);
    assert!(server.log().contains("not like a path"), "{}", server.log());
}
