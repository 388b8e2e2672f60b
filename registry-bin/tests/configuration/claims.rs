//! Places that a server would use for two things, and what is in the place of its own files: the check refuses what a start
//! refuses, and tells what a start tells.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use crate::owners::text;
use crate::{program, run, with_configuration};

const DATA: &str = "storage: {filesystem: {rootdirectory: data}}";
const ADDRESS: &str = "http: {addr: '127.0.0.1:0'}";
const ENDPOINT: &str = "notifications: {endpoints: [{name: a, url: 'http://127.0.0.1:1/'}]}";
const ENDPOINT_IN_NO_FILE: &str =
    "notifications: {endpoints: [{name: a, url: 'http://127.0.0.1:1/'}], outbox: {path: /dev/null}}";
const TOKENS: &str = "auth: {token: {service: a, builtin: {users: users}}}";

const COMMANDS: [&[&str]; 2] = [&["config", "check", "config.yml"], &["serve", "config.yml"]];

/// Requires that the check and a start end with a text, in a folder that `prepare` made ready.
#[track_caller]
fn expect_refused(lines: &[&str], prepare: fn(&Path), expected: &str) {
    let folder = with_configuration(&format!("version: 0.1\n{}\n", lines.join("\n")));
    prepare(folder.path());
    for command in COMMANDS {
        let output = program(folder.path()).args(command).output();
        let output = output.expect("the program can be started");
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{command:?} {lines:?}: {said}");
        let errors = said.lines().filter(|line| line.starts_with("error: "));
        assert!(
            errors.clone().any(|line| line.contains(expected)),
            "{command:?} {lines:?}: {said}"
        );
    }
}

fn nothing(_: &Path) {}

fn make_data(folder: &Path) {
    fs::create_dir(folder.join("data")).expect("a folder can be made");
}

fn in_data(folder: &Path, name: &str, content: &str) {
    make_data(folder);
    fs::write(folder.join("data").join(name), content).expect("a file can be written");
}

#[test]
fn a_cache_in_a_folder_with_other_files_is_refused() {
    let cache = "storage: {s3: {bucket: a, region: b, accesskey: c, secretkey: d}, cache: {folder: data}}";
    let prepare = |folder: &Path| in_data(folder, "photo.jpg", "");
    expect_refused(
        &[cache, ADDRESS],
        prepare,
        "storage.cache.folder: cannot keep blobs in data: it has other files, such as photo.jpg",
    );
}

#[test]
fn an_audit_log_in_the_place_of_anything_else_is_refused() {
    let own = "where the registry keeps its own files";
    for (path, rest, expected) in [
        ("data/records.sqlite", "", own),
        ("data/records.sqlite-wal", "", own),
        ("data/records.sqlite-shm", "", own),
        ("./data/../data/registry.lock", "", own),
        ("data/reserve", "", own),
        ("data/notifications", "", own),
        ("data/notifications-wal", "", own),
        ("data/registry.sock", "", own),
        ("data/bytes", "", own),
        ("data/bytes/20260101/audit", "", own),
        ("data/tls/ca.pem", "", own),
        ("data/auth/token-keys.json", TOKENS, own),
        ("data", "", "what `storage.filesystem.rootdirectory` names"),
        ("config.yml", "", "config.yml is the configuration"),
        ("users", TOKENS, "what `auth.token.builtin.users` names"),
        (
            "users",
            "auth: {htpasswd: {realm: a, path: ./users}}",
            "what `auth.htpasswd.path` names",
        ),
        (
            "keys",
            "auth: {token: {service: a, builtin: {users: users, keys: keys}}}",
            "what `auth.token.builtin.keys` names",
        ),
        (
            "jwks",
            "auth: {token: {service: a, issuer: b, realm: 'http://c/', jwks: jwks}}",
            "what `auth.token.jwks` names",
        ),
        (
            "backups",
            "backup: {folder: backups}",
            "what `backup.folder` names",
        ),
        (
            "backups",
            "backup: {folder: backups/below}",
            "backups would be no folder",
        ),
        (
            "events-wal",
            "notifications: {outbox: {path: events}}",
            "what `notifications.outbox.path` names",
        ),
        (
            "down",
            "health: {file: [{file: down}]}",
            "what `health.file[0].file` names",
        ),
    ] {
        let audit = format!("log: {{audit: {{path: {path}}}}}");
        expect_refused(
            &[DATA, ADDRESS, &audit, rest],
            make_data,
            &format!("log.audit.path: {path} "),
        );
        expect_refused(&[DATA, ADDRESS, &audit, rest], make_data, expected);
    }
    let audit = "log: {audit: {path: data}}";
    let below = "storage: {filesystem: {rootdirectory: data/registry}}";
    expect_refused(&[below, ADDRESS, audit], nothing, "data would be no folder");
    let tls = "http: {addr: '127.0.0.1:0', tls: {certificate: pair.pem, key: pair.pem}}";
    expect_refused(
        &["storage: inmemory", tls, "log: {audit: {path: pair.pem}}"],
        nothing,
        "what `http.tls.certificate` names",
    );
}

