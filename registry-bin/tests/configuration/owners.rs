//! Places that a server may not write to, and files of other users in its folder.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::server::until;
use crate::{program, run, with_configuration};

/// A user that no machine needs to have.
const SOMEBODY: u32 = 65532;

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}

/// The program as a user who is not root, whose is the folder that it works in; nothing where nobody can be made one.
#[expect(clippy::print_stderr, reason = "a test that was skipped says so")]
fn somebody(folder: &Path) -> Option<Command> {
    if chown(folder, Some(SOMEBODY), Some(SOMEBODY)).is_err() {
        eprintln!("skipped: only root can act as another user");
        return None;
    }
    let mut command = program(folder);
    command.uid(SOMEBODY).gid(SOMEBODY);
    Some(command)
}

#[test]
fn check_refuses_places_that_serve_refuses() {
    let long = "a".repeat(108);
    for (rest, key) in [
        ("storage: inmemory\nhttp: {addr: '192.0.2.1:5000'}", "http.addr"),
        (
            "storage: inmemory\nhttp: {addr: '[2001:db8::1]:5000'}",
            "http.addr",
        ),
        (
            "storage: inmemory\nhttp: {addr: '127.0.0.1:0', debug: {addr: '192.0.2.1:5001'}}",
            "http.debug.addr",
        ),
        (
            &format!("storage: inmemory\nhttp: {{net: unix, addr: {long}}}"),
            "http.addr",
        ),
        (
            "storage: inmemory\nhttp: {net: unix, addr: missing/socket}",
            "http.addr",
        ),
        (
            "storage: inmemory\nhttp: {net: unix, addr: config.yml}",
            "http.addr",
        ),
        (
            "storage: inmemory\nlog: {audit: {enabled: true, path: missing/audit}}",
            "log.audit.path",
        ),
        (
            "storage: inmemory\nlog: {audit: {enabled: true, path: .}}",
            "log.audit.path",
        ),
        (
            "storage: {filesystem: {rootdirectory: config.yml}}",
            "storage.filesystem.rootdirectory",
        ),
        (
            "storage: {filesystem: {rootdirectory: config.yml/below}}",
            "storage.filesystem.rootdirectory",
        ),
        (
            "storage: inmemory\nauth: {htpasswd: {realm: a, path: config.yml/users}}",
            "auth.htpasswd.path",
        ),
        (
            "storage: inmemory\nhttp: {net: unix, addr: config.yml/socket}",
            "http.addr",
        ),
        ("storage: inmemory\nhttp: {net: unix, addr: socket/}", "http.addr"),
        (
            "storage: inmemory\nlog: {audit: {enabled: true, path: audit/}}",
            "log.audit.path",
        ),
        (
            "storage: inmemory\nauth: {htpasswd: {realm: a, path: users/}}",
            "auth.htpasswd.path",
        ),
        (
            &format!(
                "storage: inmemory\nauth: {{htpasswd: {{realm: a, path: {}}}}}",
                "a".repeat(253)
            ),
            "auth.htpasswd.path",
        ),
        (
            &format!(
                "storage: {{filesystem: {{rootdirectory: {0}/{0}}}}}",
                "a".repeat(240)
            ),
            "storage.filesystem.rootdirectory",
        ),
        (
            "storage: {filesystem: {rootdirectory: data}}\nbackup: {folder: /etc/passwd}",
            "cannot make backups in /etc/passwd",
        ),
        // Root may write there by the modes, and cannot.
        (
            "storage: {filesystem: {rootdirectory: data}}\nbackup: {folder: /proc/backups}",
            "cannot make backups in /proc/backups",
        ),
        (
            "storage: {filesystem: {rootdirectory: /proc/registry}}",
            "storage.filesystem.rootdirectory",
        ),
        (
            "storage: {filesystem: {rootdirectory: /proc/sys}}",
            "storage.filesystem.rootdirectory",
        ),
        (
            "storage: inmemory\nlog: {audit: {path: /proc/audit}}",
            "log.audit.path",
        ),
        (
            "storage: inmemory\nhttp: {addr: '127.0.0.1:59999', debug: {addr: ':59999'}}",
            "http.debug.addr",
        ),
    ] {
        let has_address = rest.contains("http:");
        let http = if has_address {
            ""
        } else {
            "\nhttp: {addr: '127.0.0.1:0'}"
        };
        let configuration = format!("version: 0.1\n{rest}{http}\n");
        for command in [&["config", "check", "config.yml"][..], &["serve", "config.yml"]] {
            let output = run(command, &configuration, &[]);
            assert_eq!(
                output.status.code(),
                Some(1),
                "{command:?} {rest}: {}",
                text(&output)
            );
            assert!(
                text(&output).contains(key),
                "{command:?} {rest}: {}",
                text(&output)
            );
        }
    }
}

