//! `htpasswd` and `explain`.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::repository::Repository;
use crate::support::server::{Server, until};
use crate::support::users::basic;

fn run(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_registry-bin"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = command.stdin.take().expect("it has an input");
    // A command that asks for nothing ends before it reads.
    stdin.write_all(input.as_bytes()).ok();
    drop(stdin);
    command.wait_with_output().expect("it ends")
}

#[track_caller]
fn succeeds(arguments: &[&str], input: &str) -> String {
    let output = run(arguments, input);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
fn fails(arguments: &[&str], input: &str) -> String {
    let output = run(arguments, input);
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).expect("text")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn users_are_added_listed_and_removed() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("users");
    let file = text(&path);
    assert!(fails(&["htpasswd", "list", file], "").contains(file));
    succeeds(&["htpasswd", "add", file, "bob"], "secret\n");
    succeeds(&["htpasswd", "add", file, "alice"], "secret");
    assert_eq!(succeeds(&["htpasswd", "list", file], ""), "alice\nbob\n");
    let written = std::fs::read_to_string(&path).expect("the file is there");
    assert!(!written.contains("secret"), "{written}");
    for (user, password, part) in [
        ("carol", "", "1 to 72 bytes"),
        ("carol", &*"x".repeat(73), "1 to 72 bytes"),
        ("a:b", "x", "no colon"),
        ("anonymous", "x", "no user can be called"),
        ("authenticated", "x", "no user can be called"),
        ("group:developers", "x", "no colon"),
        ("*", "x", "no user can be called"),
        ("", "x", "name"),
    ] {
        let said = fails(&["htpasswd", "add", file, user], password);
        assert!(said.contains(part), "{said}");
    }
    assert!(fails(&["htpasswd", "remove", file, "carol"], "").contains("carol"));
    let content = "alice:$2y$05$canary";
    for command in [
        &["htpasswd", "list", content][..],
        &["htpasswd", "add", content, "carol"],
    ] {
        let said = fails(command, "x");
        assert!(
            said.contains("looks like the content") && !said.contains("canary"),
            "{said}"
        );
    }
    succeeds(&["htpasswd", "remove", file, "alice"], "");
    assert_eq!(succeeds(&["htpasswd", "list", file], ""), "bob\n");
}

#[test]
fn users_that_are_added_at_once_are_all_kept_and_so_are_the_lines_between_them() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("users");
    let before = "# people\n\nolduser:$2y$05$old\n# machines\n";
    std::fs::write(&path, before).expect("a file can be written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("a mode can be set");
    let add = |number: usize| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_registry-bin"))
            .args(["htpasswd", "add", text(&path), &format!("user{number}")])
            .stdin(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stdin = command.stdin.take().expect("it has an input");
        stdin.write_all(b"secret\n").expect("it reads");
        command
    };
    let commands: Vec<_> = (0..12).map(add).collect();
    for mut command in commands {
        assert!(command.wait().expect("it ends").success());
    }
    let written = std::fs::read_to_string(&path).expect("the file is there");
    let added = written
        .strip_prefix(before)
        .expect("the lines before are as they were");
    let mut users: Vec<_> = added.lines().filter_map(|line| line.split(':').next()).collect();
    users.sort_unstable();
    let mut expected: Vec<_> = (0..12).map(|number| format!("user{number}")).collect();
    expected.sort_unstable();
    assert_eq!(users, expected);
    let mode = std::fs::metadata(&path)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    succeeds(&["htpasswd", "remove", text(&path), "user7"], "");
    let left = std::fs::read_to_string(&path).expect("the file is there");
    assert!(left.starts_with(before) && left.lines().count() == written.lines().count() - 1);
}

#[test]
fn a_file_of_apache_s_serves_and_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("users");
    let htpasswd = |arguments: &[&str]| {
        let output = Command::new("htpasswd")
            .args(arguments)
            .arg(&path)
            .args(["alice", "secret"])
            .output();
        output.is_ok_and(|output| output.status.success())
    };
    if !htpasswd(&["-Bbc"]) {
        assert!(std::env::var_os("CI").is_none(), "htpasswd is missing");
        return;
    }
    let configuration = folder.path().join("config.yml");
    let written = format!(
        "version: 0.1\nstorage: inmemory\nauth: {{htpasswd: {{realm: Registry, path: {}}}}}\n",
        path.display()
    );
    std::fs::write(&configuration, written).expect("a file can be written");
    let server = Server::configured(&configuration);
    let alice = Repository::new(server.address(), "a").with_authorization(basic("alice"));
    let bob = Repository::new(server.address(), "a").with_authorization(basic("bob"));
    alice.push_image("latest", "image");
    bob.get("manifests/latest")
        .expect_error(&[401], &["UNAUTHORIZED"]);
    succeeds(&["htpasswd", "add", text(&path), "bob"], "secret");
    until(|| bob.get("manifests/latest").status == 200);
    // A file that is not good changes nothing.
    let good = std::fs::read_to_string(&path).expect("the file is there");
    std::fs::write(&path, format!("{good}carol:{{SHA}}x\n")).expect("a file can be written");
    until(|| server.output().contains("SHA-1"));
    bob.get("manifests/latest").expect_status(200);
    std::fs::write(&path, good).expect("a file can be written");
    succeeds(&["htpasswd", "remove", text(&path), "alice"], "");
    until(|| alice.get("manifests/latest").status == 401);
    bob.get("manifests/latest").expect_status(200);
}

#[test]
fn explain_names_the_rule_that_decides() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("config.yml");
    let written = "\
version: 0.1
storage: inmemory
auth: {token: {realm: 'https://tokens.example', service: registry, issuer: tokens, jwks: /nowhere/keys}}
access:
  groups: {developers: [alice]}
  rules:
    - {repositories: ['public/**'], identities: [anonymous], actions: [pull]}
    - {repositories: ['team/*'], identities: ['group:developers', 'group:others'], actions: [pull, push]}
    - {repositories: ['**'], identities: [root], actions: ['*']}
";
    std::fs::write(&path, written).expect("a file can be written");
    let explain = |action: &str, who: &[&str], repository: &str| {
        let mut arguments = vec!["explain", "--action", action];
        arguments.extend(who);
        arguments.extend([repository, text(&path)]);
        succeeds(&arguments, "")
    };
    for (action, who, repository, expected) in [
        (
            "pull",
            &[][..],
            "public/a",
            "allowed: anonymous may pull public/a by access.rules[0]",
        ),
        ("pull", &["--user", "alice"], "public/a", "by access.rules[0]"),
        (
            "push",
            &["--user", "alice"],
            "team/app",
            "allowed: alice may push team/app by access.rules[1]",
        ),
        (
            "push",
            &["--user", "eve", "--group", "others"],
            "team/app",
            "by access.rules[1]",
        ),
        (
            "push",
            &["--user", "alice"],
            "team/app/below",
            "denied: no rule lets alice push",
        ),
        ("delete", &["--user", "alice"], "team/app", "denied"),
        ("overwrite", &["--user", "root"], "team/app", "by access.rules[2]"),
        (
            "push",
            &[],
            "team/app",
            "somebody who is logged in may be allowed",
        ),
    ] {
        let said = explain(action, who, repository);
        assert!(said.contains(expected), "{action} {who:?} {repository}: {said}");
    }
    assert!(fails(&["explain", "--action", "pull", "Team", text(&path)], "").contains("Team"));
    assert!(fails(&["explain", "--action", "fly", "team", text(&path)], "").contains("fly"));
}
