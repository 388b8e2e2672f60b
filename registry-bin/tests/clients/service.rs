//! The server as a service: at a unix socket, at a socket of systemd's, telling systemd how it is; below a path.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::tls_server::command;
use crate::tools::{Daemon, Tool};

fn curl(folder: &Path) -> Option<Tool> {
    Some(Tool::find("curl", folder)?.with(["--silent", "--show-error", "--max-time", "20"]))
}

fn log(folder: &Path) -> String {
    fs::read_to_string(folder.join("log")).unwrap_or_default()
}

/// Runs the server through a shell that gives it a socket as systemd does: as descriptor 3, for its process alone.
fn activated(socket: impl Into<OwnedFd>, folder: &Path, variables: &[(&str, &str)]) -> Daemon {
    let mut shell = Command::new("sh");
    let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ WATCHDOG_PID=$$ exec \"$@\"";
    shell.args(["-c", script, "sh", env!("CARGO_BIN_EXE_registry-bin"), "serve"]);
    shell.args(["--storage", "memory", "--listen", "127.0.0.1:1"]);
    shell.envs(variables.iter().copied());
    shell.stdin(Stdio::from(socket.into()));
    Daemon::run(shell, folder)
}

#[test]
fn a_unix_socket_is_served_and_removed() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("registry.sock");
    let place = path.to_str().expect("a plain path");
    let variables = [("REGISTRY_HTTP_NET", "unix"), ("REGISTRY_HTTP_ADDR", place)];
    let mut server = Daemon::run(command(&["--storage", "memory"], &variables), folder.path());
    server.wait_until(folder.path(), || log(folder.path()).contains("Storing in"));
    assert!(log(folder.path()).contains(&format!("Listening on unix:{place}")));
    if let Some(curl) = curl(folder.path()) {
        assert_eq!(curl.run(["--unix-socket", place, "http://registry/v2/"]), "{}");
    }
    drop(server);
    assert!(!path.exists());
}

#[test]
fn a_socket_of_systemd_goes_before_the_address() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = socket.local_addr().expect("it has an address");
    let mut server = activated(socket, folder.path(), &[]);
    server.wait_until(folder.path(), || log(folder.path()).contains("Listening on"));
    assert!(log(folder.path()).contains(&format!("http://{address}")));
    if let Some(curl) = curl(folder.path()) {
        assert_eq!(curl.run([format!("http://{address}/v2/")]), "{}");
    }
}

#[test]
fn systemd_is_told() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket can be made");
    manager
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a limit");
    let place = path.to_str().expect("a plain path");
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let variables = [("NOTIFY_SOCKET", place), ("WATCHDOG_USEC", "100000")];
    let server = activated(socket, folder.path(), &variables);
    let wait_for = |wanted: &str| {
        let mut buffer = [0; 4096];
        loop {
            let length = manager
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("no {wanted}: {error}"));
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.lines().any(|line| line.starts_with(wanted)) {
                return message;
            }
        }
    };
    wait_for("STATUS=opening the storage");
    assert!(wait_for("READY=1").contains("STATUS=storing in memory"));
    wait_for("WATCHDOG=1");
    wait_for("WATCHDOG=1");
    server.signal("-HUP");
    assert!(wait_for("RELOADING=1").contains("MONOTONIC_USEC="));
    wait_for("READY=1");
    server.signal("-TERM");
    wait_for("STOPPING=1");
}

#[test]
fn urls_are_as_the_configuration_says() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let Some(curl) = curl(folder.path()) else { return };
    for (variables, path, expected) in [
        (&[][..], "", "/v2/a/blobs/uploads/"),
        (
            &[("REGISTRY_HTTP_PREFIX", "/some/")][..],
            "/some",
            "/some/v2/a/blobs/uploads/",
        ),
        (
            &[("REGISTRY_HTTP_RELATIVEURLS", "false")],
            "",
            "https://registry.example/v2/a/blobs/uploads/",
        ),
        (
            &[("REGISTRY_HTTP_HOST", "https://fixed.example:8443")],
            "",
            "https://fixed.example:8443/v2/a/blobs/uploads/",
        ),
        (
            &[
                ("REGISTRY_HTTP_RELATIVEURLS", "false"),
                ("REGISTRY_HTTP_TRUSTEDPROXIES", "[10.0.0.0/8]"),
            ],
            "",
            "http://127.0.0.1:",
        ),
    ] {
        let work = tempfile::tempdir().expect("a temporary folder can be made");
        let arguments = ["--storage", "memory", "--listen", "127.0.0.1:0"];
        let mut server = Daemon::run(command(&arguments, variables), work.path());
        server.wait_until(work.path(), || log(work.path()).contains("Push with"));
        let printed = log(work.path());
        let (_, rest) = printed.split_once("Listening on ").expect("an address");
        let url = format!(
            "{}{path}/v2/a/blobs/uploads/",
            rest.lines().next().unwrap_or_default()
        );
        let location = curl.run([
            // curl by its own name gets a URL.
            "--user-agent",
            "skopeo/1.9.3",
            "--request",
            "POST",
            "--header",
            "X-Forwarded-For: 192.0.2.1",
            "--header",
            "X-Forwarded-Proto: https",
            "--header",
            "X-Forwarded-Host: registry.example",
            "--write-out",
            "%header{location}",
            &url,
        ]);
        assert!(location.starts_with(expected), "{variables:?}: {location}");
    }
}

#[test]
fn http2_without_tls_can_be_switched_off() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let Some(curl) = curl(folder.path()) else { return };
    let variables = [("REGISTRY_HTTP_H2C_ENABLED", "false")];
    let arguments = ["--storage", "memory", "--listen", "127.0.0.1:0"];
    let mut server = Daemon::run(command(&arguments, &variables), folder.path());
    server.wait_until(folder.path(), || log(folder.path()).contains("Push with"));
    let printed = log(folder.path());
    let (_, rest) = printed.split_once("Listening on ").expect("an address");
    let url = format!("{}/v2/", rest.lines().next().unwrap_or_default());
    assert_eq!(curl.run([&url]), "{}");
    curl.try_run(["--http2-prior-knowledge", &url])
        .expect_err("only HTTP/1.1 is spoken");
}