#[test]
fn check_refuses_what_its_user_may_not_use_as_serve_does() {
    let low_ports = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let has_low_ports = low_ports.is_ok_and(|first| first.trim().parse().is_ok_and(|first: u16| first > 81));
    for (rest, expected, is_of_port) in [
        (
            "storage: inmemory\nhttp: {addr: '127.0.0.1:80'}",
            "http.addr: cannot listen on 127.0.0.1:80 as the user 65532",
            true,
        ),
        (
            "storage: inmemory\nhttp: {addr: '127.0.0.1:0', debug: {addr: '127.0.0.1:81'}}",
            "http.debug.addr: cannot listen on 127.0.0.1:81 as the user 65532",
            true,
        ),
        (
            "storage: inmemory\nhttp: {net: unix, addr: socket, unix: {group: '1'}}",
            "http.unix.group: the socket cannot have the group 1, because the user 65532 is not in it",
            false,
        ),
        (
            "storage: {filesystem: {rootdirectory: data}}\nhttp: {addr: '127.0.0.1:0'}\nbackup: {folder: /root/backups}",
            "backup.folder: cannot make backups in /root/backups",
            false,
        ),
    ] {
        if is_of_port && !has_low_ports {
            continue;
        }
        let folder = with_configuration(&format!("version: 0.1\n{rest}\n"));
        for command in [&["config", "check", "config.yml"][..], &["serve", "config.yml"]] {
            let Some(mut program) = somebody(folder.path()) else {
                return;
            };
            let output = program.args(command).output();
            let output = output.expect("the program can be started");
            assert_eq!(output.status.code(), Some(1), "{command:?}: {}", text(&output));
            assert!(text(&output).contains(expected), "{command:?}: {}", text(&output));
        }
    }
}

#[test]
fn check_refuses_a_folder_that_its_user_may_not_write_to() {
    for (root, is_made) in [("data", true), ("data/below", false)] {
        let folder = with_configuration(&format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {root}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n"
        ));
        fs::create_dir(folder.path().join("data")).expect("a folder can be made");
        for command in [&["config", "check", "config.yml"][..], &["serve", "config.yml"]] {
            let Some(mut program) = somebody(folder.path()) else {
                return;
            };
            let output = program
                .args(command)
                .output()
                .expect("the program can be started");
            assert_eq!(output.status.code(), Some(1), "{command:?}: {}", text(&output));
            assert!(
                text(&output).contains(&format!("cannot store in {root}")),
                "{command:?}: {}",
                text(&output)
            );
        }
        if is_made {
            // Where pulls alone are to be served, it may be read only.
            let configuration = folder.path().join("config.yml");
            let read_only = fs::read_to_string(&configuration)
                .expect("it can be read")
                .replace(
                    "{filesystem",
                    "{maintenance: {readonly: {enabled: true}}, filesystem",
                );
            fs::write(&configuration, read_only).expect("a file can be written");
            let program = somebody(folder.path())
                .map(|mut program| program.args(["config", "check", "config.yml"]).output());
            let output = program.expect("it was root").expect("the program can be started");
            assert!(output.status.success(), "{}", text(&output));
        }
    }
}