#[test]
fn one_file_by_several_names_is_one_place() {
    let audit = "log: {audit: {path: link}}";
    for prepare in [
        (|folder| fs::hard_link(folder.join("config.yml"), folder.join("link")).expect("a link"))
            as fn(&Path),
        |folder| symlink("config.yml", folder.join("link")).expect("a link can be made"),
    ] {
        expect_refused(&[DATA, ADDRESS, audit], prepare, "link is the configuration");
    }
    // Also where there is nothing yet.
    let through_link = |folder: &Path| {
        make_data(folder);
        symlink("data/records.sqlite", folder.join("link")).expect("a link can be made");
    };
    expect_refused(&[DATA, ADDRESS, audit], through_link, "its own files");
    let folder_link = |folder: &Path| {
        make_data(folder);
        symlink("data", folder.join("other")).expect("a link can be made");
    };
    expect_refused(
        &[DATA, ADDRESS, "log: {audit: {path: other/registry.lock}}"],
        folder_link,
        "its own files",
    );
}

#[test]
fn a_socket_or_backups_or_keys_in_the_place_of_anything_else_are_refused() {
    for (lines, expected) in [
        (
            &[DATA, "http: {net: unix, addr: data/registry.sock}"][..],
            "http.addr: data/registry.sock is where the registry keeps its own files",
        ),
        (
            &[DATA, "http: {net: unix, addr: data/registry.lock}"],
            "http.addr: data/registry.lock",
        ),
        (
            &[DATA, "http: {net: unix, addr: data/notifications}", ENDPOINT],
            "http.addr: data/notifications",
        ),
        (
            &[
                "storage: inmemory",
                "http: {net: unix, addr: a}",
                "log: {audit: {path: a}}",
            ],
            "log.audit.path: a is what `http.addr` names",
        ),
        (
            &[DATA, ADDRESS, "backup: {folder: data/registry.lock}"],
            "backup.folder: data/registry.lock",
        ),
        (
            &[DATA, ADDRESS, "backup: {folder: data/notifications}", ENDPOINT],
            "backup.folder: data/notifications",
        ),
        (
            &[
                DATA,
                ADDRESS,
                "notifications: {outbox: {path: data/records.sqlite}}",
            ],
            "notifications.outbox.path: data/records.sqlite",
        ),
        (
            &[DATA, ADDRESS, "backup: {folder: data/../data}"],
            "what `storage.filesystem.rootdirectory` names",
        ),
        (
            &[
                "storage: inmemory",
                ADDRESS,
                "auth: {token: {service: a, builtin: {users: users, keys: users}}}",
            ],
            "auth.token.builtin.keys: users is what `auth.token.builtin.users` names",
        ),
    ] {
        expect_refused(lines, make_data, expected);
    }
}

