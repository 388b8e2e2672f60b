//! Configurations that are good by themselves, in surroundings that are not: files that cannot be used, ports that are
//! taken. `serve` says what is wrong with what, and ends.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::starts::Running;
use crate::support::address::free_address;
use crate::support::server::{pause, until};
use crate::{program, run, with_configuration};

const MEMORY: &str = "version: 0.1\nstorage: inmemory\n";

/// Runs `serve` in a folder that `prepare` has made ready and returns what it says before it ends.
fn failure(text: &str, prepare: impl FnOnce(&Path)) -> String {
    let folder = with_configuration(text);
    prepare(folder.path());
    let log = folder.path().join("log");
    let mut command = program(folder.path());
    command.args(["serve", "config.yml"]).stdout(Stdio::null());
    command.stderr(fs::File::create(&log).expect("a file can be made"));
    if !text.contains("addr:") {
        command.env("REGISTRY_HTTP_ADDR", "127.0.0.1:0");
    }
    let mut process = command.spawn().expect("the program can be started");
    let end = Instant::now() + Duration::from_secs(30);
    let status = loop {
        if let Some(status) = process.try_wait().expect("an own child can be waited for") {
            break status;
        }
        if Instant::now() > end {
            process.kill().expect("an own child can be killed");
        }
        pause();
    };
    let log = fs::read_to_string(log).expect("the log is text");
    assert_eq!(status.code(), Some(1), "{text}\n{log}");
    let lines: Vec<&str> = log.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(!lines.is_empty(), "{log}");
    lines.join("\n")
}

fn write(name: &'static str, content: &'static str) -> impl FnOnce(&Path) {
    move |folder| fs::write(folder.join(name), content).expect("a file can be written")
}