/// A process that ends with the test.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Serves as somebody until the server listens, and returns its output.
fn serve_until_listening(folder: &Path) -> Option<String> {
    let mut program = somebody(folder)?;
    let log = folder.join("log");
    let output = fs::File::create(&log).expect("a file can be made");
    let child = program
        .args(["serve", "config.yml"])
        .stderr(output.try_clone().expect("a handle can be copied"))
        .stdout(output)
        .spawn();
    let _child = Child(child.expect("the program can be started"));
    let printed = || fs::read_to_string(&log).unwrap_or_default();
    // The log and the message come from two threads, and what a start warns of is in the log before it listens.
    until(|| {
        ["listening", "Listening on"]
            .iter()
            .all(|expected| printed().contains(expected))
    });
    Some(printed())
}

#[test]
fn a_start_names_files_of_others_further_down() {
    let folder = with_configuration(
        "version: 0.1\nstorage: {filesystem: {rootdirectory: data}}\nhttp: {addr: '127.0.0.1:0'}\n",
    );
    let Some(log) = serve_until_listening(folder.path()) else {
        return;
    };
    assert!(!log.contains("belong to another user"), "{log}");
    // What a file system has, and what root left there that others may not read, or may.
    let data = folder.path().join("data");
    let day = data.join("bytes/20260101");
    fs::create_dir(data.join("lost+found")).expect("a folder can be made");
    for made in [day.clone(), data.join("auth"), data.join("tls")] {
        fs::create_dir_all(&made).expect("a folder can be made");
        chown(&made, Some(SOMEBODY), Some(SOMEBODY)).expect("it can be given away");
    }
    for (path, mode) in [
        (day.join("5a1b"), 0o600),
        (day.join("adopted"), 0o644),
        (data.join("auth/token-keys.json"), 0o600),
        (data.join("tls/certificate.pem"), 0o644),
    ] {
        fs::write(&path, "x").expect("a file can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is root's");
    }
    let log = serve_until_listening(folder.path()).expect("it was root");
    let line = log.lines().find(|line| line.contains("belong to another user"));
    let line = line.unwrap_or_else(|| panic!("nothing is said: {log}"));
    for named in ["bytes/20260101/5a1b", "auth/token-keys.json"] {
        assert!(line.contains(named), "{named}: {line}");
    }
    for other in ["adopted", "certificate.pem", "lost+found"] {
        assert!(!line.contains(other), "{other}: {line}");
    }
}

#[test]
fn the_check_names_an_outbox_of_root_and_nobody_calls_it_open_to_others() {
    let folder = with_configuration(&format!(
        "{DATA}notifications: {{endpoints: [{{name: a, url: 'http://127.0.0.1:1/'}}]}}\n"
    ));
    let Some(log) = serve_until_listening(folder.path()) else {
        return;
    };
    assert!(!log.contains("may read this"), "{log}");
    for name in ["notifications", "notifications-wal"] {
        let path = folder.path().join("data").join(name);
        fs::write(&path, "").expect("a file can be written");
        chown(&path, Some(0), Some(0)).expect("it is root");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is root's");
        for command in [&["config", "check", "config.yml"][..], &["serve", "config.yml"]] {
            let said = said_as_somebody(folder.path(), command).expect("it was root");
            assert!(
                said.contains(&format!("cannot use the notifications in data/{name}"))
                    && said.contains("belongs to the user root (0) with the mode 0600"),
                "{command:?}: {said}"
            );
            assert!(!said.contains("others than its owner"), "{command:?}: {said}");
        }
        fs::remove_file(path).expect("it is there");
    }
}

