//! The listeners of a server: what they say of themselves, when they begin and when they end.

use std::process::{Child, Command, Stdio};

use crate::support::address::free_address;
use crate::support::client::{Connection, Request, target_of};
use crate::support::repository::Repository;
use crate::support::server::{Server, until};
use crate::write;

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_server_that_waits_for_its_data_answers_at_the_debug_listener() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let debug = free_address();
    let configuration = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: FOLDER/data}}}}\n\
         http: {{addr: '127.0.0.1:0', debug: {{addr: '{debug}'}}}}\n"
    );
    let path = write(folder.path(), &configuration);
    let first = Server::on(&folder.path().join("data"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_registry-bin"));
    command.args(["serve", "--wait"]).arg(path);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _second = Running(command.spawn().expect("the program starts"));
    let status = |path: &str| {
        let response = Request::new(debug, "GET", path).try_send();
        response.map_or(0, |response| response.status)
    };
    until(|| status("/live") == 200);
    assert_eq!((status("/startup"), status("/ready")), (503, 503));
    assert!(first.terminate().success());
    until(|| status("/startup") == 200);
    assert_eq!(status("/ready"), 200);
}

#[test]
fn a_push_that_runs_may_end_unless_the_drain_time_is_none() {
    for (drain, may_end) in [("", true), ("http: {draintimeout: 0s}\n", false)] {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let configuration = format!("version: 0.1\nstorage: {{inmemory: {{}}}}\n{drain}");
        let server = Server::configured(&write(folder.path(), &configuration));
        let location = Repository::new(server.address(), "a").open_upload();
        let mut connection = Connection::open(server.address()).expect("it listens");
        let target = &target_of(&location);
        let head = format!(
            "PATCH {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"
        );
        connection.write_raw(head.as_bytes()).expect("it is read");
        let (status, _) = connection.read_head().expect("the body is asked for");
        assert_eq!(status, 100);
        connection.write_raw(b"first").expect("it is read");
        server.signal_termination();
        let sign = if may_end { "stopping" } else { "stopped" };
        until(|| server.output().lines().any(|line| line.contains(sign)));
        // Where the connection was cut, writing may fail or not.
        let rest = connection.write_raw(b"later");
        let answer = connection.read_response(false).map(|answer| answer.status);
        assert_eq!(rest.is_ok() && answer.is_ok_and(|status| status == 202), may_end);
        until(|| server.output().contains("stopped"));
    }
}

#[test]
fn fields_of_the_configuration_are_in_every_response() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let configuration = "version: 0.1\nstorage: {inmemory: {}}\n\
         http:\n  headers:\n    X-Content-Type-Options: [nosniff]\n    X-Several: [one, two]\n";
    let server = Server::configured(&write(folder.path(), configuration));
    for (method, target, status) in [
        ("GET", "/v2/", 200),
        ("GET", "/nonsense", 404),
        ("PUT", "/v2/", 405),
        ("GET", "/v2/a/tags/list", 404),
    ] {
        let response = server.request(method, target).send();
        response.expect_status(status);
        response.expect_header("X-Content-Type-Options", "nosniff");
        assert_eq!(response.list("X-Several"), ["one", "two"]);
    }
}