#[test]
fn what_is_only_read_may_be_one_file_and_be_among_the_data() {
    let folder = with_configuration(&format!(
        "version: 0.1\n{DATA}\n{ADDRESS}\nauth: {{htpasswd: {{realm: a, path: data/auth/users}}}}\n\
         log: {{audit: {{path: data/audit}}}}\nbackup: {{folder: data/backups}}\n\
         notifications: {{outbox: {{path: data/notifications}}}}\n"
    ));
    make_data(folder.path());
    let output = program(folder.path()).args(COMMANDS[0]).output();
    let output = output.expect("the program can be started");
    assert!(output.status.success(), "{}", text(&output));
    let output = run(
        COMMANDS[0],
        &format!(
            "version: 0.1\nstorage: inmemory\n{ADDRESS}\nlog: {{audit: {{path: /dev/null}}}}\nhealth: {{file: [{{file: /dev/null}}]}}\n"
        ),
        &[],
    );
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn what_is_in_the_place_of_the_registrys_own_files_is_refused_by_the_check_too() {
    let store = &[DATA, ADDRESS][..];
    let told = &[DATA, ADDRESS, ENDPOINT][..];
    let tokens = &[DATA, ADDRESS, TOKENS][..];
    for (lines, prepare, expected) in [
        (
            store,
            (|folder| fs::create_dir_all(folder.join("data/records.sqlite")).expect("folders")) as fn(&Path),
            "data/records.sqlite: is a directory",
        ),
        (
            store,
            |folder| fs::create_dir_all(folder.join("data/registry.lock")).expect("folders"),
            "data/registry.lock: is a directory",
        ),
        (
            store,
            |folder| fs::create_dir_all(folder.join("data/reserve")).expect("folders"),
            "data/reserve: is a directory",
        ),
        (
            store,
            |folder| in_data(folder, "bytes", ""),
            "data/bytes: not a directory",
        ),
        (
            store,
            |folder| in_data(folder, "records.sqlite", "these are no records"),
            "data/records.sqlite: ",
        ),
        (store, newer_records, "data/records.sqlite has format 99"),
        (
            told,
            |folder| fs::create_dir_all(folder.join("data/notifications")).expect("folders"),
            "cannot use the notifications in data/notifications",
        ),
        (
            told,
            |folder| in_data(folder, "notifications", "this is no outbox"),
            "cannot use the notifications in data/notifications",
        ),
        (
            tokens,
            |folder| in_data(folder, "auth", ""),
            "data/auth/token-keys.json",
        ),
        (
            tokens,
            |folder| {
                fs::create_dir_all(folder.join("data/auth")).expect("folders can be made");
                fs::write(folder.join("data/auth/token-keys.json"), "{}").expect("a file can be written");
            },
            "cannot use data/auth/token-keys.json",
        ),
        (
            &[DATA, ADDRESS, "log: {audit: {path: audit}}"],
            |folder| drop(UnixListener::bind(folder.join("audit")).expect("a socket can be made")),
            "log.audit.path",
        ),
        (
            &[DATA, ADDRESS, "log: {audit: {path: audit}}"],
            |folder| symlink("missing/audit", folder.join("audit")).expect("a link can be made"),
            "log.audit.path",
        ),
        (
            store,
            |folder| {
                make_data(folder);
                symlink("missing", folder.join("data/bytes")).expect("a link can be made");
            },
            "data/bytes: it is a link to what is not there",
        ),
        (
            store,
            |folder| symlink("missing", folder.join("data")).expect("a link can be made"),
            "cannot store in data",
        ),
        (
            store,
            |folder| {
                make_data(folder);
                drop(UnixListener::bind(folder.join("data/registry.lock")).expect("a socket can be made"));
            },
            "data/registry.lock: it is no regular file",
        ),
        (
            &[DATA, ADDRESS, ENDPOINT_IN_NO_FILE],
            nothing,
            "cannot use the notifications in /dev/null: it is no regular file",
        ),
        (
            &["storage: {gcs: {bucket: a, keyfile: missing}}", ADDRESS],
            nothing,
            "cannot use gs://a/: cannot read the file of the key missing",
        ),
        (
            &[
                "storage: {azure: {container: a, accountname: b, accountkey: '!'}}",
                ADDRESS,
            ],
            nothing,
            "cannot use az://a/",
        ),
    ] {
        expect_refused(lines, prepare, expected);
    }
}

/// The head of records of a format that is not known yet.
fn newer_records(folder: &Path) {
    make_data(folder);
    let mut head = vec![0; 4096];
    head[..16].copy_from_slice(b"SQLite format 3\0");
    // The size of a page, the versions of the format, the shares of a page, and the number of the program's own format.
    for (place, bytes) in [
        (16, &[0x10, 0, 1, 1, 0, 64, 32, 32][..]),
        (28, &[0, 0, 0, 1]),
        (44, &[0, 0, 0, 4]),
        (56, &[0, 0, 0, 1]),
        (60, &[0, 0, 0, 99]),
        (100, &[13, 0, 0, 0, 0, 0x10, 0]),
    ] {
        head[place..place + bytes.len()].copy_from_slice(bytes);
    }
    fs::write(folder.join("data/records.sqlite"), head).expect("a file can be written");
}

#[test]
fn a_named_pipe_in_the_place_of_a_file_that_is_read_is_refused_and_nobody_waits() {
    expect_refused(
        &[
            "storage: inmemory",
            ADDRESS,
            "auth: {htpasswd: {realm: a, path: pipe}}",
        ],
        |folder| {
            let made = Command::new("mkfifo").arg(folder.join("pipe")).status();
            assert!(made.expect("mkfifo can be started").success());
        },
        "named pipe",
    );
}

#[test]
fn the_check_tells_what_a_start_warns_of() {
    let configuration =
        format!("version: 0.1\n{DATA}\nhttp: {{addr: '127.0.0.1:0', limits: {{connections: 5000}}}}\n");
    let folder = with_configuration(&configuration);
    in_data(folder.path(), "registry.sock", "");
    let checked = |files: u32| {
        let program = program(folder.path());
        let line = format!("ulimit -n {files} && exec \"$0\" config check config.yml");
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(line).arg(program.get_program());
        let output = shell.current_dir(folder.path()).output();
        output.expect("a shell can be started")
    };
    let output = checked(200);
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    for part in [
        "http.limits.connections: few files may be open (200, ulimit -n), so there are fewer connections",
        "check, backup and other commands cannot work while the server runs: data/registry.sock is in the way",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let output = checked(60);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("only 60 files may be open"),
        "{}",
        text(&output)
    );
}