#[test]
fn a_start_names_what_is_in_the_place_of_a_days_bytes_and_the_folders_that_it_may_not_use() {
    let folder = with_configuration(DATA);
    if serve_until_listening(folder.path()).is_none() {
        return;
    }
    let bytes = folder.path().join("data/bytes");
    let files_of_others = "belong to another user";
    let misplaced = "has folders of these names";
    for (name, is_folder, mode, owner, expected) in [
        // As the folder of a day: that of today, and one of tomorrow.
        ("20261128", false, 0o644, 0, misplaced),
        ("20261128", false, 0o600, SOMEBODY, misplaced),
        ("20991231", true, 0o755, 0, files_of_others),
        ("20991231", true, 0o777, 0, files_of_others),
        ("20991231", true, 0o500, SOMEBODY, files_of_others),
        // As a file of a day.
        ("20200101/5a1b", true, 0o755, 0, misplaced),
        ("20200101/5a1b", true, 0o700, SOMEBODY, misplaced),
        ("20200101/5a1b", false, 0o600, 0, files_of_others),
        ("20200101/5a1b", false, 0o000, SOMEBODY, files_of_others),
    ] {
        let path = bytes.join(name);
        let day = bytes.join("20200101");
        fs::create_dir_all(&day).expect("a folder can be made");
        chown(&day, Some(SOMEBODY), Some(SOMEBODY)).expect("it is root");
        if is_folder {
            fs::create_dir(&path).expect("a folder can be made");
        } else {
            fs::write(&path, "x").expect("a file can be written");
        }
        chown(&path, Some(owner), Some(owner)).expect("it is root");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is root's");
        let log = serve_until_listening(folder.path()).expect("it was root");
        let line = log.lines().find(|line| line.contains(expected));
        assert!(
            line.is_some_and(|line| line.contains(&format!("bytes/{name}"))),
            "{name} {mode:o} {owner}: {log}"
        );
        if is_folder {
            fs::remove_dir(path).expect("it is there");
        } else {
            fs::remove_file(path).expect("it is there");
        }
    }
    let log = serve_until_listening(folder.path()).expect("it was root");
    assert!(
        !log.contains(misplaced) && !log.contains(files_of_others),
        "{log}"
    );
}

/// The output of the program as somebody.
fn said_as_somebody(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = somebody(folder)?.args(arguments).output();
    let output = output.expect("the program can be started");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    Some(text(&output))
}

const DATA: &str =
    "version: 0.1\nstorage: {filesystem: {rootdirectory: data}}\nhttp: {addr: '127.0.0.1:0'}\n";

#[test]
fn a_start_among_files_of_root_names_each_with_its_owner_and_the_line_to_type() {
    let folder = with_configuration(DATA);
    if serve_until_listening(folder.path()).is_none() {
        return;
    }
    let data = folder.path().join("data");
    let of_root = |name: &str| {
        let path = data.join(name);
        fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .expect("a file can be made");
        chown(&path, Some(0), Some(0)).expect("it is root");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is root's");
    };
    let to_somebody =
        |name: &str| chown(data.join(name), Some(SOMEBODY), Some(SOMEBODY)).expect("it is root");
    let commands = [
        &["serve", "config.yml"][..],
        &["config", "check", "config.yml"],
        &["adopt", "--again", "config.yml"],
    ];
    fs::create_dir_all(data.join("docker/registry/v2/repositories")).expect("folders can be made");
    for name in ["records.sqlite", "records.sqlite-wal", "registry.lock"] {
        of_root(name);
        for command in commands {
            let said = said_as_somebody(folder.path(), command).expect("it was root");
            for part in [
                "this process runs as the user 65532".to_owned(),
                format!("data/{name} belongs to the user root (0) with the mode 0600"),
            ] {
                assert!(said.contains(&part), "{command:?} {name}: {said}");
            }
            let line = said.find("as root, type: chown 65532 ").map(|at| &said[at..]);
            assert!(
                line.is_some_and(|line| line.contains(&format!("data/{name}"))),
                "{command:?} {name}: {said}"
            );
        }
        to_somebody(name);
    }
    // What only reads cannot do that either.
    for name in ["records.sqlite", "registry.lock"] {
        of_root(name);
        let said = said_as_somebody(folder.path(), &["check", "config.yml"]).expect("it was root");
        assert!(
            said.contains(&format!(
                "data/{name} belongs to the user root (0) with the mode 0600"
            )),
            "{name}: {said}"
        );
        to_somebody(name);
    }
    // All that is to be given away is in one line.
    of_root("records.sqlite");
    chown(data.join("bytes"), Some(0), Some(0)).expect("it is root");
    let said = said_as_somebody(folder.path(), &["serve", "config.yml"]).expect("it was root");
    assert!(
        said.contains("type: chown -R 65532 data/records.sqlite data/bytes"),
        "{said}"
    );
}

