//! Changes of the file while the server runs.

use std::process::{Command, Stdio};

use crate::program;
use crate::starts::Running;
use crate::support::server::until;

const TEXT: &str = "version: 0.1\nstorage: inmemory\nlog:\n  level: error\n";

fn write(server: &Running, text: &str) {
    std::fs::write(server.folder.path().join("config.yml"), text).expect("a file can be written");
}

#[test]
fn a_changed_file_comes_into_force_by_itself_and_a_bad_one_does_not() {
    let server = Running::start(Some(TEXT), &[]);
    assert_eq!(server.log(), "", "only errors are logged");
    write(&server, &TEXT.replace("error", "info"));
    server.log_with("read again and is in force");
    write(&server, "version: 0.1\nstorage: inmemory\nlog:\n  level: loud\n");
    server.log_with("line 4: log.level");
    write(
        &server,
        "version: 0.1\nstorage: inmemory\nlog:\n  level: info\ncatalog:\n  maxentries: 5\n",
    );
    server.log_with("catalog.maxentries");
    assert!(server.log().contains("wait for a restart"));
}

#[test]
fn a_changed_secret_waits_for_a_restart_and_is_told_by_its_key_alone() {
    let text = |secret: &str, other: &str, level: &str| {
        format!(
            "version: 0.1\nstorage: inmemory\nlog: {{level: {level}}}\nhttp: {{secret: {other}}}\nnotifications: {{endpoints: [{{name: a, url: 'http://127.0.0.1:1', headers: {{Authorization: [{secret}]}}}}]}}\n"
        )
    };
    let server = Running::start(Some(&text("canary-1", "a", "info")), &[]);
    write(&server, &text("canary-2", "b", "info"));
    server.log_with("wait for a restart keys=\"http.secret, notifications.endpoints\"");
    // As at the start: nothing waits.
    let before = server.log().matches("wait for a restart").count();
    let read = server.log().matches("read again and is in force").count();
    write(&server, &text("canary-1", "a", "debug"));
    until(|| server.log().matches("read again and is in force").count() > read);
    assert_eq!(server.log().matches("wait for a restart").count(), before);
    assert!(!server.log().contains("canary"), "{}", server.log());
}

#[test]
fn a_folder_that_is_swapped_by_a_symbolic_link_is_seen_as_kubernetes_swaps_it() {
    let server = Running::start(Some(TEXT), &[]);
    let folder = server.folder.path();
    for (version, level) in [("v1", "error"), ("v2", "info")] {
        std::fs::create_dir(folder.join(version)).unwrap();
        std::fs::write(
            folder.join(version).join("config.yml"),
            TEXT.replace("error", level),
        )
        .unwrap();
    }
    let point = |target: &str| {
        let new = folder.join("new-link");
        std::os::unix::fs::symlink(target, &new).unwrap();
        std::fs::rename(new, folder.join("data-link")).unwrap();
    };
    point("v1");
    std::fs::remove_file(folder.join("config.yml")).unwrap();
    std::os::unix::fs::symlink("data-link/config.yml", folder.join("config.yml")).unwrap();
    point("v2");
    server.log_with("read again and is in force");
}

fn hang_up(process: u32) {
    let sent = Command::new("kill").args(["-HUP", &process.to_string()]).status();
    assert!(sent.expect("kill runs").success());
}

#[test]
fn a_hangup_reads_everything_again() {
    let server = Running::start(Some(&TEXT.replace("error", "info")), &[]);
    hang_up(server.id());
    server.log_with("read again and is in force");
}

#[test]
fn a_hangup_while_the_data_is_waited_for_does_not_end_the_server() {
    let text = "version: 0.1\nstorage: {filesystem: {rootdirectory: data}}\n";
    let first = Running::start(Some(text), &[]);
    let log = first.folder.path().join("second-log");
    let mut second = program(first.folder.path())
        .args(["serve", "--wait", "config.yml"])
        .env("REGISTRY_HTTP_ADDR", "127.0.0.1:0")
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let has_logged = |text: &str| std::fs::read_to_string(&log).unwrap().contains(text);
    // The signal is listened to soon after this line; before that it ends the process, as it does with any other.
    until(|| has_logged("configured"));
    until(|| {
        std::fs::read_to_string(format!("/proc/{}/status", second.id()))
            .unwrap()
            .lines()
            .any(|line| {
                let caught = line
                    .strip_prefix("SigCgt:")
                    .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
                caught.is_some_and(|mask| mask & 1 == 1)
            })
    });
    hang_up(second.id());
    hang_up(first.id());
    first.log_with("read again and is in force");
    assert!(second.try_wait().unwrap().is_none());
    let _folder = first.process_ended();
    until(|| has_logged("read again and is in force"));
    second.kill().unwrap();
    second.wait().unwrap();
}