#[track_caller]
fn says(message: &str, expected: &[&str]) {
    for part in expected {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

fn with_users(path: &str) -> String {
    format!("{MEMORY}auth: {{htpasswd: {{realm: Registry, path: {path}}}}}\n")
}

fn with_keys(keys: &str) -> String {
    format!("{MEMORY}auth: {{token: {{realm: 'https://a/t', service: s, issuer: i, {keys}}}}}\n")
}

#[test]
fn a_file_of_users_that_is_a_folder() {
    let message = failure(&with_users("users"), |folder| {
        fs::create_dir(folder.join("users")).unwrap();
    });
    says(&message, &["auth.htpasswd.path", "users", "directory"]);
}

#[test]
fn a_file_of_users_below_what_is_no_folder() {
    let message = failure(&with_users("file/users"), write("file", ""));
    says(&message, &["auth.htpasswd.path", "file/users"]);
}

#[test]
fn a_line_of_users_without_a_hash() {
    let message = failure(&with_users("users"), write("users", "alice\n"));
    says(&message, &["auth.htpasswd.path", "users", "line 1"]);
}

/// As registry:2 starts with such a file, this server does; the user cannot log in at either.
#[test]
fn a_hash_that_is_not_of_bcrypt_is_told_and_stops_nobody_else() {
    let folder = with_configuration(&with_users("users"));
    let path = folder.path().join("users");
    fs::write(path, "alice:$apr1$canary$canary\n").expect("a file can be written");
    let check = program(folder.path())
        .args(["config", "check", "config.yml"])
        .output();
    let report = String::from_utf8(check.expect("the program runs").stdout).expect("text");
    let server = Running::start_in(folder, true, &[]);
    for told in [report, server.log_with("listening")] {
        says(&told, &["users", "line 1", "MD5", "alice", "cannot log in"]);
        assert!(!told.contains("canary"), "{told}");
    }
}

/// Waits until the log of a server has a text behind the part that was there before.
fn said_since(server: &Running, before: usize, text: &str) -> String {
    let since = || server.log().split_off(before);
    until(|| since().contains(text));
    since()
}

#[test]
fn lines_that_lock_a_user_out_are_logged_when_the_file_is_read_again() {
    let hash = |letter: &str| format!("$2y$05${}", letter.repeat(53));
    let good = format!("alice:{}\nbob:{}\n", hash("."), hash("."));
    let folder = with_configuration(&with_users("users"));
    let path = folder.path().join("users");
    fs::write(&path, &good).expect("a file can be written");
    let server = Running::start_in(folder, true, &[]);
    let log = server.log_with("listening");
    assert!(!log.contains("file of users"), "{log}");
    let before = log.len();
    let path = server.folder.path().join("users");
    let text = format!(
        "{good}carol:$apr1$canary$canary\ndora:canary\nalice:{}\n",
        hash("a")
    );
    fs::write(&path, text).expect("a file can be written");
    let said = said_since(&server, before, "is in force");
    for expected in [
        "WARN file of users, line 3: \"carol\" cannot log in: the password is hashed by MD5",
        "WARN file of users, line 4: its user cannot log in: the password is not hashed by bcrypt",
        "WARN file of users, line 1 has no effect: line 5 gives \"alice\" another password",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    // A line that is none keeps the old file in force.
    let before = server.log().len();
    fs::write(&path, format!("{good}canary\n")).expect("a file can be written");
    let said = said_since(&server, before, "stays in force");
    assert!(
        said.contains("ERROR") && said.contains("line 3: a line is NAME:HASH"),
        "{said}"
    );
    let log = server.log();
    assert!(!log.contains("canary") && !log.contains("$2y$"), "{log}");
}

#[test]
fn of_a_file_of_users_with_many_bad_lines_some_are_logged_and_all_are_counted() {
    let folder = with_configuration(&with_users("users"));
    let lines: String = (0..200).map(|number| format!("user-{number}:plain\n")).collect();
    fs::write(folder.path().join("users"), lines).expect("a file can be written");
    let server = Running::start_in(folder, true, &[]);
    let log = server.log_with("listening");
    assert_eq!(log.matches("cannot log in").count(), 50, "{log}");
    says(&log, &["150 more lines are like these"]);
}

#[test]
fn keys_of_tokens_that_verify_nothing_are_told() {
    let good =
        r#"{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "a"}"#;
    let other =
        r#"{"kty": "OKP", "crv": "Ed25519", "x": "Vn8WG1xrPzEAsVhpBXBhPzEAsVhpBXBhPzEAsVhpBXA", "kid": "a"}"#;
    let set = format!(
        r#"{{"keys": [{good}, {other}, {{"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA", "kid": "b"}}, {{"kty": "RSA", "use": "enc", "n": "AQ", "e": "AQAB", "kid": "c"}}]}}"#
    );
    let folder = with_configuration(&with_keys("jwks: keys.json"));
    fs::write(folder.path().join("keys.json"), set).expect("a file can be written");
    let check = program(folder.path())
        .args(["config", "check", "config.yml"])
        .output();
    let report = String::from_utf8(check.expect("the program runs").stdout).expect("text");
    let server = Running::start_in(folder, true, &[]);
    for told in [report, server.log_with("listening")] {
        says(
            &told,
            &[
                "key 1 of the key set (\"a\") verifies no token: a later key of the set has the same `kid`",
                "key 3 of the key set (\"b\") verifies no token: only RSA",
            ],
        );
        assert!(!told.contains("key 4"), "{told}");
    }
}

#[test]
fn keys_that_are_missing() {
    says(
        &failure(&with_keys("jwks: keys.json"), |_| {}),
        &["auth.token.jwks", "keys.json", "No such file"],
    );
    says(
        &failure(&with_keys("rootcertbundle: bundle.pem"), |_| {}),
        &["auth.token.rootcertbundle", "bundle.pem", "No such file"],
    );
}

#[test]
fn keys_that_are_none() {
    let broken = failure(&with_keys("jwks: keys.json"), write("keys.json", "{"));
    says(&broken, &["auth.token.jwks", "keys.json"]);
    let empty = failure(
        &with_keys("jwks: keys.json"),
        write("keys.json", "{\"keys\": []}"),
    );
    says(&empty, &["auth.token.jwks", "keys.json"]);
    let certificates = failure(
        &with_keys("rootcertbundle: bundle.pem"),
        write("bundle.pem", "none"),
    );
    says(&certificates, &["auth.token.rootcertbundle", "bundle.pem"]);
}

#[test]
fn keys_at_a_url_that_nobody_answers() {
    let free = free_address();
    let message = failure(
        &with_keys(&format!("jwks: 'http://u:canary@{free}/keys?canary'")),
        |_| {},
    );
    says(&message, &["auth.token.jwks", &free.to_string()]);
    assert!(!message.contains("canary"), "{message}");
}

/// Where somebody checks a configuration, the keys may not be reached though the server reaches them.
#[test]
fn check_asks_a_url_of_keys_and_says_what_a_start_will_meet() {
    let free = free_address();
    let text = with_keys(&format!("jwks: 'http://u:canary@{free}/keys?canary'"));
    let output = run(&["config", "check", "config.yml"], &text, &[]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).expect("text");
    says(&said, &["auth.token.jwks", &free.to_string(), "does not start"]);
    assert!(!said.contains("canary"), "{said}");
    let wrong = run(
        &["config", "check", "config.yml"],
        &with_keys("jwks: 'ftp://a/keys'"),
        &[],
    );
    assert!(!wrong.status.success());
    says(
        &String::from_utf8_lossy(&wrong.stderr),
        &["auth.token.jwks", "http:// or https://"],
    );
}

#[test]
fn sockets_of_a_service_manager_that_are_not_passed() {
    for count in ["1", "many", "1000000000"] {
        for command in [&["config", "check", "config.yml"][..], &["serve", "config.yml"]] {
            let output = run(command, MEMORY, &[("LISTEN_FDS", count)]);
            assert_eq!(output.status.code(), Some(1), "{count} {command:?}");
            says(
                &String::from_utf8_lossy(&output.stderr),
                &["LISTEN_FDS", "unset it"],
            );
        }
    }
}

#[test]
fn keys_that_contradict_each_other_are_told_by_check_and_at_the_start() {
    for (rest, told) in [
        (
            "http: {addr: '127.0.0.1:0', debug: {prometheus: {enabled: true}}}",
            "http.debug.prometheus has no effect without `http.debug.addr`",
        ),
        (
            "http: {addr: '127.0.0.1:0', trustedproxies: [], proxyfields: [forwarded]}",
            "http.proxyfields has no effect with `trustedproxies: []`",
        ),
        (
            "access: {rules: [{repositories: ['**'], identities: [alice], actions: ['*']}]}",
            "access.rules lets nobody do anything",
        ),
        ("catalog: {maxentries: 200000}", "catalog.maxentries is limited"),
    ] {
        let text = format!("{MEMORY}{rest}\n");
        let output = run(&["config", "check", "config.yml"], &text, &[]);
        assert!(output.status.success(), "{output:?}");
        says(&String::from_utf8_lossy(&output.stdout), &[told]);
        let server = Running::start(Some(&text), &[]);
        // Its log has a thread of its own.
        until(|| server.log().contains(told));
    }
}

#[test]
fn a_cache_that_keeps_nothing_is_told() {
    for (cache, told) in [
        (
            "folder: ''",
            "storage.cache.folder is empty, so no blobs are kept",
        ),
        (
            "size: 1GiB",
            "storage.cache.size has no effect without `storage.cache.folder`",
        ),
    ] {
        let text = format!("version: 0.1\nstorage: {{s3: {{bucket: a, region: b}}, cache: {{{cache}}}}}\n");
        let output = run(&["config", "check", "config.yml"], &text, &[]);
        assert!(output.status.success(), "{output:?}");
        says(&String::from_utf8_lossy(&output.stdout), &[told]);
    }
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let message = failure(&format!("{MEMORY}http: {{addr: '{address}'}}\n"), |_| {});
    says(&message, &["http.addr", &address.to_string(), "in use"]);
    let message = failure(
        &format!("{MEMORY}http: {{addr: '127.0.0.1:0', debug: {{addr: '{address}'}}}}\n"),
        |_| {},
    );
    says(&message, &["http.debug.addr", &address.to_string(), "in use"]);
}

#[test]
fn an_address_that_is_not_of_this_machine() {
    let message = failure(&format!("{MEMORY}http: {{addr: '192.0.2.1:5000'}}\n"), |_| {});
    says(&message, &["http.addr", "192.0.2.1:5000"]);
}

#[test]
fn a_folder_that_is_a_file() {
    let text = "version: 0.1\nstorage: {filesystem: {rootdirectory: data}}\n";
    says(
        &failure(text, write("data", "")),
        &["storage.filesystem.rootdirectory", "data"],
    );
}

#[test]
fn a_folder_where_nothing_can_be_written() {
    let text = "version: 0.1\nstorage: {filesystem: {rootdirectory: /proc/registry}}\n";
    says(
        &failure(text, |_| {}),
        &["storage.filesystem.rootdirectory", "/proc/registry"],
    );
}

#[test]
fn a_folder_that_another_server_has() {
    let first = Running::start(
        Some("version: 0.1\nstorage: {filesystem: {rootdirectory: data}}\n"),
        &[],
    );
    let data = first.folder.path().join("data");
    let text = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n",
        data.display()
    );
    says(
        &failure(&text, |_| {}),
        &[
            "storage.filesystem.rootdirectory",
            "data",
            &first.id().to_string(),
            "wait for it",
        ],
    );
}

#[test]
fn a_log_that_cannot_be_written() {
    let text = format!("{MEMORY}log: {{audit: {{path: missing/audit.log}}}}\n");
    says(
        &failure(&text, |_| {}),
        &["log.audit.path", "missing/audit.log", "No such file"],
    );
}

#[test]
fn a_check_of_health_without_a_url() {
    let text = format!("{MEMORY}health: {{http: [{{uri: nowhere}}]}}\n");
    says(&failure(&text, |_| {}), &["health.http[0]", "uri"]);
}

#[test]
fn an_endpoint_with_a_field_that_there_cannot_be() {
    let text = format!(
        "{MEMORY}notifications: {{endpoints: [{{name: a, url: 'http://a', headers: {{'a b': [canary]}}}}]}}\n"
    );
    let message = failure(&text, |_| {});
    says(&message, &["notifications.endpoints[0].headers", "not the name"]);
    assert!(!message.contains("canary"), "{message}");
}