/// To give the folder away would end the service whose folder it is.
#[test]
fn in_the_folder_of_another_service_the_line_to_type_is_that_of_its_user() {
    let folder = with_configuration(DATA);
    if serve_until_listening(folder.path()).is_none() {
        return;
    }
    let data = folder.path().join("data");
    let said_as = |user: u32, arguments: &[&str]| {
        let output = program(folder.path())
            .args(arguments)
            .uid(user)
            .gid(user)
            .output();
        text(&output.expect("the program runs"))
    };
    // As its server was killed, it is still there, and says nothing about the folder.
    fs::remove_file(data.join("registry.sock")).expect("the server had a socket");
    let other = SOMEBODY - 1;
    let commands = [
        &["collect", "--storage", "data"][..],
        &["collect", "--dry-run", "config.yml"],
        &["usage", "--storage", "data"],
        &["check", "config.yml"],
        &["garbage-collect", "config.yml"],
        &["garbage-collect", "-d", "config.yml"],
        &["serve", "config.yml"],
        &["config", "check", "config.yml"],
    ];
    for mode in [0o777, 0o755, 0o700] {
        fs::set_permissions(&data, fs::Permissions::from_mode(mode)).expect("it is root's to say");
        for command in commands {
            let said = said_as(other, command);
            assert!(
                said.contains(&format!("this process runs as the user {other}"))
                    && said.contains("as root, type: setpriv --reuid=65532 --regid=65532 --clear-groups ")
                    && said.contains(&command.join(" ")),
                "{mode:o} {command:?}: {said}"
            );
            assert!(
                !said.contains("cannot adopt") && !said.contains("denied; as root"),
                "{mode:o} {command:?}: {said}"
            );
            if let Some(at) = said.find("chown") {
                let before = &said[..at];
                assert!(
                    before.contains("if no server of that user needs the folder any more, as root, type: "),
                    "{mode:o} {command:?}: {said}"
                );
            }
        }
    }
}

/// By default, sudo refuses the number of a user without a name.
#[test]
fn the_line_for_a_user_without_a_name_works_as_it_is_typed() {
    let folder = with_configuration(DATA);
    let has_setpriv = Command::new("setpriv").arg("--version").output().is_ok();
    if serve_until_listening(folder.path()).is_none() || !has_setpriv {
        return;
    }
    let refused = program(folder.path()).args(["collect", "config.yml"]).output();
    let said = text(&refused.expect("the program runs"));
    let (_, line) = said.split_once("; type: ").unwrap_or_else(|| panic!("{said}"));
    let typed = Command::new("sh")
        .current_dir(folder.path())
        .args(["-c", line])
        .output();
    let typed = typed.expect("there is a shell");
    assert!(typed.status.success(), "{line}: {}", text(&typed));
}

#[test]
fn who_owns_a_closed_folder_or_file_is_told_to_open_it() {
    let folder = with_configuration(DATA);
    if serve_until_listening(folder.path()).is_none() {
        return;
    }
    let commands = [
        &["collect", "config.yml"][..],
        &["serve", "config.yml"],
        &["config", "check", "config.yml"],
    ];
    let reading = &["usage", "--config", "config.yml"][..];
    for (name, mode, does_reading_fail) in [
        ("data", 0o500, false),
        ("data", 0o000, true),
        ("data/records.sqlite", 0o400, false),
        ("data/records.sqlite", 0o000, true),
    ] {
        let path = folder.path().join(name);
        let before = path.metadata().expect("it is there").permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is root's to say");
        for command in commands.into_iter().chain(does_reading_fail.then_some(reading)) {
            let said = said_as_somebody(folder.path(), command).expect("it was root");
            assert!(
                said.contains(&format!("; type: chmod u+rwX {name}")) && !said.contains("chown"),
                "{name} {mode:o} {command:?}: {said}"
            );
        }
        fs::set_permissions(&path, before).expect("it is root's to say");
    }
}

