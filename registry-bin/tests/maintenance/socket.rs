//! The socket through which commands reach a server.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::repository::Repository;
use crate::support::server::{Server, until};
use crate::{failure, success};

const SOCKET: &str = "registry.sock";

#[test]
fn only_the_user_of_the_server_may_use_it_and_one_that_was_left_is_replaced() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let root = folder.path().join("root");
    let server = Server::on(&root);
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&root.join(SOCKET)), 0o600);
    server.kill9();
    assert!(root.join(SOCKET).exists(), "nobody removed it");
    // Nobody answers there, so the command takes the folder itself.
    success(folder.path(), &["check", "--storage", "root"]);
    let server = Server::on(&root);
    success(folder.path(), &["check", "--storage", "root"]);
    server.output_with("a command came through the socket");
    assert!(server.terminate().success());
    assert!(!root.join(SOCKET).exists());
}

/// On a full disk there may be no room for the socket at first.
#[test]
fn a_socket_that_cannot_be_created_at_the_start_is_created_later() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let root = folder.path().join("root");
    assert!(Server::on(&root).terminate().success());
    let in_the_way = root.join(".sock/s");
    fs::create_dir_all(&in_the_way).expect("it can be made");
    let server = Server::on(&root);
    server.output_with("their socket is tried again");
    failure(folder.path(), &["check", "--storage", "root"]);
    fs::remove_dir(&in_the_way).expect("it is there");
    server.output_with("reach this server now");
    success(folder.path(), &["check", "--storage", "root"]);
    server.output_with("a command came through the socket");
    assert!(server.terminate().success());
    assert!(!root.join(SOCKET).exists());
}

#[test]
fn each_of_two_servers_gets_its_own_commands() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let servers = ["one", "two"].map(|name| {
        let server = Server::on(&folder.path().join(name));
        Repository::new(server.address(), name).push_image("v1", name);
        server
    });
    for name in ["one", "two"] {
        let said = success(
            folder.path(),
            &[
                "export",
                "--layout",
                "oci",
                &format!("{name}.tar"),
                name,
                "--storage",
                name,
            ],
        );
        assert!(said.contains("1 tag"), "{said}");
    }
    for server in servers {
        let commands = server
            .output()
            .matches("a command came through the socket")
            .count();
        assert_eq!(commands, 1);
    }
}

#[test]
fn an_interrupted_command_says_so_and_another_one_meanwhile_is_told_of_a_command() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let root = folder.path().join("root");
    let server = Server::on(&root);
    Repository::new(server.address(), "a").push_blob(&vec![7; 60 << 20]);
    let slow = || {
        Command::new(env!("CARGO_BIN_EXE_registry-bin"))
            .args(["check", "--verify-content", "--rate", "1", "--storage", "root"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs")
    };
    let interrupted = |command: Child| {
        let number = command.id().to_string();
        let sent = Command::new("kill").args(["-INT", &number]).status();
        assert!(sent.expect("kill runs").success());
        let output = command.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("interrupted; it can be started again"), "{said}");
    };
    let command = slow();
    server.output_with("a command came through the socket");
    interrupted(command);
    assert!(server.terminate().success());

    let command = slow();
    let holder = format!("process {}", command.id());
    until(|| fs::read_to_string(root.join("registry.lock")).is_ok_and(|lock| lock.contains(&holder)));
    let said = failure(folder.path(), &["collect", "--storage", "root"]);
    assert!(
        said.contains("another command") && said.contains(&holder),
        "{said}"
    );
    interrupted(command);
}

#[test]
fn where_there_can_be_no_socket_the_server_serves_and_commands_say_why_they_cannot() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let name = "x".repeat(100);
    let server = Server::on(&folder.path().join(&name));
    server.output_with("use a shorter path");
    Repository::new(server.address(), "a").push_image("v1", "x");
    let said = failure(
        folder.path(),
        &[
            "check",
            "--storage",
            &folder.path().join(&name).display().to_string(),
        ],
    );
    assert!(said.contains("takes no commands"), "{said}");
    assert!(server.terminate().success());
    success(folder.path(), &["check", "--storage", &name]);
}

#[test]
fn whoever_sends_nonsense_or_nothing_is_refused_and_the_next_is_served() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let root = folder.path().join("root");
    let server = Server::on(&root);
    let connect = || UnixStream::connect(root.join(SOCKET)).expect("the server listens");
    let answer = |request: &[u8]| {
        let mut stream = connect();
        stream.write_all(request).expect("the server reads");
        let mut answer = String::new();
        // It may be cut when the server reads no further.
        stream.read_to_string(&mut answer).ok();
        answer
    };
    let post = |body: &str| {
        let length = body.len();
        answer(
            format!("POST /commands HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")
                .as_bytes(),
        )
    };
    assert!(answer(b"GET /commands HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 404"));
    assert!(answer(b"\0\0\0\0\r\n\r\n").starts_with("HTTP/1.1 400"));
    assert!(post("{").starts_with("HTTP/1.1 400"));
    assert!(post("{\"command\":\"format-the-disk\"}").contains("does not know this command"));
    assert!(post("{\"command\":\"backup\",\"target\":\"/x\",\"more\":1}").starts_with("HTTP/1.1 400"));
    assert!(post(&"x".repeat(100_000)).starts_with("HTTP/1.1 400"));
    // Fewer than are served at once, so that the next need not wait until they are given up.
    let idle: Vec<_> = (0..10).map(|_| connect()).collect();
    success(folder.path(), &["check", "--storage", "root"]);
    drop(idle);
    Repository::new(server.address(), "a").push_image("v1", "x");
}
