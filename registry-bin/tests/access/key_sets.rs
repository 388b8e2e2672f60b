//! Tokens of somebody else's server: where its keys come from, and what its tokens are good for.

use std::net::TcpListener;
use std::process::Command;

use serde_json::json;

use crate::support::issuer::{Issuer, Key, claims};
use crate::support::repository::Repository;
use crate::support::server::{Server, until};

fn configuration(folder: &tempfile::TempDir, key_set: &str, rest: &str) -> String {
    let path = folder.path().join("config.yml");
    let written = format!(
        "version: 0.1\nstorage: inmemory\nauth: {{token: {{realm: 'http://localhost/token', service: registry, issuer: issuer, \
         jwks: '{key_set}'}}}}\n{rest}"
    );
    std::fs::write(&path, written).expect("a file can be written");
    path.to_str().expect("a plain path").to_owned()
}

fn status(server: &Server, name: &str, token: &str) -> u16 {
    let repository = Repository::new(server.address(), name);
    repository
        .with_authorization(&format!("Bearer {token}"))
        .get("manifests/none")
        .status
}

fn pull(name: &str) -> serde_json::Value {
    json!([{"type": "repository", "name": name, "actions": ["pull"]}])
}

#[test]
fn new_keys_of_a_url_are_looked_for_when_a_token_has_one() {
    let (folder, issuer) = (
        tempfile::tempdir().expect("a temporary folder can be made"),
        Issuer::start(),
    );
    let path = configuration(&folder, &issuer.key_set_url("keys"), "");
    let server = Server::configured(path.as_ref());
    let old = issuer.sign(&claims("alice", &pull("a")), |_| {});
    assert_eq!(status(&server, "a", &old), 404);
    assert_eq!(status(&server, "b", &old), 401);
    issuer.rotate("key-2");
    let new = issuer.sign(&claims("alice", &pull("a")), |_| {});
    until(|| status(&server, "a", &new) == 404);
    assert_eq!(status(&server, "a", &old), 401);
}

#[test]
fn a_key_set_of_a_file_is_read_again_when_it_changes() {
    let (folder, issuer) = (
        tempfile::tempdir().expect("a temporary folder can be made"),
        Issuer::start(),
    );
    let path = configuration(&folder, issuer.key_set().to_str().expect("a plain path"), "");
    let server = Server::configured(path.as_ref());
    let old = issuer.sign(&claims("alice", &pull("a")), |_| {});
    assert_eq!(status(&server, "a", &old), 404);
    issuer.rotate("key-2");
    let new = issuer.sign(&claims("alice", &pull("a")), |_| {});
    until(|| status(&server, "a", &new) == 404);
    assert_eq!(status(&server, "a", &old), 401);
}