#[test]
fn whatever_may_not_be_used_is_named_with_its_owner_and_with_who_runs() {
    let closed = "closed";
    for (rest, arguments) in [
        (
            "storage: inmemory\nhttp: {addr: '127.0.0.1:0', tls: {certificate: closed/tls, key: closed/tls}}",
            &["serve", "config.yml"][..],
        ),
        (
            "storage: inmemory\nhttp: {addr: '127.0.0.1:0'}\nlog: {audit: {path: closed/audit}}",
            &["serve", "config.yml"],
        ),
        (
            "storage: inmemory\nhttp: {addr: '127.0.0.1:0'}\nauth: {htpasswd: {realm: a, path: closed/users}}",
            &["serve", "config.yml"],
        ),
        (
            "storage: inmemory\nhttp: {addr: '127.0.0.1:0'}\nauth: {token: {service: a, builtin: {users: closed/below/users}}}",
            &["serve", "config.yml"],
        ),
        (
            "storage: inmemory\nhttp: {net: unix, addr: closed/socket}",
            &["serve", "config.yml"],
        ),
        (
            "storage: {filesystem: {rootdirectory: closed/data}}",
            &["serve", "config.yml"],
        ),
        (
            "storage: {filesystem: {rootdirectory: .}}\nbackup: {folder: closed/backups}",
            &["config", "check", "config.yml"],
        ),
        ("storage: inmemory", &["htpasswd", "list", "closed/users"]),
    ] {
        let folder = with_configuration(&format!("version: 0.1\n{rest}\n"));
        fs::create_dir(folder.path().join(closed)).expect("a folder can be made");
        let path = folder.path().join(closed);
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("it is root's");
        let Some(said) = said_as_somebody(folder.path(), arguments) else {
            return;
        };
        assert!(
            said.contains("this process runs as the user 65532")
                && said.contains("closed belongs to the user root (0) with the mode 0700"),
            "{rest}: {said}"
        );
    }
}

#[test]
fn commands_that_may_not_use_a_target_name_its_owner_and_who_runs() {
    let folder = with_configuration(DATA);
    if serve_until_listening(folder.path()).is_none() {
        return;
    }
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).expect("a folder can be made");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("it is root's");
    for arguments in [
        &["backup", "closed/backup", "config.yml"][..],
        &["restore", "closed", "--storage", "closed/new"],
        &[
            "export",
            "--layout",
            "oci",
            "closed/layout",
            "--config",
            "config.yml",
        ],
        &[
            "export",
            "--layout",
            "distribution",
            "closed/tree",
            "--config",
            "config.yml",
        ],
        &[
            "import",
            "--layout",
            "oci",
            "closed/layout",
            "a",
            "--config",
            "config.yml",
        ],
        &["adopt", "--storage", "closed/data"],
    ] {
        let said = said_as_somebody(folder.path(), arguments).expect("it was root");
        assert!(
            said.contains("this process runs as the user 65532")
                && said.contains("closed belongs to the user root (0) with the mode 0700"),
            "{arguments:?}: {said}"
        );
    }
}

#[test]
fn a_server_of_root_in_the_folder_of_a_user_serves_and_says_what_that_user_will_meet() {
    let folder = with_configuration(DATA);
    let data = folder.path().join("data");
    fs::create_dir(&data).expect("a folder can be made");
    if chown(&data, Some(SOMEBODY), Some(SOMEBODY)).is_err() {
        return;
    }
    let log = folder.path().join("log");
    let serve = || {
        let output = fs::File::create(&log).expect("a file can be made");
        let child = program(folder.path())
            .args(["serve", "config.yml"])
            .stderr(output.try_clone().expect("a handle can be copied"))
            .stdout(output)
            .spawn();
        let _child = Child(child.expect("the program can be started"));
        let printed = || fs::read_to_string(&log).unwrap_or_default();
        until(|| printed().contains("istening on"));
        printed()
    };
    let is_told = |log: &str| log.contains("this process runs as root, and data belongs to the user 65532");
    let said = serve();
    assert!(is_told(&said) && said.contains("--user 65532"), "{said}");
    // A container of root on such a volume has its own records from then on.
    let said = serve();
    assert!(!is_told(&said), "{said}");
    chown(data.join("records.sqlite"), Some(SOMEBODY), Some(SOMEBODY)).expect("it is root");
    let said = serve();
    assert!(is_told(&said), "{said}");
}
