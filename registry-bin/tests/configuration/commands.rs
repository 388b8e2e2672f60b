//! `registry-bin config`, and small commands.

use serde_json::Value;

use crate::support::users::set_password;
use crate::{program, run, with_configuration};

const TEXT: &str = "version: 0.1\nstorage:\n  inmemory:\n  cache:\n    blobdescriptor: redis\nredis:\n  password: canary\nhttp:\n  secret: canary\ncatalog:\n  maxentries: 500000\ntags:\n  maxtags: 1000\n";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_says_what_is_good_and_what_has_no_effect() {
    let output = run(
        &["config", "check", "config.yml"],
        TEXT,
        &[
            ("REGISTRY_HTTP_ADDR", ":5001"),
            ("REGISTRY_PORT", "tcp://10.0.0.1:5000"),
        ],
    );
    let report = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for expected in [
        "config.yml is good.",
        "listens on :5001",
        "redis has no effect: records need no cache",
        "catalog.maxentries is limited: a page has at most 100000",
        "REGISTRY_HTTP_ADDR is set",
        "REGISTRY_PORT is set in the environment and has no effect: Kubernetes",
    ] {
        assert!(report.contains(expected), "{expected}\n{report}");
    }
    assert!(!report.contains("maxtags"), "{report}");
}

#[test]
fn check_says_what_will_be_other_than_at_the_old_registry_where_the_file_has_it() {
    let base = "version: 0.1\nstorage: inmemory\n";
    let endpoint = |more: &str| {
        format!("{base}notifications: {{endpoints: [{{name: a, url: 'http://127.0.0.1:1/'{more}}}]}}\n")
    };
    let (events, proxies, checks) = (
        "notifications.endpoints: events have the content type of registry:3; `format: distribution-v1` gives",
        "http.trustedproxies: what proxies tell (X-Forwarded-For) is believed from this machine only",
        "health: a failing check refuses no request, unlike at registry:2; it shows at /ready",
    );
    for (configuration, said) in [
        (base.to_owned(), None),
        (endpoint(""), Some(events)),
        (endpoint(", format: distribution-v1"), None),
        (endpoint(", format: cloudevents"), None),
        (endpoint(", disabled: true"), None),
        (
            format!("{base}http: {{host: 'https://a.example'}}\n"),
            Some(proxies),
        ),
        (
            format!("{base}http: {{host: 'https://a.example', trustedproxies: [10.0.0.0/8]}}\n"),
            None,
        ),
        (
            format!("{base}health: {{storagedriver: {{enabled: true}}}}\n"),
            Some(checks),
        ),
    ] {
        let output = run(&["config", "check", "config.yml"], &configuration, &[]);
        let report = text(&output.stdout);
        assert!(output.status.success(), "{}", text(&output.stderr));
        for expected in [events, proxies, checks] {
            assert_eq!(
                report.contains(expected),
                said == Some(expected),
                "{configuration}{report}"
            );
        }
    }
}

#[test]
fn check_fails_as_serve_does() {
    let output = run(&["config", "check", "config.yml"], "version: 0.1\n", &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("storage: where to store is missing"));
}

#[test]
fn show_masks_secrets_and_names_origins() {
    let output = run(
        &["config", "show", "config.yml"],
        TEXT,
        &[("REGISTRY_LOG_LEVEL", "warn")],
    );
    let listing = text(&output.stdout);
    assert!(!listing.contains("canary"), "{listing}");
    for expected in [
        "secret: \"********\"  # config.yml:9",
        "level: warn  # environment variable REGISTRY_LOG_LEVEL",
        "limit: 100000  # default",
    ] {
        assert!(listing.contains(expected), "{expected}\n{listing}");
    }
    // What is shown can be used as a file.
    let output = run(&["config", "check", "config.yml"], &listing, &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn the_schema_is_strict_and_knows_the_keys() {
    let output = run(&["config", "schema"], "", &[]);
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    let http = &schema["properties"]["http"]["properties"];
    assert!(http["tls"]["properties"]["minimumtls"].is_object(), "{http}");
    assert_eq!(http["secret"]["writeOnly"], true);
    // What is accepted in another form or without a value is not marked by an editor.
    assert_eq!(
        schema["properties"]["version"]["enum"],
        serde_json::json!(["0.1", 0.1])
    );
    assert_eq!(
        http["relativeurls"]["type"],
        serde_json::json!(["boolean", "null"])
    );
    let words = &schema["properties"]["storage"]["anyOf"][1]["enum"];
    assert!(
        words
            .as_array()
            .is_some_and(|words| words.contains(&"inmemory".into())),
        "{words}"
    );
}

#[test]
fn shells_and_manuals_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completion", shell], "", &[]);
        let script = text(&output.stdout);
        assert!(
            output.status.success() && script.contains("htpasswd"),
            "{shell}: {script}"
        );
    }
    let output = run(&["man"], "", &[]);
    let page = text(&output.stdout);
    assert!(
        output.status.success() && page.contains(".TH") && page.contains("htpasswd"),
        "{page}"
    );
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().to_str().expect("a plain path");
    assert!(run(&["man", path], "", &[]).status.success());
    for page in [
        "registry-bin.1",
        "registry-bin-serve.1",
        "registry-bin-htpasswd-add.1",
    ] {
        assert!(folder.path().join(page).exists(), "{page}");
    }
    let output = run(&["man", "/nowhere"], "", &[]);
    assert!(!output.status.success() && text(&output.stderr).contains("/nowhere"));
}

#[test]
fn a_configuration_in_the_place_of_a_url_is_told_what_to_write() {
    let folder = with_configuration("version: 0.1\nstorage: inmemory\n");
    let output = program(folder.path())
        .args(["health", "config.yml"])
        .output()
        .expect("the program can be started");
    let said = text(&output.stderr);
    assert!(!output.status.success(), "{said}");
    for part in ["\"config.yml\"", "http://HOST:PORT/v2/", "--config"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_shell_completes_the_name_that_the_program_was_called_by() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let called = folder.path().join("registry");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_registry-bin"), &called).expect("a link can be made");
    for (program, name) in [
        (called.as_os_str(), "registry"),
        (env!("CARGO_BIN_EXE_registry-bin").as_ref(), "registry-bin"),
    ] {
        let output = std::process::Command::new(program)
            .args(["completion", "bash"])
            .output()
            .expect("the program can be started");
        let script = text(&output.stdout);
        let end = format!("-o default {name}");
        assert!(
            script.lines().any(|line| line.ends_with(&end)),
            "{name}: {script}"
        );
    }
}

#[test]
fn a_file_of_users_that_root_makes_belongs_to_the_owner_of_the_folder() {
    use std::os::unix::fs::{MetadataExt as _, chown};

    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    if chown(folder.path(), Some(65532), Some(65533)).is_err() {
        // Only root can.
        return;
    }
    for file in ["users", "below/it/users"] {
        let users = folder.path().join(file);
        set_password(&users, "alice", "secret");
        set_password(&users, "bob", "secret");
        for made in users.ancestors().take_while(|made| *made != folder.path()) {
            let found = made.metadata().expect("it was made");
            assert_eq!((found.uid(), found.gid()), (65532, 65533), "{}", made.display());
        }
    }
}