#[test]
fn cve_2026_2376_no_url_leads_from_a_key_set_or_a_token_to_elsewhere() {
    let (folder, issuer) = (
        tempfile::tempdir().expect("a temporary folder can be made"),
        Issuer::start(),
    );
    for (place, said) in [
        ("moved", "302"),
        ("huge", "larger than 1 MiB"),
        ("none", "no JSON Web Key Set"),
    ] {
        let path = configuration(&folder, &issuer.key_set_url(place), "");
        let output = Command::new(env!("CARGO_BIN_EXE_registry-bin"))
            .args(["serve", &path, "--listen", "127.0.0.1:0"])
            .output()
            .expect("the program starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && stderr.contains("auth.token.jwks") && stderr.contains(said),
            "{stderr}"
        );
    }
    let path = configuration(&folder, &issuer.key_set_url("keys"), "");
    let server = Server::configured(path.as_ref());
    let trap = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    trap.set_nonblocking(true).expect("a socket can be set");
    let url = format!(
        "http://{}/keys",
        trap.local_addr().expect("a socket has an address")
    );
    let forger = Key::new("key-1");
    let claims = claims(
        "root",
        &json!([{"type": "repository", "name": "a", "actions": ["*"]}]),
    );
    for key in ["other", "key-1"] {
        let token = forger.sign(&claims, |header| {
            header.kid = Some(key.to_owned());
            header.jku = Some(url.clone());
            header.x5u = Some(url.clone());
        });
        assert_eq!(status(&server, "a", &token), 401);
    }
    // With a key that is trusted they say nothing.
    let token = issuer.sign(&claims, |header| header.jku = Some(url.clone()));
    assert_eq!(status(&server, "a", &token), 404);
    let asked = trap.accept().expect_err("nobody was sent there");
    assert_eq!(asked.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn with_rules_the_token_and_the_rules_have_to_allow() {
    let (folder, issuer) = (
        tempfile::tempdir().expect("a temporary folder can be made"),
        Issuer::start(),
    );
    let rules = "\
access:
  rules:
    - {repositories: ['team/**'], identities: ['group:developers'], actions: [pull]}
    - {repositories: ['shared/**'], identities: [authenticated], actions: [pull]}
    - {repositories: ['**'], identities: [root], actions: ['*']}
";
    let path = configuration(&folder, &issuer.key_set_url("keys"), rules);
    let server = Server::configured(path.as_ref());
    let token = |user: &str, name: &str, groups: &[&str]| {
        let mut claims = claims(user, &pull(name));
        claims["groups"] = json!(groups);
        issuer.sign(&claims, |_| {})
    };
    for (user, groups, granted, asked, expected) in [
        ("alice", &["developers"][..], "team/a", "team/a", 404),
        ("alice", &["developers"], "team/a", "team/b", 401),
        ("alice", &["others"], "team/a", "team/a", 403),
        ("alice", &[], "team/a", "team/a", 403),
        ("alice", &["developers"], "other/a", "other/a", 403),
        ("root", &[], "other/a", "other/a", 404),
        // The name of a group is none of a user, and the other way about.
        ("group:developers", &[], "team/a", "team/a", 403),
        ("alice", &["root"], "other/a", "other/a", 403),
        // Who is called so is nobody.
        ("anonymous", &[], "team/a", "team/a", 401),
        ("anonymous", &["developers"], "team/a", "team/a", 401),
        ("authenticated", &[], "team/a", "team/a", 403),
        ("anonymous", &[], "shared/a", "shared/a", 401),
        ("authenticated", &[], "shared/a", "shared/a", 404),
        ("alice", &[], "shared/a", "shared/a", 404),
        ("", &["developers"], "team/a", "team/a", 401),
    ] {
        let got = status(&server, asked, &token(user, granted, groups));
        assert_eq!(got, expected, "{user} {groups:?} {granted} {asked}");
    }
    // A token for another service, or from another issuer with the same key.
    for (name, value) in [("aud", "other"), ("iss", "other")] {
        let mut claims = claims("root", &pull("a"));
        claims[name] = json!(value);
        assert_eq!(status(&server, "a", &issuer.sign(&claims, |_| {})), 401, "{name}");
    }
}

#[test]
fn the_log_says_why_a_token_was_refused_and_no_stranger_fills_it() {
    let (folder, issuer) = (
        tempfile::tempdir().expect("a temporary folder can be made"),
        Issuer::start(),
    );
    let path = configuration(&folder, &issuer.key_set_url("keys"), "");
    let server = Server::configured(path.as_ref());
    let claims = claims("alice", &pull("a"));
    let forged = |kid: &str| {
        let kid = kid.to_owned();
        Key::new("other").sign(&claims, |header| header.kid = Some(kid))
    };
    let long = format!("x\n\u{9b}\u{202e}{}", "y".repeat(1000));
    for token in [forged("canary-key"), forged(&long)] {
        assert_eq!(status(&server, "a", &token), 401);
    }
    until(|| server.output().matches("a token was refused").count() == 2);
    let output = server.output();
    for part in ["its key is not trusted", "canary-key", "key-1", "INFO"] {
        assert!(output.contains(part), "{part}: {output}");
    }
    assert!(
        !output.contains(&"y".repeat(200)) && !output.contains('\u{9b}') && !output.contains('\u{202e}'),
        "{output}"
    );
    for number in 0..100 {
        assert_eq!(status(&server, "a", &format!("{number}.b.c")), 401);
    }
    let lines = || server.output().matches("a token was refused").count();
    until(|| lines() >= 3);
    let lines = lines();
    assert!((3..30).contains(&lines), "{lines}");
}
